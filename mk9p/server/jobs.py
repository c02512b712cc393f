"""Requests that wait, for their turn or in the middle: what is needed to go on with one, and how one begins."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from mk9p.server.connection import Call, Connection, Reply
from mk9p.session import Request
from mk9p.wire import messages as m


class Step:
    """A request's coroutine that waits, and what trio needs to go on with it."""

    __slots__ = ("trap", "work")

    def __init__(self, work: Any, trap: Any) -> None:
        self.work, self.trap = work, trap


LATE: Final = Step(None, None)  # instead of a reply: another server has the request, or it waits for its turn


@attrs.define(eq=False)
class Job:
    """A request that waits: everything that is needed to go on with it."""

    c: Connection
    call: Call | None
    args: tuple[Any, ...]
    step: Step | None = None  # where its coroutine is, after it has begun
    since: int = 0  # when it was received, on the monotonic clock in ns
    before: int = 0  # bytes that were queued for the client before the step that brought the reply


def begin(work: Any) -> Reply | Step:
    """Run a request's coroutine until it waits or ends; return where it is, or its reply."""
    # here, and not in a long function: raising costs more the later in a function it is (PyFrame_GetLineNumber of 3.11)
    try:
        return Step(work, work.send(None))
    except StopIteration as done:
        reply: Reply = done.value
        return reply


def follow(c: Connection, ready: Sequence[Request], flushes: Sequence[int]) -> None:
    """Do what the end of a request allows: requests that waited for it may run, and its flushes are answered."""
    for tag in flushes:
        c.queue(c.reply(m.Rflush, tag))
    if ready:
        c.ready.extend(ready)
        c.links.call(c)


def do_later(
    c: Connection, type_: int, op: Callable[..., Any], args: tuple[Any, ...], since: int, request: Request | None
) -> None:
    """Do a request that came a while ago when its connection has its turn."""
    job = Job(c, (op, op), args, since=since)
    if request is None:
        request = Request(args[0], type_, job)
        c.session.enter(request, args[1:])
    request.work = job
    follow(c, [request], ())
