"""What waits for readers: messages in a `Line`, rings in `Rings`. In queue mode all readers share one, in broadcast mode each open reader has one.

Neither knows of handles or of 9P. Taking never waits: it takes something or nothing. A reader that finds nothing waits in `waiters`, and each
thing that comes wakes one.
"""

import errno
from collections import deque

import attrs

from mk9p.errors import NineError
from mk9p.tree import Waiters


@attrs.define(eq=False)
class Line:
    """Messages that wait, the oldest first. `lost` counts the messages dropped since the last mark; `marked` says whether readers are told of
    them."""

    marked: bool = False
    waiting: deque[bytes] = attrs.field(factory=deque)
    held: int = 0  # bytes
    lost: int = 0
    waiters: Waiters = attrs.field(factory=Waiters)

    def put(self, message: bytes) -> None:
        self.waiting.append(message)
        self.held += len(message)
        self.waiters.wake()

    def drop(self) -> None:
        """Drop the oldest message."""
        self.held -= len(self.waiting.popleft())
        self.lost += 1

    def clear(self) -> int:
        """Drop all messages and return how many there were."""
        count = len(self.waiting)
        self.lost += count
        self.waiting.clear()
        self.held = 0
        return count

    def take(self, room: int) -> bytes | None:
        """Take the oldest message, or the mark of lost messages before it; None if there is none. Raises EMSGSIZE if it has more than `room`
        bytes."""
        mark = f"lost {self.lost}\n".encode() if self.marked and self.lost else b""
        if not mark and not self.waiting:
            return None
        message = mark or self.waiting[0]
        if len(message) > room:
            self.waiters.wake()  # the message stays, and another reader may have more room
            raise NineError(
                errno.EMSGSIZE,
                f"the next message has {len(message)} bytes, and the read asks for {room}: the message stays",
            )
        if mark:
            self.lost = 0
        else:
            self.waiting.popleft()
            self.held -= len(message)
        return message

    def untake(self, message: bytes) -> None:
        """Put back the message that was taken last; it is the next one again."""
        self.waiting.appendleft(message)
        self.held += len(message)
        self.waiters.wake()


@attrs.define(eq=False)
class Rings:
    """Rings that nobody has heard yet."""

    count: int = 0
    waiters: Waiters = attrs.field(factory=Waiters)

    def ring(self, times: int = 1) -> None:
        self.count += times
        self.waiters.wake()

    def take(self) -> bytes | None:
        """Take all rings, as a line with their number; None if there is none."""
        if not self.count:
            return None
        count, self.count = self.count, 0
        return f"{count}\n".encode()
