"""Files of mk9p's own server by path, in all three dialects."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

import mk9p
from mk9p.client import Client, connect
from mk9p.errors import NineError
from mk9p.server import Server
from mk9p.testing import address_of, serving
from mk9p.tree import Block, Buffer, Ctl, Dir, Log, Stream, Text
from tests.client.helpers_client import served

VERSIONS = ["9P2000.L", "9P2000.u", "9P2000"]
BIG = bytes(range(256)) * 8192


class Made:
    """A made-up tree, and what was done to it."""

    def __init__(self) -> None:
        self.log = Log()
        self.text = "three\nlines\nof text\n"
        self.disk = bytearray(BIG)
        self.added: list[int] = []
        self.send, self.receive = trio.open_memory_channel[bytes](10)

    def tree(self) -> Dir:
        return Dir(
            {
                "ctl": Ctl({"add": self.add, "slow": trio.sleep_forever}),
                "text": Text(lambda: self.text, self.set),
                "events": self.log,
                "stream": Stream(self.receive.receive),
                "disk": Block(self.pread, self.pwrite, size=lambda: len(self.disk)),
                "odd": Text(b"\xff\n"),
                "many": Dir({f"{i:03}": Text(f"{i}\n", mode=0o400) for i in range(200)}),
                "a": Dir({"b": Dir({"c": Text("deep\n")})}),
            }
        )

    def add(self, n: int) -> None:
        self.added.append(n)

    def set(self, text: str) -> None:
        self.text = text

    def pread(self, count: int, offset: int) -> Buffer:
        return bytes(self.disk[offset : offset + count])

    def pwrite(self, data: memoryview, offset: int) -> int:
        self.disk[offset : offset + len(data)] = data
        return len(data)


@asynccontextmanager
async def using(version: str, **options: Any) -> AsyncIterator[tuple[Client, Made, Server]]:
    made = Made()
    async with served(made.tree(), version, **options) as (ns, server):
        yield ns, made, server


async def left(server: Server) -> tuple[int, int]:
    """Return how many fids and requests the server still has, once all is quiet."""
    await trio.testing.wait_all_tasks_blocked(0.01)
    (connection,) = server.connections
    return len(connection.session.fids), len(connection.session.tags)


@pytest.mark.parametrize("version", VERSIONS)
async def test_read_write_and_errors(version: str) -> None:
    async with using(version) as (ns, made, server):
        assert ns.connection.dialect.version == version
        assert await ns.read("text") == "three\nlines\nof text\n"
        assert await ns.read("/a//b/./c") == "deep\n"
        await ns.write("text", "new")
        assert made.text == "new"
        await ns.write("ctl", b"add 1\nadd 2\n")
        assert made.added == [1, 2]
        with pytest.raises(NineError, match=r"^usage: add N: '.*'$"):
            await ns.write("ctl", "add x")
        with pytest.raises(FileNotFoundError):
            await ns.read("a/none")
        with pytest.raises(FileNotFoundError):
            await ns.write("a/none", "x")
        with pytest.raises(NotADirectoryError):
            await ns.read("text/x")
        with pytest.raises(PermissionError):
            await ns.remove("text")
        with pytest.raises(PermissionError):
            await ns.mkdir("a/new")
        assert await left(server) == (1, 0)


@pytest.mark.parametrize("version", VERSIONS)
async def test_directories_and_status(version: str) -> None:
    async with using(version) as (ns, _, server):
        assert [(s.name, s.is_dir) for s in await ns.listdir("a")] == [("b", True)]
        many = await ns.listdir("many")
        assert [s.name for s in many] == [f"{i:03}" for i in range(200)]
        assert {s.mode for s in many} == {0o100400}
        assert len({s.qid for s in many}) == 200
        stat = await ns.stat("disk")
        assert (stat.name, stat.length, stat.mode) == ("disk", len(BIG), 0o100600)
        assert (await ns.stat("")).is_dir
        qids = await ns.walk("a/b/c")
        assert [q.type for q in qids] == [0x80, 0x80, 0]
        assert qids[2] == (await ns.stat("a/b/c")).qid
        assert await left(server) == (1, 0)


@pytest.mark.parametrize("version", VERSIONS)
async def test_big_files_come_in_pieces_that_overlap(version: str) -> None:
    async with using(version, msize=8192) as (ns, made, server):
        assert await ns.read_bytes("disk") == BIG
        async with await ns.open("disk", "r+") as f:
            assert await f.pread(100_000, 1000) == BIG[1000:101_000]
            assert await f.pread(100_000, len(BIG) - 50_000) == BIG[-50_000:]
            assert await f.pread(10, len(BIG)) == b""
            assert await f.read(5) == BIG[:5]
            assert await f.write(b"x" * 20_000) == 20_000
            assert made.disk == BIG[:5] + b"x" * 20_000 + BIG[20_005:]
            assert await f.read(3) == BIG[20_005:20_008]
            assert (await f.stat()).length == len(BIG)
        with pytest.raises(NineError, match="the file is closed"):
            await f.pread(1, 0)
        assert await left(server) == (1, 0)


async def test_a_file_that_shrinks_while_it_is_read() -> None:
    async with using("9P2000.L", msize=8192) as (ns, made, server):
        whole = made.pread

        def shrinking(count: int, offset: int) -> Buffer:
            return whole(min(count, 5000) if offset > 100_000 else count, offset)

        made.pread = shrinking  # type: ignore[method-assign]
        made.disk[:] = BIG
        async with served(made.tree(), msize=8192) as (short, _), await short.open("disk") as f:
            assert await f.read() == BIG
        assert await ns.read_bytes("disk") == BIG
        assert await left(server) == (1, 0)


@pytest.mark.parametrize("version", VERSIONS)
async def test_lines_of_a_file_that_ends(version: str) -> None:
    async with using(version) as (ns, made, server):
        assert [line async for line in ns.lines("text")] == ["three", "lines", "of text"]
        made.text = "no newline"
        assert [line async for line in ns.lines("text")] == ["no newline"]
        async with await ns.open("text") as f:
            assert [line async for line in f] == [b"no newline"]
        assert [line async for line in ns.lines("odd")] == ["\udcff"]
        assert await left(server) == (1, 0)


def refuse(text: str) -> None:
    raise NineError(errno.ENOSPC)


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_takes_commands_need_not_be_called_ctl(version: str) -> None:
    of_a_disk = Text("what went wrong yesterday\n")
    of_a_disk._stat = of_a_disk._stat._replace(version=7)
    files = {"route": Ctl({"add": lambda n: None}), "log": Text("", refuse), "logerror": of_a_disk}
    async with served(Dir(files), version) as (ns, server):
        with pytest.raises(NineError, match=r"^unknown word drop; usage: add N: '.*'$"):
            await ns.write("route", "drop 1")
        for _ in range(2):
            with pytest.raises(OSError, match="No space left on device") as caught:
                await ns.write("log", "x")
            assert caught.value.errno == errno.ENOSPC
        assert await left(server) == (1, 0)


@pytest.mark.parametrize("version", VERSIONS)
async def test_words_are_of_this_write_and_not_of_one_before(version: str) -> None:
    """A ctl that cannot be opened has said nothing of that."""
    ctl = Ctl({"add": lambda n: None}, mode=0o666)
    async with served(Dir({"ctl": ctl}), version, uname="none") as (ns, _):
        with pytest.raises(NineError, match="usage: add N"):
            await ns.write("ctl", "add")
        ctl._stat = ctl._stat._replace(mode=0o100600)
        with pytest.raises(NineError, match=r"(?i)^permission denied: '.*'$"):
            await ns.write("ctl", "add 1")


@pytest.mark.parametrize("version", VERSIONS)
async def test_lines_of_events_as_they_come(version: str, autojump_clock: trio.testing.MockClock) -> None:
    async with using(version) as (ns, made, server):
        for i in range(3):
            made.log.emit("start", i)
        lines = ns.lines("events")
        assert [(await anext(lines)).split()[2:] for _ in range(3)] == [["start", str(i)] for i in range(3)]
        with trio.move_on_after(1) as scope:
            await anext(lines)
        assert scope.cancelled_caught
        assert await left(server) == (2, 0), "the read was not flushed"
        made.log.emit("more")
        assert (await anext(lines)).split()[2:] == ["more"], "cancelling lost a line"
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def later() -> None:
                await trio.testing.wait_all_tasks_blocked()
                made.log.emit("a", "b")
                made.log.emit("c")

            assert (await anext(lines)).split()[2:] == ["a", "b"]
            assert (await anext(lines)).split()[2:] == ["c"]
        del lines
        assert await left(server) == (1, 0), "what nobody iterates any more was not closed"


@pytest.mark.parametrize("version", VERSIONS)
async def test_records_are_taken_apart_and_put_together(version: str) -> None:
    async with using(version) as (ns, made, server):
        for record in (b"one\ntwo\nthr", b"ee\n", b"fo", b"ur", b"\nrest", b""):
            made.send.send_nowait(record)
        assert [line async for line in ns.lines("stream")] == ["one", "two", "three", "four", "rest"]
        assert await left(server) == (1, 0)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_cancelled_call_is_flushed(version: str, autojump_clock: trio.testing.MockClock) -> None:
    async with using(version) as (ns, _, server):
        with trio.move_on_after(1) as scope:
            await ns.write("ctl", "slow")
        assert scope.cancelled_caught
        with trio.move_on_after(1) as scope:
            await ns.read("stream")
        assert scope.cancelled_caught
        assert await left(server) == (1, 0)


@pytest.mark.parametrize("version", VERSIONS)
async def test_many_tasks_use_one_connection(version: str) -> None:
    async with using(version) as (ns, _, server):
        got: dict[int, str] = {}

        async def read(i: int) -> None:
            got[i] = await ns.read(f"many/{i:03}")

        async with trio.open_nursery() as nursery:
            waiting = nursery.start_soon
            waiting(ns.read, "stream")
            async with trio.open_nursery() as readers:
                for i in range(200):
                    readers.start_soon(read, i)
            nursery.cancel_scope.cancel()
        assert got == {i: f"{i}\n" for i in range(200)}
        assert await left(server) == (1, 0)


async def test_the_end_of_the_server_ends_the_client() -> None:
    async with using("9P2000.L") as (ns, _, server):
        failed: list[str] = []

        async def read() -> None:
            with pytest.raises(NineError) as caught:
                await ns.read("stream")
            failed.append(caught.value.ename)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            assert not ns.closed.is_set()
            (connection,) = server.connections
            server.hang_up(connection, "test")
            assert await ns.wait_closed() == "it was closed by the other side"
        with pytest.raises(NineError, match="is gone: it was closed by the other side") as caught:
            await ns.listdir("many")
        assert caught.value.errno == errno.EIO
        assert len(failed) == 1


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    cause = ValueError("why")
    own = ExceptionGroup("its own", [KeyError(1)])
    async with serving(Dir({})) as server:

        async def fail(error: Exception) -> None:
            async with connect(address_of(server)):
                raise error from cause

        with pytest.raises(FileNotFoundError) as caught:
            await fail(NineError(errno.ENOENT))
        assert caught.value.__cause__ is cause
        with pytest.raises(ExceptionGroup) as group:
            await fail(own)
        assert group.value.exceptions == own.exceptions
        with trio.CancelScope() as scope:
            async with connect(address_of(server)):
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not server.connections


async def test_modes_of_open() -> None:
    async with using("9P2000.L") as (ns, _, _):
        with pytest.raises(ValueError, match="mode 'q'"):
            await ns.open("text", "q")
        async with await ns.open("disk", "a") as f:
            assert f.position == len(BIG)
        with pytest.raises(NineError, match="fid unknown or out of range"):
            async with await ns.open("text") as f:
                await f.write(b"x")
        with pytest.raises(PermissionError):
            await ns.open("a/new", "x")


def test_connect_is_there_when_asked_for() -> None:
    assert mk9p.connect is mk9p.client.connect
    with pytest.raises(AttributeError, match="nothing"):
        _ = mk9p.nothing
