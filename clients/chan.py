"""Messages to and from other kernels in a Python program: `channel` opens one of `chan/`, `bell` rings and waits.

    async with channel(ns, "k/k1/chan/work") as work:
        await work.send(b"a message")
        answer = await work.receive()

A cancelled `receive` loses no message: the next one gets it, or, after the channel is closed, another reader does (tree/waiting.py says how).
"""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

from mk9p.client import Client, File
from mk9p.errors import NineError

__all__ = ["Bell", "Channel", "bell", "channel"]

PATIENCE = 5.0  # seconds that giving a message back may take, shielded


class Channel:
    """An open `data`: whole messages. Several tasks may send; tasks that receive take turns."""

    def __init__(self, file: File) -> None:
        self.file = file
        self._at = 0  # where the next message will be
        self._unsure = False  # a read was cancelled, and may have got an answer all the same
        self._turn = trio.Lock()

    async def send(self, message: bytes) -> None:
        """Send a message, and wait for room if the channel's policy says so.

        Raises EMSGSIZE for a message that is too long, ENOSPC if there is no room under the policy `fail`, EPIPE after the channel is gone. If
        cancelled, it may have been sent.
        """
        if len(message) >= self.file.iounit:
            raise NineError(
                errno.EMSGSIZE,
                f"{self.file.name}: a message of {len(message)} bytes, and msize allows {self.file.iounit - 1}",
            )
        await self.file.pwrite(message, 0)

    async def receive(self) -> bytes:
        """Wait for the next message and return it; b"" when the channel is gone. If cancelled, nothing is lost."""
        async with self._turn:
            self._unsure = True
            message = await self.file.pread(self.file.iounit, self._at)
            self._unsure = False
            # not where the message ends: there 9P2000.L has an end mark, which costs one more round trip
            self._at += len(message) + 1
            return message

    async def aclose(self) -> None:
        """Close it. A message that came when nobody wanted it any more goes back to the channel."""
        if self._unsure:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + PATIENCE), suppress(OSError):
                await self.file.pread(0, self._at)
        await self.file.aclose()


@asynccontextmanager
async def channel(ns: Client, path: str, mode: str = "r+") -> AsyncIterator[Channel]:
    """Open the channel in a directory: `r+` to send and receive, `w` or `r` for one of both. Raises NineError as opening does."""
    made = Channel(await ns.open(f"{path}/data", mode))
    try:
        yield made
    finally:
        await made.aclose()


class Bell:
    """An open `bell`."""

    def __init__(self, channel_: Channel) -> None:
        self._channel = channel_

    async def ring(self) -> None:
        """Ring it once."""
        await self._channel.send(b"\n")

    async def wait(self) -> int:
        """Wait for a ring and return how many there were since the last time; 0 when the channel is gone. If cancelled, none is lost."""
        return int(await self._channel.receive() or 0)


@asynccontextmanager
async def bell(ns: Client, path: str, mode: str = "r+") -> AsyncIterator[Bell]:
    """Open the bell of a channel, to ring and to wait, or with `w` or `r` for one of both."""
    made = Channel(await ns.open(f"{path}/bell", mode))
    try:
        yield Bell(made)
    finally:
        await made.aclose()
