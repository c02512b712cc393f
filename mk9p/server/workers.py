"""Workers: one task leads, those whose request waits work on that, and the others are idle. leader.py has the theory."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs
import trio

from mk9p.server.pending import see_to
from mk9p.session import Request

IDLE: Final = 32  # workers kept for the next request that waits


@attrs.define(eq=False)
class Worker:
    """A task of the engine; `scope` cancels it when its request is flushed."""

    scope: trio.CancelScope
    task: Any = None


class Workers:
    """The tasks of an engine. `lead` is what the leading one does, until a request waits, which it returns; None if it leads no more."""

    def __init__(self, lead: Callable[[Worker], Awaitable[Request | None]]) -> None:
        self._lead = lead
        self._nursery: trio.Nursery | None = None
        self._idle: list[Worker] = []
        self.leader: Worker | None = None

    async def run(self) -> None:
        """Work until cancelled."""
        async with trio.open_nursery() as self._nursery:
            try:
                self._nursery.start_soon(self._work)
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def _work(self) -> None:
        with trio.CancelScope() as scope:
            worker = Worker(scope, trio.lowlevel.current_task())
            try:
                while not scope.cancel_called:
                    if self.leader is None:
                        self.leader = worker
                        request = await self._lead(worker)
                        if request is not None:
                            request.cancel = scope.cancel
                            self.leader = None
                            self._wake()
                            await see_to(request)
                    elif len(self._idle) < IDLE:
                        await self._idles(worker)
                    else:
                        break
            finally:
                if self.leader is worker:
                    self.leader = None

    async def _idles(self, worker: Worker) -> None:
        """Be idle until woken."""

        def abort(_: object) -> trio.lowlevel.Abort:
            # It runs once more, to end, and trio wakes a task only once for that.
            self._idle.remove(worker)
            return trio.lowlevel.Abort.SUCCEEDED

        self._idle.append(worker)
        await trio.lowlevel.wait_task_rescheduled(abort)

    def _wake(self) -> None:
        """Make another worker lead."""
        if self._idle:
            trio.lowlevel.reschedule(self._idle.pop().task)
        elif self._nursery is not None:
            self._nursery.start_soon(self._work)
