"""Machines in network namespaces that have one etcd, and TLS between all of them, with certificates of `mk9p ca`: each composer dials the kernels of
the others where they serve, as itself, and believes none but those that have the certificate of their address."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from mk9p.client import Client, connect
from mk9p.clients import ca
from mk9p.testing import SOON, child, until
from mk9p.tree import split
from tests.etcd.cluster import Cluster, Member, running
from tests.etcd.network import Network, network

ROOT = Path(__file__).parent.parent.parent
ME = [sys.executable, "-m", "mk9p"]
HOSTS = 3
PORT = 5640
TTL = 3


@attrs.define
class Ca:
    """An authority in a directory, by the command."""

    folder: Path

    def __attrs_post_init__(self) -> None:
        assert ca.main(["ca", "init", "--dir", f"{self.folder}"]) == 0

    def issue(self, name: str, *hosts: str) -> list[str]:
        """Return the flags that say TLS with a new certificate for a name."""
        words = [word for host in hosts for word in ("--host", host)]
        assert ca.main(["ca", "issue", "--dir", f"{self.folder}", *words, "-o", f"{self.folder}", name]) == 0
        return self.flags(name)

    def flags(self, name: str) -> list[str]:
        at = self.folder
        return ["--ca", f"{at}/ca.pem", "--cert", f"{at}/{name}.pem", "--key", f"{at}/{name}.key"]

    def revoke(self, name: str) -> None:
        assert ca.main(["ca", "revoke", "--dir", f"{self.folder}", name]) == 0


@attrs.define
class Lab:
    """The machines h0, h1, h2, each with a composer and a kernel k0, k1, k2."""

    folder: Path
    net: Network
    ca: Ca
    etcd: Cluster
    stacks: dict[str, ExitStack] = attrs.field(factory=dict)

    def at(self, host: int) -> str:
        return f"unix!{self.folder}/h{host}"

    def begin(self, name: str, host: int, words: list[str]) -> None:
        """Run a command at a host, until `end`."""
        self.stacks[name] = ExitStack()
        env = {**os.environ, "XDG_STATE_HOME": f"{self.folder}/state{host}", "PYTHONPATH": str(ROOT)}
        command = [*self.net.inside(host), *ME, *words]
        self.stacks[name].enter_context(child(command, "listening", env=env, cwd=ROOT, stderr=subprocess.PIPE))

    def end(self, name: str) -> None:
        self.stacks.pop(name).close()

    def close(self) -> None:
        for name in tuple(self.stacks):
            self.end(name)

    def serve(self, host: int, keys: list[str]) -> None:
        data = self.folder / f"data{host}"
        data.mkdir(exist_ok=True)
        (data / "name").write_text(f"k{host}\n")
        address = f"tls!{self.net.address(host)}!{PORT}"
        words = ["serve", "-l", address, *keys, "--audit", f"{self.folder}/audit{host}", f"fs:{data}"]
        self.begin(f"k{host}", host, words)

    def compose(self, host: int) -> None:
        script = self.folder / f"script{host}"
        script.write_text(f"mount tls!{self.net.address(host)}!{PORT} /k/k{host}\n")
        at = self.ca.folder
        tls = {"ca": at / "ca.pem", "cert": at / f"h{host}.pem", "key": at / f"h{host}.key"}
        store = self.etcd.where(f"h{host}", ttl=TTL, **tls)
        keys = self.ca.flags(f"h{host}")
        self.begin(f"h{host}", host, ["compose", "--store", store, "-l", self.at(host), *keys, f"{script}"])

    def askers(self, host: int) -> set[tuple[str, str]]:
        """Return who has come to a kernel, and from which address, as it notes it itself."""
        lines = [split(line) for line in (self.folder / f"audit{host}").read_text().splitlines()]
        return {(line[2], line[3].split("!")[1]) for line in lines if line[4] == "attach" and line[6] == "ok"}


@contextmanager
def lab(folder: Path) -> Iterator[Lab]:
    with network(HOSTS) as net, ExitStack() as stack:
        ours = Ca(folder / "ca")
        for host in range(HOSTS):
            ours.issue(f"h{host}")
            ours.issue(f"k{host}", net.address(host))
        ours.issue("etcd", net.address(0))
        at = ours.folder
        believes = ["--client-cert-auth", "--trusted-ca-file", f"{at}/ca.pem"]
        options = ["--cert-file", f"{at}/etcd.pem", "--key-file", f"{at}/etcd.key", *believes]
        member = Member("m0", net.address(0), 2379, 2380, folder / "m0", around=net.inside(0))
        etcd = stack.enter_context(running(Cluster(folder, [member], options, scheme="https")))
        made = Lab(folder, net, ours, etcd)
        stack.callback(made.close)
        with ThreadPoolExecutor() as pool:  # each takes a second to start
            started = [pool.submit(made.serve, host, ours.flags(f"k{host}")) for host in range(HOSTS)]
            started += [pool.submit(made.compose, host) for host in range(HOSTS)]
        for one in started:
            one.result()
        yield made


async def says(client: Client, host: int) -> str:
    """Return what a kernel says, or the error's name and words."""
    try:
        return await client.read(f"k/h{host}.k{host}/fs/data{host}/name")
    except OSError as error:
        return f"{errno.errorcode[error.errno or 0]} {error}"


