"""Whose turn it is, and how long a turn is.

Theory
* Users take turns, and so do the links of one user among themselves: a user who opens more connections gets no more of the server.
* A turn is TURN ns. The server looks at the clock between requests, not at each of them: after STRIDE bytes of requests, which are two dozen. A
  user who has used up a turn begins the next one with a look after a single request, then after two bytes more, four, and so on. So a turn is
  longer than TURN by what two dozen requests take, if all of them are expensive and come after many cheap ones, and usually by what one request
  takes.
* Long work that does not wait, beside the loop that answers (a long listing, the end of a client with many fids), goes in slices of SLICE ns. Each
  round of the scheduler has one slice, whoever wants it.
"""

from collections import deque
from collections.abc import Iterable
from time import monotonic_ns
from typing import Final

import trio

TURN: Final = 1_000_000  # ns; a client waits this long for each other user who keeps the server busy
SLICE: Final = 1_000_000  # ns
STRIDE: Final = 512  # bytes; a look at the clock costs as much as the twentieth part of a request
BLOCK: Final = 16384  # bytes; the same for passed-on requests, which cost a fraction of that
LAST: Final = 4  # turns for what came from a client that is gone


class User:
    """A user who shares the server, with those of their links that have something to do."""

    __slots__ = ("connections", "key", "links", "lock")

    def __init__(self, key: object) -> None:
        self.key = key
        self.lock = trio.Lock()  # the one piece of their long work that waits for its slice holds it
        self.connections = 0
        self.links: deque[Party] = deque()


class Party:
    """A link that has turns: a client's, or one to another server."""

    __slots__ = ("more", "queued", "stride", "user")

    def __init__(self, user: User, stride: int) -> None:
        self.user = user  # the user in whose turn it takes part
        self.queued = False  # it waits for a turn
        # Something was received that is not handled yet, for lack of time or of room.
        self.more = False
        self.stride = stride  # bytes of requests between two looks at the clock


class Turns:
    """The links that have something to do. `present`: the one whose turn it is, which ends at `until`.

    `seen`: when the leader last looked at the clock. Both are times of the monotonic clock in ns.
    """

    __slots__ = ("present", "seen", "until", "users")

    def __init__(self) -> None:
        self.users: deque[User] = deque()  # users who have links that wait, each once
        self.present: Party | None = None
        self.until = self.seen = 0

    def add(self, link: Party) -> None:
        """Give a link a turn, if it does not wait for one already."""
        if not link.queued:
            link.queued = True
            user = link.user
            if not user.links:
                self.users.append(user)
            user.links.append(link)

    def move(self, links: Iterable[Party], user: User) -> None:
        """Give links to another user; the turns that they wait for stay where they are."""
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
        """Return how far frames may be passed on before the next look at the clock; no further than `at` if the turn is over."""
        return at if monotonic_ns() > self.until else min(at + BLOCK, last)


class Slices:
    """Long work, in slices that take turns, also by user."""

    def __init__(self) -> None:
        self._lock = trio.Lock()

    async def next(self, user: User) -> int:
        """Wait for the next slice; return when it ends, on the monotonic clock in ns."""
        async with user.lock, self._lock:  # each lock goes to the next in line, who runs in the next round
            return monotonic_ns() + SLICE
