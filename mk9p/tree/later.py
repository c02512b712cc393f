"""`Later`: what an op waits for where no task needs to wait for it.

Theory
* A request that waits commonly has a task, which trio puts to sleep and wakes: 60 us. Where the answer
  of another server is all that it waits for, that is more than everything else together.
* So the engine, which runs an op's coroutine by hand until it waits, keeps it when it waits for a Later,
  and runs it on from there when that is settled. `HAND` tells the coroutine that it is run so: one that
  a task runs waits as tasks do.
* Given up, the coroutine is closed: it sees GeneratorExit where it waits, and may not wait any more. So
  what it does then is done for every BaseException. And it may be in no cancel scope or nursery where
  it waits, for these are a task's.
"""

from collections.abc import Awaitable, Callable, Generator


class Hand:
    """Tells whether the coroutine that runs now is run by hand."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = False


HAND = Hand()


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
        await (self.kept() if HAND.now else sleep(self))

    async def kept(self) -> None:
        """Wait until it is settled, where that is done by hand."""
        if not self.settled:
            await _Kept(self)


class _Kept:
    __slots__ = ("later",)

    def __init__(self, later: Later) -> None:
        self.later = later

    def __await__(self) -> Generator[Later, None, None]:
        yield self.later
