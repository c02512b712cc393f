"""A channel: what its writers put, what its readers take, and the words that change its behaviour.

Rules
* The channel admits a message whole to all its lines, or to none. So when its writer learns of it, the message is in every line or in none.
* A line is full at `capacity` messages, or at `BYTES`. One message always fits into an empty line.
* A blocked writer keeps its message and its place: writers that come later, by whatever file, come after it. Whoever makes room admits the message
  at once, and the writer only has to learn of it. So a flushed write has been sent or not, never half.
* A message that nobody reads in broadcast mode goes nowhere.
"""

import errno
from collections import deque
from collections.abc import Awaitable
from typing import Final, Literal

import attrs
import trio

from mk9p.errors import NineError
from mk9p.servers.chan.lines import Line, Rings
from mk9p.tree import Ctl, settings

CAPACITY: Final = 256  # messages that wait: with SIZE, at most 16 MiB
MOST: Final = 65536  # of capacity
# bytes of a message: below the payload of every usual msize, so no client cuts a message in two without seeing it
SIZE: Final = 65536
LARGEST: Final = (1 << 20) - 1  # one write with the largest msize always carries this much
# bytes that wait in one line, whatever capacity and size say: what a stranger can make a kernel hold must have an end
BYTES: Final = 64 << 20

Mode = Literal["queue", "broadcast"]
Policy = Literal["block", "drop-oldest", "fail"]


@attrs.define(eq=False)
class _Blocked:
    """A writer that waits for room."""

    message: bytes
    told: trio.Event = attrs.field(factory=trio.Event)
    gone: bool = False


