"""This side's ends of a command's pipes, or of its terminal: bytes as they come. They hold never more than the kernel's pipe and one piece.

A read gives what is there, and b"" at the end. A write waits for room and gives how much it took, at least a byte. So a cancelled read or write
took nothing, and none is ever half lost. Readers take turns, and so do writers.

**Every call on a pipe may wait for as long as its other end likes**, with or without O_NONBLOCK. read, write and the last close take the pipe's
lock (Linux, fs/pipe.c), and a program that splices a file into a pipe holds that lock while it waits for the file (fs/splice.c). sendfile(2) does
so, and with it busybox's `cat` of a 9P file whose read waits. RWF_NOWAIT takes the lock all the same. A socket has no such lock, but a program
that opens /dev/stdout or /dev/stderr fails on one (ENXIO), and shell scripts often do that. So this code waits without a call, and makes the calls
in threads (locked.py): a stuck call holds up only the users of that pipe, until the holder lets go or has ended. A terminal has no such lock and
needs no thread.
"""

import errno
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import outcome
import trio

from mk9p.errors import NineError
from mk9p.servers.cmd.locked import Call, Locked

PIECE: Final = 65536  # what a pipe of Linux holds
PATIENCE: Final = 1.0  # seconds that a cancelled write waits for what it has taken; it takes no time unless somebody else holds the pipe


class Terminal:
    """The master side of a terminal, or one end of a pair of sockets, owned."""

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
                    if error.errno in (
                        errno.EIO,
                        errno.ECONNRESET,
                    ):  # this is the end: nobody has the other side any more
                        return b""
                    raise
            return b""

    async def send(self, data: bytes) -> int:
        """Write and return how many bytes were taken; raises EPIPE after `close`."""
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


class Pipe:
    """One end of a pipe, owned: read from it or write to it."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.end: Locked | None = Locked(fd)
        self._turn = trio.Lock()
        self._call: Call | None = None  # that is running, or whose result nobody has taken yet

    async def receive(self) -> bytes:
        """Return the bytes that have come, waiting for the first; b"" at the end, and after `close`. If cancelled, it leaves them to the next
        read."""
        async with self._turn:
            while self.end is not None:
                if self._call is None:
                    await _unless_closed(trio.lowlevel.wait_readable, self.end.fd)
                    if self.end is None:
                        break
                    self._call = self.end.call(os.read, PIECE)
                got = await self._call.result()
                self._call = None
                if got is not None:
                    with suppress(BlockingIOError):
                        return bytes(got.unwrap())
            return b""

    async def send(self, data: bytes) -> int:
        """Write and return how many bytes were taken; raises EPIPE when the command no longer reads, and after `close`."""
        async with self._turn:
            while self.end is not None:
                if self._call is not None:  # of a write that was given up: what comes now must not overtake it
                    await self._call.result()
                    self._call = None
                    continue
                await _unless_closed(trio.lowlevel.wait_writable, self.end.fd)
                if self.end is None:
                    break
                self._call = call = self.end.call(os.write, data)
                got = await _almost_surely(call)
                self._call = None
                if got is not None:
                    with suppress(BlockingIOError):
                        return int(got.unwrap())
            raise NineError(errno.EPIPE)

    def close(self) -> None:
        """Close the descriptor; who waits for it gets the end, or EPIPE. May be called again."""
        if self.end is not None:
            trio.lowlevel.notify_closing(self.end.fd)
            end, self.end = self.end, None
            end.close()
            if self._call is not None:
                self._call.set_result(None)


async def _unless_closed(wait: Callable[[int], Awaitable[None]], fd: int) -> None:
    with suppress(trio.ClosedResourceError):
        await wait(fd)


async def _almost_surely(call: Call) -> outcome.Outcome[Any] | None:
    """Return a call's result, also if cancelled meanwhile, unless it does not come in time."""
    try:
        return await call.result()
    except trio.Cancelled:
        with trio.move_on_after(PATIENCE, shield=True):
            return await call.result()
        raise


class Stderr(Pipe):
    """The pipe of a command's errors. While nobody has it open, the server empties it: otherwise a command that complains much would stand still.

    Inferno throws away what nobody asked for. Here the first 64 KiB stay for a reader that asks later.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.kept = b""
        self._emptying = trio.CancelScope()

    async def receive(self) -> bytes:
        if not self.kept:
            piece = await super().receive()
            # The server may have been about to keep what came before, when somebody began to read.
            self.kept += piece
        kept, self.kept = self.kept, b""
        return kept

    def ignore(self, nursery: trio.Nursery) -> None:
        """Empty the pipe from now on and keep its beginning, because nobody reads."""
        if self.end is not None:
            self._emptying = trio.CancelScope()
            nursery.start_soon(self._empty, self._emptying)

    def listen(self) -> None:
        """Stop emptying it, because somebody reads now."""
        self._emptying.cancel()

    async def _empty(self, scope: trio.CancelScope) -> None:
        with scope:
            while piece := await super().receive():
                self.kept += piece[: PIECE - len(self.kept)]
