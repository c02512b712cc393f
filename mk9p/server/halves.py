"""Frames of which only a part came: the server hangs up on a client that leaves half a frame for too long.

Any byte is progress, however slow the line is. Most half frames are whole within the same millisecond, so the server only notes whose they are: a
task looks at the noted ones, a few times in the time that they have, and sleeps as long as there are none.
"""

from typing import Final

import trio

from mk9p.server.connection import Connection
from mk9p.server.refusals import refuse

LOOKS: Final = 4  # looks in the time that a half frame has


class Halves:
    """The connections whose last frame was not whole at the last look."""

    def __init__(self) -> None:
        self._noted: dict[Connection, tuple[tuple[int, int], int]] = {}  # what was there of the frame, and how often
        self._some = trio.Event()

    def add(self, c: Connection) -> None:
        """Note a connection whose last frame is not whole yet."""
        if c not in self._noted:
            self._noted[c] = (-1, -1), 0
            self._some.set()

    async def watch(self, patience: float) -> None:
        """Hang up on all clients in the middle of whose frame nothing came for `patience` seconds, and up to a quarter more."""
        while True:
            await self._some.wait()
            self._some = trio.Event()
            while self._noted:
                for c, (before, looks) in list(self._noted.items()):
                    here = c.frames.head, c.frames.tail
                    if c.dead or not c.frames.pending:
                        del self._noted[c]
                    elif here != before or c.blocked or c.held or c.choked or c.queued:
                        self._noted[c] = here, 0
                    elif looks < LOOKS:
                        self._noted[c] = here, looks + 1
                    else:
                        del self._noted[c]
                        refuse(c, "partial", f"half a frame, and nothing more for {patience:g} s")
                        c.hang_up("it did not end its frame")
                await trio.sleep(patience / LOOKS)
