"""What ended starts again, as often as its policy says: a kernel (servers/kernels), a program of one that is gone (`mk9p wasm run`)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, Literal, get_args

import attrs
import trio

from mk9p.errors import NineError
from mk9p.tree.words import split

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["LONGEST", "Restart", "Starts"]

When = Literal["never", "always", "on-failure"]

MOST: Final = 5  # restarts in WITHIN seconds: with the waits between them it takes a minute to give up a kernel that panics at once
WITHIN: Final = 300.0
OFTEN: Final = 999  # restarts that a policy may allow: each is remembered
LONGEST_WAIT: Final = 60.0  # s between an end and the next start
LONGEST: Final = 86400.0  # s: what is counted over a longer time is no crash loop


@attrs.frozen
class Restart:
    """`restart WHEN [max N] [in SECONDS]`: it starts again at most N times in so many seconds. The first start comes at once, the next ones after 1,
    2, 4 … seconds."""

    when: When = "never"
    most: int = MOST
    within: float = WITHIN

    @classmethod
    def parse(cls, when: When, words: Sequence[str]) -> Restart:
        """Return the policy of a ctl word's arguments; raises EINVAL with the usage."""
        said = dict(zip(words[::2], words[1::2], strict=False))
        try:
            most, within = int(said.get("max", MOST)), float(said.get("in", WITHIN))
        except ValueError:
            most, within = 0, 0.0
        if when not in get_args(When) or len(words) != 2 * len(said) or not said.keys() <= {"max", "in"}:
            raise NineError(errno.EINVAL, "usage: restart never|always|on-failure [max N] [in SECONDS]")
        if not (0 < most <= OFTEN and 0 < within <= LONGEST):
            raise NineError(errno.EINVAL, f"restart: max is 1 to {OFTEN}, and in is above 0 and up to {LONGEST:.0f} s")
        return cls(when, most, within)

    @classmethod
    def read(cls, text: str) -> Restart:
        """Return the policy that a text says: what follows the word `restart`. Raises as `parse`."""
        when, *words = split(text) or [""]
        return cls.parse(when, words)  # type: ignore[arg-type]  # parse looks at it

    @property
    def words(self) -> list[str]:
        """Return what `parse` takes, without what it need not be told."""
        more = [
            *(["max", str(self.most)] if self.most != MOST else []),
            *(["in", f"{self.within:g}"] if self.within != WITHIN else []),
        ]
        return [self.when, *more]

    def wants(self, *, failed: bool) -> bool:
        """Say whether what ended, and nobody had asked for that, starts again."""
        return self.when == "always" or (self.when == "on-failure" and failed)

    def wait(self, past: Sequence[float], now: float) -> float | None:
        """Return how many seconds the next start waits after those of the past, None when it is one too many: this is a crash loop."""
        recent = sum(1 for when in past if now - when < self.within)
        if recent >= self.most:
            return None
        return min(2.0 ** (recent - 1), LONGEST_WAIT) if recent else 0.0


@attrs.define(eq=False)
class Starts:
    """The starts that nobody asked for. `looped` is a crash loop: it does not start by itself any more."""

    looped: bool = False
    _past: list[float] = attrs.Factory(list)
    _waiting: trio.CancelScope | None = None

    @property
    def waits(self) -> bool:
        """Say whether it is about to start."""
        return self._waiting is not None

    def begin(self) -> None:
        """Count from here: somebody started it."""
        self.looped = False
        self._past.clear()

    async def wait(self, restart: Restart, tell: Callable[[float], None]) -> bool:
        """Wait until it is time to start; `tell` gets the seconds. False is for not at all: it is in a crash loop, or somebody has stopped the
        waiting."""
        wait = restart.wait(self._past, trio.current_time())
        if wait is None:
            self.looped = True
            return False
        if wait:
            tell(wait)
            with trio.CancelScope() as scope:
                self._waiting = scope
                await trio.sleep(wait)
            if self._waiting is not scope or scope.cancelled_caught:
                return False
            self._waiting = None
        self._past.append(trio.current_time())
        return True

    def stop(self) -> bool:
        """Give up the next start, if it waits for one; False if it does not."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return False
        waiting.cancel()
        return True
