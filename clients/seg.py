"""Shared memory in a Python program: `map_segment` gives a segment of this machine as a buffer, `open_segment` opens one of any kernel.

async with map_segment(ns, "k/k0/seg/x") as buffer:     # its descriptor comes over a unix socket: no byte of it goes through 9P
    buffer[:5] = b"hello"

async with open_segment(ns, "k/k1/seg/x") as segment:   # memory where it can be mapped, else reads and writes of its `data`
    await segment.pwrite(b"hello", 0)
"""

import errno
import mmap
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

from mk9p.client import Client, File
from mk9p.dial import SocketLink, dial
from mk9p.errors import NineError
from mk9p.ktext import split_words, trim, whole

__all__ = ["Segment", "map_segment", "open_segment"]

PATIENCE = 10.0  # seconds that the server may take to hand out a descriptor
BOOT_ID = "/proc/sys/kernel/random/boot_id"


@asynccontextmanager
async def map_segment(ns: Client, path: str) -> AsyncIterator[mmap.mmap]:
    """Map a segment of this machine, for reading and, where its bits allow it, writing: `async with map_segment(ns, "k/k0/seg/x") as buffer`.

    Raises NineError: EXDEV for a segment in another kernel's memory, or out of reach, EACCES, EINVAL for one that has no size yet.
    """
    buffer = await _mapped(ns, path)
    try:
        yield buffer
    finally:
        _unmap(buffer)


class Segment:
    """A segment of any kernel. `buffer` is its memory, None if that is on another machine."""

    def __init__(self, file: File, size: int, buffer: mmap.mmap | None) -> None:
        self._file, self.size, self.buffer = file, size, buffer

    async def pread(self, n: int, offset: int) -> bytes:
        """Return at most `n` bytes at `offset`, fewer at the end. Raises as `File.pread`."""
        if self.buffer is None:
            return await self._file.pread(n, offset)
        await trio.lowlevel.checkpoint()
        return self.buffer[offset : offset + n]

    async def pwrite(self, data: bytes, offset: int) -> int:
        """Write all of `data` at `offset` and return its length. Raises ENOSPC if it goes past the end, and as `File.pwrite`."""
        if offset + len(data) > self.size:
            raise NineError(errno.ENOSPC, f"past the end: the segment has {self.size} bytes")
        if self.buffer is None:
            return await self._file.pwrite(data, offset)
        await trio.lowlevel.checkpoint()
        self.buffer[offset : offset + len(data)] = data
        return len(data)


@asynccontextmanager
async def open_segment(ns: Client, path: str) -> AsyncIterator[Segment]:
    """Open a segment of any kernel: in memory where it can be mapped, by reads and writes of its `data` where it cannot."""
    buffer: mmap.mmap | None
    try:
        buffer = await _mapped(ns, path)
    except NineError as error:
        if error.errno != errno.EXDEV:
            raise
        buffer = None
    try:
        async with await ns.open(f"{path}/data", "r+") as file:
            yield Segment(file, (await file.stat()).length, buffer)
    finally:
        if buffer is not None:
            _unmap(buffer)


async def _mapped(ns: Client, path: str) -> mmap.mmap:
    boot, address, name = split_words(await ns.read(f"{path}/fd"))
    if boot != trim(whole(BOOT_ID)):
        raise NineError(errno.EXDEV, f"{path} is in another kernel's memory: it can be read and written, not mapped")
    try:
        link = await dial(address)
    except OSError as error:
        raise NineError(errno.EXDEV, f"{path} cannot be mapped from here: {error.strerror}") from None
    assert isinstance(link, SocketLink)
    try:
        link.sock.send(f"{name}\n".encode())
        with trio.move_on_after(PATIENCE):
            await link.wait_readable()
            said, fds, _, _ = socket.recv_fds(link.sock, 4096, 1, socket.MSG_CMSG_CLOEXEC)
            return _map(path, said.decode(), fds)
    finally:
        link.close()
    raise NineError(errno.ETIMEDOUT, f"{path}: its server does not answer")


def _map(path: str, said: str, fds: list[int]) -> mmap.mmap:
    """Map what the server handed over; close the descriptors, which a mapping does not need."""
    try:
        head, _, rest = said.strip().partition(" ")
        if not fds:
            raise NineError(int(head or errno.EIO), f"{path}: {rest or 'its server does not answer'}")
        return mmap.mmap(fds[0], int(rest), access=mmap.ACCESS_WRITE if head == "rw" else mmap.ACCESS_READ)
    finally:
        for fd in fds:
            os.close(fd)


def _unmap(buffer: mmap.mmap) -> None:
    with suppress(BufferError):  # somebody still holds a view of it: the mapping goes with the last one
        buffer.close()
