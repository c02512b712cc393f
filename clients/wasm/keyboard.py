"""The standard input of `mk9p wasm run`, which goes on with its program: what was read and not taken, and what may have to be given again."""

import errno
from typing import Final

import attrs
import trio

from mk9p.clients import terminal as local
from mk9p.clients.run import PIECE
from mk9p.errors import NineError
from mk9p.stdio import complain, told

MOST: Final = (
    16 << 20
)  # bytes that are kept, to be given again: of a program that takes more, a checkpoint must be newer


@attrs.define(eq=False)
class Keyboard:
    """This process's standard input. `keeps`: what was given is kept until a checkpoint has it, and can be given again from there."""

    keeps: bool = False
    piece: bytes | None = None  # what was read and not taken; b"" is the end
    at: int = 0  # bytes that were given to the program
    changed: trio.Event = attrs.field(factory=trio.Event)
    _kept: bytearray = attrs.field(factory=bytearray)
    _base: int = 0  # where in the input `_kept` begins

    async def read(self) -> None:
        """Read until the end."""
        while self.piece != b"":
            if self.piece is not None:
                await self.changed.wait()
                continue
            try:
                self.piece = await local.take(PIECE)
            except OSError as error:
                if error.errno not in (errno.EIO, errno.EBADF):
                    complain(f"mk9p wasm: {told(error)}")
                self.piece = b""
            self._change()

    def _change(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    @property
    def _end(self) -> int:
        return self._base + len(self._kept)

    async def next(self) -> bytes:
        """Wait for what is to be given next; b"" is the end."""
        while self.at == self._end and self.piece is None:
            await self.changed.wait()
        if self.at < self._end:
            return bytes(self._kept[self.at - self._base :][:PIECE])
        return self.piece or b""

    def took(self, n: int) -> None:
        """Note that `n` bytes of that were taken, which is all."""
        again = self.at < self._end
        self.at += n
        if again:
            return
        if self.keeps and self.piece is not None:
            self._kept += self.piece
            self.forget(self._end - MOST)
        else:
            self._base = self.at
        self.piece = None
        self._change()

    def forget(self, at: int) -> None:
        """Note that what is before a place in the input is not needed again."""
        n = min(max(at - self._base, 0), len(self._kept))
        del self._kept[:n]
        self._base += n

    def begin(self, at: int) -> None:
        """Note that a program begins that has had so much of its input, which was another's: this one is all that follows."""
        self.at = self._base = at

    def back(self, at: int) -> None:
        """Give the input again from a place on. Raises ENOBUFS where that is no longer kept."""
        if at < self._base:
            raise NineError(errno.ENOBUFS, f"{self._base - at} bytes of its input are no longer here")
        if at > self._end:
            # the kernel took a piece, and was gone before it told
            self.piece = (self.piece or b"")[at - self._end :] or (b"" if self.piece == b"" else None)
            self._kept.clear()
            self._base = at
            self._change()
        self.at = at
