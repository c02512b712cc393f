"""Another server's tree as Nodes: through a server of ours, in all pairs of dialects, and across the death of the other one."""

import errno
import gc
import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from mk9p.auth import ROOT, Principal
from mk9p.client import connect
from mk9p.compose.remote import Remote, Server
from mk9p.dial import Link, Listener, listen
from mk9p.errors import NineError
from mk9p.testing import SOON, Host, mounted, serving_at, until
from mk9p.tree import Block, Ctl, Dir, Handle, Log, Maybe, Open, Stat, Text, settle
from tests.interop.peers import running_diod
from tests.servers.trees import names, read

VERSIONS = ["9P2000.L", "9P2000.u", "9P2000"]


class Who(Text):
    """A file that says who opened it."""

    def open(self, how: Open) -> Maybe[Handle]:
        return Text(f"{how.who.name} {how.who.uid}\n").open(how)


class Far:
    """The other kernel: a tree that survives its server, which can be started, killed and started again on one address."""

    def __init__(self, path: Path, nursery: trio.Nursery) -> None:
        self.log = Log()
        self.text = "text\n"
        self.added: list[int] = []
        self.disk = bytearray(100_000)
        self.root = Dir(
            {
                "text": Text(lambda: self.text, self.set, mode=0o666),
                "who": Who("", mode=0o444),
                "ctl": Ctl({"add": self.add, "slow": trio.sleep_forever}),
                "events": self.log,
                "disk": Block(lambda n, at: bytes(self.disk[at : at + n]), self.pwrite, size=lambda: len(self.disk)),
                "a": Dir({"b": Dir({"c": Text("deep\n")})}),
            }
        )
        self.host = Host(nursery, f"unix!{path}/far", self.root)

    def set(self, text: str) -> None:
        self.text = text

    def add(self, n: int) -> None:
        self.added.append(n)

    def pwrite(self, data: memoryview, at: int) -> int:
        self.disk[at : at + len(data)] = data
        return len(data)

    async def left(self) -> tuple[int, int]:
        """Return how many fids and requests it has, once all is quiet."""
        gc.collect()
        await trio.testing.wait_all_tasks_blocked(0.01)
        (connection,) = self.host.server.connections
        return len(connection.session.fids), len(connection.session.tags)


@attrs.define
class Lab:
    """A far server, what stands for it here, and the nursery of both."""

    far: Far
    server: Server
    nursery: trio.Nursery
    told: list[tuple[bool, str]]


@asynccontextmanager
async def lab(path: Path, version: str = "9P2000.L") -> AsyncIterator[Lab]:
    async with trio.open_nursery() as nursery:
        far = Far(path, nursery)
        await far.host.start()
        server = Server(far.host.address, nursery, name="k1", version=version, deadline=SOON)
        server.many = False  # the general way is what is tested here; the fast way has its own tests
        told: list[tuple[bool, str]] = []
        server.on_change.append(lambda _, up, why: told.append((up, why)))
        yield Lab(far, server, nursery, told)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("near", VERSIONS)
