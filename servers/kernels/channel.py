"""A pair of connected sockets, of which a guest's process inherits one end: consoles, QMP, the agent."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

import attrs
import trio

from mk9p.errors import NineError

if TYPE_CHECKING:
    from types import TracebackType


@attrs.define(eq=False)
class Channel:
    """Our end of a pair, and theirs until the guest's process has it."""

    ours: trio.socket.SocketType
    theirs: socket.socket

    @classmethod
    def open(cls) -> Channel:
        """Make a pair."""
        ours, theirs = socket.socketpair()
        return cls(trio.socket.from_stdlib_socket(ours), theirs)

    @property
    def number(self) -> int:
        """Return the descriptor that the guest's process inherits."""
        return self.theirs.fileno()

    def given(self) -> None:
        """Close their end here, once the guest's process has it: then its end is ours too."""
        self.theirs.close()

    def close(self) -> None:
        """Close both ends."""
        self.ours.close()
        self.theirs.close()

    async def receive(self) -> bytes:
        """Return what came, b"" at the end. Cancelled, it loses nothing."""
        try:
            return await self.ours.recv(65536)
        except ConnectionResetError:  # the other end had unread input when it went
            return b""

    async def send(self, data: bytes) -> None:
        """Send all of it. Raises NineError (EIO) when the other end is gone. Cancelled, a part may be sent."""
        view = memoryview(data)
        try:
            while view:
                view = view[await self.ours.send(view) :]
        except OSError:
            raise NineError(errno.EIO, "the kernel is not running") from None


@attrs.define(eq=False)
class Channels:
    """Several pairs that are closed together when a start fails half-way, and given together when it did not."""

    pairs: list[Channel] = attrs.Factory(list)

    def open(self) -> Channel:
        """Make a pair."""
        pair = Channel.open()
        self.pairs.append(pair)
        return pair

    @property
    def numbers(self) -> tuple[int, ...]:
        """Return the descriptors to inherit."""
        return tuple(pair.number for pair in self.pairs)

    def close(self) -> None:
        """Close all that is open."""
        for pair in self.pairs:
            pair.close()

    def __enter__(self) -> Channels:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pair in self.pairs:
            if kind is None:
                pair.given()
            else:
                pair.close()
