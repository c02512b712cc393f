"""Workers: one task leads, those whose request waits have it in hand, the others are idle. What becomes of a request that waits is here.

leader.py tells the theory.
"""

import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from time import monotonic_ns
from typing import Any, Final

import attrs
import trio

from mk9p.errors import FAILURE
from mk9p.server.connection import Connection, Reply
from mk9p.server.dispatch import Call
from mk9p.server.exchange import Exchange, here, theirs
from mk9p.server.failures import HELD, failure, held
from mk9p.server.limits import Limits
from mk9p.server.refusals import refuse
from mk9p.session import Request
from mk9p.wire import messages as m
from mk9p.wire.roles import DATA

IDLE: Final = 32  # workers kept for the next request that waits
TEXT: Final = 4  # bytes that a string of a message takes for each that it has on the wire, at most


@attrs.define(eq=False)
class Worker:
    """A task of the engine; `scope` cancels it when its request is flushed."""

    scope: trio.CancelScope
    task: Any = None


@attrs.define(eq=False)
class Job:
    """A request that waits, for its turn or in the middle: all that is needed to go on with it."""

    c: Connection
    call: Call
    args: tuple[Any, ...]
    work: Any = None  # its coroutine, once that waits
    trap: Any = None  # what it waits with
    since: int = 0  # when it was received, on the monotonic clock in ns
    before: int = 0  # bytes that were queued for the client before the step that brought the reply


