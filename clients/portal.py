"""A door from synchronous Python to trio: one loop in a thread of its own, and calls that wait for what runs there.

`trio.from_thread` would be enough, but after a Ctrl-C in the waiting thread its task goes on, so a read of an event file would stay at the server
for ever. Here whatever ends the waiting cancels the task, and the task's cancellation flushes its request.

All of a process uses one loop. A child made by fork(2) has only the thread that forked, so it gets a loop of its own when it asks for one. The
thread is a daemon, because Python waits for other threads before it runs exit handlers, and one of these ends the loop.
"""

import atexit
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

import trio

P = ParamSpec("P")
T = TypeVar("T")


class Portal:
    """A trio loop in a thread. `call` runs an async function there and waits; `keep`, from there, lets one run until `stop`."""

    def __init__(self) -> None:
        self._token: trio.lowlevel.TrioToken
        self._nursery: trio.Nursery
        ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main, ready), name="mk9p", daemon=True)
        self._thread.start()
        ready.wait()

    async def _main(self, ready: threading.Event) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as self._nursery:
            ready.set()
            await trio.sleep_forever()

    @property
    def here(self) -> bool:
        """Tell whether this is the loop's own thread, which cannot wait for anything."""
        return threading.current_thread() is self._thread

    def call(self, work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `await work(...)` in the loop, wait, and return what it returns or raise what it raises.

        If it is interrupted while it waits (KeyboardInterrupt), it cancels the work. Raises RuntimeError in the loop's own thread,
        trio.RunFinishedError after `stop`.
        """
        if self.here:
            raise RuntimeError("the loop cannot wait for itself")
        done: Future[T] = Future()
        scope = trio.CancelScope()

        async def run() -> None:
            try:
                with scope:
                    done.set_result(await work(*args, **kwargs))
                    return
                done.cancel()
            except Exception as error:
                done.set_exception(error)
            finally:
                if not done.done():  # the loop ends
                    done.cancel()

        self._token.run_sync_soon(self._nursery.start_soon, run)
        try:
            return done.result()
        except BaseException:
            if not done.done():
                self._token.run_sync_soon(scope.cancel)
            raise

    async def keep(self, work: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Start a task that goes on in the loop, and return what it reports when it has started, as `trio.Nursery.start` does; then it must not
        raise."""
        return await self._nursery.start(work, *args)

    def stop(self) -> None:
        """Cancel what runs and end the loop. A second call does nothing."""
        try:
            self._token.run_sync_soon(self._nursery.cancel_scope.cancel)
        except trio.RunFinishedError:
            return
        self._thread.join()


_lock = threading.Lock()
_portals: dict[int, Portal] = {}  # by process: of the parent's only the entry is here


def portal() -> Portal:
    """Return the loop of this process; start it if necessary, and end it when Python ends."""
    with _lock:
        mine = _portals.get(os.getpid())
        if mine is None:
            _portals.clear()
            mine = _portals[os.getpid()] = Portal()
            atexit.register(mine.stop)
        return mine


def _forked() -> None:
    global _lock
    _lock = threading.Lock()  # the parent's lock may have been held


os.register_at_fork(after_in_child=_forked)
