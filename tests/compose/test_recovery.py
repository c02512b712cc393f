"""Open files of a server that dies and comes back: the general way, through Nodes (docs/recovery.md)."""

import errno
import fcntl
import struct
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

import attrs
import pytest
import trio
import trio.testing

from mk9p import sysfs
from mk9p.auth import ROOT
from mk9p.client import Client
from mk9p.client.agreement import attach
from mk9p.compose import line
from mk9p.compose.remote import Server
from mk9p.errors import NineError
from mk9p.servers import fs
from mk9p.status import Lock
from mk9p.testing import SOON, Host, mounted, until
from mk9p.tree import Conversations, Ctl, Dir, Handle, Log, Node, Open, Text, settle
from mk9p.wire import LOCK_TYPE_UNLCK, LOCK_TYPE_WRLCK

LONG = 36000.0  # seconds that a request waits: time jumps while the kernel starts in a thread, and it may never be over before that


class Talk:
    """A conversation of the far kernel."""

    def tree(self) -> Dir:
        return Dir({"ctl": Ctl({"say": lambda: None}), "data": Text("said\n")})

    def close(self) -> None:
        pass


@attrs.define
class Lab:
    """A far kernel with files in `home`, the namespace here with its tree at `k1`, and a client of that."""

    home: Path
    nursery: trio.Nursery
    host: Host
    server: Server
    ns: Client
    log: Log = attrs.field(factory=Log)
    done: list[str] = attrs.field(factory=list)

    async def start(self) -> None:
        """Start a new life of the kernel: what is stored is still there, and nothing else."""
        self.log = Log()
        self.host.tree = Dir(
            {
                "fs": await self.nursery.start(stored, self.home),
                "events": self.log,
                "status": Text("up\n"),
                "ctl": Ctl({"add": self.done.append, "slow": trio.sleep_forever}),
                "cmd": Conversations(lambda number, who: Talk()),
            }
        )
        await self.host.start()

    async def restart(self) -> None:
        """Kill the kernel, and start it again."""
        await self.host.stop()
        await self.start()
        await trio.sleep(self.server.backoff)

    async def opened(self, path: str, *, write: bool = False) -> Handle:
        """Open a file in this process: its errors have words."""
        node: Node = self.server.tree(ROOT)
        for name in path.split("/"):
            node = await settle(node.walk(name, ROOT))
        return await settle(node.open(Open(ROOT, write=write)))


async def stored(home: Path, *, task_status: trio.TaskStatus[Node]) -> None:
    async with fs.tree(str(home)) as tree:
        task_status.started(tree)
        await trio.sleep_forever()


@asynccontextmanager
async def lab(path: Path, wait: float = 0.0, version: str = "9P2000.u") -> AsyncIterator[Lab]:
    home = path / "home"
    (home / "d").mkdir(parents=True)
    for name, text in (("f", "0123456789"), ("d/a", ""), ("d/b", "")):
        (home / name).write_text(text)
    async with trio.open_nursery() as nursery:
        server = Server(f"unix!{path}/far", nursery, name="k1", deadline=SOON, wait=wait)
        server.many = False  # the fast way has its own tests
        async with mounted(Dir({"k1": server.tree(ROOT)}), version=version) as ns:
            it = Lab(home, nursery, Host(nursery, server.address, Dir()), server, ns)
            await it.start()
            yield it
        nursery.cancel_scope.cancel()


