"""Whose turn it is, and how long a turn is.

Theory
* Users take turns, and the links of one user among themselves: whoever opens more connections gets no more of the server.
* A turn is TURN ns. The clock is looked at between requests, not at each of them: after STRIDE bytes of requests, which are two dozen. Whoever has
  used up a turn begins the next one with a look after a single request, then after two bytes more, four, and so on. So a turn is longer than TURN by
  what two dozen requests take, if all are dear that come after many cheap ones, and commonly by what one takes.
* What takes long without waiting, beside the loop that answers (a long listing, the end of a client with many fids), goes in slices of SLICE ns, and
  one slice in each round of the scheduler, whoever wants it.
"""

from collections import deque
from collections.abc import Iterable
from time import monotonic_ns
from typing import Final

import trio

TURN: Final = 1_000_000  # ns; a client waits so long for each other user who keeps the server busy
SLICE: Final = 1_000_000  # ns
STRIDE: Final = 512  # bytes; a look at the clock costs as much as the twentieth part of a request
BLOCK: Final = 16384  # bytes; the same for what is passed on, which costs a fraction of that
LAST: Final = 4  # turns that what came from a client that is gone still has


class User:
    """One who has a share of the server, with those of their links that have something to do."""

    __slots__ = ("connections", "key", "links", "lock")

    def __init__(self, key: object) -> None:
        self.key = key
        self.lock = trio.Lock()  # held by the one piece of their long work that waits for its slice
        self.connections = 0
        self.links: deque[Party] = deque()


class Party:
    """A link that has turns: a client's, or one to another server."""

    __slots__ = ("more", "queued", "stride", "user")

    def __init__(self, user: User, stride: int) -> None:
        self.user = user  # whose turn it has part in
        self.queued = False  # it waits for a turn
        # Something was received that is not dealt with yet, for want of time or of room.
        self.more = False
        self.stride = stride  # bytes of requests between two looks at the clock


class Turns:
    """The links that have something to do. `present`: the one whose turn it is, which ends at `until`.

    `seen`: when the leader last looked at the clock. Both are times of the monotonic clock in ns.
    """

    __slots__ = ("present", "seen", "until", "users")

    def __init__(self) -> None:
        self.users: deque[User] = deque()  # who has links that wait, each once
        self.present: Party | None = None
        self.until = self.seen = 0

    def add(self, link: Party) -> None:
        """Let a link have a turn, if it does not wait for one already."""
        if not link.queued:
            link.queued = True
            user = link.user
            if not user.links:
                self.users.append(user)
            user.links.append(link)

    def move(self, links: Iterable[Party], user: User) -> None:
        """Let links be another user's; the turns that they wait for stay where they are."""
        for link in links:
            waits, link.queued = link.queued, False
            if waits:
                link.user.links.remove(link)
                if not link.user.links:
                    self.users.remove(link.user)
            link.user = user
            if waits:
                self.add(link)

    def further(self, at: int, last: int) -> int:
        """Return up to where frames may be passed on before the clock is looked at again; no further than `at` if the turn is over."""
        return at if monotonic_ns() > self.until else min(at + BLOCK, last)


class Slices:
    """Work that takes long, in slices that take turns, by user too."""

    def __init__(self) -> None:
        self._lock = trio.Lock()

    async def next(self, user: User) -> int:
        """Wait for the next slice; returns when it ends, on the monotonic clock in ns."""
        async with user.lock, self._lock:  # each is handed to whoever came next, who runs in the next round
            return monotonic_ns() + SLICE
