"""What happens to a request that is not answered in the batch that brought it: it waits for its turn, or in the middle, and is answered alone."""

import types
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic_ns
from typing import Any, Final

from mk9p.errors import FAILURE
from mk9p.server.connection import Call, Connection
from mk9p.server.exchange import late, remote_fids, run_locally
from mk9p.server.failures import HELD, failure, held
from mk9p.server.jobs import LATE, Job, Step, begin, follow
from mk9p.server.refusals import refuse
from mk9p.session import Request
from mk9p.tree.later import GivenUp, Later
from mk9p.wire.roles import DATA

TEXT: Final = 4  # the most bytes that a string of a message takes for each that it has on the wire


def wait_in_line(
    c: Connection, call: Call, tag: int, type_: int, args: tuple[Any, ...], size: int, after: Sequence[Request]
) -> None:
    """Let a request of `size` bytes wait for earlier ones."""
    size *= TEXT
    if type_ in DATA:  # a view of the buffer, which receives other bytes before the request's turn comes
        args = (*args[:-1], memoryview(bytes(args[-1])))
        size = len(args[-1])
    c.session.enter(Request(tag, type_, Job(c, call, args, since=c.counts.since), size), args[1:], after)
    c.count()


def wait_in_middle(
    c: Connection, call: Call | None, tag: int, type_: int, args: tuple[Any, ...], size: int, step: Step
) -> Request | None:
    """Keep a request of `size` bytes that has begun, and waits; return it if a task is to see it to its end."""
    now, turns = monotonic_ns(), c.links.turns
    if now - turns.seen > HELD:
        held(c, type_, args[1], now - turns.seen)
    turns.seen = now
    request = Request(tag, type_, Job(c, call, args, step, c.counts.since), TEXT * size)
    if type_ in DATA:
        c.end_runs()
        request.size = c.frames.detach()
    c.session.enter(request, args[1:])
    c.count()
    return None if _keep(request, step) else request


def _keep(request: Request, step: Step) -> bool:
    """Keep a request that waits for a Later until that is settled; False for one that needs a task."""
    later = step.trap
    if later.__class__ is not Later:
        return False
    request.work.step = step
    request.cancel = partial(_give_up, request)
    later.wake = partial(_go_on, request)
    return True


def _go_on(request: Request) -> None:
    c = request.work.c
    c.ready.append(request)
    c.links.call(c)


def _give_up(request: Request) -> None:
    step = request.work.step
    request.cancel, request.cleared, step.trap.wake = _nothing, True, None
    request.work.c.links.start(_given_up, request)


def _nothing() -> None:
    """Do nothing to a request that has been given up already."""


async def _given_up(request: Request) -> None:
    """Let a request that is given up clean up, for which it may wait."""
    try:
        with suppress(GivenUp, StopIteration):
            await _rest(request, _timed(request, request.work.step.work.throw, GivenUp()))
    except FAILURE as error:
        _failed(request, error)
    finally:
        finish(request, None)
        request.work.c.quiet.unpark_all()


def go(request: Request) -> bool:
    """Run a request whose turn has come; return True if it waits in the middle now, otherwise it is answered."""
    job: Job = request.work
    c = job.c
    if request.cleared or c.dead:
        return False
    reply: Any
    try:
        reply = _timed(request, _called, request)
        if reply.__class__ is Step and reply is not LATE:
            job.step = reply
            return not _keep(request, reply)
    except FAILURE as error:
        reply = _failed(request, error)
    finish(request, None if reply is LATE else reply, send=False)
    return False


def _called(request: Request) -> Any:
    job: Job = request.work
    if job.step is not None:
        request.cancel = None
        return begin(job.step.work)
    assert job.call is not None
    c, (_, op), args = job.c, job.call, job.args
    if c.relays:
        if late(c, request.type, request.tag, args):
            return LATE
        if away := remote_fids(c, request.type, args):
            return begin(run_locally(c, request.type, op, args, away))
    reply = op(c, *args)
    return reply if reply is None or reply.__class__ in (bytes, Step) else begin(reply)


async def see_to(request: Request) -> None:
    """See a request that waits in the middle to its end, and answer it."""
    c = request.work.c
    reply: Any
    try:
        reply = await _rest(request, request.work.step.trap)
    except FAILURE as error:
        reply = _failed(request, error)
    except BaseException:
        # trio.Cancelled, or a group of them where the request has tasks of its own
        finish(request, None)
        c.quiet.unpark_all()
        raise
    finish(request, None if reply is LATE else reply)
    c.quiet.unpark_all()


@types.coroutine
def _rest(request: Request, trap: Any) -> Generator[Any, Any, Any]:
    """Run the rest of a request's coroutine, which has begun in this task and now waits for `trap`; return its value."""
    work = request.work.step.work
    while True:
        try:
            value = yield trap
        except BaseException as error:
            go_on, value = work.throw, error
        else:
            go_on = work.send
        try:
            trap = _timed(request, go_on, value)
        except StopIteration as done:
            return done.value


def _timed(request: Request, step: Callable[[Any], Any], value: Any) -> Any:
    """Take a step of a request, and report if nothing else was done for long meanwhile."""
    job: Job = request.work
    c = job.c
    job.before = c.out_size + c.gone
    began = monotonic_ns()
    try:
        return step(value)
    finally:
        if (ns := monotonic_ns() - began) > HELD:
            held(c, request.type, job.args[1], ns)


def _failed(request: Request, error: BaseException) -> bytes:
    job: Job = request.work
    return failure(job.c, request.type, request.tag, job.args[1], error)


def finish(request: Request, reply: bytes | None, *, send: bool = True) -> None:
    """Retire a request that had waited, send its reply, and start what waited for it."""
    job: Job = request.work
    c = job.c
    ready, flushes = c.session.finish(request)
    if reply is not None:
        c.queue(reply)
    c.count()
    now = c.out_size + c.gone
    if now != job.before:  # otherwise it was flushed, or passed on
        c.counts.answered(request.type, now - job.before, job.since)
    follow(c, ready, flushes)
    if flushes:
        c.counts.flushed(c.out_size + c.gone - now)
    if c.dead:
        return
    if not c.blocked:
        if not send:
            return
        try:
            c.send()
        except OSError as error:
            c.hang_up(str(error))
    elif c.out_size > (c.limits.out if c.full else c.limits.unread):
        refuse(c, "unread", f"it does not take its replies: {c.out_size} bytes wait for it")
        c.hang_up("it does not take its replies")
