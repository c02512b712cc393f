"""Another server's files whose names change under who uses them: a fid is the file it was walked to, and names are used on a new connection alone."""

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from mk9p.auth import ROOT, Principal
from mk9p.client import changes, requests
from mk9p.compose.remote import Remote, Server
from mk9p.errors import NineError
from mk9p.servers import fs
from mk9p.testing import SOON, Host, mounted
from mk9p.tree import Conversations, Ctl, Dir, Node, Open, Text, settle
from mk9p.wire import L_RDWR

VERSIONS = ["9P2000.L", "9P2000.u", "9P2000"]
OTHER = Principal("daemon", 1)


@attrs.define
class Lab:
    """A server of a directory of the host, which can be killed and started again, and what stands for it here."""

    dir: Path
    server: Server
    nursery: trio.Nursery
    host: Host

    @property
    def tree(self) -> Remote:
        return self.server.tree(ROOT)

    async def lose(self) -> None:
        """Let the server end and come back."""
        gone = trio.Event()
        self.server.on_change.append(lambda *_: gone.set())
        await self.host.stop()
        await gone.wait()
        await self.host.start()


@asynccontextmanager
async def lab(path: Path, version: str = "9P2000.L", node: Node | None = None) -> AsyncIterator[Lab]:
    directory = path / "d"
    directory.mkdir(mode=0o777)
    directory.chmod(0o777)
    async with fs.tree(str(directory)) as exported, trio.open_nursery() as nursery:
        host = Host(nursery, f"unix!{path}/far", node or exported)
        await host.start()
        server = Server(host.address, nursery, name="k1", version=version, deadline=SOON, backoff=0)
        server.many = False  # the general way is what is tried here
        yield Lab(directory, server, nursery, host)
        nursery.cancel_scope.cancel()


async def walked(node: Node, *names: str, who: Principal = ROOT) -> Remote:
    for name in names:
        node = await settle(node.walk(name, who))
    assert isinstance(node, Remote)
    return node


def another(directory: Path) -> None:
    """Let `p` of a directory be called `pp`, and make another `p` that looks like it."""
    os.rename(directory / "p", directory / "pp")
    (directory / "p/q").mkdir(parents=True)
    (directory / "p/q/f").write_text("another's")


@pytest.mark.parametrize("near", VERSIONS)
@pytest.mark.parametrize("back", VERSIONS)
async def test_work_goes_on_in_a_directory_whose_parent_was_renamed(tmp_path: Path, near: str, back: str) -> None:
    async with lab(tmp_path, back) as it, mounted(it.tree, version=near) as client:
        inside = it.dir / "p/q"
        inside.mkdir(parents=True)
        (inside / "f").write_text("12345")
        (inside / "g").write_text("")
        c = client.connection
        q, _ = await requests.walk(c, client.root, ("p", "q"))
        another(it.dir)
        assert sorted(name for name, *_ in await requests.entries(c, q)) == ["f", "g"]
        f, _ = await requests.walk(c, q, ("f",))
        assert (await requests.stat(c, f)).length == 5
        if near != "9P2000.L":
            lengths = {name: stat.length for name, _, stat in await requests.entries(c, q) if stat is not None}
            assert lengths == {"f": 5, "g": 0}
        new, _ = await requests.walk(c, q, ())
        await requests.create(c, new, "new", 0o644)
        await requests.write(c, new, 0, b"here")
        assert (await requests.stat(c, new)).length == 4
        await changes.mkdir(c, q, "made", 0o755)
        made, _ = await requests.walk(c, q, ("made",))
        assert (await requests.stat(c, made)).is_dir
        assert sorted(os.listdir(it.dir / "pp/q")) == ["f", "g", "made", "new"]
        assert os.listdir(it.dir / "p/q") == ["f"]
        await changes.rename(c, q, "new", q, "newer", same=True)
        await changes.remove(c, q, "g")
        assert sorted(os.listdir(it.dir / "pp/q")) == ["f", "made", "newer"]


@pytest.mark.parametrize("near", VERSIONS)
@pytest.mark.parametrize("back", VERSIONS)
async def test_above_a_file_is_what_was_walked_mounted(tmp_path: Path, near: str, back: str) -> None:
    async with lab(tmp_path, back) as it, mounted(it.tree, version=near) as client:
        (it.dir / "p/q").mkdir(parents=True)
        (it.dir / "p/q/f").write_text("12345")
        c = client.connection
        q, _ = await requests.walk(c, client.root, ("p", "q"))
        another(it.dir)
        for names in (("..", "q", "f"), ("..", "..", "pp", "q", "f")):
            f, _ = await requests.walk(c, q, names)
            assert (await requests.stat(c, f)).length == 5


