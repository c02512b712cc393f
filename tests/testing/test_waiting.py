"""What must come is waited for, and no longer than is said."""

import threading
import time

import pytest
import trio

from mk9p.testing import until, until_true


async def test_the_first_true_value_is_returned() -> None:
    values = iter(["", 0, None, "found", "late"])
    assert await until(lambda: next(values)) == "found"

    async def asked() -> int:
        await trio.lowlevel.checkpoint()
        return next(numbers)

    numbers = iter([0, 0, 7])
    assert await until(asked) == 7


async def test_what_another_thread_does_is_seen() -> None:
    came = threading.Event()
    threading.Timer(0.1, came.set).start()
    assert await until(came.is_set)


async def test_what_never_comes_is_an_error() -> None:
    with pytest.raises(trio.TooSlowError):
        await until(lambda: False, 0.05)
    with pytest.raises(TimeoutError):
        until_true(lambda: False, 0.05)


def test_without_trio() -> None:
    begun = time.monotonic()
    assert until_true(lambda: time.monotonic() > begun + 0.02)
