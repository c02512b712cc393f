"""Wait for what must come: `until` in trio, `until_true` in code without it. Nothing reports it, so they ask again and again."""

import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, overload

import trio

from mk9p.tree import settle

SOON: Final = 60.0
"""Seconds that a test waits for what must come: a machine with much else to do takes twenty times as long as others, and no test may fail because
of that."""
PAUSE: Final = 0.001  # seconds
TURNS: Final = 1000  # of the scheduler: what happens in this process needs no more

T = TypeVar("T")


@overload
async def until(check: Callable[[], Awaitable[T]], seconds: float = SOON) -> T: ...
@overload
async def until(check: Callable[[], T], seconds: float = SOON) -> T: ...
async def until(check: Callable[[], object], seconds: float = SOON) -> object:
    """Return the first true value of a function, plain or `async`. Raises trio.TooSlowError after `seconds`."""
    with trio.fail_after(seconds):
        for turn in itertools.count():
            if found := await settle(check()):
                break
            if turn < TURNS:
                await trio.lowlevel.checkpoint()
            else:
                await trio.sleep(PAUSE)
    return found


def until_true(check: Callable[[], T], seconds: float = SOON) -> T:
    """Return the first true value of a function, asking every few milliseconds. Raises TimeoutError after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := check()):
        if time.monotonic() > end:
            raise TimeoutError("it never came")
        time.sleep(0.005)
    return found
