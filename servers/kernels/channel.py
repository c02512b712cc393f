"""A pair of connected sockets. A guest's process inherits one end: consoles, QMP, the agent."""

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
    """This side's end of a pair, and the other end until the guest's process has it."""

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
        """Close the other end here, after the guest's process has it: then the end of the guest is the end of the channel."""
        self.theirs.close()

    def close(self) -> None:
        """Close both ends."""
        self.ours.close()
        self.theirs.close()

    async def receive(self) -> bytes:
        """Return what came, b"" at the end. If cancelled, it loses nothing."""
        return await received(self.ours)

    async def send(self, data: bytes) -> None:
        """Send all of it. Raises NineError (EIO) when the other end is gone. If cancelled, it may have sent a part."""
        await send_all(self.ours, data)


async def received(ours: trio.socket.SocketType) -> bytes:
    """Return what came from a kernel's socket, b"" at the end. If cancelled, it loses nothing."""
    try:
        return await ours.recv(65536)
    except ConnectionResetError:  # the other end went with unread input
        return b""


async def send_all(ours: trio.socket.SocketType, data: bytes) -> None:
    """Send all of some bytes to a kernel's socket. Raises NineError (EIO) when the other end is gone. If cancelled, it may have sent a part."""
    view = memoryview(data)
    try:
        while view:
            view = view[await ours.send(view) :]
    except OSError:
        raise NineError(errno.EIO, "the kernel is not running") from None


@attrs.define(eq=False)
class Channels:
    """Several pairs. They are closed together when a start fails half-way, and handed over together when it does not."""

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
