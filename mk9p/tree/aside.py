"""Functions that block, put into threads: `Text(aside(self.slow_device))`."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import trio

P = ParamSpec("P")
T = TypeVar("T")


def aside(function: Callable[P, T], *, at_once: int = 1) -> Callable[P, Awaitable[T]]:
    """Return a function that calls another one in a thread, so that the server answers others meanwhile. For handlers of every kind of file.

    `at_once` calls of it run side by side, by default one, so what they change needs no lock against each other; the others wait. A client that gives
    up waits no longer, but a call that has begun goes on to its end in its thread, as nothing can stop it. The signature stays, for a ctl's usage.
    """
    limiter: trio.CapacityLimiter | None = None

    @wraps(function)
    async def called(*args: P.args, **options: P.kwargs) -> T:
        nonlocal limiter
        if limiter is None:  # made in the program's own loop
            limiter = trio.CapacityLimiter(at_once)
        return await trio.to_thread.run_sync(
            lambda: function(*args, **options), abandon_on_cancel=True, limiter=limiter
        )

    return called
