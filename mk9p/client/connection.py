"""A connection to a 9P server. Its calls wait as trio's tasks do, and can be cancelled like them. conversation.py says what it sends.

One writer task sends what the kernel did not take at once. One reader task hands out the replies, all that came with one wake-up.

A serial line or a port does not report that nobody is at its other end any more. There, when an answer is due and nothing came for a while, the
client sends a flush of an unused tag, which every server answers at once (flush(5)). If there is no answer to that either, it ends the connection.
"""

import errno
from collections.abc import Awaitable, Callable
from contextlib import suppress
from select import select
from time import perf_counter
from typing import Any, TypeVar

import outcome
import trio

from mk9p.client.calls import Call, Reply, Result
from mk9p.client.conversation import ASK, LEAVING, Conversation
from mk9p.dial import Link
from mk9p.errors import NineError
from mk9p.tree.later import Later, hand
from mk9p.wire import Dialect, FrameBuffer
from mk9p.wire import messages as m

T = TypeVar("T")


class TrioCall(Call):
    """One running request, which one task may wait for."""

    __slots__ = ("later", "task")
    connection: "Connection"

    def __init__(self, connection: Conversation, message: type[m.Message], fields: Reply) -> None:
        super().__init__(connection, message, fields)
        self.task: trio.lowlevel.Task | None = None  # the task that waits
        self.later: Later | None = None

    async def reply(self) -> Reply:
        if self.result is None:
            self.glance()
        if self.result is None:
            self.task = trio.lowlevel.current_task()
            fields: Reply = await trio.lowlevel.wait_task_rescheduled(self._cancelled)
            return fields
        return self.taken()

    def glance(self) -> None:
        # Most answers come in less time than it takes to let trio wait for them.
        connection = self.connection
        rest = connection.eager
        while rest > 0 and self.result is None and connection.gone is None:
            begun = perf_counter()
            if select((connection.link.rfd,), (), (), rest)[0]:
                connection.take()
            rest -= perf_counter() - begun

    async def kept(self) -> Reply | None:
        """Wait as `reply` does, in a coroutine that a server's engine runs by hand (tree/later.py). Returns None if the call has expired."""
        if self.result is None:
            self.later = Later()
            try:
                await self.later.kept()
            except BaseException:
                self.abandon()
                raise
        if self.result is None:
            self.abandon()
            return None
        try:
            return self.taken()
        finally:
            self.result = None  # an error knows whose it was

    def expire(self) -> None:
        """End the wait for an answer."""
        if self.later is not None:
            self.later.settle()

    def _cancelled(self, _: Any) -> trio.lowlevel.Abort:
        self.abandon()
        return trio.lowlevel.Abort.SUCCEEDED

    def abandon(self) -> None:
        self.task = None
        super().abandon()

    def set_result(self, result: Result) -> None:
        task, self.task = self.task, None
        if task is None:
            self.result = result
            if self.later is not None:
                self.later.settle()
        else:
            self.left = True
            trio.lowlevel.reschedule(
                task, outcome.Value(result) if isinstance(result, tuple) else outcome.Error(result)
            )


class Connection(Conversation):
    """A conversation in trio. Nothing works before `start`."""

    kind = TrioCall
    closing = trio.ClosedResourceError
    checkpoint = staticmethod(trio.lowlevel.checkpoint_if_cancelled)

    def __init__(self, link: Link, address: str, *, dialect: Dialect, msize: int, frames: FrameBuffer) -> None:
        super().__init__(link, address, dialect=dialect, msize=msize, frames=frames)
        self._untidy = False  # `tidy` will be called
        self.eager = 0.0  # seconds that a call may hold up all others, for its reply
        self.closed = trio.Event()
        self._stalled = trio.lowlevel.ParkingLot()
        self._leaving = trio.lowlevel.ParkingLot()
        self._token = trio.lowlevel.current_trio_token()

    def start(self, nursery: trio.Nursery) -> None:
        """Run the reader and the writer in a nursery; they end with the connection, and raise only for our own bugs."""
        nursery.start_soon(self._reader)
        nursery.start_soon(self._writer)
        if self.link.lossy:
            nursery.start_soon(self._listener)

    # Waiting

    def take(self) -> None:
        """Take the replies that have come."""
        with self._judging():
            self._receive()
            self._replies()

    async def within(self, seconds: float, work: Callable[[], Awaitable[T]]) -> T:
        with trio.move_on_after(seconds):
            return await work()
        raise NineError(errno.ETIMEDOUT, f"no answer within {seconds:g} s")

    async def side_by_side(self, count: int, work: Callable[[], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(work)

    async def aside(self, call: Callable[..., T], *args: Any, give_up: bool = False) -> T:
        return await trio.to_thread.run_sync(call, *args, abandon_on_cancel=give_up)

    async def clunk_within(self, seconds: float, fid: int) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + seconds):
            await self.clunk(fid)

    async def wait_ended(self) -> None:
        await self.closed.wait()

    def clunk_later(self, fid: int) -> None:
        super().clunk_later(fid)
        # noted first, and told once: `tidy` forgets that before it looks
        if self.gone is None and not self._untidy:
            self._untidy = True
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self.tidy)

    def tidy(self) -> None:
        self._untidy = False
        super().tidy()

    # Sending

    def _holds_back(self) -> bool:
        here = hand()
        if here.now:
            self.cork()
            here.unsent.append(self.uncork)
        return here.now

    # The tasks

    def _queued(self) -> None:
        self._stalled.unpark_all()

    async def _writer(self) -> None:
        with suppress(trio.ClosedResourceError):
            while self.gone is None:
                if not self._out:
                    await self._stalled.park()
                    continue
                await self.link.wait_writable()
                self._drain()

    async def _reader(self) -> None:
        try:
            with self._judging():
                while self.gone is None:
                    self._replies()
                    # Let the tasks whose replies came go on: what they send next is often answered before the reader would have to wait for the line.
                    await trio.lowlevel.checkpoint()
                    while self.gone is None and not self._receive():
                        self._frames.put_away()
                        await self.link.wait_readable()
        except trio.ClosedResourceError:
            self.end("it was closed here")
        finally:
            self.end("it was given up here")

    async def _listener(self) -> None:
        """End the connection when its line has gone silent."""
        while self.gone is None:
            heard = self._heard
            with trio.move_on_after(ASK):
                await self.closed.wait()
            self._listened(heard)

    # The end

    def _quiet(self) -> None:
        self._leaving.unpark_all()

    async def aclose(self) -> None:
        """Close the connection when clunks and flushes that nobody waits for have been answered, at most a second later, shielded.

        A client may hang up with replies on their way, or with fids left. But with the first, diod 1.0.24 dies by SIGPIPE, with all its clients,
        and with the second now and then by a null pointer.
        """
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LEAVING):
            self.tidy()
            while self.gone is None and self._left:
                await self._leaving.park()
        self.end("it was closed here")

    def _ended(self) -> None:
        self._stalled.unpark_all()
        self._leaving.unpark_all()
        self.closed.set()
