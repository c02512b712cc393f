"""Addresses of one host, side by side: by a clock of trio's own, that jumps to whatever is waited for next."""

import errno
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
import trio.testing

from mk9p.dial.eyeballs import STAGGER, first, interleaved


def test_families_take_turns() -> None:
    found = ["6a", "6b", "6c", "4a", "4b", "6d"]
    assert interleaved(found, lambda each: each[0]) == ["6a", "4a", "6b", "4b", "6c", "6d"]
    assert interleaved(found[:2], lambda each: each[0]) == ["6a", "6b"]
    assert interleaved([], lambda each: each) == []


async def after(seconds: float, answer: str | OSError, ended: list[str]) -> str:
    try:
        await trio.sleep(seconds)
    except trio.Cancelled:
        ended.append("cancelled")
        raise
    if isinstance(answer, OSError):
        raise answer
    return answer


REFUSED, LOST = OSError(errno.ECONNREFUSED, "refused"), OSError(errno.EHOSTUNREACH, "lost")
NEVER = 1e9


@pytest.mark.parametrize(
    ("attempts", "wins", "at", "cancelled"),
    [
        ([(0, "a")], "a", 0.0, 0),
        ([(0.1, "a"), (0, "b")], "a", 0.1, 0),
        ([(NEVER, "a"), (0, "b")], "b", STAGGER, 1),
        ([(0, REFUSED), (0, "b")], "b", 0.0, 0),
        ([(0.1, REFUSED), (0, "b")], "b", 0.1, 0),
        ([(NEVER, "a"), (NEVER, "b"), (0.1, "c")], "c", 2 * STAGGER + 0.1, 2),
        ([(1.0, "a"), (1.0, "b"), (NEVER, "c")], "a", 1.0, 2),
        ([(NEVER, "a"), (0, REFUSED), (0, "c")], "c", STAGGER, 1),
    ],
)
async def test_the_first_that_is_there_wins(
    autojump_clock: trio.testing.MockClock,
    attempts: list[tuple[float, str | OSError]],
    wins: str,
    at: float,
    cancelled: int,
) -> None:
    ended: list[str] = []
    dropped: list[str] = []
    begun = trio.current_time()
    assert await first(made(attempts, ended), dropping(dropped)) == wins
    assert trio.current_time() - begun == pytest.approx(at)
    assert (len(ended), dropped) == (cancelled, [])


async def test_when_none_is_there_the_last_says_why(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(OSError, match="lost"):
        await first(made([(0.9, REFUSED), (0.1, REFUSED), (0.3, LOST)], []), dropping([]))


async def test_two_that_come_at_once_leave_one(autojump_clock: trio.testing.MockClock) -> None:
    dropped: list[str] = []

    async def stubborn(answer: str) -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        return answer

    assert await first([partial(stubborn, "a"), partial(stubborn, "b")], dropping(dropped)) == "a"
    assert dropped == ["b"]


async def test_cancelled_it_leaves_nothing(autojump_clock: trio.testing.MockClock) -> None:
    dropped: list[str] = []

    async def stubborn(answer: str) -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        return answer

    with trio.move_on_after(0.5) as scope:
        await first([partial(stubborn, "a"), partial(stubborn, "b")], dropping(dropped))
    assert scope.cancelled_caught
    assert sorted(dropped) == ["a", "b"]


def made(attempts: list[tuple[float, str | OSError]], ended: list[str]) -> list[Callable[[], Awaitable[str]]]:
    return [partial(after, seconds, answer, ended) for seconds, answer in attempts]


def dropping(dropped: list[str]) -> Callable[[str], Awaitable[None]]:
    async def drop(what: str) -> None:
        dropped.append(what)

    return drop
