"""Open files and directories of the host.

The call itself reads what is in the page cache (RWF_NOWAIT), and a thread waits only for the rest; so a cold disk holds up nobody else. Writes go
to the page cache in the call, except for files opened with O_SYNC or O_DSYNC. A thread reads a file system that does not know RWF_NOWAIT, unless
it is in memory.

A short answer means the end of the file to our clients, so a thread completes what the cache has only the beginning of. The kernel stops at a
missing page: a short read that ends within a page has met the end. And because v9fs asks for a megabyte whatever the file's size, a read takes no
more memory than the file had bytes at the last look.
"""

import errno
import os
from os import stat as os_stat
from typing import TYPE_CHECKING, Final

import trio

from mk9p.errors import NineError
from mk9p.servers.fs import buffers, changes, kernel, locks
from mk9p.tree import Buffer, Change, Handle, Lock, Maybe, Open, Stat
from mk9p.wire import L_DSYNC, L_NOATIME, L_SYNC

if TYPE_CHECKING:
    from mk9p.servers.fs.held import Held

_PASSED: Final = ((L_DSYNC, os.O_DSYNC), (L_SYNC, os.O_SYNC), (L_NOATIME, os.O_NOATIME))
_ANY: Final = L_DSYNC | L_SYNC | L_NOATIME
_NOWAIT: Final = os.RWF_NOWAIT
_PAGE: Final = 4095
_LEAST: Final = 4096
_MOST: Final = 1 << 63


def flags_of(how: Open) -> int:
    """Return the flags of open(2), in this machine's numbers."""
    flags = os.O_RDONLY if not how.write else os.O_RDWR if how.read else os.O_WRONLY
    if how.append:
        flags |= os.O_APPEND
    if how.flags & _ANY:
        for bit, ours in _PASSED:
            if how.flags & bit == bit:
                flags |= ours
    return flags


class FsDirectory(Handle):
    """An open directory: for fsync(2), which makes new names survive."""

    prompt = True

    def __init__(self, node: "Held", fd: int) -> None:
        self.node, self.fd = node, fd

    async def sync(self, *, data: bool = False) -> None:
        await trio.to_thread.run_sync(os.fdatasync if data else os.fsync, self.fd)

    def close(self) -> Maybe[None]:
        os.close(self.fd)
        return None


class FsFile(Handle):
    """An open file: a descriptor of its own."""

    prompt = True
    truncates = True

    def __init__(self, node: "Held", fd: int, how: Open, known: os.stat_result | None) -> None:
        self.node, self.fd, self.how = node, fd, how
        self.size, self.device = (known.st_size, known.st_dev) if known is not None else (0, -1)  # at the last look
        memory = node.export.memory.get(self.device)
        self.nowait = memory is None  # whether the file system can read without waiting
        self.memory = memory is True  # whether it has nothing to wait for
        self.synchronous = bool(how.flags & os.O_DSYNC)
        if how.write:
            self.acting = node.export.acting(how.who, fd)

    def stat(self) -> Maybe[Stat] | None:
        return self.node.status(os_stat(self.fd))

    def read(self, offset: int, count: int) -> Maybe[Buffer]:
        if not self.nowait:
            return self._read_plain(offset, count)
        room = self.size - offset + 1
        if room < _LEAST:
            room = _LEAST
        if room > count:
            room = count
        data = bytearray(room) if room < buffers.LEAST else buffers.take(room)
        try:
            got = os.preadv(self.fd, (data,), offset, _NOWAIT)
        except BlockingIOError:
            return self._read_later(b"", offset, count)
        except OverflowError:
            raise NineError(errno.EINVAL) from None
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            self.nowait = False
            self.memory = kernel.filesystem(self.fd) in kernel.MEMORY
            if self.device >= 0:
                self.node.export.memory[self.device] = self.memory
            return self._read_plain(offset, count)
        if got == room:
            if room == count:
                return memoryview(data)
            self.size = os.fstat(self.fd).st_size  # it has grown
            return self.read(offset, count)
        if got and not (offset + got) & _PAGE and os.fstat(self.fd).st_size > offset + got:
            return self._read_later(bytes(data[:got]), offset + got, count - got)
        return buffers.filled(data, got)

    def _read_plain(self, offset: int, count: int) -> Maybe[Buffer]:
        if offset >= _MOST:
            raise NineError(errno.EINVAL)
        return os.pread(self.fd, count, offset) if self.memory else self._read_later(b"", offset, count)

    async def _read_later(self, first: bytes, offset: int, count: int) -> Buffer:
        rest = await trio.to_thread.run_sync(os.pread, self.fd, count, offset)
        return first + rest if first else rest

    def write(self, offset: int, data: memoryview) -> Maybe[int]:
        if offset >= _MOST:
            raise NineError(errno.EINVAL)
        if self.synchronous:
            return trio.to_thread.run_sync(self._write, bytes(data), offset)
        with self.acting:
            return os.pwrite(self.fd, data, offset)

    def _write(self, data: bytes, offset: int) -> int:
        with self.acting:
            return os.pwrite(self.fd, data, offset)

    def change(self, change: Change) -> Maybe[None]:
        """Set the length, which opening for writing allowed, and the rest as the node does."""
        changes.apply(self.node, change, self.how.who, self.fd)
        return None

    def lock(self, lock: Lock) -> Maybe[bool]:
        try:
            return locks.lock(self.node.path, self.fd, lock)
        finally:
            self.locks = locks.held(self.node.path, self.fd)

    def locked(self, lock: Lock) -> Maybe[Lock | None]:
        return locks.locked(self.node.path, self.fd, lock)

    async def sync(self, *, data: bool = False) -> None:
        await trio.to_thread.run_sync(os.fdatasync if data else os.fsync, self.fd)

    def close(self) -> Maybe[None]:
        locks.forget(self.node.path, self.fd)
        os.close(self.fd)
        return None
