"""Open files of a server that dies and comes back, of clients that had them by the fast way (docs/recovery.md)."""

import errno
import fcntl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest
import trio

from mk9p.server.told import LOCKS
from mk9p.servers import fs
from mk9p.testing import until
from mk9p.tree import Conversations, Ctl, Dir, Log, Node, Text
from mk9p.wire import (
    L_APPEND,
    L_CREAT,
    L_RDWR,
    L_TRUNC,
    LOCK_SUCCESS,
    LOCK_TYPE_UNLCK,
    LOCK_TYPE_WRLCK,
    unpack_dirents,
)
from mk9p.wire import messages as m
from tests.server.relaying import ON, Lab, fails, lab, opened, read, walk

if TYPE_CHECKING:
    from tests.server.talk import Talk

FILE, OTHER = 5, 6


class Call:
    """A conversation of the far kernel."""

    def tree(self) -> Dir:
        return Dir({"ctl": Ctl({}), "data": Text("said\n")})

    def close(self) -> None:
        pass


async def stored(home: Path, *, task_status: trio.TaskStatus[Node]) -> None:
    async with fs.tree(str(home)) as tree:
        task_status.started(tree)
        await trio.sleep_forever()


class Kernel:
    """A far kernel with files in `home`, of which nothing else survives, and a client with its mount point as ON."""

    def __init__(self, home: Path, nursery: trio.Nursery) -> None:
        self.home, self.nursery = home, nursery
        self.found: Lab
        self.talk: Talk
        self.log = Log()

    async def born(self) -> Dir:
        self.log = Log()
        calls = Conversations(lambda number, who: Call())
        return Dir({"fs": await self.nursery.start(stored, self.home), "events": self.log, "cmd": calls})

    async def restart(self) -> None:
        (host,) = self.found.hosts
        await host.stop()
        host.tree = await self.born()
        await host.start()

    async def synced(self, fid: int) -> bool:
        """Tell whether a sync succeeds."""
        await self.talk.send(m.Tfsync, 1, fid, 0)
        while (reply := await self.talk.receive()).tag != 1:
            pass  # the read that waits has got something
        assert isinstance(reply, m.Rfsync) or reply.ecode == errno.EIO
        return isinstance(reply, m.Rfsync)

    async def write(self, fid: int, data: bytes, offset: int = 0) -> None:
        reply = await self.talk.rpc(m.Twrite, 1, fid, offset, data)
        assert isinstance(reply, m.Rwrite), reply

    async def lock(self, fid: int, kind: int, start: int, length: int) -> None:
        reply: Any = await self.talk.rpc(m.Tlock, 1, fid, kind, 0, start, length, 7, "me")
        assert reply.status == LOCK_SUCCESS


@asynccontextmanager
async def kernel(tmp_path: Path) -> AsyncIterator[Kernel]:
    home = tmp_path / "home"
    (home / "d").mkdir(parents=True)
    (home / "f").write_text("0123456789")
    for number in range(100):
        (home / f"d/{number}").touch()
    async with trio.open_nursery() as nursery:
        it = Kernel(home, nursery)
        async with lab(tmp_path, await it.born()) as it.found:
            it.talk = await it.found.client()
            yield it
        nursery.cancel_scope.cancel()


async def test_an_open_stored_file_goes_on_where_it_was(tmp_path: Path) -> None:
    async with kernel(tmp_path) as it:
        await opened(it.talk, FILE, "fs", "f", flags=L_RDWR)
        await it.write(FILE, b"ab", 2)
        await it.restart()
        assert await read(it.talk, FILE, 0) == b"01ab456789"
        await it.write(FILE, b"z", 9)
        assert (it.home / "f").read_bytes() == b"01ab45678z"


async def test_nothing_is_truncated_or_made_again_and_an_append_stays_one(tmp_path: Path) -> None:
    async with kernel(tmp_path) as it:
        await opened(it.talk, FILE, "fs", "f", flags=L_RDWR | L_TRUNC)
        await walk(it.talk, ON, OTHER, "fs")
        made = await it.talk.rpc(m.Tlcreate, 1, OTHER, "new", L_RDWR | L_CREAT | L_TRUNC | L_APPEND, 0o644, 0)
        assert isinstance(made, m.Rlcreate)
        for fid in (FILE, OTHER):
            await it.write(fid, b"kept")
        await it.restart()
        for fid in (FILE, OTHER):
            await it.write(fid, b"!", 1)
        assert (it.home / "f").read_bytes() == b"k!pt"
        assert (it.home / "new").read_bytes() == b"kept!"


async def test_another_file_there_is_stale_and_so_is_none(tmp_path: Path) -> None:
    async with kernel(tmp_path) as it:
        await opened(it.talk, FILE, "fs", "f")
        await opened(it.talk, OTHER, "fs", "d", "7")
        (it.home / "new").write_text("other")
        (it.home / "new").rename(it.home / "f")
        (it.home / "d/7").unlink()
        await it.restart()
        for fid in (FILE, OTHER):
            assert await fails(it.talk, m.Tread, fid, 0, 10) == errno.ESTALE
            assert isinstance(await it.talk.rpc(m.Tclunk, 1, fid), m.Rclunk)


async def test_a_conversation_ends_with_its_kernel_and_none_is_begun_for_it(tmp_path: Path) -> None:
    async with kernel(tmp_path) as it:
        await opened(it.talk, FILE, "cmd", "clone")
        await opened(it.talk, OTHER, "cmd", "0", "data")
        await it.restart()
        for fid in (FILE, OTHER):
            assert await fails(it.talk, m.Tread, fid, 0, 10) == errno.EIO
        await opened(it.talk, 20, "cmd", "clone")
        assert await read(it.talk, 20) == b"0\n"
        assert await fails(it.talk, m.Tread, OTHER, 0, 10) == errno.EIO, "it is another conversation's number"


