"""Calls about open files: fd_*."""

import struct
from functools import partial
from typing import Final

from mk9p.servers.wasm.wasi.descriptors import Opened, Stream
from mk9p.servers.wasm.wasi.numbers import (
    ATIME,
    ATIME_NOW,
    BADF,
    DIRECTORY,
    F_APPEND,
    INVAL,
    ISDIR,
    MTIME,
    MTIME_NOW,
    NOTDIR,
    NOTSUP,
    OVERFLOW,
    REGULAR,
    RIGHT_READ,
    RIGHTS,
    RIGHTS_STREAM,
    RIGHTS_TO_WRITE,
    ROFS,
    SPIPE,
    UNKNOWN,
    Error,
    of_entry,
    of_mode,
)
from mk9p.servers.wasm.wasi.world import World
from mk9p.status import NOW, Change, Stat

IOVS: Final = 1024  # pieces of one read or write, as Linux
MOST: Final = 1 << 20  # bytes of one read or write
_FAR: Final = 1 << 63  # no file goes on there


def status(found: Stat) -> bytes:
    """Return a file's status as WASI has it: `filestat`."""
    path = found.qid.path if found.qid else 0
    times = (max(found.atime, 0), max(found.mtime, 0), max(found.ctime, 0))
    return struct.pack("<QQB7xQQQQQ", 1, path, of_mode(found.mode), found.nlink, found.length, *times)


def times(atime: int, mtime: int, flags: int) -> Change:
    """Return the change of times that a program asks for. Raises INVAL for a time that is to be two things."""
    if (flags & ATIME and flags & ATIME_NOW) or (flags & MTIME and flags & MTIME_NOW) or flags >> 4:
        raise Error(INVAL)
    return Change(
        atime=NOW if flags & ATIME_NOW else atime if flags & ATIME else None,
        mtime=NOW if flags & MTIME_NOW else mtime if flags & MTIME else None,
    )


