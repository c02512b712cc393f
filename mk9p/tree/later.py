"""`Later`: something that an op waits for without a task.

Theory
* A request that waits usually has a task. Trio puts it to sleep and wakes it, which takes 60 us. If the request waits only for
  the answer of another server, that is more than everything else together.
* So the engine runs an op's coroutine by hand until it waits. If it waits for a Later, the engine keeps the coroutine, and runs
  it on from there when the Later is settled. `hand().now` tells the coroutine that it is run by hand. A coroutine that a task runs
  waits as tasks do.
* When the engine gives the coroutine up, a task goes on with it: the coroutine gets GivenUp where it waits, and may wait again
  while it cleans up, as after trio.Cancelled. So it must clean up after every BaseException. It must not wait for a Later inside
  a cancel scope or a nursery, because these belong to a task.
* What many coroutines ask another server in one turn goes out in one call: who sends for a coroutine that is run by hand holds it back, and notes in
  `unsent` how it is sent. The engine does that at the end of the turn, before it waits for anything.
"""

import threading
from collections.abc import Awaitable, Callable, Generator


class GivenUp(BaseException):
    """What a coroutine gets that is run by hand, when nobody wants its answer any more."""


class Hand:
    """Tells whether the ops that run now are run by hand, so that what they send can wait for the end of the turn."""

    __slots__ = ("now", "unsent")

    def __init__(self) -> None:
        self.now = False
        self.unsent: list[Callable[[], None]] = []

    def send(self) -> None:
        """Send what was held back; the functions raise nothing."""
        unsent = self.unsent
        while unsent:
            unsent.pop()()


class _Here(threading.local):
    def __init__(self) -> None:
        self.hand = Hand()


_HERE = _Here()


def hand() -> Hand:
    """Return the hand of this thread, which has an engine of its own."""
    return _HERE.hand


class Later:
    """Something that will be settled once. `wake` is called then, if somebody waits."""

    __slots__ = ("settled", "wake")

    def __init__(self) -> None:
        self.settled = False
        self.wake: Callable[[], None] | None = None

    def settle(self) -> None:
        """Let whoever waits go on. A second call does nothing."""
        wake, self.wake, self.settled = self.wake, None, True
        if wake is not None:
            wake()

    async def wait(self, sleep: Callable[["Later"], Awaitable[None]]) -> None:
        """Wait until it is settled; a task does so by `sleep`, which sets `wake`."""
        if self.settled:
            return
        await (self.kept() if _HERE.hand.now else sleep(self))

    async def kept(self) -> None:
        """Wait until it is settled, in a coroutine that is run by hand."""
        if not self.settled:
            await _Kept(self)


class _Kept:
    __slots__ = ("later",)

    def __init__(self, later: Later) -> None:
        self.later = later

    def __await__(self) -> Generator[Later, None, None]:
        yield self.later
