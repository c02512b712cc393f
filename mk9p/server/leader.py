"""The leader: it waits for all links at once, takes what came, and answers it.

Theory
* One task, the *leader*, waits for all links at once: trio waits on the descriptor of an epoll of our own. One wake-up takes all complete requests
  of a link, answers them in order, and sends all replies in one go. A task, a lock, a scope or a nursery for each request would cost more than the
  request (5 to 12 us each); so would a wait for each.
* An op that returns a coroutine is run by the leader itself, at once, by hand. If it never waits, nothing else happened. If it does wait, the
  leader becomes that request's task and a *follower* takes the lead, where the batch was left; so a task switch is paid for only by what really
  waits. Which requests may go on meanwhile, and in which order, is the session's table.
* Every worker task has one cancel scope for its whole life. A Tflush cancels the worker that has the request, which then ends; a new one is started
  when one is needed. So there is no scope for each request either.
* Nobody is kept waiting by what others ask: turns.py tells whose turn it is, and for how long. Between two shares of time the rest of the program
  has its own: signals, listeners, files that wait.
* A client that is gone is not answered for long. What it sent before it went is still done for a few turns, in order, so that whoever writes a
  word and leaves is heard. Then the rest is dropped, as if the line had broken a little earlier: a client that wants to know waits for its answer.
* A client that does not read is not read from: when the kernel takes no more, its link waits for writable and nothing else. What a connection can
  have queued is bounded by the replies to one buffer of requests, and by those that waited; all bounds are in limits.py.
* Reads of files that wait leave places free for everything else: a client with thousands of blocked event readers can still write to a ctl.
* What an op raises is answered in failures.py, and serving goes on.
"""

import contextlib
import errno
import logging
from struct import Struct
from time import monotonic_ns
from typing import Any, Final

import trio

from mk9p.errors import FAILURE, NineError, ProtocolError
from mk9p.server.beginning import Beginning
from mk9p.server.blocks import PASSED, forward
from mk9p.server.connection import Connection
from mk9p.server.exchange import here, theirs
from mk9p.server.failures import HELD, failure, held
from mk9p.server.halves import Halves
from mk9p.server.limits import RESERVE
from mk9p.server.links import GONE, Links
from mk9p.server.refusals import line, origin, refuse
from mk9p.server.relay import Backend
from mk9p.server.turns import STRIDE, TURN
from mk9p.server.workers import TEXT, Job, Worker, begun
from mk9p.session import Request
from mk9p.wire import NOFID, codec
from mk9p.wire import messages as m
from mk9p.wire.roles import DATA, LOCAL, MAKES_ROOM, PAIRS, READS

log = logging.getLogger("mk9p.server")

BULK: Final = 16384  # bytes; who sends that much at once is probably still sending
SHARE: Final = (
    2_000_000  # ns that links have before the rest of the program has its own; a round of the scheduler costs 25,000
)
ENDING: Final = 50_000  # ns that the end of a request takes that is cancelled, in the next round of the scheduler
_SIZE_TYPE_TAG: Final = Struct("<IBH").unpack_from


