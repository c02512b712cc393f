"""`N/9p`: whoever has it open serves the program's files. What is read there are the program's requests, what is written are the answers."""

import errno
import socket

import trio

from mk9p.errors import NineError
from mk9p.tree import Maybe, Open

_PIECE = 1 << 17


class Line:
    """The one line of a program. Each run of the program takes a new one: an open `9p` ends with the run, and somebody opens it again."""

    def __init__(self) -> None:
        self.holder: Serving | None = None
        self._came = trio.Event()

    def open(self, how: Open) -> "Serving":
        """Open the file. Raises EBUSY where somebody serves it already."""
        if self.holder is not None:
            raise NineError(errno.EBUSY)
        self.holder = Serving(self)
        self._came.set()
        return self.holder

    def left(self, who: "Serving") -> None:
        """Note that it was closed, or has ended."""
        if self.holder is who:
            self.holder = None

    async def take(self, seconds: float) -> socket.socket:
        """Wait for somebody who serves, and return the program's end of the line. Raises ENOTCONN when nobody comes."""
        with trio.move_on_after(seconds):
            while self.holder is None:
                self._came = trio.Event()
                await self._came.wait()
        if self.holder is None:
            raise NineError(
                errno.ENOTCONN, "nobody serves what was granted: say `namespace DIAL` before, or serve it by `9p`"
            )
        return self.holder.begin()


class Serving:
    """One open `9p` (mk9p.tree.Source)."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.sock: trio.socket.SocketType | None = None
        self._begun = trio.Event()

    def begin(self) -> socket.socket:
        """Make the line and return the program's end."""
        ours, theirs = socket.socketpair()
        self.sock = trio.socket.from_stdlib_socket(ours)
        self._begun.set()
        return theirs

    async def receive(self) -> bytes:
        await self._begun.wait()
        try:
            data = await self.sock.recv(_PIECE) if self.sock is not None else b""
        except OSError:
            data = b""
        if not data:
            self.line.left(self)
        return data

    def send(self, data: bytes) -> Maybe[int | None]:
        if self.sock is None:
            raise NineError(errno.EPIPE)
        return self._send(self.sock, data)

    async def _send(self, sock: trio.socket.SocketType, data: bytes) -> int:
        try:
            return await sock.send(data)
        except OSError:
            raise NineError(errno.EPIPE) from None

    def close(self) -> None:
        self.line.left(self)
        if self.sock is not None:
            self.sock.close()
            self.sock = None
        self._begun.set()
