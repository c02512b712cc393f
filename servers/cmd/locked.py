"""A descriptor whose calls may wait for as long as somebody else likes, with or without O_NONBLOCK: threads make the calls, also the one that
closes it.

Such a call cannot be undone. So its result stays until somebody asks for it; if the first caller was cancelled, the next one gets it. The last
thread that uses the descriptor closes it, never an earlier one: by then the number could belong to another file.
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
    """A call that is running."""

    _over: trio.Event = attrs.field(init=False, factory=trio.Event)
    _result: outcome.Outcome[Any] | None = attrs.field(init=False, default=None)

    async def result(self) -> outcome.Outcome[Any] | None:
        """Wait for the result and return it, or None if it was given up. If cancelled, the caller can ask again."""
        await self._over.wait()
        return self._result

    def set_result(self, result: outcome.Outcome[Any] | None) -> None:
        """Set the result, once; None means that nobody wants it any more."""
        if not self._over.is_set():
            self._result = result
            self._over.set()


@attrs.define(eq=False)
class Locked:
    """One descriptor, owned."""

    fd: int
    _users: int = attrs.field(init=False, default=0)  # threads that use it now
    _closing: bool = attrs.field(init=False, default=False)
    _lock: threading.Lock = attrs.field(init=False, factory=threading.Lock)

    def call(self, function: Callable[..., Any], *args: Any) -> Call:
        """Begin `function(fd, *args)` in a thread; the descriptor must not be closed yet."""
        call, token = Call(), trio.lowlevel.current_trio_token()
        with self._lock:
            self._users += 1

        def deliver(result: outcome.Outcome[Any]) -> None:
            self._leave()
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(call.set_result, result)

        trio.lowlevel.start_thread_soon(lambda: function(self.fd, *args), deliver)
        return call

    def close(self) -> None:
        """Close it, at once or when the running calls are over. Call this once, and nothing after it."""
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