@attrs.define(eq=False)
class Channel:
    """One channel (mk9p.tree.Conversation is files.py's, which makes the tree)."""

    capacity: int = CAPACITY
    size: int = SIZE
    policy: Policy = "block"
    mode: Mode = "queue"
    queue: Line = attrs.field(factory=Line)
    rings: Rings = attrs.field(factory=Rings)
    lines: list[Line] = attrs.field(factory=list)  # of the open readers, in broadcast mode
    bells: list[Rings] = attrs.field(factory=list)
    blocked: deque[_Blocked] = attrs.field(factory=deque)
    readers: int = 0
    writers: int = 0
    listeners: int = 0
    sent: int = 0
    received: int = 0
    lost: int = 0
    rung: int = 0
    gone: bool = False

    def ctl(self) -> Ctl:
        return Ctl(
            {
                "capacity": self.set_capacity,
                "policy": self.set_policy,
                "mode": self.set_mode,
                "size": self.set_size,
                "clear": self.clear,
            },
            self.settings,
        )

    # what is read

    def settings(self) -> str:
        return settings({"mode": self.mode, "policy": self.policy, "capacity": self.capacity, "size": self.size})

    def status(self) -> str:
        return settings(
            {
                "waiting": max((len(line.waiting) for line in self.targets()), default=0),
                "bytes": sum(line.held for line in self.targets()),
                "blocked": len(self.blocked),
                "readers": self.readers,
                "writers": self.writers,
                "sent": self.sent,
                "received": self.received,
                "lost": self.lost,
                "rings": self.rung,
                "listeners": self.listeners,
            }
        )

    # words

    def set_capacity(self, n: int) -> None:
        """Let at most `n` messages wait; messages that wait already stay."""
        if not 1 <= n <= MOST:
            raise NineError(errno.EINVAL, f"capacity goes from 1 to {MOST}")
        self.capacity = n
        self.admit_blocked()

    def set_size(self, bytes_: int) -> None:
        """Set how long a message may be."""
        if not 1 <= bytes_ <= LARGEST:
            raise NineError(errno.EINVAL, f"size goes from 1 to {LARGEST}")
        self.size = bytes_

    def set_policy(self, policy: Policy) -> None:
        """Set what happens to a message when there is no room. Blocked writers stay blocked, unless dropping makes room."""
        self.policy = policy
        self.admit_blocked()

    def set_mode(self, mode: Mode) -> None:
        """Set who gets a message. Raises EBUSY while somebody reads, or messages wait: it would not be clear whose they are."""
        if mode == self.mode:
            return
        if self.readers or self.listeners:
            raise NineError(errno.EBUSY, f"{self.readers + self.listeners} readers have data or bell open")
        if self.queue.waiting:
            raise NineError(errno.EBUSY, f"{len(self.queue.waiting)} messages wait: read them, or say clear")
        self.mode = mode

    def clear(self) -> None:
        """Drop all messages that wait, except those of blocked writers."""
        for line in self.targets():
            self.lost += line.clear()
        self.admit_blocked()

    # messages

    def targets(self) -> list[Line]:
        return self.lines if self.mode == "broadcast" else [self.queue]

    def send(self, message: bytes, room: int) -> Awaitable[None] | None:
        """Take a message whole, at once or when there is room; `room` is how much one write of this client can carry, 0 if that is unknown.

        Raises EMSGSIZE, ENOSPC under the policy `fail`, EPIPE after the channel is gone. If cancelled, it has not taken the message.
        """
        if self.gone:
            raise NineError(errno.EPIPE, "the channel is gone")
        if not message:
            raise NineError(errno.EINVAL, "a message has at least one byte")
        if len(message) > self.size:
            raise NineError(errno.EMSGSIZE, f"a message of {len(message)} bytes: this channel takes {self.size} (size)")
        if room and len(message) >= room:
            # The message has the maximum length. A longer message comes in several writes, and this may be the first of them.
            raise NineError(errno.EMSGSIZE, f"a message of {len(message)} bytes or more: msize allows {room - 1}")
        if not self.blocked and self._make_room(message):
            self._admit(message)
            return None
        if self.policy == "fail":
            raise NineError(errno.ENOSPC, f"the channel is full: {self._fullest()}")
        return self._wait(message)

    async def _wait(self, message: bytes) -> None:
        writer = _Blocked(message)
        self.blocked.append(writer)
        try:
            await writer.told.wait()
        except BaseException:
            self.blocked.remove(writer)  # nobody has admitted its message, so it is still in the queue
            self.admit_blocked()
            raise
        if writer.gone:
            raise NineError(errno.EPIPE, "the channel is gone")

    def _fullest(self) -> str:
        line = max(self.targets(), key=lambda line: line.held)
        return f"{len(line.waiting)} messages of {line.held} bytes wait"

    def _full(self, line: Line, message: bytes) -> bool:
        if not line.waiting:
            return False
        return len(line.waiting) >= self.capacity or line.held + len(message) > BYTES

    def _make_room(self, message: bytes) -> bool:
        """Tell whether a message can be admitted. Drop others for it if the policy says so."""
        full = [line for line in self.targets() if self._full(line, message)]
        if not full or self.policy != "drop-oldest":
            return not full
        for line in full:
            while self._full(line, message):
                line.drop()
                self.lost += 1
        return True

    def _admit(self, message: bytes) -> None:
        self.sent += 1
        for line in self.targets():
            line.put(message)

    def admit_blocked(self) -> None:
        """Admit the messages of blocked writers, in order, as far as there is room now."""
        while self.blocked and self._make_room(self.blocked[0].message):
            writer = self.blocked.popleft()
            self._admit(writer.message)
            writer.told.set()

    # bells

    def ring(self) -> None:
        """Ring once, for all who listen, or for the next one who listens."""
        if self.gone:
            raise NineError(errno.EPIPE, "the channel is gone")
        self.rung += 1
        for rings in self.bells if self.mode == "broadcast" else [self.rings]:
            rings.ring()

    # the end

    def close(self) -> None:
        """End the channel: readers get the end, writers get EPIPE, and waiting messages are dropped."""
        self.gone = True
        for writer in self.blocked:
            writer.gone = True
            writer.told.set()
        self.blocked.clear()
        for line in [self.queue, *self.lines]:
            line.clear()
            line.waiters.wake_all()
        for rings in [self.rings, *self.bells]:
            rings.waiters.wake_all()
