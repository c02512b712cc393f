"""The namespace as it is used: kernels' trees served on sockets, composed, and the whole served to a client."""

import errno
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from mk9p.client import Client, connect
from mk9p.compose.namespace import Namespace
from mk9p.compose.remote import Remote
from mk9p.composing import namespace
from mk9p.dial import TRANSPORTS, Peer, SocketLink
from mk9p.errors import NineError
from mk9p.testing import SOON, Host, mounted, serving, until
from mk9p.tree import Ctl, Dir, Text, split
from tests.compose.helpers_compose import Store
from tests.servers.trees import ls, names


def tree(name: str) -> Dir:
    return Dir(
        {
            "status": Text(name + "\n"),
            "cpu": Dir({"0": Dir({"status": Text(name + " cpu0\n")}), "ctl": Ctl({})}),
            "proc": Dir({"1": Dir({"status": Text(name + " init\n")})}),
            "fs": Store({"a": {"x": name}}),
        }
    )


@asynccontextmanager
async def lab(tmp_path: Path) -> AsyncIterator[tuple[Namespace, Host, Host, str]]:
    """Two kernels mounted at /k/k0 and /k/k1, and the address of the namespace."""
    async with trio.open_nursery() as nursery:
        k0, k1 = (Host(nursery, f"unix!{tmp_path}/{name}", tree(name)) for name in ("k0", "k1"))
        ns = namespace(nursery)
        for kernel in (k0, k1):
            await kernel.start()
        await ns.run("".join(f"mount {k.address} /k/{k.address[-2:]}\n" for k in (k0, k1)))
        composer = Host(nursery, f"unix!{tmp_path}/ns", ns.root)
        await composer.start()
        yield ns, k0, k1, composer.address
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def used(tmp_path: Path, version: str = "9P2000.L") -> AsyncIterator[tuple[Client, Namespace, Host, Host]]:
    async with lab(tmp_path) as (ns, k0, k1, address), connect(address, version=version) as client:
        with trio.fail_after(SOON):
            yield client, ns, k0, k1


async def test_mounts_tells_who_is_up_since_when_and_why_not(tmp_path: Path) -> None:
    async with used(tmp_path) as (client, _, k0, k1):

        async def states() -> list[list[str]]:
            return [split(line) for line in (await client.read("mounts")).splitlines()]

        begun = time.time_ns()
        assert [line[:3] for line in await states()] == [
            ["/k/k0", k0.address, "idle"],
            ["/k/k1", k1.address, "idle"],
        ]
        await client.read("k/k1/status")
        await k0.stop()
        with pytest.raises(NineError):
            await client.read("k/k0/status")
        await client.read("k/k1/status")
        (*_, state, since, reason), up = await states()
        assert state == "down", "it was used, and never up"
        assert reason.startswith(f"{k0.address}: no such socket")
        with pytest.raises(NineError):
            await client.read("k/k0/status")
        assert (await states())[0][3] == since
        assert up[2:3] == ["up"]
        assert begun < int(up[3]) < time.time_ns()
        await k1.stop()

        async def known() -> bool:
            with pytest.raises(NineError):
                await client.read("k/k1/status")
            *_, state, _, reason = (await states())[1]
            assert state == "down"
            return reason.startswith(f"{k1.address}: no such socket")

        await until(known)  # whoever dialled last knows best


async def test_a_line_that_only_one_can_dial_stays_one_when_it_is_mounted_to_wait(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        ours, theirs = socket.socketpair()
        async with serving(tree("k1")) as server:
            theirs.setblocking(False)
            server.add(SocketLink(theirs, Peer(TRANSPORTS["fd"], "a guest", loopback=True)))
            ns = namespace(nursery)
            address = f"fd!{ours.fileno()}!{ours.detach()}"
            await ns.run(f"mount {address} /k/k1\n")
            async with mounted(ns.root) as client:
                assert await client.read("k/k1/status") == "k1\n"
                await ns.run(f"mount -w 60 {address} /k/k1\n")
                with trio.fail_after(SOON):
                    assert await client.read("k/k1/status") == "k1\n"
                assert ns.script() == f"mount -w 60 {address} /k/k1\n"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("version", ["9P2000.L", "9P2000.u", "9P2000"])
async def test_kernels_are_used_through_one_namespace(tmp_path: Path, version: str) -> None:
    async with used(tmp_path, version) as (client, _, _, _):
        assert await names(client, "k") == ["k0", "k1"]
        assert await client.read("k/k1/cpu/0/status") == "k1 cpu0\n"
        assert await names(client, "all/cpu") == ["k0.0", "k0.ctl", "k0.error", "k1.0", "k1.ctl", "k1.error"]
        assert await client.read("all/proc/k1.1/status") == "k1 init\n"
        await client.write("ctl", "bind -a /k/k0/fs/a /k/k1/fs\n")
        assert await names(client, "k/k1/fs") == ["a", "x"]
        assert await client.read("k/k1/fs/x") == "k0"
        with pytest.raises(NineError, match="not mounted"):
            await client.write("ctl", "unmount /k/k7")
        with pytest.raises(FileNotFoundError):
            await client.write("ctl", "bind /k/k1/none /n")


async def test_a_dead_kernel_fails_its_own_branch_and_comes_back(tmp_path: Path) -> None:
    async with used(tmp_path) as (client, ns, _, k1):
        far = ns.table.points["/k/k1"][0].node
        assert isinstance(far, Remote)
        far.server.backoff = 0  # it is dialled again at once: no waiting here
        await client.write("ctl", "bind -b /k/k1/proc /n\nbind -a /k/k0/proc /n\n")
        assert await client.read("n/1/status") == "k1 init\n"
        await k1.stop()
        for path in ("k/k1", "k/k1/cpu/0/status"):
            with pytest.raises(OSError, match="Input/output error") as caught:
                await client.stat(path)
            assert caught.value.errno == errno.EIO
        assert await client.read("k/k0/status") == "k0\n"
        assert await client.read("n/1/status") == "k0 init\n"
        assert await ls(ns, "k") == ["k0", "k1"]
        assert await names(client, "all/proc") == ["k0.1"]
        await k1.start()
        assert await client.read("k/k1/status") == "k1\n"
        assert await client.read("n/1/status") == "k1 init\n"
        assert await names(client, "all/proc") == ["k0.1", "k1.1"]
        told = [line.decode().split(" ", 2)[2].split()[:2] for line in ns.events.lines]
        assert [event for event in told if event[-1] == "k1"] == [["up", "k1"], ["down", "k1"], ["up", "k1"]]


async def test_the_files_of_two_kernels_have_paths_of_their_own(tmp_path: Path) -> None:
    async with used(tmp_path) as (client, _, _, _):
        paths = [(await client.walk(f"k/{k}/cpu/0/status"))[-1].path for k in ("k0", "k1")]
        assert len(set(paths)) == 2
        (_, point), listed = await client.walk("k/k1"), await client.listdir("k")
        assert [entry.qid and entry.qid.path for entry in listed][1] == point.path
