"""Our ends of a command's pipes, or of its terminal: bytes as they come, never more of them held than the kernel's pipe and one piece.

A read gives what is there, b"" at the end. A write gives how much it took, at least a byte, waiting for room: so a cancelled one took nothing, and
none is ever half lost. Readers take turns, and writers.
"""

import errno
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import trio

from mk9p.errors import NineError

PIECE: Final = 65536  # what a pipe of Linux holds


class Pipe:
    """One descriptor, owned: read from it or write to it."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd: int | None = fd
        self._reading, self._writing = trio.Lock(), trio.Lock()

    async def receive(self) -> bytes:
        """Return the bytes that have come, waiting for the first; b"" at the end, and after `close`."""
        async with self._reading:
            while self.fd is not None:
                try:
                    return os.read(self.fd, PIECE)
                except BlockingIOError:
                    await _unless_closed(trio.lowlevel.wait_readable, self.fd)
                except OSError as error:
                    if error.errno == errno.EIO:  # a terminal says its end so: nobody has the other side any more
                        return b""
                    raise
            return b""

    async def send(self, data: bytes) -> int:
        """Write and return how many bytes were taken; raises EPIPE when the command reads no more."""
        async with self._writing:
            while self.fd is not None:
                try:
                    return os.write(self.fd, data)
                except BlockingIOError:
                    await _unless_closed(trio.lowlevel.wait_writable, self.fd)
            raise NineError(errno.EPIPE)

    def close(self) -> None:
        """Close the descriptor; who waits for it gets the end, or EPIPE. May be called again."""
        if self.fd is not None:
            trio.lowlevel.notify_closing(self.fd)
            os.close(self.fd)
            self.fd = None


async def _unless_closed(wait: Callable[[int], Awaitable[None]], fd: int) -> None:
    with suppress(trio.ClosedResourceError):
        await wait(fd)


class Stderr(Pipe):
    """The pipe of a command's errors, which is emptied while nobody has it open: else a command that complains much would stand still.

    Inferno throws away what was not asked for; here the first 64 KiB are kept for the one who asks later.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.kept = b""
        self._emptying = trio.CancelScope()

    async def receive(self) -> bytes:
        if self.kept:
            kept, self.kept = self.kept, b""
            return kept
        return await super().receive()

    def ignore(self, nursery: trio.Nursery) -> None:
        """Empty the pipe from now on and keep its beginning: nobody reads."""
        if self.fd is not None:
            self._emptying = trio.CancelScope()
            nursery.start_soon(self._empty, self._emptying)

    def listen(self) -> None:
        """Stop that: somebody reads now."""
        self._emptying.cancel()

    async def _empty(self, scope: trio.CancelScope) -> None:
        with scope:
            while piece := await super().receive():
                self.kept += piece[: PIECE - len(self.kept)]