async def test_an_open_stored_file_goes_on_where_it_was(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with lab(tmp_path) as it, await it.ns.open("k1/fs/f", "r+") as f:
        assert await f.pread(4, 2) == b"2345"
        await f.pwrite(b"ab", 2)
        await it.restart()
        assert await f.pread(4, 2) == b"ab45"
        await f.pwrite(b"z", 9)
        assert (it.home / "f").read_bytes() == b"01ab45678z"


@pytest.mark.parametrize("wait", [0.0, LONG])
async def test_who_waits_for_a_server_waits_for_its_first_answer_too(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, wait: float
) -> None:
    """A kernel that has just come up lets itself be dialled, and needs longer than a deadline to let anybody attach."""

    async def slow(*words: Any) -> Any:
        await trio.sleep(10)
        return await attach(*words)

    async with lab(tmp_path, wait=wait) as it, await it.ns.open("k1/fs/f") as f:
        await it.restart()
        it.server.deadline = 5
        monkeypatch.setattr(line, "attach", slow)
        if wait:
            assert await f.pread(4, 2) == b"2345"
        else:
            with pytest.raises(NineError) as caught:
                await f.pread(4, 2)
            assert caught.value.errno == errno.EIO


async def test_nothing_is_truncated_or_made_again(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with lab(tmp_path) as it:
        async with await it.ns.open("k1/fs/f", "w") as f, await it.ns.create("k1/fs/new") as new:
            await f.write(b"kept")
            await new.write(b"new")
            await it.restart()
            assert await f.pwrite(b"!", 4) == 1
            assert await new.pwrite(b"!", 3) == 1
        assert await it.ns.read("k1/fs/f") == "kept!"
        assert await it.ns.read("k1/fs/new") == "new!"


async def test_another_file_there_is_stale_and_so_is_none(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with lab(tmp_path) as it, await it.ns.open("k1/fs/f") as f, await it.ns.open("k1/fs/d/a") as a:
        await it.host.stop()
        (it.home / "new").write_text("other")
        (it.home / "new").rename(it.home / "f")
        (it.home / "d/a").unlink()
        await it.start()
        await trio.sleep(it.server.backoff)
        for file in (f, a):
            with pytest.raises(NineError) as caught:
                await file.pread(10, 0)
            assert caught.value.errno == errno.ESTALE


async def test_a_conversation_that_ended_with_its_kernel_is_told_in_words(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with lab(tmp_path) as it:
        clone, data = await it.opened("cmd/clone"), await it.opened("cmd/0/data")
        assert await settle(clone.read(0, 10)) == b"0\n"
        await it.restart()
        for handle in (clone, data):
            with pytest.raises(NineError, match="this conversation ended with k1") as caught:
                await settle(handle.read(0, 10))
            assert caught.value.errno == errno.EIO
        again = await it.opened("cmd/clone")
        assert await settle(again.read(0, 10)) == b"0\n", "a new conversation has the number"
        with pytest.raises(NineError, match="this conversation ended with k1"):
            await settle(data.read(0, 10))


async def test_a_reader_of_events_gets_one_line_that_says_it(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with lab(tmp_path) as it:
        it.log.emit("one")
        async with await it.ns.open("k1/events") as f:
            assert (await f.read(1000)).split()[2] == b"one"
            await it.restart()
            it.log.emit("two")
            assert (await f.read(1000)).split()[2] == b"restarted"
            assert (await f.read(1000)).split()[::2] == [b"1", b"two"]


async def test_the_line_that_says_it_is_read_in_pieces(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with lab(tmp_path) as it, await it.ns.open("k1/events") as f:
        await it.restart()
        it.log.emit("two")
        text = b""
        while not text.endswith(b"\n"):
            text += await f.read(1)
        assert text.split()[2] == b"restarted"
        assert (await f.read(1000)).split()[2] == b"two"


async def test_locks_are_set_again_and_a_lost_one_is_told(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with lab(tmp_path) as it:
        handle = await it.opened("fs/f", write=True)
        assert await settle(handle.lock(Lock(LOCK_TYPE_WRLCK, 0, 4, 7, "me")))
        assert await settle(handle.lock(Lock(LOCK_TYPE_UNLCK, 1, 1, 7, "me")))
        await it.restart()
        assert bytes(await settle(handle.read(0, 1))) == b"0"
        with (it.home / "f").open("r+b") as other:
            for start, free in ((0, False), (1, True), (2, False), (3, False), (4, True)):
                assert may_lock(other, start, 1) is free, start
            await it.host.stop()
            assert await until(lambda: may_lock(other, 0, 1))
            await it.start()
            await trio.sleep(it.server.backoff)
            with pytest.raises(NineError, match="the lock was lost while k1 was away"):
                await settle(handle.read(0, 1))


def may_lock(file: IO[bytes], start: int, length: int) -> bool:
    """Lock some bytes, if nobody else has."""
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("@hhqqi4x", fcntl.F_WRLCK, 0, start, length, 0))
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize("wait", [0.0, LONG])
async def test_what_may_not_be_said_again_may_have_been_done(
    tmp_path: Path, wait: float, autojump_clock: trio.testing.MockClock
) -> None:
    async with lab(tmp_path, wait) as it:
        told: list[str] = []

        async def slow() -> None:
            with pytest.raises(NineError) as caught:
                await it.ns.write("k1/ctl", "slow")
            assert caught.value.errno == errno.EIO
            told.append(caught.value.ename)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await it.restart()
        await it.ns.write("k1/ctl", "add 1")
        assert it.done == ["1"]
        assert told == ["k1 went away meanwhile: it may have been done"]


@pytest.mark.parametrize("version", ["9P2000.u", "9P2000.L"])
async def test_who_said_a_word_is_told_at_once_although_requests_wait_for_the_server(
    tmp_path: Path, version: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with lab(tmp_path, LONG, version) as it:
        told: list[int] = []

        async def slow() -> None:
            with pytest.raises(NineError) as caught:
                await it.ns.write("k1/ctl", "slow")
            told.append(caught.value.errno)

        with trio.move_on_after(LONG):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(slow)
                await trio.testing.wait_all_tasks_blocked(0.01)
                await it.host.stop()
                gone = trio.current_time()
        assert told == [errno.EIO]
        assert trio.current_time() - gone < 5


async def test_requests_wait_for_a_server_that_is_down_as_long_as_they_may(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with (
        lab(tmp_path, wait=LONG) as it,
        await it.ns.open("k1/fs/f", "r+") as f,
        await it.ns.open("k1/events") as e,
    ):
        lines: list[bytes] = []

        async def read() -> None:
            lines.append(await e.read(1000))
            lines.append(await e.read(1000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await it.host.stop()
            nursery.start_soon(f.pwrite, b"ab", 0)
            nursery.start_soon(it.ns.read, "k1/status")
            nursery.start_soon(it.ns.listdir, "k1/fs/d")
            await trio.sleep(20)
            assert (it.home / "f").read_bytes() == b"0123456789"
            await it.start()
            it.log.emit("two")
        assert (it.home / "f").read_bytes() == b"ab23456789"
        assert [line.split()[2] for line in lines] == [b"restarted", b"two"]
        await it.host.stop()
        it.server.waits(30.0)
        begun = trio.current_time()
        with pytest.raises(NineError, match="k1 is down") as caught:
            await f.pread(1, 0)
        assert caught.value.errno == errno.EIO
        assert trio.current_time() - begun == pytest.approx(30.0, abs=5)


async def test_nothing_is_lost_if_the_kernel_has_lived_on(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab(tmp_path, wait=LONG) as it, await it.ns.open("k1/fs/f", "r+") as f:
        await f.pwrite(b"b", 0)
        await it.restart()
        await f.sync()
        await f.pwrite(b"c", 0)
        await it.restart()
        assert await f.pread(1, 0) == b"c"
        reboot(tmp_path, monkeypatch)
        await it.restart()
        with pytest.raises(NineError, match="may be lost"):
            await f.sync()
        await f.sync()


def reboot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernel of the host be another one from now on."""
    boot = tmp_path / "boot"
    boot.write_text(f"{uuid.uuid4()}\n")
    monkeypatch.setattr(sysfs, "BOOT", str(boot))


async def test_what_was_written_and_not_synced_makes_the_next_sync_fail_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab(tmp_path, wait=LONG) as it, await it.ns.open("k1/fs/f", "r+") as f:
        await f.pwrite(b"a", 0)
        await f.sync()
        await it.restart()
        await f.sync()
        await f.pwrite(b"b", 0)
        reboot(tmp_path, monkeypatch)
        await it.restart()
        with pytest.raises(NineError, match="may be lost") as caught:
            await f.sync()
        assert caught.value.errno == errno.EIO
        await f.pwrite(b"b", 0)
        await f.sync()
