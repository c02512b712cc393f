"""What carries bytes between two tasks: by a channel of the reader's kernel, in which they wait.

A channel has no end of a file, so the two sides count messages: the reader's input ends when all that were sent have been given to it.
"""

import errno
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

from mk9p.errors import NineError
from mk9p.servers.tf.reach import KERNELS, PIECE, File, Space
from mk9p.servers.tf.work import Work

PARTS: Final = 16 << 20  # bytes of all lines of a farm that have no end yet
LONGEST: Final = 1 << 20  # bytes of a line: one without an end would fill our memory
GONE: Final = (errno.EPIPE, errno.EBADF)  # the reader has closed its input, or has ended


@attrs.define(eq=False)
class Channel:
    """A channel in a kernel, opened to send and to receive."""

    ctl: File
    sending: File
    receiving: File
    sent: int = 0  # messages that we have written to it, or are writing
    taken: int = 0  # … that the reader has got

    @property
    def empty(self) -> bool:
        """Tell whether the reader has all of it."""
        return self.taken == self.sent

    @classmethod
    async def make(cls, space: Space, kernel: str) -> "Channel":
        """Make a channel. Raises what is in the way."""
        files: list[File] = []
        try:
            files.append(await space.open(f"{KERNELS}/{kernel}/chan/clone", write=True))
            path = f"{KERNELS}/{kernel}/chan/{await files[0].number()}/data"
            files.append(await space.open(path, read=False, write=True))
            files.append(await space.open(path))
        except BaseException as error:
            with trio.CancelScope(shield=True):
                for file in files:
                    await file.close()
            if isinstance(error, OSError):
                raise NineError(error.errno or errno.EIO, f"{kernel}/chan: {error.strerror}") from None
            raise
        return cls(files[0], files[1], files[2])

    async def close(self) -> None:
        """Take it away, and what waits in it."""
        for file in (self.sending, self.receiving, self.ctl):
            await file.close()


@attrs.define(eq=False)
class Pipe:
    """A pipe between two tasks. `broken`: the reader took no more. What is sent goes into the last channel; all before are emptied first."""

    source: Work
    to: Work
    channels: deque[Channel]
    broken: bool = False
    _ended: bool = False
    _waiting: trio.CancelScope = attrs.field(factory=trio.CancelScope)  # for what comes by the first channel

    async def run(self) -> None:
        """Carry until one side ends, then tell the other. Raises OSError when a kernel is gone."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send, nursery.cancel_scope.cancel)
            nursery.start_soon(self._receive, nursery.cancel_scope.cancel)
        if self.broken:
            await self.source.end_output()
        else:
            await self.to.end_input()

    async def _send(self, done: Callable[[], None]) -> None:
        while data := await self.source.read():
            channel = self.channels[-1]
            channel.sent += 1
            await channel.sending.write(data)
        self._ended = True
        if all(channel.empty for channel in self.channels):
            done()

    async def _receive(self, done: Callable[[], None]) -> None:
        while True:
            channel = self.channels[0]
            if channel.empty and len(self.channels) > 1:
                await channel.close()
                self.channels.popleft()
                continue
            if channel.empty and self._ended:
                break
            with trio.CancelScope() as self._waiting:
                data = await channel.receiving.read(1 << 16)
            if self._waiting.cancelled_caught:
                continue
            try:
                await self.to.write(data)
            except OSError as error:
                if error.errno not in GONE:
                    raise
                self.broken = True
                break
            channel.taken += 1
        done()

    def go_by(self, channel: Channel) -> None:
        """Send by another channel from now on."""
        last = self.channels[-1]
        self.channels.append(channel)
        # a read that is given up may lose a message: only of an empty channel it is no loss, and others have something to read
        if last is self.channels[0] and last.empty:
            self._waiting.cancel()

    async def close(self) -> None:
        """Take all channels away."""
        for channel in self.channels:
            await channel.close()


@attrs.define
class Held:
    """The bytes of the lines of a farm that have not come to their end yet."""

    bytes: int = 0

    def change(self, before: int, now: int) -> None:
        """Note that one line is longer or shorter now. Raises EMSGSIZE for a long one, where all of them together are too much."""
        self.bytes += now - before
        if self.bytes > PARTS and now > PIECE:
            raise NineError(errno.EMSGSIZE, f"lines of a farm that have no end yet have more than {PARTS} bytes")


@attrs.define(eq=False)
class Lines:
    """The lines of what `read` gives, each with its newline. `whole`: what follows the last newline is no line, because somebody was cut
    off. `cut`: a line that is too long comes in pieces."""

    read: Callable[[], Awaitable[bytes]]
    whole: bool = False
    cut: bool = False
    held: Held = attrs.field(factory=Held)
    _rest: bytes = b""
    _ready: deque[bytes] = attrs.field(factory=deque)
    _over: bool = False

    async def next(self) -> bytes:
        """Return the next line, b"" at the end. Raises EMSGSIZE for one that is too long, and as `read`; if cancelled, nothing is lost."""
        while not self._ready:
            if self._over:
                return b""
            try:
                data = await self.read()
            except OSError:
                self._keep(b"")
                raise
            if not data:
                self._over = True
                if self._rest and not self.whole:
                    self._ready.append(self._rest if self.cut else self._rest + b"\n")
                self._keep(b"")
                continue
            *whole, rest = (self._rest + data).split(b"\n")
            self._keep(rest)
            self._ready.extend(line + b"\n" for line in whole)
            if self.cut and len(self._rest) >= PIECE:
                self._ready.append(self._rest)
                self._keep(b"")
            elif len(self._rest) > LONGEST:
                raise NineError(errno.EMSGSIZE, f"a line of more than {LONGEST} bytes")
        return self._ready.popleft()

    def _keep(self, rest: bytes) -> None:
        """Keep the beginning of a line until more of it comes."""
        self.held.change(len(self._rest), len(rest))
        self._rest = rest
