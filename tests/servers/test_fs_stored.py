"""Extended attributes and byte-range locks of an exported directory, as v9fs asks for them."""

import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from mk9p.tree import Dir, Text
from mk9p.wire import LOCK_BLOCKED, LOCK_SUCCESS, LOCK_TYPE_RDLCK, LOCK_TYPE_UNLCK, LOCK_TYPE_WRLCK
from mk9p.wire import messages as m
from tests.server.talk import talking
from tests.servers.exported import Files, exported

CREATE, REPLACE = 1, 2


async def get(files: Files, path: str, name: str) -> bytes:
    fid = files.new()
    size = (await files.ask(m.Txattrwalk, await files.walk(path), fid, name)).size
    value = await files.read(fid, 0, 100_000)
    assert len(value) == size
    await files.clunk(fid)
    return value


async def put(files: Files, path: str, name: str, value: bytes, flags: int = 0, piece: int = 1 << 20) -> None:
    fid = await files.walk(path)
    await files.ask(m.Txattrcreate, fid, name, len(value), flags)
    for at in range(0, len(value), piece):
        await files.write(fid, value[at : at + piece], at)
    await files.clunk(fid)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f"
    path.write_bytes(bytes(100))
    try:
        os.setxattr(path, "user.probe", b"")
    except OSError:
        pytest.skip("no extended attributes on this file system")
    os.removexattr(path, "user.probe")
    return path


async def test_attributes_are_set_read_listed_and_removed(file: Path) -> None:
    async with exported(file.parent) as files:
        await put(files, "f", "user.a", b"value")
        assert os.getxattr(file, "user.a") == b"value"
        await put(files, "f", "user.long", b"0123456789" * 100, piece=64)
        assert await get(files, "f", "user.long") == b"0123456789" * 100
        assert set((await get(files, "f", "")).split(b"\0")) >= {b"user.a", b"user.long"}
        await put(files, "f", "user.empty", b"")
        assert await get(files, "f", "user.empty") == b""
        await put(files, "f", "user.a", b"", REPLACE)  # what removexattr(2) becomes
        assert "user.a" not in os.listxattr(file)
        await put(files, "f", "user.long", b"")  # and what other clients send for it
        assert os.listxattr(file) == ["user.empty"]


async def test_flags_of_setting_and_what_is_not_there(file: Path) -> None:
    async with exported(file.parent) as files:
        await put(files, "f", "user.a", b"1", CREATE)
        with pytest.raises(FileExistsError):
            await put(files, "f", "user.a", b"2", CREATE)
        await put(files, "f", "user.a", b"3", REPLACE)
        for attempt in (
            get(files, "f", "user.none"),
            put(files, "f", "user.none", b"1", REPLACE),
            put(files, "f", "user.none", b"", REPLACE),
        ):
            with pytest.raises(OSError, match="No data") as missing:
                await attempt
            assert missing.value.errno == errno.ENODATA
        with pytest.raises(OSError, match="not supported"):
            await get(files, "f", "nonsense")
        assert os.getxattr(file, "user.a") == b"3"


async def test_an_attribute_is_written_whole_or_not_at_all(file: Path) -> None:
    async with exported(file.parent) as files:
        fid = await files.walk("f")
        await files.ask(m.Txattrcreate, fid, "user.a", 10, 0)
        await files.write(fid, b"half")
        with pytest.raises(OSError, match="Invalid"):
            await files.write(fid, b"elsewhere", 6)
        with pytest.raises(OSError, match="Invalid"):
            await files.write(fid, b"too much", 4)
        await files.clunk(fid)
        assert os.listxattr(file) == []
        fid = await files.walk("f")
        with pytest.raises(OSError, match="Argument list too long"):
            await files.ask(m.Txattrcreate, fid, "user.a", 1 << 40, 0)


async def test_made_up_files_have_no_attributes_and_no_locks() -> None:
    async with talking(Dir({"f": Text("x")})) as talk:
        await talk.open(1, "f")
        for ask in (
            (m.Txattrwalk, 1, 2, "security.capability"),
            (m.Txattrwalk, 1, 2, ""),
            (m.Tlock, 1, LOCK_TYPE_RDLCK, 0, 0, 0, 1, "c"),
            (m.Tgetlock, 1, LOCK_TYPE_RDLCK, 0, 0, 1, "c"),
        ):
            reply = await talk.rpc(ask[0], 1, *ask[1:])
            assert reply == m.Rlerror(1, errno.EOPNOTSUPP)


