"""Calls of WASI by themselves, on a memory that is only bytes: which error each gives, and that what was granted to be read stays as it is."""

import errno
import os
import select
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from mk9p import sync
from mk9p.errors import NineError
from mk9p.servers.wasm.host import _plain
from mk9p.servers.wasm.machine import Ended
from mk9p.servers.wasm.space import Grant, Place, Space
from mk9p.servers.wasm.wasi.descriptors import Opened, Table
from mk9p.servers.wasm.wasi.numbers import (
    F_APPEND,
    F_DSYNC,
    F_SYNC,
    NAMES,
    O_CREAT,
    O_DIRECTORY,
    O_TRUNC,
    RIGHT_READ,
    RIGHT_WRITE,
    Error,
)
from mk9p.servers.wasm.wasi.polling import Polling
from mk9p.testing import SOON
from tests.wasm.programs_of import giving

D, R = 3, 4  # the directories that the program has: to write, and to read
RESULT, TEXT, OTHER = 0, 1000, 9000


class Memory:
    """A program's memory, as far as calls use it (machine.Memory)."""

    def __init__(self) -> None:
        self.bytes = bytearray(1 << 16)

    def at(self, p: int, n: int) -> int:
        return p

    def get(self, p: int, n: int) -> bytes:
        return bytes(self.bytes[p : p + n])

    def put(self, p: int, data: bytes) -> None:
        self.bytes[p : p + len(data)] = data

    def put32(self, p: int, value: int) -> None:
        self.put(p, value.to_bytes(4, "little"))

    def put64(self, p: int, value: int) -> None:
        self.put(p, value.to_bytes(8, "little"))


