"""Long work of one request that does not wait, in slices: others have their turn after each. A text from a client may ask for seconds of it."""

from collections.abc import Generator
from time import monotonic_ns
from typing import Final, TypeVar

import trio
from trio.lowlevel import RunVar

__all__ = ["in_slices", "next_slice"]

T = TypeVar("T")
SLICE: Final = 1_000_000  # ns
_line: Final[RunVar[trio.Lock]] = RunVar("slices")


async def next_slice() -> int:
    """Wait for the next slice, and return when it ends, on the monotonic clock in ns. Each round of the scheduler has one, whoever wants it."""
    try:
        line = _line.get()
    except LookupError:
        line = trio.Lock()
        _line.set(line)
    async with line:  # it goes to the next in line, who runs in the next round
        return monotonic_ns() + SLICE


async def in_slices(work: Generator[object, None, T]) -> T:
    """Do a work that gives others a chance wherever it yields, and return its result. If cancelled, the rest is not done."""
    ends = monotonic_ns() + SLICE
    while True:
        try:
            next(work)
        except StopIteration as done:
            result: T = done.value
            return result
        if monotonic_ns() > ends:
            ends = await next_slice()
