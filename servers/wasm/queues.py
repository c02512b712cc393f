"""The standard streams of a program, on the server's side: what it wrote and nobody has read, what was written to it and it has not read.

A stream of a frozen program stands still: nothing is read from it, and nothing written to it, until the program goes on, here or elsewhere. So what
is in a stream belongs to the state, and each byte is given out once.
"""

import errno
import socket
from collections import deque
from collections.abc import Awaitable
from typing import Final

import trio

from mk9p.errors import NineError
from mk9p.tree import Maybe, Waiters

ROOM: Final = 65536  # bytes that wait in a stream before its writer has to: what a pipe of Linux holds
PIECE: Final = 65536
LEFT: Final = 4 << 20  # bytes that a socket may hold when the program has gone


class Output:
    """What a program writes (mk9p.tree.Store): all who have the file open take from it."""

    def __init__(self) -> None:
        self.pieces: deque[bytes] = deque()
        self.size = 0
        self.total = 0  # bytes that the program has written since it began, here and before
        self.held = False  # the program is frozen
        self.ended = False
        self.waiters = Waiters()
        self._room = trio.Event()
        self._waits = trio.CancelScope()

    def put(self, data: bytes) -> None:
        """Add what the program wrote."""
        if data:
            self.pieces.append(data)
            self.size += len(data)
            self.total += len(data)
            self.waiters.wake_all()

    def end(self) -> None:
        """Note that nothing more will come."""
        self.held, self.ended = False, True
        self.waiters.wake_all()

    def hold(self, yes: bool) -> None:
        """Let nothing out, or let it out again."""
        self.held = yes
        self.waiters.wake_all()

    def let_go(self) -> None:
        """Note that the program's process has gone: what is left of its output is no more than a socket holds, whoever else may write to it now."""
        self._waits.cancel()

    def all(self) -> bytes:
        """Return what nobody has read."""
        return b"".join(self.pieces)

    def clear(self) -> None:
        """Forget what nobody has read: it has gone elsewhere."""
        self.pieces.clear()
        self.size = 0

    async def pump(self, sock: socket.socket) -> None:
        """Take what comes by a socket until its end, and close it. It takes no more while too much waits, and so the program waits too."""
        with sock:
            with trio.CancelScope() as self._waits:
                while True:
                    while self.size >= ROOM:
                        self._room = trio.Event()
                        await self._room.wait()
                    await trio.lowlevel.wait_readable(sock)
                    if not self.drain(sock, PIECE):
                        return
            self.drain(sock, LEFT)

    def drain(self, sock: socket.socket, most: int) -> bool:
        """Take what has come by a socket, at most so much and a piece; nothing is in between. False is for its end."""
        while most > 0:
            try:
                data = sock.recv(PIECE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            except OSError:  # the program's process has gone
                return False
            if not data:
                return False
            self.put(data)
            most -= len(data)
        return True

    # mk9p.tree.Store

    def wait(self) -> Awaitable[None]:
        return self.waiters.wait()

    def take(self, room: int) -> bytes | None:
        if self.held:
            return None
        if not self.pieces:
            return b"" if self.ended else None
        piece = self.pieces.popleft()
        if len(piece) > room:
            self.pieces.appendleft(piece[room:])
            piece = piece[:room]
        self.size -= len(piece)
        self._room.set()
        return piece

    def untake(self, message: bytes) -> None:
        self.pieces.appendleft(message)
        self.size += len(message)
        self.waiters.wake_all()

    def send(self, data: bytes) -> None:
        raise NineError(errno.EACCES)

    def close(self) -> None:
        """Do nothing: others may have it open."""


class Input:
    """What a program reads. A write to it is taken whole, or not at all."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.total = 0  # bytes that were written to it since the program began, here and before
        self.held = False  # it is frozen, or is to be
        self.still = False  # it stands still for a checkpoint
        self.left = False  # the last writer has gone meanwhile
        self.closed = False  # nothing more will come
        self.ended = False  # nobody reads it any more
        self.writers = 0
        self._changed = trio.Event()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def write(self, data: bytes) -> int:
        """Wait for room, and take all of it. Raises EPIPE when nobody reads it any more, or after its end."""
        while not self.ended and not self.closed and (self.held or len(self.data) >= ROOM):
            await self._changed.wait()
        if self.ended or self.closed:
            raise NineError(errno.EPIPE)
        self.data += data
        self.total += len(data)
        self._change()
        return len(data)

    def finish(self) -> None:
        """Note that nothing more will be written."""
        self.closed = True
        self._change()

    def end(self) -> None:
        """Note that nobody reads it any more."""
        self.ended = True
        self._change()

    def hold(self, yes: bool) -> None:
        """Take nothing, and give the program nothing, or go on."""
        self.held = yes
        if not yes:
            self.closed = self.closed or (self.left and not self.writers)
            self.left = False
        self._change()

    def stand(self, still: bool) -> None:
        """Give the program nothing more, or go on."""
        self.still = still
        self._change()

    async def pump(self, sock: socket.socket) -> None:
        """Give a program what is written, until it is cancelled or the program has gone: it has got what is no longer here. Closes the socket."""
        with sock:
            while True:
                stands = self.still or self.held
                if stands or not self.data:
                    if self.closed and not stands:
                        sock.shutdown(socket.SHUT_WR)
                        await trio.sleep_forever()
                    await self._changed.wait()
                    continue
                await trio.lowlevel.wait_writable(sock)
                if self.still or self.held:
                    continue
                try:
                    sent = sock.send(self.data[:PIECE], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                except BlockingIOError:
                    continue
                except OSError:
                    return
                del self.data[:sent]
                self._change()


class Writing:
    """One open file for a program's input (mk9p.tree.Source). The last one that is closed ends the input."""

    def __init__(self, input_: Input) -> None:
        self.input = input_
        input_.writers += 1

    async def receive(self) -> bytes:
        raise NineError(errno.EACCES)

    def send(self, data: bytes) -> Maybe[int | None]:
        return self.input.write(data)

    def close(self) -> None:
        self.input.writers -= 1
        if self.input.writers:
            return
        if self.input.held:
            self.input.left = True
        else:
            self.input.finish()