class Machine:
    """What calls see of a machine."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.wake = os.pipe()


class Calls:
    """The calls of a program that has `D` and `R`; each gives the name of its error."""

    def __init__(self, address: str) -> None:
        self.machine = Machine()
        self.streams = os.pipe()
        self.client = sync.connect(address)
        table = Table(self.machine.wake[0], Space(self.client, self.machine.wake[0]), None)
        table.begin(
            (self.streams[0], self.streams[1], self.streams[1]), [Grant("data", "/d", False), Grant("data", "/r", True)]
        )
        self.world = Polling(cast("Any", self.machine), table, ["x"], [], None)

    def close(self) -> None:
        self.client.close()
        for fd in (*self.streams, *self.machine.wake):
            os.close(fd)

    def __getattr__(self, name: str) -> Callable[..., str]:
        call = _plain(getattr(self.world, name))
        return lambda *arguments: NAMES[call(*arguments)]

    def text(self, path: str | bytes, at: int = TEXT) -> tuple[int, int]:
        data = path if isinstance(path, bytes) else path.encode()
        self.machine.memory.put(at, data)
        return at, len(data)

    def open(self, at: int, path: str, how: int = 0, rights: int = RIGHT_READ, flags: int = 0) -> str:
        return self.path_open(at, 1, *self.text(path), how, rights, rights, flags, RESULT)

    @property
    def opened(self) -> int:
        return int.from_bytes(self.machine.memory.get(RESULT, 4), "little")


async def calling(folder: Path, work: Callable[[Calls], None]) -> None:
    """Let calls be made, in a thread, of a program that was granted a directory."""
    async with giving(folder) as address:

        def thread() -> None:
            calls = Calls(address)
            try:
                work(calls)
            finally:
                calls.close()

        await trio.to_thread.run_sync(thread)


async def test_what_is_granted_to_be_read_keeps_its_times(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("hello")
    os.utime(tmp_path / "in", (1000, 1000))

    def work(calls: Calls) -> None:
        assert calls.open(R, "in") == "SUCCESS"
        assert calls.fd_filestat_set_times(calls.opened, 5, 5, 4) == "ROFS"
        assert calls.fd_filestat_set_times(R, 5, 5, 4) == "ROFS"
        assert calls.open(D, "in") == "SUCCESS"
        assert calls.fd_filestat_set_times(calls.opened, 5, 2000 * 10**9, 4) == "SUCCESS"

    await calling(tmp_path, work)
    assert os.stat(tmp_path / "in").st_mtime == 2000
    assert os.stat(tmp_path).st_mtime > 5


async def test_no_text_ends_a_program(tmp_path: Path) -> None:
    def work(calls: Calls) -> None:
        assert calls.path_symlink(*calls.text(b"\xff"), D, *calls.text("link", OTHER)) == "ILSEQ"
        assert calls.path_symlink(*calls.text(b"x" * 5000), D, *calls.text("link", OTHER)) == "NAMETOOLONG"
        assert calls.path_create_directory(D, *calls.text(b"\xff")) == "ILSEQ"

    await calling(tmp_path, work)


def test_what_a_call_does_not_take_is_an_error_of_the_program() -> None:
    def raises(error: Exception) -> str:
        def call() -> None:
            raise error

        return NAMES[_plain(call)()]

    assert raises(ValueError("no number")) == "INVAL"
    assert raises(OSError(errno.ENOSPC, "full")) == "NOSPC"
    assert raises(OSError("no number")) == "IO"
    assert raises(Error(NAMES.index("PERM"))) == "PERM"


async def test_a_path_that_ends_with_a_slash_is_a_directory_s(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("hello")
    (tmp_path / "sub").mkdir()

    def work(calls: Calls) -> None:
        text = calls.text
        assert calls.open(D, "in/") == "NOTDIR"
        assert calls.open(D, "in/.") == "NOTDIR"
        assert calls.open(D, "sub/") == "SUCCESS"
        assert calls.open(D, "new/", O_CREAT, RIGHT_WRITE) == "ISDIR"
        assert calls.path_filestat_get(D, 1, *text("in/"), OTHER) == "NOTDIR"
        assert calls.path_unlink_file(D, *text("in/")) == "NOTDIR"
        assert calls.path_rename(D, *text("in/"), D, *text("out", OTHER)) == "NOTDIR"
        assert calls.path_rename(D, *text("in"), D, *text("out/", OTHER)) == "NOTDIR"
        assert calls.path_symlink(*text("in"), D, *text("link/", OTHER)) == "NOENT"
        assert calls.path_link(D, 0, *text("in"), D, *text("link/", OTHER)) == "NOENT"
        assert calls.path_create_directory(D, *text("made/")) == "SUCCESS"
        assert calls.path_rename(D, *text("made/"), D, *text("other/", OTHER)) == "SUCCESS"
        assert calls.path_remove_directory(D, *text("other/")) == "SUCCESS"

    await calling(tmp_path, work)
    assert sorted(os.listdir(tmp_path)) == ["in", "sub"]


async def test_only_a_directory_has_one_above_it(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("hello")
    (tmp_path / "sub").mkdir()

    def work(calls: Calls) -> None:
        assert calls.open(D, "sub/../in") == "SUCCESS"
        assert calls.open(D, "in/../in") == "NOTDIR"
        assert calls.open(D, "gone/../in") == "NOENT"
        assert calls.open(D, "sub/../../data/in") == "NOTCAPABLE"

    await calling(tmp_path, work)


async def test_a_file_is_opened_in_the_ways_that_were_asked(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("hello")

    def rights(calls: Calls, fd: int) -> int:
        assert calls.fd_fdstat_get(fd, OTHER) == "SUCCESS"
        found: int = struct.unpack_from("<Q", calls.machine.memory.bytes, OTHER + 8)[0]
        return found & (RIGHT_READ | RIGHT_WRITE)

    def work(calls: Calls) -> None:
        assert calls.open(D, "made", O_CREAT) == "SUCCESS"
        assert rights(calls, calls.opened) == RIGHT_READ
        calls.machine.memory.put(OTHER, struct.pack("<II", TEXT, 1))
        assert calls.fd_write(calls.opened, OTHER, 1, RESULT) == "BADF"
        assert calls.open(D, "more", O_CREAT, RIGHT_WRITE) == "SUCCESS"
        assert rights(calls, calls.opened) == RIGHT_WRITE
        assert calls.open(D, "more", 0, RIGHT_READ | RIGHT_WRITE, F_APPEND) == "SUCCESS"
        assert rights(calls, calls.opened) == RIGHT_READ | RIGHT_WRITE
        assert [rights(calls, fd) for fd in (0, 1, 2, D)] == [RIGHT_READ, RIGHT_WRITE, RIGHT_WRITE, RIGHT_READ]
        assert calls.open(D, "dir", O_CREAT | O_DIRECTORY, RIGHT_WRITE) == "INVAL"
        assert calls.open(R, "in", O_CREAT) == "SUCCESS"
        assert calls.open(R, "new", O_CREAT) == "ROFS"
        assert calls.open(R, "in", O_TRUNC) == "ROFS"
        assert calls.open(R, "in", 0, RIGHT_WRITE) == "ROFS"

    await calling(tmp_path, work)
    assert sorted(os.listdir(tmp_path)) == ["in", "made", "more"]


async def test_what_was_appended_ends_where_reading_goes_on(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("12345")

    def work(calls: Calls) -> None:
        assert calls.open(D, "log", 0, RIGHT_READ | RIGHT_WRITE, F_APPEND) == "SUCCESS"
        fd = calls.opened
        calls.machine.memory.put(OTHER, struct.pack("<II", TEXT, 3))
        assert calls.fd_seek(fd, 1, 0, RESULT) == "SUCCESS"
        assert calls.fd_write(fd, OTHER, 1, RESULT) == "SUCCESS"
        assert calls.fd_tell(fd, RESULT) == "SUCCESS"
        assert calls.opened == 8
        assert calls.fd_write(fd, OTHER, 1, RESULT) == "SUCCESS"
        assert calls.fd_read(fd, OTHER, 1, RESULT) == "SUCCESS"
        assert calls.opened == 0, "at the end"
        assert calls.fd_write(fd, OTHER, 1, RESULT) == "SUCCESS"
        assert calls.fd_seek(fd, 2, 0, RESULT) == "SUCCESS"
        assert calls.fd_read(fd, OTHER, 1, RESULT) == "SUCCESS"
        assert calls.machine.memory.get(TEXT, 3) == b"345"

    await calling(tmp_path, work)
    assert os.stat(tmp_path / "log").st_size == 14


@pytest.mark.parametrize(("flags", "data"), [(F_SYNC, False), (F_DSYNC, True), (0, None)])
async def test_a_file_that_is_open_so_is_synced_at_each_write(tmp_path: Path, flags: int, data: bool | None) -> None:
    """A call that was stopped before it was synced is made again, and writes nothing twice."""

    def work(calls: Calls) -> None:
        assert calls.open(D, "file", O_CREAT, RIGHT_WRITE, flags) == "SUCCESS"
        fd = calls.opened
        found: Any = calls.world.table.get(fd)
        synced: list[bool] = []
        stopped = True

        class File:
            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

            def sync(self, *, data: bool = False) -> None:
                if stopped:
                    raise sync.Stopped(errno.EINTR)
                synced.append(data)

        file, found.file = found.file, File()
        calls.machine.memory.put(OTHER, struct.pack("<II", TEXT, 3))
        writes: list[Callable[[], None]] = [
            lambda: calls.world.fd_write(fd, OTHER, 1, RESULT),
            lambda: calls.world.fd_pwrite(fd, OTHER, 1, 3, RESULT),
        ]
        for write in writes:
            stopped = flags != 0
            if stopped:
                with pytest.raises(sync.Stopped):
                    write()
            stopped = False
            write()
            assert calls.opened == 3
        assert synced == ([] if data is None else [data] * 2)
        assert found.position == 3
        assert file.stat().length == 6

    await calling(tmp_path, work)


@pytest.mark.parametrize("error", [None, errno.EIO, errno.EACCES])
def test_whether_its_files_are_there_is_not_asked_for_long(error: int | None) -> None:
    class Silent:
        stop = -1

        def stop_by(self, descriptor: int) -> None:
            self.stop = descriptor

        def walk(self, path: str) -> None:
            if error is not None:
                raise NineError(error)
            select.select([self.stop], [], [])
            raise sync.Stopped(errno.EINTR)

    client: Any = Silent()
    space, wake = Space(client, 77), 77
    table = Table(wake, space, None)
    table.open[5] = Opened(Place(Grant("data", "/d", False), ("x",)), path=3)
    began = time.monotonic()
    with space.within(0.05):
        table.require_there()
    assert time.monotonic() - began < SOON
    assert client.stop == wake


async def test_a_stream_has_no_places_and_no_names(tmp_path: Path) -> None:
    def work(calls: Calls) -> None:
        assert calls.fd_pread(0, OTHER, 0, 0, RESULT) == "SPIPE"
        assert calls.fd_pwrite(1, OTHER, 0, 0, RESULT) == "SPIPE"
        assert calls.fd_seek(0, 0, 1, RESULT) == "SPIPE"
        assert calls.fd_readdir(0, OTHER, 100, 0, RESULT) == "NOTDIR"
        assert calls.fd_pread(9, OTHER, 0, 0, RESULT) == "BADF"

    await calling(tmp_path, work)


async def test_a_signal_has_its_own_name_and_does_what_it_does(tmp_path: Path) -> None:
    def work(calls: Calls) -> None:
        for number, how in ((15, "signal SIGTERM"), (23, "signal SIGXCPU"), (30, "signal SIGSYS")):
            with pytest.raises(Ended, match=f"^{how}$"):
                calls.proc_raise(number)
        assert [calls.proc_raise(n) for n in (0, 16, 17)] == ["SUCCESS"] * 3
        assert calls.proc_raise(18) == "NOTSUP"
        assert calls.proc_raise(31) == "INVAL"

    await calling(tmp_path, work)


def test_the_clock_of_its_processor_goes_on_elsewhere() -> None:
    table: Any = None
    machine: Any = None
    before = 100 * 10**9
    world = Polling(machine, table, [], [], None, cpu=before)
    end = time.process_time() + 0.01
    while time.process_time() < end:
        pass
    assert before + 10**7 <= world.now(2) <= world.now(3) < before + 60 * 10**9
