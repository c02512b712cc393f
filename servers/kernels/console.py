"""A console's history: every reader sees everything that is kept, from its own position. A reader that was too slow learns how much it lost."""

from __future__ import annotations

from typing import Final, Literal

import attrs
import trio

SERVE_ENDED: Final = b"mk9p: serve ended with status"  # guest/boot.sh
LONGEST_LINE: Final = 4096  # bytes of an unfinished line in which words are still looked for
KEPT: Final = 256 << 10  # bytes: several boots with all their messages
PIECE: Final = 64 << 10  # bytes of one read


@attrs.define(eq=False)
class History:
    """What a console said, its last `limit` bytes. `end` counts everything that it ever said."""

    limit: int = KEPT
    end: int = 0
    closed: bool = False
    _kept: bytearray = attrs.Factory(bytearray)
    _lot: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    @property
    def start(self) -> int:
        """Return the position of the oldest byte that is kept."""
        return self.end - len(self._kept)

    def add(self, data: bytes) -> None:
        """Keep more of what was said, and wake the readers."""
        self._kept += data
        self.end += len(data)
        del self._kept[: max(0, len(self._kept) - self.limit)]
        self._lot.unpark_all()

    def close(self) -> None:
        """Note that nothing more will come: readers get what is kept, then b""."""
        self.closed = True
        self._lot.unpark_all()

    def read(self, position: int, count: int = KEPT) -> bytes:
        """Return what is kept from a position on; the position must not be before `start`."""
        at = position - self.start
        return bytes(self._kept[at : at + count])

    async def wait(self, position: int) -> None:
        """Wait until there is something at a position, or never will be."""
        while self.end <= position and not self.closed:
            await self._lot.park()

    def reader(self) -> Reader:
        """Return a new reader, at the oldest byte that is kept."""
        return Reader(self, self.start)


@attrs.define
class Boots:
    """What a console says of a boot. `ready` are the words that say that the kernel can be used."""

    ready: bytes
    _line: bytes = b""

    def take(self, data: bytes) -> Literal["", "ready", "ended"]:
        """Take what came, and return whether the kernel is ready, or its serving has ended."""
        *lines, line = (self._line + data).split(b"\n")
        self._line = line[-LONGEST_LINE:]
        if any(self.ready in each for each in (*lines, line)):
            return "ready"
        return "ended" if any(SERVE_ENDED in each for each in lines) else ""


@attrs.define(eq=False)
class Reader:
    """One reader of a History: where it is."""

    history: History
    position: int

    async def receive(self) -> bytes:
        """Return what comes next, b"" at the end. Brackets tell how much was dropped meanwhile. If cancelled, it loses nothing."""
        history = self.history
        await history.wait(self.position)
        lost = max(0, history.start - self.position)
        self.position += lost
        data = history.read(self.position, PIECE)
        self.position += len(data)
        return f"\r\n[{lost} bytes lost]\r\n".encode() + data if lost else data