class Files(World):
    """The calls about open files."""

    def _pieces(self, at: int, count: int) -> list[tuple[int, int]]:
        """Return where the pieces of a read or write lie in memory, each in it, none empty, at most a MiB in all."""
        if count > IOVS:
            raise Error(INVAL)
        numbers = struct.unpack(f"<{2 * count}I", self.machine.memory.get(at, 8 * count))
        found: list[tuple[int, int]] = []
        room = MOST
        for p, n in zip(numbers[::2], numbers[1::2], strict=True):
            self.machine.memory.at(p, n)
            n = min(n, room)
            room -= n
            if n:
                found.append((p, n))
        return found

    def _scatter(self, pieces: list[tuple[int, int]], data: bytes) -> None:
        for p, n in pieces:
            self.machine.memory.put(p, data[:n])
            data = data[n:]
            if not data:
                return

    def _gathered(self, at: int, count: int) -> bytes:
        memory = self.machine.memory
        pieces = self._pieces(at, count)
        return memory.get(*pieces[0]) if len(pieces) == 1 else b"".join(memory.get(p, n) for p, n in pieces)

    def _file(self, fd: int, *, read: bool = False, write: bool = False) -> Opened:
        found = self.table.opened(fd)
        if found.directory:
            raise Error(ISDIR if read or write else BADF)
        if (read and not found.read_) or (write and not found.write_):
            raise Error(BADF)
        return found

    def _placed(self, fd: int, *, read: bool = False, write: bool = False) -> Opened:
        """Return an open file that is read or written at a place. Raises SPIPE for a stream."""
        if isinstance(self.table.get(fd), Stream):
            raise Error(SPIPE)
        return self._file(fd, read=read, write=write)

    def fd_read(self, fd: int, at: int, count: int, result: int) -> None:
        found = self.table.get(fd)
        pieces = self._pieces(at, count)
        self.machine.memory.at(result, 4)
        room = sum(n for _, n in pieces)
        if isinstance(found, Stream):
            if found.number != 0:
                raise Error(BADF)
            data = found.read(room) if room else b""
        else:
            self._file(fd, read=True)
            data = found.read(room) if room else b""
        self._scatter(pieces, data)
        self.machine.memory.put32(result, len(data))

    def fd_write(self, fd: int, at: int, count: int, result: int) -> None:
        found = self.table.get(fd)
        self.machine.memory.at(result, 4)
        data = self._gathered(at, count)
        if isinstance(found, Stream):
            if found.number == 0:
                raise Error(BADF)
            sink = found.write
        else:
            sink = self._file(fd, write=True).write
        taken = sink(data[: self.wrote(len(data))]) if data else 0
        self.written(taken)
        self.machine.memory.put32(result, taken)

    def fd_pread(self, fd: int, at: int, count: int, offset: int, result: int) -> None:
        found = self._placed(fd, read=True)
        pieces = self._pieces(at, count)
        self.machine.memory.at(result, 4)
        assert found.file is not None
        room = min(sum(n for _, n in pieces), found.file.iounit)
        data = found.file.pread(room, self._offset(offset)) if room else b""
        self._scatter(pieces, data)
        self.machine.memory.put32(result, len(data))

    def fd_pwrite(self, fd: int, at: int, count: int, offset: int, result: int) -> None:
        found = self._placed(fd, write=True)
        self.machine.memory.at(result, 4)
        data = self._gathered(at, count)
        assert found.file is not None
        put = partial(found.file.put, data[: self.wrote(len(data))], self._offset(offset))
        taken = found.synced(put) if data else 0
        self.written(taken)
        self.machine.memory.put32(result, taken)

    def _offset(self, offset: int) -> int:
        if offset >= _FAR:
            raise Error(INVAL)
        return offset

    def fd_seek(self, fd: int, delta: int, whence: int, result: int) -> None:
        found = self.table.get(fd)
        if isinstance(found, Stream) or found.file is None:
            raise Error(SPIPE if isinstance(found, Stream) else BADF)
        delta -= (delta & _FAR) << 1
        if whence > 2:
            raise Error(INVAL)
        if whence == 1:
            found.look()
        start = (0, found.position)[whence] if whence < 2 else found.file.stat().length
        if start + delta < 0:
            raise Error(INVAL)
        if start + delta >= _FAR:
            raise Error(OVERFLOW)
        self.machine.memory.put64(result, start + delta)
        found.seek(start + delta)

    def fd_tell(self, fd: int, result: int) -> None:
        self.fd_seek(fd, 0, 1, result)

    def fd_close(self, fd: int) -> None:
        found = self.table.get(fd)
        if isinstance(found, Opened):
            found.close()
        del self.table.open[fd]

    def fd_renumber(self, fd: int, to: int) -> None:
        found, other = self.table.get(fd), self.table.get(to)
        if fd == to:
            return
        if isinstance(other, Opened):
            other.close()
        self.table.open[to] = found
        del self.table.open[fd]

    def fd_sync(self, fd: int) -> None:
        found = self.table.get(fd)
        if isinstance(found, Opened) and found.file is not None:
            found.file.sync()

    def fd_datasync(self, fd: int) -> None:
        found = self.table.get(fd)
        if isinstance(found, Opened) and found.file is not None:
            found.file.sync(data=True)

    def fd_advise(self, fd: int, offset: int, length: int, advice: int) -> None:
        self.table.get(fd)
        if advice > 5:
            raise Error(INVAL)

    def fd_allocate(self, fd: int, offset: int, length: int) -> None:
        self._file(fd, write=True)
        raise Error(NOTSUP)  # 9P has no message for it

    def fd_fdstat_get(self, fd: int, result: int) -> None:
        found = self.table.get(fd)
        if isinstance(found, Stream):
            kind, rights = UNKNOWN, RIGHTS_STREAM  # as a pipe, which is no terminal
            reads, writes = found.number == 0, found.number != 0
        else:
            kind, rights = (DIRECTORY if found.directory else REGULAR), RIGHTS
            reads, writes = found.read_, found.write_
        # fcntl(2) of wasi-libc learns from them how a file is open
        rights &= ~((0 if reads else RIGHT_READ) | (0 if writes else RIGHTS_TO_WRITE))
        self.machine.memory.put(result, struct.pack("<BxHxxxxQQ", kind, found.flags, rights, RIGHTS))

    def fd_fdstat_set_flags(self, fd: int, flags: int) -> None:
        found = self.table.get(fd)
        if flags >> 5:
            raise Error(INVAL)
        if isinstance(found, Opened) and (flags ^ found.flags) & F_APPEND:
            raise Error(NOTSUP)  # 9P says it at opening alone
        found.flags = flags

    def fd_fdstat_set_rights(self, fd: int, base: int, inheriting: int) -> None:
        self.table.get(fd)

    def fd_filestat_get(self, fd: int, result: int) -> None:
        found = self.table.get(fd)
        if isinstance(found, Stream):
            packed = struct.pack("<QQB7xQQQQQ", 0, found.number, UNKNOWN, 1, 0, 0, 0, 0)
        elif found.file is None:
            assert self.table.space is not None
            packed = status(self.table.space.client.stat(found.place.path))
        else:
            packed = status(found.file.stat())
        self.machine.memory.put(result, packed)

    def fd_filestat_set_size(self, fd: int, size: int) -> None:
        found = self._file(fd, write=True)
        if size >= _FAR:
            raise Error(INVAL)
        assert found.file is not None
        found.file.change(Change(length=size))

    def fd_filestat_set_times(self, fd: int, atime: int, mtime: int, flags: int) -> None:
        found, change = self.table.opened(fd), times(atime, mtime, flags)
        if found.place.grant.readonly:
            raise Error(ROFS)
        if found.file is not None:
            found.file.change(change)
        else:
            assert self.table.space is not None
            self.table.space.client.change(found.place.path, change)

    def fd_prestat_get(self, fd: int, result: int) -> None:
        self.machine.memory.put(result, struct.pack("<II", 0, len(self._granted(fd))))

    def fd_prestat_dir_name(self, fd: int, text: int, n: int) -> None:
        name = self._granted(fd)
        if n < len(name):
            raise Error(INVAL)
        self.machine.memory.put(text, name)

    def _granted(self, fd: int) -> bytes:
        found = self.table.opened(fd)
        if not found.granted:
            raise Error(BADF)
        return found.place.grant.at.encode()

    def fd_readdir(self, fd: int, at: int, n: int, cookie: int, result: int) -> None:
        found = self.table.get(fd)
        memory = self.machine.memory
        memory.at(at, n)
        memory.at(result, 4)
        if not isinstance(found, Opened) or not found.directory:
            raise Error(NOTDIR)
        if cookie == 0 or found.listing is None:
            assert self.table.space is not None
            names = self.table.space.client.names(found.place.path)
            own = [(".", found.path, 4), ("..", found.path, 4)]
            found.listing = own + [(name, qid.path, kind) for name, qid, kind in names]
        out = bytearray()
        for number, (name, path, kind) in enumerate(found.listing[cookie : cookie + n // 24 + 1], cookie + 1):
            raw = name.encode(errors="surrogateescape")
            out += struct.pack("<QQIBxxx", number, path, len(raw), of_entry(kind)) + raw
            if len(out) >= n:
                break
        memory.put(at, bytes(out[:n]))
        memory.put32(result, min(len(out), n))
