"""Workers: one task leads, those whose request waits work on that, and the others are idle. leader.py has the theory."""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from mk9p.server.pending import see_to
from mk9p.session import Request

IDLE: Final = 32  # workers kept for the next request that waits


class Workers:
    """The tasks of an engine. `lead` is what the leading one does; it returns the first request that waits, which that task works on from then on."""

    def __init__(self, lead: Callable[[], Awaitable[Request]]) -> None:
        self._lead = lead
        self._led = False  # one of them leads
        self._idle: list[trio.lowlevel.Task] = []
        self._nursery: trio.Nursery

    async def run(self) -> None:
        """Work until cancelled."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._work)
            await trio.sleep_forever()

    async def _work(self) -> None:
        """Lead, or work on a request, or be idle. The scope ends with the request that is cancelled in it, and the task with it."""
        with trio.CancelScope() as scope:
            while not scope.cancel_called:
                if not self._led:
                    request = await self._take_the_lead()
                    request.cancel = scope.cancel
                    self._wake()
                    await see_to(request)
                elif len(self._idle) < IDLE:
                    await self._idles()
                else:
                    break

    async def _take_the_lead(self) -> Request:
        self._led = True
        try:
            return await self._lead()
        finally:
            self._led = False

    async def _idles(self) -> None:
        """Be idle until woken."""
        task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            # It runs once more, to end, and trio wakes a task only once for that.
            self._idle.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        self._idle.append(task)
        await trio.lowlevel.wait_task_rescheduled(abort)

    def _wake(self) -> None:
        """Let another worker lead."""
        if self._idle:
            trio.lowlevel.reschedule(self._idle.pop())
        else:
            self._nursery.start_soon(self._work)