class Leader(Links):
    """The links of a server, and the workers, of which the one who leads serves them."""

    def __init__(self) -> None:
        super().__init__()
        self._seen = 0  # when the leader last looked at the clock, on the monotonic clock in ns
        self._due = 0  # when the rest of the program has its share
        self.halves = Halves(self.hang_up)

    # leading

    async def lead(self, worker: Worker) -> None:
        """Serve links until a request of theirs waits: then this worker has it in hand, and another leads."""
        turns, poll, by_fd = self.turns, self.poller.poll, self.by_fd
        now = self._seen = monotonic_ns()
        while self._leader is worker:
            link = turns.present
            if link is None:
                if now > self._due:
                    await trio.lowlevel.checkpoint()
                    now = self.come(poll(0))
                    self._due = now + SHARE
                if turns.users:
                    user = turns.users.popleft()  # who has more links that wait comes again at the end
                    link = user.links.popleft()
                    link.queued = False
                    if user.links:
                        turns.users.append(user)
                else:
                    events = self.courtesy.events()
                    if not events:
                        await self.sleep()
                        events = poll(0)
                        self._due = monotonic_ns() + SHARE
                    if len(events) != 1 or (link := by_fd.get(events[0][0])) is None or events[0][1] & GONE:
                        now = self.come(events)
                        continue
                    now = monotonic_ns()  # it is alone, and need not queue
                    if isinstance(link, Connection):
                        link.counts.since = now
                turns.present, turns.until, self._seen = link, now + TURN, now
            if not link.dead:
                if isinstance(link, Connection):
                    if (waiting := self._turn(worker, link)) is not None:
                        if monotonic_ns() > turns.until:
                            self._end_turn(link)
                        await self._in_hand(waiting)
                        return
                else:
                    self.exchange.turn(link)
            now = monotonic_ns()
            if link.more or now > turns.until:
                self._end_turn(link)
            turns.present = None

    def _end_turn(self, link: Connection | Backend) -> None:
        """Let a link go on when its next turn comes, if it has more to do."""
        self.turns.present = None
        link.stride = 1
        if isinstance(link, Connection) and link.hung_up and not link.dead:
            link.last_turns -= 1
            if not link.last_turns:
                self.hang_up(link, "the peer closed it")
        if not link.dead and not (isinstance(link, Backend) and link.c.blocked):
            self.turns.add(link)

    def _turn(self, worker: Worker, c: Connection) -> Request | None:
        """Serve one link for a while. None: its turn is over; else a request waits, which this worker has in hand, and leads no more."""
        until = self.turns.until
        c.more = False
        try:
            while c.ready:
                if (waiting := self._late(worker, c.ready.popleft())) is not None:
                    return waiting
                if c.dead:
                    return None
                if monotonic_ns() > until:
                    c.more = True
                    return None
            if c.blocked:
                self.send(c)
            if c.blocked or c.held or c.choked:
                return None
            left = c.frames.pending or bool(
                c.out
            )  # by another worker, who led until a request waited; or there was no time
            while True:
                drained = False
                if not left:
                    space = c.frames.space()
                    if len(c.frames.buf) != c.room:
                        space = self._grown(c, space)
                    try:
                        count = c.link.recv_into(space)
                    except BlockingIOError:
                        return None
                    if count == 0:
                        self.hang_up(c, "the peer closed it")
                        return None
                    c.frames.received(count)
                    if c.beginning is not None and (size := c.beginning.came(space[:count])):
                        assert self._nursery is not None
                        self._nursery.start_soon(self._begin, c, c.beginning, size)
                        return None
                    # then there is no more now, and asking again would only cost (epoll(7))
                    drained = count < BULK and count < len(space)
                if (waiting := self._requests(worker, c)) is not None:
                    return waiting
                self.send(c)
                if c.blocked or c.held or c.choked or c.dead:
                    c.more = False
                    return None
                if c.more:  # there was no room for the replies to all of them, and now there is; or no time
                    left = True
                elif drained:
                    if c.frames.pending and c.stranger:
                        self.halves.add(c)
                    return None
                else:
                    left = False
                if monotonic_ns() > until:
                    c.more = True
                    return None
        except ProtocolError as error:
            self._out_of_frame(c, error)
        except OSError as error:
            self.hang_up(c, str(error))
        except Exception:
            log.exception("internal error: the connection from %s ends", c.link.peer.address)
            self.hang_up(c, "internal error")
        return None

    def _grown(self, c: Connection, space: memoryview) -> memoryview:
        """Count what a link receives into, which has another length; returns where to receive.

        Where its user has too much, the request that it is to hold is refused and passed over.
        """
        frames = c.frames
        c.room = len(frames.buf)
        c.count()
        if not c.full or c.make_room() or frames.tail - frames.head < 7:
            return space
        size, type_, tag = _SIZE_TYPE_TAG(frames.buf, frames.head)
        c.queue(failure(c, type_, tag, NOFID, NineError(errno.EAGAIN, "this user has too much here")))
        frames.pass_over(size)
        c.room = len(frames.buf)
        c.count()
        return frames.space()

    async def _begin(self, c: Connection, beginning: Beginning, size: int) -> None:
        """Begin anew with a Tversion that came in the middle of a frame, if nothing comes after it."""
        if await beginning.silence() and not c.dead:
            log.warning(line("garbled", **origin(c.link.peer), text="half a frame, and a new conversation"))
            beginning.begin(size)
            self.again(c)

    def _out_of_frame(self, c: Connection, error: ProtocolError) -> None:
        """End a connection whose framing is lost; on a line that may lose bytes, look for its next beginning instead."""
        if c.link.lossy:
            log.warning(line("garbled", **origin(c.link.peer), text=error))
            c.frames.drop_partial()
            c.frames.resync(m.Tversion.type)
        else:
            with contextlib.suppress(OSError):
                self.send(c)  # what came before it was asked for rightly
            refuse(c, "protocol", str(error))
            self.hang_up(c, str(error))

    def _requests(self, worker: Worker, c: Connection) -> Request | None:
        """Answer the complete requests there are until the turn is over; returns the first that waits, which this worker has in hand then."""
        c.more = False
        if c.relays and forward(c):
            self.exchange.send(c)
            return None
        waiting = self._answer(worker, c)
        if c.backends:
            self.exchange.send(c)
            c.count()
        return waiting

    def _answer(self, worker: Worker, c: Connection) -> Request | None:
        frames, session, out, relays, asked, runs = c.frames, c.session, c.out, c.relays, c.asked, c.counts.runs
        buf, view, most = frames.buf, frames.view, c.most
        reply: Any
        kind, n, late, first, end, before = -1, 0, 0, 0, 0, 0  # a run of one kind of message (counts.py)
        _, tail = frames.ahead()
        last = tail - 6  # a frame has 7 bytes at least
        stop = frames.head + c.stride
        if stop > last:
            stop = last
        try:
            while True:
                start = frames.head
                if (
                    relays and n and start < last and buf[start + 4] in PASSED
                ):  # with the first frame it was tried already
                    c.counts.run(kind, n, late, end - first, c.out_size + c.gone - before)
                    kind, n, late = -1, 0, 0
                    forward(c)
                    start = frames.head
                if start >= stop:
                    if start >= last:
                        break
                    if monotonic_ns() > self.turns.until:
                        c.more = True
                        return None
                    if c.stride < STRIDE:
                        c.stride *= 2
                    stop = start + c.stride
                    if stop > last:
                        stop = last
                size, type_, tag = _SIZE_TYPE_TAG(buf, start)
                if not 7 <= size <= frames.limit:
                    raise frames.impossible(size)
                if size > tail - start:
                    break
                frames.head = end = start + size
                if type_ != kind:
                    now = c.out_size + c.gone
                    if late:
                        c.counts.run(kind, n, late, start - first, now - before)
                    elif n:
                        runs.append((kind, n, start - first, now - before))
                    kind, n, late, first, before = type_, 0, 0, start, now
                n += 1
                call = c.calls[type_]
                try:
                    if session.tags:
                        self._admit(c, type_, tag, buf, start)
                    if asked and tag in asked:
                        self.exchange.refuse(c, tag)
                    hop = None
                    if relays and end - start > 10 and type_ not in LOCAL:
                        fid = int.from_bytes(buf[start + 7 : start + 11], "little")
                        hop = relays.get(fid)
                        if (
                            hop is not None
                            and not hop.backend.dead
                            and not (session.claims and self._must_wait(c, type_, buf, start, end))
                            and hop.backend.passes(c, hop, fid, type_, tag, buf, start, end)
                        ):
                            late += 1
                            continue
                    if call is None:
                        late += not self._odd(c, type_, tag, buf, start, end)
                        continue
                    args = call[0](view, start + 5, end)
                    if session.claims and (blockers := self._blockers(c, type_, args)):
                        size = TEXT * (end - start)
                        if type_ in DATA:  # a view of the buffer, which is read into again before its turn comes
                            args = (*args[:-1], memoryview(bytes(args[-1])))
                            size = len(args[-1])
                        job = Job(c, call, args, since=c.counts.since)
                        session.enter(Request(tag, type_, job, size), args[1:], blockers)
                        c.count()
                        late += 1
                        continue
                    if (hop is not None or (relays and type_ in PAIRS)) and (away := theirs(c, type_, args)):
                        reply = here(c, type_, call, args, away)
                    else:
                        reply = call[1](c, *args)
                    if reply.__class__ is not bytes and reply is not None:
                        work = reply
                        reply = begun(work)
                        if reply.__class__ is not bytes and reply is not None:
                            late += 1
                            job = Job(c, call, args, work, reply, since=c.counts.since)
                            return self._waits(worker, Request(tag, type_, job, TEXT * (end - start)))
                except FAILURE as error:
                    reply = failure(c, type_, tag, int.from_bytes(buf[start + 7 : start + 11], "little"), error)
                if reply is None:
                    late += tag in asked
                else:
                    out.append(reply)
                    c.out_size += len(reply)
                if c.out_size > most:
                    self.send(c)
                    if c.blocked:
                        c.more = True
                        return None
        finally:
            if late:
                c.counts.run(kind, n, late, end - first, c.out_size + c.gone - before)
            elif n:
                runs.append((kind, n, end - first, c.out_size + c.gone - before))
            now = monotonic_ns()
            if n and now - self._seen > HELD:
                held(c, kind, int.from_bytes(buf[first + 7 : first + 11], "little"), now - self._seen, n)
            self._seen = now
        return None

    def _admit(self, c: Connection, type_: int, tag: int, buf: bytearray, start: int) -> None:
        """Refuse a request, where others wait already, whose tag is one of theirs or for which there is no place."""
        session = c.session
        if tag in session.tags:
            raise NineError(errno.EINVAL, "tag already in use")
        if type_ in DATA and session.held > self.limits.held:
            raise NineError(errno.EAGAIN, f"writes of {session.held} bytes are waiting already")
        if type_ in MAKES_ROOM:
            return
        if c.full:
            raise NineError(errno.EAGAIN, "this user has too much waiting here")
        over = len(session.tags) - session.max_requests
        if over < 0:
            return
        if over >= RESERVE or (type_ in READS and _duplex(c, int.from_bytes(buf[start + 7 : start + 11], "little"))):
            raise NineError(errno.EAGAIN, f"{len(session.tags)} requests of this connection are waiting already")

    def _must_wait(self, c: Connection, type_: int, buf: bytearray, start: int, end: int) -> bool:
        """Tell whether a request that could be passed on must wait for one that is ours."""
        call = c.calls[type_]
        return call is not None and bool(self._blockers(c, type_, call[0](buf, start + 5, end)))

    def _blockers(self, c: Connection, type_: int, args: tuple[Any, ...]) -> list[Request]:
        return c.session.blockers(type_, args[1:], type_ in READS and _duplex(c, args[1]))

    def _odd(self, c: Connection, type_: int, tag: int, buf: bytearray, start: int, end: int) -> bool:
        """Do Tflush, and refuse what no op answers; False if the answer is still to come."""
        if type_ == m.Tflush.type and c.versioned:
            _, oldtag = codec(c.dialect, type_).unpack(buf, start + 5, end)
            if c.backends and self.exchange.flush(c, tag, oldtag, bytes(buf[start:end])):
                return False
            old = c.session.tags.get(oldtag)
            if old is not None and (old.type == type_ or old.flushed_by) and c.full:
                raise NineError(errno.EAGAIN, "this user has too much waiting here")
            ready, flushes = c.session.flush(tag, oldtag)
            if not flushes:
                self.turns.until -= ENDING
            c.count()
            self._next(c, ready, flushes)
            return bool(flushes)
        if not c.versioned:
            raise NineError(errno.EPROTO, "Tversion comes first")
        raise NineError(errno.EOPNOTSUPP, f"{c.dialect.version} has no message of type {type_} that is served here")


def _duplex(c: Connection, fid: int) -> bool:
    """Tell whether a fid stands for an open file of which reads may wait for as long as they like, and for no write."""
    f = c.session.fids.get(fid)
    return f is not None and f.handle is not None and f.handle.duplex
