"""The loop that answers: it takes all complete requests that were received, in order, until one waits, the turn is over, or the replies have no
room.

Most requests meet nothing that waits here or belongs to another server: then a request is a call of its op. Everything else is in functions of its
own, and costs nothing where it is not needed.
"""

import errno
from struct import Struct
from time import monotonic_ns
from typing import Any, Final

from mk9p.errors import FAILURE, NineError
from mk9p.server.across import keep_back
from mk9p.server.blocks import PASSED, forward
from mk9p.server.connection import Call, Connection
from mk9p.server.exchange import remote_fids, require_untaken, run_locally
from mk9p.server.failures import failure
from mk9p.server.jobs import LATE, Step, begin, follow
from mk9p.server.limits import RESERVE
from mk9p.server.pending import wait_in_line, wait_in_middle
from mk9p.server.relay import flush, passes
from mk9p.server.turns import STRIDE
from mk9p.session import Request
from mk9p.wire import codec
from mk9p.wire import messages as m
from mk9p.wire.roles import CREATES, DATA, LOCAL, MAKES_ROOM, OPENS, PAIRS, READS

ENDING: Final = 50_000  # ns for the end of a cancelled request, in the next round of the scheduler
_JUST_OPENS: Final = OPENS - CREATES
HEAD: Final = Struct("<IBH").unpack_from  # size[4] type[1] tag[2]


def answer(c: Connection) -> Request | None:
    """Answer complete requests; return the first that waits. `more` says that there was no time for the rest, or no room for their replies."""
    frames, out, runs = c.frames, c.out, c.counts.runs
    tags, relays, asked, plans = c.session.tags, c.relays, c.asked, c.plans
    buf, view, most = frames.buf, frames.view, c.most
    reply: Any
    args: tuple[Any, ...] = ()
    # a run of one kind of message (counts.py), and the bytes in it that wait
    kind, n, late, first, end, before = -1, 0, 0, 0, 0, 0
    tail = frames.tail if frames.sought is None else frames.ahead()[1]
    last = tail - 6  # a frame has at least 7 bytes
    stop = frames.head + c.stride
    if stop > last:
        stop = last
    try:
        while True:
            start = frames.head
            # the first frame was tried already
            if (relays or plans) and kind >= 0 and start < last and buf[start + 4] in PASSED:
                if n:
                    runs.append((kind, n, end - first - late, c.out_size + c.gone - before))
                kind, n = -1, 0
                forward(c)
                start = frames.head
            if start >= stop and (stop := _further(c, start, last)) <= start:
                return None
            size, type_, tag = HEAD(buf, start)
            if not 7 <= size <= frames.limit:
                raise frames.impossible(size)
            if size > tail - start:
                return None
            frames.head = end = start + size
            if type_ != kind:
                now = c.out_size + c.gone
                if n:
                    runs.append((kind, n, start - first - late, now - before))
                kind, n, late, first, before = type_, 0, 0, start, now
                if c.walked is not None and type_ not in _JUST_OPENS:
                    c.walked = None
            n += 1
            call = c.calls[type_]
            try:
                if tags or relays or asked:
                    reply, args = _beside(c, call, type_, tag, start, end)
                elif call is None:
                    reply = _odd(c, type_, tag, start, end)
                else:
                    args = call[0](view, start + 5, end)
                    reply = call[1](c, *args)
                if reply.__class__ is not bytes and reply is not None:
                    if reply is not LATE:
                        reply = begin(reply)
                    if reply.__class__ is Step:
                        n -= 1
                        late += size
                        c.counts.passed(type_, 1, size)
                        if reply is not LATE:
                            request = wait_in_middle(c, call, tag, type_, args, size, reply)
                            if request is not None:
                                return request
                        continue
            except FAILURE as error:
                reply = failure(c, type_, tag, fid_at(buf, start), error)
            if reply is not None:
                out.append(reply)
                c.out_size += len(reply)
            if c.out_size > most:
                c.send()
                if c.blocked:
                    c.more = True
                    return None
    finally:
        c.walked = None
        if n:
            runs.append((kind, n, end - first - late, c.out_size + c.gone - before))
        c.run = kind, n, first


def fid_at(buf: bytearray, start: int) -> int:
    """Return the first fid that a request names."""
    return int.from_bytes(buf[start + 7 : start + 11], "little")