async def test_what_was_made_is_looked_for_where_it_was_made(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        (it.dir / "p/q").mkdir(parents=True)
        q = await walked(it.tree, "p", "q")
        another(it.dir)
        for made in (
            await q.mkdir("d", 0o755, ROOT),
            await q.symlink("s", "nowhere", ROOT),
            await q.mknod("n", 0o100644, 0, ROOT),
        ):
            there = os.lstat(it.dir / "pp/q" / made.name)
            assert (await made.stat()).mode == there.st_mode
        node, handle = await q.create("c", 0o640, Open(ROOT, write=True))
        await handle.write(0, memoryview(b"abc"))
        await handle.close()
        assert (await node.stat()).length == 3
        await q.link("l", node, ROOT)
        assert (it.dir / "pp/q/l").read_text() == "abc"


async def test_what_was_made_is_not_what_has_its_name_by_now(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        made = await it.tree.mkdir("d", 0o755, ROOT)
        os.rename(it.dir / "d", it.dir / "e")
        (it.dir / "d").mkdir()
        with pytest.raises(NineError) as caught:
            await made.stat()
        assert caught.value.errno == errno.ESTALE


async def test_a_listing_tells_of_whoever_has_the_name(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        (it.dir / "f").write_text("old")
        ((_, node),) = await it.tree.entries(ROOT)
        (it.dir / "new").write_text("newer")
        os.rename(it.dir / "new", it.dir / "f")  # as editors save: `f` was there all the time
        assert (await node.stat()).length == 5
        os.rename(it.dir / "f", it.dir / "g")
        (it.dir / "f").write_text("")
        assert (await node.stat()).length == 5, "used once, it is that file"


async def test_names_are_used_on_a_new_connection_if_they_lead_to_the_same_file(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        (it.dir / "p/q").mkdir(parents=True)
        (it.dir / "p/q/f").write_text("12345")
        q, f = await walked(it.tree, "p", "q"), await walked(it.tree, "p", "q", "f")
        await it.lose()
        assert (await f.stat()).length == 5
        assert [name for name, _ in await q.entries(ROOT)] == ["f"]
        another(it.dir)
        assert (await f.stat()).length == 5, "it has a fid again"
        await it.lose()
        for node in (q, f):
            with pytest.raises(NineError) as caught:
                await node.stat()
            assert caught.value.errno == errno.ESTALE
        with pytest.raises(NineError):
            await q.mkdir("new", 0o755, ROOT)
        assert os.listdir(it.dir / "p/q") == ["f"]
        os.rename(it.dir / "pp", it.dir / "ppp")
        os.rename(it.dir / "p", it.dir / "pppp")
        os.rename(it.dir / "ppp", it.dir / "p")
        assert (await f.stat()).length == 5


async def test_another_user_never_gets_another_file(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        (it.dir / "p/q").mkdir(parents=True)
        (it.dir / "p/q/f").write_text("12345")
        os.chmod(tmp_path, 0o755)
        f = await walked(it.tree, "p", "q", "f")
        his = f.seen_by(OTHER)
        assert (await his.stat()).length == 5
        another(it.dir)
        assert (await his.stat()).length == 5
        with pytest.raises(NineError) as caught:
            await f.open(Open(OTHER))
        assert caught.value.errno == errno.ESTALE


async def test_a_race_of_renames_loses_nothing(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        (it.dir / "p/q").mkdir(parents=True)
        q = await walked(it.tree, "p", "q")
        other = Server(it.host.address, it.nursery, name="k2", deadline=SOON)
        over = other.tree(ROOT)
        done = False

        async def rename() -> None:
            names = ["p", "pp"]
            while not done:
                await over.rename(names[0], over, names[1], ROOT)
                names.reverse()
                os.rename(it.dir / names[0], it.dir / "between")
                await trio.lowlevel.checkpoint()
                os.rename(it.dir / "between", it.dir / names[0])

        async def work() -> None:
            nonlocal done
            for number in range(100):
                made, handle = await q.create(f"f{number}", 0o644, Open(ROOT, write=True, flags=L_RDWR))
                await handle.write(0, memoryview(b"x" * number))
                await handle.close()
                assert (await made.stat()).length == number
                assert len(list(await q.entries(ROOT))) == number + 1
            done = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(rename)
            nursery.start_soon(work)


class Talk:
    def __init__(self, number: int) -> None:
        self.number = number

    def tree(self) -> Dir:
        return Dir({"ctl": Ctl({}), "data": Text(f"{self.number}\n")})

    def close(self) -> None:
        pass


@pytest.mark.parametrize("lost", [False, True])
async def test_a_conversation_is_not_the_next_one_of_its_number(tmp_path: Path, lost: bool) -> None:
    made: list[int] = []

    def new(number: int, who: Principal) -> Talk:
        made.append(number)
        return Talk(len(made))

    async with lab(tmp_path, node=Conversations(new)) as it:
        clone = await walked(it.tree, "clone")
        first = await clone.open(Open(ROOT, write=True))
        data = await walked(it.tree, "0", "data")
        handle = await data.open(Open(ROOT))
        assert await handle.read(0, 10) == b"1\n"
        await handle.close()
        await first.close()
        if lost:
            await it.lose()
        second = await clone.open(Open(ROOT, write=True))
        assert made == [0, 0]
        again = await (await walked(it.tree, "0", "data")).open(Open(ROOT))
        assert await again.read(0, 10) == b"2\n"
        if lost:
            with pytest.raises(NineError) as caught:
                await data.open(Open(ROOT))
            assert caught.value.errno == errno.ESTALE
        else:
            assert await (await data.open(Open(ROOT))).read(0, 10) == b"1\n"
        await second.close()


@pytest.mark.parametrize("version", VERSIONS)
async def test_words_of_an_error_are_those_of_the_file(tmp_path: Path, version: str) -> None:
    below = Dir({"ctl": Ctl({"add": lambda n: None})})
    names: dict[str, Node] = {"a": Dir({"b": below})}
    tree = Dir(names)
    async with lab(tmp_path, version, node=tree) as it:
        ctl = await walked(it.tree, "a", "b", "ctl")
        handle = await ctl.open(Open(ROOT, write=True))
        names["a"], names["c"] = Dir({}), names["a"]
        with pytest.raises(NineError, match="usage: add N"):
            await handle.write(0, memoryview(b"add\n"))
        await handle.close()