async def is_right(client: Client, host: int) -> bool:
    return await says(client, host) == f"k{host}\n"


async def fails(client: Client, host: int, words: str) -> bool:
    return words in await says(client, host)


async def scenario(it: Lab, long: bool) -> None:
    async with AsyncExitStack() as stack:
        stack.enter_context(trio.fail_after(3 * SOON))
        views = [await stack.enter_async_context(connect(it.at(host), version="9P2000.u")) for host in range(HOSTS)]
        for view in views:
            for host in range(HOSTS):
                await until(partial(is_right, view, host))
        addresses = [it.net.address(host) for host in range(HOSTS)]
        for host in range(HOSTS):
            assert it.askers(host) == {(f"cert:h{n}", addresses[n]) for n in range(HOSTS)}, "nobody is in between"
        # nor does anybody need the composer of another machine
        it.end("h1")
        assert await is_right(views[0], 1)
        assert await is_right(views[2], 1)
        if long:
            it.compose(1)
            one = await stack.enter_async_context(connect(it.at(1), version="9P2000.u"))
            await until(partial(is_right, one, 2))
        # whoever serves there now with a certificate of their own is not believed, and no other kernel suffers
        it.end("k1")
        strangers = Ca(it.folder / "strangers")
        it.serve(1, strangers.issue("k1", addresses[1]))
        for view in (views[0], views[2]):
            await until(partial(fails, view, 1, "the server's certificate is refused: it comes from an authority"))
            assert await is_right(view, 0)
            assert await is_right(view, 2)
            line = next(line for line in (await view.read("mounts")).splitlines() if line.startswith("/k/h1.k1 "))
            assert split(line)[2] == "down", line
        if long:  # nor is another of ours, at an address that is not theirs
            it.end("k1")
            it.serve(1, it.ca.flags("k2"))
            await until(partial(fails, views[0], 1, "it is not for the name 10.78.0.2"))
        it.end("k1")
        it.serve(1, it.ca.flags("k1"))
        for view in (views[0], views[2]):
            await until(partial(is_right, view, 1))
        if long:  # what was cut off is down, and back by itself
            it.net.part([0, 1], [2])
            await until(partial(fails, views[0], 2, "h2 does not answer"))
            assert await is_right(views[0], 1)
            it.net.heal()
            await until(partial(is_right, views[0], 2))
        # a machine whose certificate is revoked has no kernels but its own
        it.ca.revoke("h2")
        for host in (0, 1):
            await until(partial(fails, views[2], host, "it refuses our certificate, which was revoked"))
            assert await is_right(views[0], host)
        for host in range(HOSTS):
            assert await is_right(views[0], host)


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_kernels_of_other_machines_are_dialled_by_tls_as_oneself_and_none_else_is_believed(
    tmp_path: Path, long: bool
) -> None:
    with lab(tmp_path) as it:
        trio.run(scenario, it, long)