@pytest.mark.parametrize("back", VERSIONS)
async def test_files_through_a_server(
    tmp_path: Path, near: str, back: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with lab(tmp_path, back) as it, mounted(Dir({"k1": it.server.tree(ROOT)}), version=near) as ns:
        far = it.far
        assert not it.server.up
        assert sorted(await names(ns, "k1")) == ["a", "ctl", "disk", "error", "events", "text", "who"]
        assert it.server.up
        assert await ns.read("k1/a/b/c") == "deep\n"
        await ns.write("k1/text", "changed")
        assert far.text == "changed"
        await ns.write("k1/ctl", "add 3")
        assert far.added == [3]
        with pytest.raises(NineError, match=r"^usage: add N: 'k1/ctl'$"):
            await ns.write("k1/ctl", "add x")
        with pytest.raises(FileNotFoundError):
            await ns.read("k1/a/none")
        stat = await ns.stat("k1/disk")
        assert (stat.length, stat.mode & 0o777, stat.name) == (100_000, 0o600, "disk")
        async with await ns.open("k1/disk", "r+") as f:
            assert await f.pwrite(b"x" * 70_000, 10_000) == 70_000
            assert await f.pread(80_000, 5_000) == bytes(5_000) + b"x" * 70_000 + bytes(5_000)
        far.log.emit("one")
        far.log.emit("two")
        lines = ns.lines("k1/events")
        assert [(await anext(lines)).split()[2] for _ in range(2)] == ["one", "two"]
        with trio.move_on_after(1) as scope:
            await anext(lines)
        assert scope.cancelled_caught
        assert (await far.left())[1] == 0, "the flush did not reach the far end"
        far.log.emit("three")
        assert (await anext(lines)).split()[2] == "three"
        del lines
        assert await far.left() == (1, 0), "fids are left"


async def test_marks_are_made_for_linux_where_the_far_end_makes_none(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with lab(tmp_path, "9P2000") as it:
        it.far.log.emit("one")
        events = await it.server.tree(ROOT).walk("events", ROOT)
        handle = await events.open(Open(ROOT, records=True))
        data = bytes(await handle.read(0, 4096))
        assert data.endswith(b" one\n")
        assert await handle.read(len(data), 4096) == b""
        with trio.move_on_after(1) as scope:
            await handle.read(len(data), 4096)
        assert scope.cancelled_caught, "only one mark a record"
        await handle.close()


async def test_each_user_comes_as_himself(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        nobody = Principal("nobody", 65534)
        tree = it.server.tree(ROOT)
        assert await read(tree, "who") == "root 0\n"
        assert await read(tree, "who", nobody) == "nobody 65534\n"
        node = await tree.walk("who", ROOT)
        assert await read(node, "", nobody) == "nobody 65534\n", "the fid of who walked there is not the opener's"
        with pytest.raises(PermissionError):
            await read(tree, "disk", nobody)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(lambda: read(tree, "who", who=Principal("daemon", 1)))
        del node
        assert await it.far.left() == (3, 0), "one root fid a user, and nothing else"


async def test_paths_tell_servers_apart_and_stay(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        other = Server(it.far.host.address, it.nursery, name="k2", deadline=SOON)
        again = Server(it.far.host.address, it.nursery, name="k1", deadline=SOON)
        paths = [(await s.tree(ROOT).walk("text", ROOT)).path for s in (it.server, other, again)]
        assert paths[0] == paths[2] != paths[1]
        listed = dict(await it.server.tree(ROOT).entries(ROOT))
        assert listed["text"].path == paths[0]
        assert listed["a"].qtype == 0x80


async def test_a_dead_server_fails_all_at_once_and_is_back_at_the_same_path(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with lab(tmp_path) as it, mounted(Dir({"k1": it.server.tree(ROOT), "here": Text("still here\n")})) as ns:
        far = it.far
        tree = it.server.tree(ROOT)
        text = await tree.walk("text", ROOT)
        handle = await text.open(Open(ROOT))
        events = await tree.walk("events", ROOT)
        waiting = await events.open(Open(ROOT))
        assert await ns.read("k1/text") == "text\n"
        failed: list[int | None] = []

        async def fails(call: Callable[[], Maybe[object]]) -> None:
            with pytest.raises(NineError) as caught:
                await settle(call())
            failed.append(caught.value.errno)

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(fails, lambda: waiting.read(0, 10))
                nursery.start_soon(fails, lambda: ns.read("k1/events"))
                nursery.start_soon(fails, lambda: ns.write("k1/ctl", "slow"))
                await trio.testing.wait_all_tasks_blocked(0.01)
                await far.host.stop()
            assert failed == [errno.EIO] * 5
            assert it.told == [(True, ""), (False, "it was closed by the other side")]
            await trio.testing.wait_all_tasks_blocked(0.01)
            failed.clear()
            for call in (text.stat, lambda: handle.read(0, 10), lambda: ns.read("k1/text"), lambda: ns.listdir("k1")):
                await fails(call)
            assert failed == [errno.EIO] * 4
            with pytest.raises(NineError, match=r"^k1 is down: unix!.*: no such socket"):
                await tree.stat()
            assert await ns.read("here") == "still here\n"

            await far.host.start()
            await trio.sleep(it.server.backoff)
            assert (await text.stat()).mode == 0o100666
            assert await read(text, "") == "text\n"
            assert await ns.read("k1/text") == "text\n"
            assert bytes(await handle.read(0, 10)) == b"text\n"
            assert bytes(await waiting.read(0, 99)).split()[2] == b"restarted"
            await handle.close()
            await waiting.close()
            assert [up for up, _ in it.told] == [True, False, True]


async def test_one_dial_serves_all_who_ask_and_a_failure_is_kept_for_a_while(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    listener: Listener = await listen(f"unix!{tmp_path}/far")
    dialled = 0

    async def hang_up() -> None:
        nonlocal dialled
        while True:
            link: Link = await listener.accept()
            dialled += 1
            link.close()

    async with aclosing(listener), trio.open_nursery() as nursery:
        nursery.start_soon(hang_up)
        server = Server(listener.address, nursery, name="k1", backoff=0.5, deadline=SOON)
        tree = server.tree(ROOT)

        async def fails() -> None:
            with pytest.raises(NineError, match=r"^k1 is down: ") as caught:
                await tree.stat()
            assert caught.value.errno == errno.EIO

        async with trio.open_nursery() as many:
            for _ in range(20):
                many.start_soon(fails)
        await fails()
        assert dialled == 1
        mock_clock.jump(0.5)
        await fails()
        assert dialled == 2
        nursery.cancel_scope.cancel()


async def test_a_server_that_does_not_answer_is_down_after_the_deadline(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    listener = await listen(f"unix!{tmp_path}/far")
    async with aclosing(listener), trio.open_nursery() as nursery:
        server = Server(listener.address, nursery, deadline=1.0)
        start = trio.current_time()
        with pytest.raises(NineError, match="no answer within 1 s"):
            await server.tree(ROOT).stat()
        assert trio.current_time() - start == pytest.approx(1.0, abs=0.01)
        server.close()
        with pytest.raises(NineError, match="it was closed here"):
            await server.tree(ROOT).stat()


async def test_who_dials_may_be_cancelled_and_the_others_are_served(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        tree = it.server.tree(ROOT)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tree.stat)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert (await tree.stat()).is_dir
        assert len(it.told) == 1


async def test_what_changes_a_real_file_system(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with running_diod(tmp_path) as address:
        async with trio.open_nursery() as nursery:
            server = Server(address, nursery, aname=str(tmp_path), name="disk", deadline=SOON)
            async with mounted(Dir({"mnt": server.tree(ROOT), "other": Dir({})})) as ns:
                await ns.mkdir("mnt/d", 0o750)
                assert (tmp_path / "d").stat().st_mode & 0o7777 == 0o750
                async with await ns.create("mnt/d/new", 0o640, read=True) as f:
                    await f.write(b"0123456789")
                    assert await f.pread(3, 4) == b"456"
                    await f.truncate(5)
                    await f.sync()
                assert (tmp_path / "d/new").read_text() == "01234"
                with pytest.raises(FileExistsError):
                    await ns.create("mnt/d/new")
                await ns.rename("mnt/d/new", "mnt/moved")
                assert (tmp_path / "moved").read_text() == "01234"
                with pytest.raises(NineError) as caught:
                    await ns.rename("mnt/moved", "other/moved")
                assert caught.value.errno in (errno.EXDEV, errno.EPERM, errno.EACCES)
                async with await ns.open("mnt/moved", "a") as f:
                    await f.write(b"!")
                assert await ns.read("mnt/moved") == "01234!"
                tree = server.tree(ROOT)
                await tree.symlink("link", "moved", ROOT)
                link = await tree.walk("link", ROOT)
                assert await link.readlink() == "moved"
                assert link.qtype == 0x02
                await tree.link("hard", await tree.walk("moved", ROOT), ROOT)
                assert (tmp_path / "hard").stat().st_nlink == 2
                with pytest.raises(NineError) as caught:
                    await tree.link("x", Text("elsewhere"), ROOT)
                assert caught.value.errno == errno.EXDEV
                await tree.mknod("fifo", 0o10600, 0, ROOT)
                assert (tmp_path / "fifo").is_fifo()
                assert (await tree.statfs()).bsize == os.statvfs(tmp_path).f_bsize
                with pytest.raises(IsADirectoryError):
                    await tree.remove("d", ROOT, directory=False)
                await tree.remove("d", ROOT, directory=True)
                for name in ("moved", "link", "hard", "fifo", "file"):
                    await ns.remove(f"mnt/{name}")
                assert os.listdir(tmp_path) == []
                del tree, link
                gc.collect()
                await trio.testing.wait_all_tasks_blocked(0.01)
                connection = server.connection
                assert connection is not None
                # diod 1.0.24 dies now and then when its connection ends with a fid left
                connection.clunk_nowait((await server.root(ROOT))[1])
                await until(lambda: not connection._calls)  # the clunks have their answers
            server.close()
            nursery.cancel_scope.cancel()


async def test_garbage_is_clunked_and_the_root_is_not(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        tree = it.server.tree(ROOT)
        nodes = [await tree.walk("text", ROOT) for _ in range(10)]
        assert all(isinstance(node, Remote) for node in nodes)
        assert await it.far.left() == (11, 0)
        del nodes, tree
        assert await it.far.left() == (1, 0)
        assert await read(it.server.tree(ROOT), "text") == "text\n"


async def test_a_silent_server_is_not_waited_for_for_ever(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    class Stuck(Text):
        async def stat(self) -> Stat:
            await trio.sleep_forever()
            raise AssertionError

    async with lab(tmp_path) as it:
        assert isinstance(it.far.root.children[0], dict)
        it.far.root.children[0]["stuck"] = Stuck("x")
        async with mounted(Dir({"k1": it.server.tree(ROOT)})) as ns:
            listed = set(await names(ns, "k1"))
            assert {"stuck", "text"} <= listed
            with pytest.raises(NineError, match="Input/output error"):
                await ns.stat("k1/stuck")
            assert await ns.read("k1/text") == "text\n"


async def test_a_server_that_is_closed_leaves_no_task(tmp_path: Path) -> None:
    """Not even one that waits for how long a call may take that was answered long ago."""
    async with trio.open_nursery() as nursery:
        far = Far(tmp_path, nursery)
        await far.host.start()
        async with trio.open_nursery() as tasks:
            server = Server(far.host.address, tasks, silence=1000.0)
            # otherwise the relay asks
            server.many = False
            async with serving_at(f"unix!{tmp_path}/front", server.tree()) as front, connect(front.address) as client:
                assert await client.read("a/b/c") == "deep\n"
                running = len(tasks.child_tasks)
                for _ in range(10):
                    assert await client.read("a/b/c") == "deep\n"
                assert len(tasks.child_tasks) == running
            server.close()
            with trio.fail_after(SOON):
                await until(lambda: not tasks.child_tasks)
        nursery.cancel_scope.cancel()