async def lock(
    files: Files, fid: int, kind: int, start: int = 0, length: int = 0, process: int = 1, flags: int = 0
) -> int:
    status: int = (await files.ask(m.Tlock, fid, kind, flags, start, length, process, "client")).status
    return status


async def test_locks_of_two_open_files_are_in_each_other_s_way(file: Path) -> None:
    async with exported(file.parent) as files:
        one, two = await files.open("f", os.O_RDWR), await files.open("f", os.O_RDWR)
        assert await lock(files, one, LOCK_TYPE_WRLCK, 10, 20, process=7) == LOCK_SUCCESS
        assert await lock(files, two, LOCK_TYPE_WRLCK, 15, 1, flags=1) == LOCK_BLOCKED
        assert await lock(files, two, LOCK_TYPE_RDLCK, 29, 1) == LOCK_BLOCKED
        assert await lock(files, two, LOCK_TYPE_WRLCK, 30, 0) == LOCK_SUCCESS
        assert await lock(files, one, LOCK_TYPE_RDLCK, 10, 20) == LOCK_SUCCESS  # one's own is changed
        assert await lock(files, two, LOCK_TYPE_RDLCK, 10, 20) == LOCK_SUCCESS
        assert await lock(files, two, LOCK_TYPE_UNLCK) == LOCK_SUCCESS
        assert await lock(files, one, LOCK_TYPE_WRLCK) == LOCK_SUCCESS
        await files.clunk(one)
        assert await lock(files, two, LOCK_TYPE_WRLCK) == LOCK_SUCCESS


async def test_who_holds_a_lock_is_told(file: Path) -> None:
    async with exported(file.parent) as files:
        one, two = await files.open("f", os.O_RDWR), await files.open("f", os.O_RDWR)
        await lock(files, one, LOCK_TYPE_WRLCK, 10, 20, process=7)

        async def ask(kind: int, start: int) -> tuple[Any, ...]:
            got = await files.ask(m.Tgetlock, two, kind, start, 1, 99, "other")
            return got.type_, got.start, got.length, got.proc_id, got.client_id

        assert await ask(LOCK_TYPE_RDLCK, 12) == (LOCK_TYPE_WRLCK, 10, 20, 7, "client")
        assert await ask(LOCK_TYPE_RDLCK, 30) == (LOCK_TYPE_UNLCK, 30, 1, 99, "other")


async def test_locks_are_those_of_the_host(file: Path) -> None:
    """A process of the host, here a child, is kept out by a client's lock, and a client by its."""
    async with exported(file.parent) as files:
        fid = await files.open("f", os.O_RDWR)
        fd = os.open(file, os.O_RDWR)
        whole = struct.pack("@hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
        assert await lock(files, fid, LOCK_TYPE_RDLCK) == LOCK_SUCCESS
        with pytest.raises(BlockingIOError):
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, whole)
        assert await lock(files, fid, LOCK_TYPE_UNLCK) == LOCK_SUCCESS
        fcntl.lockf(fd, fcntl.LOCK_EX)  # as a process of the host
        assert await lock(files, fid, LOCK_TYPE_RDLCK) == LOCK_BLOCKED
        got = await files.ask(m.Tgetlock, fid, LOCK_TYPE_RDLCK, 0, 0, 1, "c")
        assert (got.type_, got.proc_id) == (LOCK_TYPE_WRLCK, os.getpid())
        os.close(fd)
        assert await lock(files, fid, LOCK_TYPE_RDLCK) == LOCK_SUCCESS


async def test_locks_that_cannot_be(file: Path) -> None:
    async with exported(file.parent) as files:
        reader = await files.open("f")
        with pytest.raises(OSError, match="descriptor") as refused:
            await lock(files, reader, LOCK_TYPE_WRLCK)
        assert refused.value.errno == errno.EBADF
        for kind, start, length, flags in ((3, 0, 0, 0), (0, 0, 0, 0x80)):
            with pytest.raises(OSError, match="Invalid"):
                await lock(files, reader, kind, start, length, flags=flags)
        with pytest.raises(OSError, match="too large"):
            await lock(files, reader, LOCK_TYPE_RDLCK, 1 << 63, 1)
        with pytest.raises(OSError, match="descriptor"):
            await lock(files, await files.walk("f"), LOCK_TYPE_RDLCK)