class Workers(ABC):
    """The tasks of an engine, which says what leading is."""

    limits: Limits
    exchange: Exchange

    def __init__(self) -> None:
        self._leader: Worker | None = None
        self._idle: list[Worker] = []
        self._nursery: trio.Nursery | None = None

    @abstractmethod
    async def lead(self, worker: Worker) -> None:
        """Serve links until a request of theirs waits."""

    @abstractmethod
    def send(self, c: Connection) -> None:
        """Send what is queued for a client. Raises OSError."""

    @abstractmethod
    def may_run(self, c: Connection, ready: Sequence[Request]) -> None:
        """Let requests that waited run, when it is their connection's turn."""

    @abstractmethod
    def hang_up(self, c: Connection, reason: str) -> None:
        """End a connection."""

    async def _work(self) -> None:
        with trio.CancelScope() as scope:
            worker = Worker(scope, trio.lowlevel.current_task())
            try:
                while not scope.cancel_called:
                    if self._leader is None:
                        self._leader = worker
                        await self.lead(worker)
                    elif len(self._idle) < IDLE:
                        await self._idles(worker)
                    else:
                        break
            finally:
                if self._leader is worker:
                    self._leader = None

    async def _idles(self, worker: Worker) -> None:
        """Be idle until woken."""

        def abort(_: object) -> trio.lowlevel.Abort:
            # It runs once more, to end, and trio wakes a task only once for that.
            self._idle.remove(worker)
            return trio.lowlevel.Abort.SUCCEEDED

        self._idle.append(worker)
        await trio.lowlevel.wait_task_rescheduled(abort)

    def _wake(self) -> None:
        """See to it that another worker leads."""
        if self._idle:
            trio.lowlevel.reschedule(self._idle.pop().task)
        elif self._nursery is not None:
            self._nursery.start_soon(self._work)

    def _waits(self, worker: Worker, request: Request) -> Request:
        """Let the leader have a request in hand that has just begun to wait, and another worker lead."""
        job: Job = request.work
        if request.type in DATA:
            self.exchange.settle(job.c)
            request.size = job.c.frames.detach()
        job.c.session.enter(request, job.args[1:])
        job.c.count()
        return self._hold(worker, request)

    def _hold(self, worker: Worker, request: Request) -> Request:
        request.cancel = worker.scope.cancel
        self._leader = None
        self._wake()
        return request

    async def _in_hand(self, request: Request) -> None:
        """See a request that waits to its end, and answer it."""
        job: Job = request.work
        c = job.c
        reply: Reply
        try:
            reply = await _rest(request)
        except trio.Cancelled:
            self._done(c, request, None)
            raise
        except FAILURE as error:
            reply = failure(c, request.type, request.tag, job.args[1], error)
        self._done(c, request, reply)

    def _late(self, worker: Worker, request: Request) -> Request | None:
        """Answer a request that had to wait for others; returns it if it waits on, and this worker has it in hand from then on."""
        job: Job = request.work
        c = job.c
        if request.cleared or c.dead:
            return None
        job.before = c.out_size + c.gone
        began = monotonic_ns()
        try:
            reply: Any
            if not c.relays:
                reply = job.call[1](c, *job.args)
            elif self.exchange.late(c, request.type, request.tag, job.args):
                reply = None
            elif away := theirs(c, request.type, job.args):
                reply = here(c, request.type, job.call, job.args, away)
            else:
                reply = job.call[1](c, *job.args)
            if reply.__class__ is not bytes and reply is not None:
                work = reply
                reply = begun(work)
                if reply.__class__ is not bytes and reply is not None:
                    job.work, job.trap = work, reply
                    if (ns := monotonic_ns() - began) > HELD:
                        held(c, request.type, job.args[1], ns)
                    return self._hold(worker, request)
        except FAILURE as error:
            reply = failure(c, request.type, request.tag, job.args[1], error)
        if (ns := monotonic_ns() - began) > HELD:
            held(c, request.type, job.args[1], ns)
        self._finish(request, reply)
        return None

    def begin(self, c: Connection, type_: int, op: Callable[..., Any], args: tuple[Any, ...], since: int) -> None:
        """Do a request when its connection has its turn, that has come a while ago."""
        request = Request(args[0], type_, Job(c, (op, op), args, since=since))
        c.session.enter(request, args[1:])
        self.may_run(c, [request])

    def _done(self, c: Connection, request: Request, reply: bytes | None) -> None:
        self._finish(request, reply)
        c.quiet.unpark_all()

    def _finish(self, request: Request, reply: bytes | None) -> None:
        """Retire a request that had waited, send its reply, and start what waited for it."""
        job: Job = request.work
        c = job.c
        ready, flushes = c.session.finish(request)
        if reply is not None:
            c.queue(reply)
        c.count()
        now = c.out_size + c.gone
        if now != job.before:  # else it was flushed, or passed on
            c.counts.answered(request.type, now - job.before, job.since)
        self._next(c, ready, flushes)
        if flushes:
            c.counts.flushed(c.out_size + c.gone - now)
        if c.dead:
            return
        if not c.blocked:
            try:
                self.send(c)
            except OSError as error:
                self.hang_up(c, str(error))
        elif c.out_size > (self.limits.out if c.full else self.limits.unread):
            refuse(c, "unread", f"it does not take its replies: {c.out_size} bytes wait for it")
            self.hang_up(c, "it does not take its replies")

    def _next(self, c: Connection, ready: Sequence[Request], flushes: Sequence[int]) -> None:
        for tag in flushes:
            c.queue(c.reply(m.Rflush, tag))
        if ready:
            self.may_run(c, ready)


def begun(work: Any) -> Any:
    """Run a request's coroutine until it waits or ends; returns what it waits with, which is trio's, or its reply: bytes, or None."""
    # here, and not in the leader's long functions: to raise costs the more the later in a function it is (PyFrame_GetLineNumber of 3.11)
    try:
        return work.send(None)
    except StopIteration as done:
        return done.value


@types.coroutine
def _rest(request: Request) -> Generator[Any, Any, Any]:
    """Run the rest of a request's coroutine, which has begun in this task and now waits; returns its value."""
    job: Job = request.work
    work, trap, c = job.work, job.trap, job.c
    while True:
        try:
            value = yield trap
        except BaseException as error:
            outcome: BaseException | None = error
        else:
            outcome = None
        job.before = c.out_size + c.gone
        began = monotonic_ns()
        try:
            trap = work.send(value) if outcome is None else work.throw(outcome)
        except StopIteration as done:
            return done.value
        finally:
            if (ns := monotonic_ns() - began) > HELD:
                held(c, request.type, job.args[1], ns)