def _further(c: Connection, start: int, last: int) -> int:
    """Return how far requests may be answered before the next look at the clock; no further than `start` if there are none, or no time."""
    if start >= last:
        return start
    if monotonic_ns() > c.links.turns.until:
        c.more = True
        return start
    if c.stride < STRIDE:
        c.stride *= 2
    return min(start + c.stride, last)


def _beside(
    c: Connection, call: Call | None, type_: int, tag: int, start: int, end: int
) -> tuple[Any, tuple[Any, ...]]:
    """Do a request beside others that wait here, or were passed on; return what its op returns, and its fields. Raises for a request that has no
    place."""
    session, relays, frames = c.session, c.relays, c.frames
    buf, hop = frames.buf, None
    if session.tags:
        _admit(c, type_, tag, buf, start)
    if tag in c.asked:
        require_untaken(c, tag)
    if relays and end - start > 10 and type_ not in LOCAL:
        fid = fid_at(buf, start)
        hop = relays.get(fid)
        if hop is not None and hop.maybe:
            keep_back(c, hop)
        if (
            hop is not None
            and not hop.backend.dead
            and not (session.claims and _must_wait(c, type_, buf, start, end))
            and passes(c, hop, fid, type_, tag, buf, start, end)
        ):
            return LATE, ()
    if call is None:
        return _odd(c, type_, tag, start, end), ()
    args = call[0](frames.view, start + 5, end)
    if session.claims and (blockers := _blockers(c, type_, args)):
        wait_in_line(c, call, tag, type_, args, end - start, blockers)
        return LATE, args
    if (hop is not None or (relays and type_ in PAIRS)) and (away := remote_fids(c, type_, args)):
        return run_locally(c, type_, call[1], args, away), args
    return call[1](c, *args), args


def _admit(c: Connection, type_: int, tag: int, buf: bytearray, start: int) -> None:
    """Refuse a request, where others wait already, whose tag is one of theirs or for which there is no place."""
    session = c.session
    if tag in session.tags:
        raise NineError(errno.EINVAL, "tag already in use")
    if type_ in DATA and session.held > c.limits.held:
        raise NineError(errno.EAGAIN, f"writes of {session.held} bytes are waiting already")
    if type_ in MAKES_ROOM:
        return
    if c.full:
        raise NineError(errno.EAGAIN, "this user has too much waiting here")
    over = len(session.tags) - session.max_requests
    if over < 0:
        return
    if over >= RESERVE or (type_ in READS and _duplex(c, fid_at(buf, start))):
        raise NineError(errno.EAGAIN, f"{len(session.tags)} requests of this connection are waiting already")


def _must_wait(c: Connection, type_: int, buf: bytearray, start: int, end: int) -> bool:
    """Tell whether a request that could be passed on must wait for one of this server."""
    call = c.calls[type_]
    return call is not None and bool(_blockers(c, type_, call[0](buf, start + 5, end)))


def _blockers(c: Connection, type_: int, args: tuple[Any, ...]) -> list[Request]:
    return c.session.blockers(type_, args[1:], type_ in READS and _duplex(c, args[1]))


def _duplex(c: Connection, fid: int) -> bool:
    """Tell whether a fid stands for an open file whose reads may wait for as long as they like, and for no write."""
    f = c.session.fids.get(fid)
    return f is not None and f.handle is not None and f.handle.duplex


def _odd(c: Connection, type_: int, tag: int, start: int, end: int) -> Step | None:
    """Do Tflush, and refuse messages that have no op."""
    if not c.versioned:
        raise NineError(errno.EPROTO, "Tversion comes first")
    if type_ != m.Tflush.type:
        raise NineError(errno.EOPNOTSUPP, f"{c.dialect.version} has no message of type {type_} that is served here")
    buf = c.frames.buf
    _, oldtag = codec(c.dialect, type_).unpack(buf, start + 5, end)
    if c.backends and flush(c, tag, oldtag, bytes(buf[start:end])):
        return LATE
    old = c.session.tags.get(oldtag)
    if old is not None and (old.type == type_ or old.flushed_by) and c.full:
        raise NineError(errno.EAGAIN, "this user has too much waiting here")
    ready, flushes = c.session.flush(tag, oldtag)
    if not flushes:
        c.links.turns.until -= ENDING
    c.count()
    follow(c, ready, flushes)
    return None if flushes else LATE