async def test_a_reader_of_events_gets_one_line_that_says_it(tmp_path: Path) -> None:
    async with kernel(tmp_path) as it:
        it.log.emit("one")
        await opened(it.talk, FILE, "events")
        assert (await read(it.talk, FILE)).split()[2] == b"one"
        await it.restart()
        it.log.emit("two")
        line = await read(it.talk, FILE, 50)
        assert line.split()[2] == b"restarted"
        assert await read(it.talk, FILE, 50 + len(line)) == b"", "the end of this read(2)"
        assert (await read(it.talk, FILE, 50 + len(line))).split()[2] == b"two"


async def test_locks_are_set_again_and_a_lost_one_is_told(tmp_path: Path) -> None:
    async with kernel(tmp_path) as it:
        await opened(it.talk, FILE, "fs", "f", flags=L_RDWR)
        await it.lock(FILE, LOCK_TYPE_WRLCK, 0, 4)
        await it.lock(FILE, LOCK_TYPE_UNLCK, 1, 1)
        await it.restart()
        assert await read(it.talk, FILE, 0, 1) == b"0"
        with (it.home / "f").open("r+b") as other:
            for start, free in ((0, False), (1, True), (2, False), (3, False), (4, True)):
                assert may_lock(other, start) is free, start
        await opened(it.talk, OTHER, "fs", "f", flags=L_RDWR)
        await it.lock(OTHER, LOCK_TYPE_WRLCK, 5, 1)
        await it.found.hosts[0].stop()
        with (it.home / "f").open("r+b") as other:
            assert await until(lambda: may_lock(other, 5))
            it.found.hosts[0].tree = await it.born()
            await it.found.hosts[0].start()
            assert await fails(it.talk, m.Tread, OTHER, 0, 1) == errno.EIO
        assert await read(it.talk, OTHER, 0, 1) == b"0", "nobody has the range any more"


async def test_more_locks_than_are_kept_cost_no_more_and_end_with_the_server(tmp_path: Path) -> None:
    async with kernel(tmp_path) as it:
        for number, fid in enumerate(range(30, 35)):
            await opened(it.talk, fid, "fs", "d", str(number), flags=L_RDWR)
            for start in range(1000):
                await it.lock(fid, LOCK_TYPE_WRLCK, 2 * start, 1)
        (c,) = (c for c in it.found.front.connections if c.relays)
        assert 0 < c.locked <= LOCKS
        assert sum(len(hop.locks or ()) for hop in c.relays.values()) == c.locked
        await it.restart()
        assert await fails(it.talk, m.Tread, 34, 0, 1) == errno.EIO
        assert await read(it.talk, 30, 0, 1) == b""


def may_lock(file: IO[bytes], start: int) -> bool:
    """Lock a byte, if nobody else has."""
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("@hhqqi4x", fcntl.F_WRLCK, 0, start, 1, 0))
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize("beside", [False, True])
async def test_what_was_written_and_not_synced_makes_the_next_sync_fail_once(tmp_path: Path, beside: bool) -> None:
    async with kernel(tmp_path) as it:
        await opened(it.talk, FILE, "fs", "f", flags=L_RDWR)
        await opened(it.talk, OTHER, "fs", "f", flags=L_RDWR)
        if beside:  # a read that waits here: then requests are passed on one by one
            await opened(it.talk, 20, "events", fid=0)
            history = await read(it.talk, 20)
            assert await read(it.talk, 20, len(history)) == b""
            await it.talk.send(m.Tread, 50, 20, len(history), 100)
        await it.write(FILE, b"a")
        assert await it.synced(FILE)
        await it.write(OTHER, b"b", 1)
        await it.restart()
        assert await it.synced(FILE)
        assert not await it.synced(OTHER)
        assert await it.synced(OTHER)
        await it.write(OTHER, b"b", 1)
        assert await it.synced(OTHER)


async def test_a_directory_is_listed_from_where_it_was(tmp_path: Path) -> None:
    async with kernel(tmp_path) as it:
        await opened(it.talk, FILE, "fs", "d")
        names: list[str] = []
        offset = 0
        for _ in range(1000):
            reply: Any = await it.talk.rpc(m.Treaddir, 1, FILE, offset, 700)
            assert isinstance(reply, m.Rreaddir), reply
            if not reply.data:
                break
            for _, offset, _, name in unpack_dirents(reply.data):  # noqa: B007  # the last says where to go on
                if name not in (".", ".."):
                    names.append(name)
            if len(names) < 50:
                await it.restart()
        assert sorted(names) == sorted(map(str, range(100)))


async def test_an_attribute_that_is_read_or_set_ends(tmp_path: Path) -> None:
    async with kernel(tmp_path) as it:
        await walk(it.talk, ON, FILE, "fs", "f")
        await walk(it.talk, ON, OTHER, "fs", "f")
        assert isinstance(await it.talk.rpc(m.Txattrcreate, 1, OTHER, "user.a", 2, 0), m.Rxattrcreate)
        assert isinstance(await it.talk.rpc(m.Txattrwalk, 1, FILE, 20, ""), m.Rxattrwalk)
        await it.restart()
        assert await fails(it.talk, m.Tread, 20, 0, 10) == errno.EIO
        assert await fails(it.talk, m.Twrite, OTHER, 0, b"ab") == errno.EIO
