"""srv: services posted in one kernel, used by others through its tree and through the composer."""

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from mk9p.client import Client, connect
from mk9p.clients.srv import post
from mk9p.composing import namespace
from mk9p.errors import NineError
from mk9p.servers import srv
from mk9p.testing import SOON, check_tree, mounted, serving_at
from mk9p.tree import Ctl, Dir, Log, Text
from tests.server.composed import composed
from tests.servers.trees import names


class Program:
    """A program with a service of its own."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.log = Log()
        self.big = os.urandom(3_000_000).hex()

    def tree(self) -> Dir:
        return Dir(
            {"name": Text("a program\n"), "ctl": Ctl({"say": self.said.append}), "log": self.log, "big": Text(self.big)}
        )


@asynccontextmanager
async def lab(tmp_path: Path, version: str = "9P2000.L") -> AsyncIterator[tuple[Client, Client, str, Program]]:
    """A kernel k1 with `srv`, a composer, a program's service. Gives clients of k1 and of the namespace, and the service's address."""
    program, service = Program(), f"unix!{tmp_path}/program"
    with trio.fail_after(SOON):
        async with (
            serving_at(service, program.tree()),
            composed(tmp_path, {"k1": Dir({"srv": srv.tree()})}) as address,
            connect(f"unix!{tmp_path}/k1") as inside,
            connect(address, version=version) as outside,
        ):
            yield inside, outside, service, program


@pytest.mark.parametrize("version", ["9P2000.L", "9P2000"])
async def test_a_posted_service_is_mounted_by_its_name(tmp_path: Path, version: str) -> None:
    async with lab(tmp_path, version) as (inside, ns, service, program), post(inside, "srv/mine", service):
        assert await ns.read("k/k1/srv/mine") == service + "\n"
        await ns.write("ctl", "mount /k/k1/srv/mine /n/mine")
        assert await ns.read("n/mine/name") == "a program\n"
        assert sorted(await names(ns, "n/mine")) == ["big", "ctl", "error", "log", "name"]
        await ns.write("n/mine/ctl", "say hello")
        assert program.said == ["hello"]
        assert await ns.read("n/mine/big") == program.big
        with pytest.raises(OSError, match=r"usage: say|Invalid"):
            await ns.write("n/mine/ctl", "say")
        program.log.emit("come")
        lines = ns.lines("n/mine/log")
        assert (await anext(lines)).endswith(" come")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(anext, lines)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        program.log.emit("go")
        assert (await anext(lines)).endswith(" go")
        assert "mount /k/k1/srv/mine /n/mine\n" in await ns.read("ns")


async def test_it_goes_with_its_poster(tmp_path: Path) -> None:
    async with lab(tmp_path) as (inside, ns, service, _):
        await ns.write("ctl", "mount /k/k1/srv/mine /n/mine")
        with pytest.raises(OSError, match="Input/output"):
            await ns.stat("n/mine/name")  # not posted yet: as any server that is down
        async with connect(inside.connection.address) as poster:
            file = await poster.create("srv/mine", 0o600)
            await file.pwrite(service.encode(), 0)
            assert sorted(await names(inside, "srv")) == ["ctl", "error", "mine"]
            poster.connection.end("killed")
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(await names(inside, "srv")) == ["ctl", "error"]


async def test_a_service_posted_anew_is_found_anew(tmp_path: Path) -> None:
    program = f"unix!{tmp_path}/program"
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            ns = namespace(nursery)
            async with serving_at(f"unix!{tmp_path}/ns", ns.root), connect(f"unix!{tmp_path}/ns") as client:
                await client.write("ctl", "mount /srv/mine /n/mine")  # posted in the composer's own kernel
                (item,) = ns.table.points["/n/mine"]
                item.node.server.backoff = 0  # type: ignore[union-attr]  # it is dialled again at once: no waiting here
                for name in ("first", "second"):
                    async with (
                        serving_at(program, Dir({"name": Text(name)})),
                        post(client, "srv/mine", program),
                    ):
                        assert await client.read("n/mine/name") == name
                    await trio.testing.wait_all_tasks_blocked()
                    with pytest.raises(OSError, match="Input/output"):
                        await client.read("n/mine/name")
            nursery.cancel_scope.cancel()


async def test_it_is_a_tree_as_all_are() -> None:
    assert await check_tree(srv.tree) == ["ctl", "error"]


@pytest.mark.parametrize("how", ["written", "ctl"])
async def test_a_kept_one_stays(tmp_path: Path, how: str) -> None:
    async with lab(tmp_path) as (inside, ns, service, _):
        async with post(inside, "srv/mine", service, keep=how == "written"):
            if how == "ctl":
                await inside.write("srv/ctl", "keep mine")
        await ns.write("ctl", "mount /k/k1/srv/mine /n/mine")
        assert await ns.read("n/mine/name") == "a program\n"
        await inside.remove("srv/mine")
        assert await ns.read("n/mine/name") == "a program\n"  # connections go on
        with pytest.raises(FileNotFoundError):
            await inside.stat("srv/mine")


async def test_as_a_shell_posts(tmp_path: Path) -> None:
    """`printf 'ADDRESS\\nkeep\\n' > srv/mine`: one write a line, then it is closed."""
    async with mounted(srv.tree()) as ns:
        async with await ns.open("mine", "w") as file:
            await file.write(b"unix!/run/x\n")
            await file.write(b"keep\n")
        assert await ns.read("mine") == "unix!/run/x\n"
        await ns.write("mine", "keep\n")
        async with await ns.open("other", "w") as file:
            await file.write(b"tcp!127.0.0.1!1\n")
        assert sorted(await names(ns)) == ["ctl", "error", "mine"]


async def test_each_open_is_a_connection_of_its_own(tmp_path: Path) -> None:
    async with lab(tmp_path) as (inside, ns, service, _), post(inside, "srv/mine", service):
        for client, path in ((inside, "srv/mine"), (ns, "k/k1/srv/mine")):
            async with await client.open(path, "r+") as one, await client.open(path, "r+") as two:
                for file in (one, two):  # Tversion, by hand
                    await file.pwrite(bytes.fromhex("13000000 64 ffff 00200000 0600 395032303030"), 0)
                    assert (await file.pread(100, 0))[4:] == bytes.fromhex("65 ffff 00200000 0600 395032303030")


@pytest.mark.parametrize(
    ("line", "number", "said"),
    [
        ("rubbish", errno.EINVAL, "bad dial string"),
        ("exec!sh", errno.EINVAL, "want a dial string that can be dialled again: tcp tls unix vsock"),
        ("fd!0!1", errno.EINVAL, "want a dial string that can be dialled again"),
        ("unix!/run/x\nunix!/run/y", errno.EBUSY, "unix!/run/x is posted as mine"),
    ],
)
async def test_what_cannot_be_posted(line: str, number: int, said: str) -> None:
    async with mounted(srv.tree()) as ns, await ns.create("mine") as file:
        with pytest.raises(NineError) as caught:
            await file.pwrite(line.encode(), 0)
        assert caught.value.errno == number
        assert said in await ns.read("error")


async def test_errors() -> None:
    async with mounted(srv.tree()) as ns:
        async with await ns.create("mine") as file:
            with pytest.raises(FileExistsError):
                await ns.create("mine")
            with pytest.raises(OSError, match="Input/output"):
                await ns.open("mine", "r+")  # nothing has been posted yet
            await file.pwrite(b"unix!/nowhere/at/all", 0)
            with pytest.raises(FileNotFoundError):
                await ns.open("mine", "r+")
            with pytest.raises(OSError, match="no service none"):
                await ns.write("ctl", "keep mine none")
        assert sorted(await names(ns)) == ["ctl", "error"]
        for name, error in (("ctl", PermissionError), ("none", FileNotFoundError)):
            with pytest.raises(error):
                await ns.remove(name)


async def test_only_its_owner_posts_and_the_bits_say_who_connects() -> None:
    tree = srv.tree()
    async with mounted(tree) as root, mounted(tree, uname="nobody") as nobody:
        with pytest.raises(PermissionError):
            await nobody.create("theirs")
        async with post(root, "hidden", "unix!/run/x"), post(root, "shown", "unix!/run/x", perm=0o644):
            assert await nobody.read("shown") == "unix!/run/x\n"
            for path, mode in (("hidden", "r"), ("shown", "r+"), ("shown", "w")):
                with pytest.raises(PermissionError):
                    await nobody.open(path, mode)
