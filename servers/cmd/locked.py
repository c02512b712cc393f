"""A descriptor whose calls may wait for as long as somebody else likes, O_NONBLOCK or not: they are made in threads, also the one that closes it.

Such a call cannot be taken back. So its result stays until it is asked for, by whoever comes next if the first was cancelled; and the descriptor is
closed by the last thread that has it in use, never before: the number could be another file's by then.
"""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import attrs
import outcome
import trio


@attrs.define(eq=False)
class Call:
    """A call under way."""

    _over: trio.Event = attrs.field(init=False, factory=trio.Event)
    _result: outcome.Outcome[Any] | None = attrs.field(init=False, default=None)

    async def result(self) -> outcome.Outcome[Any] | None:
        """Wait for the result, and return it, or None if it was given up. Cancelled, it can be asked for again."""
        await self._over.wait()
        return self._result

    def settle(self, result: outcome.Outcome[Any] | None) -> None:
        """Tell the result, once; None: nobody wants it any more."""
        if not self._over.is_set():
            self._result = result
            self._over.set()


@attrs.define(eq=False)
class Locked:
    """One descriptor, owned."""

    fd: int
    _users: int = attrs.field(init=False, default=0)  # threads that have it in use
    _closing: bool = attrs.field(init=False, default=False)
    _lock: threading.Lock = attrs.field(init=False, factory=threading.Lock)

    def call(self, function: Callable[..., Any], *args: Any) -> Call:
        """Begin `function(fd, *args)` in a thread; it must not be closed yet."""
        call, token = Call(), trio.lowlevel.current_trio_token()
        with self._lock:
            self._users += 1

        def deliver(result: outcome.Outcome[Any]) -> None:
            self._leave()
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(call.settle, result)

        trio.lowlevel.start_thread_soon(lambda: function(self.fd, *args), deliver)
        return call

    def close(self) -> None:
        """Close it, at once or when the calls under way are over; once, and nothing may be called after it."""
        with self._lock:
            self._closing, idle = True, not self._users
        if idle:
            trio.lowlevel.start_thread_soon(lambda: os.close(self.fd), lambda _: None)

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            last = self._closing and not self._users
        if last:
            os.close(self.fd)
