"""`data` and the parts: a run of a disk's bytes, read and written at any offset and length.

The call itself does reads that the page cache can answer (RWF_NOWAIT, preadv2(2)). A thread waits for what is not in the cache. A thread also does
writes, which wait when too much is dirty, and when the kernel must read a page before it writes a part of it; kernels before 6.6 never write to a
device without waiting. A short answer would mean the end of the file, so when the cache has only the beginning of an answer, a thread completes
it. Nobody can leave a part: reads end with it, and writes past it are ENOSPC.

A device that vanished reads as empty to those who have it open, which looks like an end. So at an unexpected end the code checks whether the disk
is still there.
"""

import errno
import os
from typing import Final

import trio

from mk9p.errors import NineError
from mk9p.servers.block.disk import Disk
from mk9p.servers.block.tables import Part
from mk9p.sysfs import boot
from mk9p.tree import Buffer, File, Handle, Maybe, Open, Stat

_GONE: Final = frozenset({errno.ENXIO, errno.ENODEV})


class Extent(File):
    """The whole disk (`part` None), or one of its parts. Mode 0600."""

    def __init__(self, disk: Disk, part: Part | None = None) -> None:
        super().__init__(0o600)
        self.disk, self.part = disk, part
        self.name = part.name if part else "data"
        self.start = part.start * disk.sector if part else 0

    def size(self) -> int:
        """Return the present length in bytes."""
        length = self.disk.look()
        return length if self.part is None else max(0, min(self.part.end * self.disk.sector, length) - self.start)

    def life(self) -> Maybe[int]:
        return boot()  # what was written is in the kernel's memory

    def stat(self) -> Stat:
        if (length := self.size()) != self._stat.length:
            self._stat = self._stat._replace(length=length)
        return self._stat

    async def open(self, how: Open) -> Handle:
        disk = self.disk
        disk.look()
        disk.here()
        if how.write and disk.readonly:
            raise NineError(errno.EROFS)
        flags = (os.O_RDWR if how.write else os.O_RDONLY) | os.O_CLOEXEC
        # from now on: delpart must not remove the part while this code waits
        disk.users[self.name] = disk.users.get(self.name, 0) + 1
        try:
            fd = await trio.to_thread.run_sync(os.open, disk.path, flags, limiter=disk.threads)
        except BaseException as error:
            self.closed()
            if isinstance(error, OSError) and error.errno in _GONE | {errno.ENOENT}:
                raise NineError(errno.EIO, f"{disk.name} is gone") from None
            raise
        return _Opened(self, fd)

    def closed(self) -> None:
        self.disk.users[self.name] -= 1


class _Opened(Handle):
    def __init__(self, file: Extent, fd: int) -> None:
        self.file, self.disk, self.fd = file, file.disk, fd
        self.nowait = self.nowait_write = True  # whether the device can read, and write, without waiting
        self.length = file.size()

    def room(self, offset: int, count: int) -> int:
        """Return how many of `count` bytes there are at `offset`. Raises EIO if the disk is gone."""
        if offset + count > self.length:
            self.length = self.file.size()
        self.disk.here()
        return min(count, max(0, self.length - offset))

    def read(self, offset: int, count: int) -> Maybe[Buffer]:
        room = self.room(offset, count)
        if not room:
            return b""
        at = self.file.start + offset
        if not self.nowait:
            return self._read(b"", at, room)
        data = bytearray(room)
        try:
            got = os.preadv(self.fd, (data,), at, os.RWF_NOWAIT)
        except BlockingIOError:
            return self._read(b"", at, room)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise self.lost(error) from None
            self.nowait = False
            return self._read(b"", at, room)
        return data if got == room else self._read(bytes(data[:got]), at + got, room - got)

    async def _read(self, first: bytes, at: int, count: int) -> Buffer:
        try:
            rest = await trio.to_thread.run_sync(os.pread, self.fd, count, at, limiter=self.disk.threads)
        except OSError as error:
            raise self.lost(error) from None
        if not rest:
            self.file.size()
            self.disk.here()
        return first + rest if first else rest

    def write(self, offset: int, data: memoryview) -> Maybe[int]:
        room = self.room(offset, len(data))
        if self.disk.readonly:
            raise NineError(errno.EROFS)
        if not room:
            if len(data):
                raise NineError(errno.ENOSPC, f"past the end of {self.file.name}")
            return 0
        at = self.file.start + offset
        if self.nowait_write:
            try:
                return os.pwritev(self.fd, (data[:room],), at, os.RWF_NOWAIT)
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise self.lost(error) from None
                self.nowait_write = False
        return self._write(at, bytes(data[:room]))

    async def _write(self, at: int, data: bytes) -> int:
        try:
            return await trio.to_thread.run_sync(os.pwrite, self.fd, data, at, limiter=self.disk.threads)
        except OSError as error:
            raise self.lost(error) from None

    def lost(self, error: OSError) -> OSError:
        """Return what an error means: EIO if the disk is gone, EROFS if it no longer takes writes."""
        self.file.size()
        if self.disk.gone or error.errno in _GONE:
            return NineError(errno.EIO, f"{self.disk.name} is gone")
        return NineError(errno.EROFS) if error.errno == errno.EPERM and self.disk.readonly else error

    def stat(self) -> Stat:
        return self.file.stat()

    async def sync(self, *, data: bool = False) -> None:
        self.disk.here()
        await trio.to_thread.run_sync(os.fsync, self.fd, limiter=self.disk.threads)

    async def close(self) -> None:
        """Close in a thread: the last close of a device waits until everything is written."""
        try:
            await trio.to_thread.run_sync(os.close, self.fd, limiter=self.disk.threads)
        finally:
            self.file.closed()
