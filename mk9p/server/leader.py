"""The leader: it waits for all links at once, takes what came, and answers it.

Theory
* One task, the *leader*, waits for all links at once: trio waits on the descriptor of the server's own epoll. One wake-up takes all complete
  requests of a link, answers them in order, and sends all replies in one go. A task, a lock, a scope or a nursery for each request would cost more
  than the request (5 to 12 us each); so would a wait for each.
* If an op returns a coroutine, the leader itself runs it, at once, step by step. If it never waits, nothing else happens. If it does wait, the
  leader becomes that request's task and a *follower* takes the lead, where the batch was left; so only a request that really waits pays for a task
  switch. The session's table says which requests may go on meanwhile, and in which order.
* Every worker task has one cancel scope for its whole life. A Tflush cancels the worker that has the request, which then ends; a new one starts
  when one is needed. So there is no scope for each request either.
* Nobody waits long because of others: turns.py says whose turn it is, and for how long. Between two shares of time the rest of the program has its
  own: signals, listeners, files that wait.
* A client that is gone is not served for long. What it sent before it went is still done for a few turns, in order, so a client that writes a word
  and leaves is heard. Then the rest is dropped, as if the line had broken a little earlier: a client that wants to know waits for its answer.
* If a client does not read, the server does not read from it: when the kernel takes no more, its link waits for writable and nothing else. The
  replies to one buffer of requests, and to those that waited, limit what a connection can have queued; all limits are in limits.py.
* Reads of files that wait leave places free for everything else: a client with thousands of blocked event readers can still write to a ctl.
* failures.py answers what an op raises, and serving goes on.
"""

import contextlib
import errno
import logging
from collections.abc import Callable
from time import monotonic_ns
from typing import Final

import trio

from mk9p.dial import Refused
from mk9p.errors import NineError, ProtocolError
from mk9p.server.answers import HEAD, answer, fid_at
from mk9p.server.beginning import STALE, Beginning
from mk9p.server.blocks import forward
from mk9p.server.connection import Connection
from mk9p.server.exchange import turn
from mk9p.server.failures import HELD, failure, held
from mk9p.server.halves import Halves
from mk9p.server.links import GONE, Links
from mk9p.server.passing import Backend, send
from mk9p.server.pending import go
from mk9p.server.refusals import line, origin, refuse, refuse_keys
from mk9p.server.turns import TURN, Party
from mk9p.session import Request
from mk9p.tree.later import hand
from mk9p.wire import NOFID
from mk9p.wire import messages as m

log = logging.getLogger("mk9p.server")

# bytes; who sends that much at once is probably still sending. There is always room for as many (framing.py).
BULK: Final = 16384
# ns that links have before the rest of the program has its own; a round of the scheduler costs 25,000
SHARE: Final = 2_000_000


class Leader:
    """What the leading worker does: it waits for links, and serves them. It calls `begin_anew` for what may be a beginning (beginning.py)."""

    def __init__(self, links: Links, halves: Halves, begin_anew: Callable[[Connection, Beginning, int], None]) -> None:
        self.links, self.halves, self._begin_anew = links, halves, begin_anew
        self._due = 0  # when the rest of the program has its share

    async def lead(self) -> Request:
        """Serve links until a request of theirs waits, and return that: then the leader works on that request, and leads no more."""
        links = self.links
        turns, poll, by_fd = links.turns, links.poller.poll, links.by_fd
        users, here = turns.users, hand()
        unsent = here.unsent
        now = turns.seen = monotonic_ns()
        while True:
            link = turns.present
            if link is None:
                if now > self._due:
                    await trio.lowlevel.checkpoint()
                    now = self._come(poll(0))
                    self._due = now + SHARE
                if users:
                    user = users[0]
                    link = user.links.popleft()
                    link.queued = False
                    if not user.links:
                        users.popleft()
                    elif len(users) > 1:  # a user with more links that wait comes again at the end
                        users.rotate(-1)
                else:
                    events = links.courtesy.events()
                    if not events:
                        await links.sleep()
                        events = poll(0)
                        self._due = monotonic_ns() + SHARE
                    if len(events) != 1 or (link := by_fd.get(events[0][0])) is None or events[0][1] & GONE:
                        now = self._come(events)
                        continue
                    now = monotonic_ns()  # it is alone, and need not queue
                    if isinstance(link, Connection):
                        link.counts.since = now
                turns.present, turns.until, turns.seen = link, now + TURN, now
            if isinstance(link, Connection):
                waiting = None
                if not link.dead:
                    here.now = True
                    try:
                        waiting = self._serve(link)
                    except Exception as error:
                        self._broken(link, error)
                    finally:
                        here.now = False
                if unsent:
                    here.send()
                if waiting is not None:
                    if monotonic_ns() > turns.until:
                        self._end_turn(link)
                    return waiting
                now = turns.seen
            elif isinstance(link, Backend) and not link.dead:
                turn(link.c, link)
                now = monotonic_ns()
            if link.more or now > turns.until:
                self._end_turn(link)
            turns.present = None

    def _come(self, events: list[tuple[int, int]]) -> int:
        """Give a turn to all links that are ready for something. Return when that was, on the monotonic clock in ns."""
        by_fd, users = self.links.by_fd, self.links.turns.users
        now = monotonic_ns()
        for fd, event in events:
            link = by_fd.get(fd)
            if link is None:
                self.links.heard(fd)
                continue
            if event & GONE and isinstance(link, Connection):
                # nobody would read that
                if link.choked or link.held:
                    link.hang_up("the peer closed it")
                    continue
                # otherwise it may still read
                link.hung_up = link.hung_up or link.link.rfd == link.link.wfd
            # as `Turns.add`, for what comes most often
            if not link.queued:
                link.queued = True
                user = link.user
                if not user.links:
                    users.append(user)
                user.links.append(link)
                if isinstance(link, Connection):
                    link.counts.since = now
        return now

    def _end_turn(self, link: Party) -> None:
        """Let a link go on when its next turn comes, if it has more to do."""
        turns = self.links.turns
        turns.present = None
        link.stride = 1
        if isinstance(link, Connection):
            if link.hung_up and not link.dead:
                link.last_turns -= 1
                if not link.last_turns:
                    link.hang_up("the peer closed it")
            if not link.dead:
                turns.add(link)
        elif isinstance(link, Backend) and not (link.dead or link.c.blocked):
            turns.add(link)

    def _run_ready(self, c: Connection) -> Request | None:
        """Run the requests that waited for others, and may run now; `more` says whether some are left."""
        turns, c.more = self.links.turns, False
        waiting: Request | None = None
        try:
            while c.ready:
                if go(request := c.ready.popleft()):
                    waiting = request
                    break
                if c.dead:
                    break
                turns.seen = monotonic_ns()
                if turns.seen > turns.until:
                    c.more = True
                    break
        finally:
            try:
                if c.backends:
                    send(c)
                if c.out and not (c.blocked or c.dead):
                    c.send()
            except OSError as error:  # the request that waits has begun, and goes to its end all the same
                self._broken(c, error)
        return waiting

    def _serve(self, c: Connection) -> Request | None:
        """Serve a client until there is nothing to do, or the turn is over, which `more` tells; or return a request that waits.

        Raises ProtocolError, and OSError when the link is broken.
        """
        if c.ready and ((waiting := self._run_ready(c)) is not None or c.more or c.dead):
            return waiting
        c.more = False
        if c.blocked:
            c.send()
        if c.blocked or c.held or c.choked:
            return None
        frames, turns = c.frames, self.links.turns
        # received by another worker, which led until a request waited; or there was no time
        left = frames.head < frames.tail or bool(c.out)
        drained = False
        while True:
            if not left:
                space = frames.space()
                if len(frames.buf) != c.room:
                    space = self._grown(c, space)
                try:
                    count = c.link.recv_into(space)
                except BlockingIOError:
                    return None
                if count == 0:
                    c.hang_up("the peer closed it")
                    return None
                frames.received(count)
                if c.beginning is not None and (size := c.beginning.came(space[:count])):
                    self._begin_anew(c, c.beginning, size)
                    if size != STALE:
                        return None
                # then there is no more now, and asking again would only cost (epoll(7))
                drained = count < BULK
            c.more = False
            if (waiting := self._relay(c) if c.backends else answer(c)) is not None:
                return waiting
            if c.out or c.counts.runs:
                c.send()
            now = c.counts.since  # the clock was looked at just now, for what was answered
            if now <= turns.seen:
                now = monotonic_ns()
            if now - turns.seen > HELD:
                kind, n, first = c.run
                held(c, kind, fid_at(c.frames.buf, first), now - turns.seen, n)
            turns.seen = now
            if c.blocked or c.held or c.choked or c.dead:
                c.more = False
                return None
            left = c.more  # there was no room for the replies to all of them, and now there is; or there was no time
            if drained and not left:
                if frames.head < frames.tail and c.stranger:
                    self.halves.add(c)
                return None
            if now > turns.until:
                c.more = True
                return None
            drained = False

    def _relay(self, c: Connection) -> Request | None:
        """Answer the complete requests, and pass on those that are another server's; return the first that waits."""
        if (c.relays or c.plans) and forward(c):
            send(c)
            return None
        waiting = answer(c)
        send(c)
        c.count()
        return waiting

    def _grown(self, c: Connection, space: memoryview) -> memoryview:
        """Count a receive buffer that has another length; return where to receive.

        If its user has too much, the request that it was for is refused and skipped.
        """
        frames = c.frames
        if not c.room:
            self.links.warm.add(c)
            c.takes_room(len(frames.buf))
            return space
        c.room = len(frames.buf)
        c.count()
        if not c.full or c.make_room() or frames.tail - frames.head < 7:
            return space
        size, type_, tag = HEAD(frames.buf, frames.head)
        c.queue(failure(c, type_, tag, NOFID, NineError(errno.EAGAIN, "this user has too much here")))
        frames.pass_over(size)
        c.room = len(frames.buf)
        c.count()
        return frames.space()

    def _broken(self, c: Connection, error: Exception) -> None:
        """End a connection that broke, or that breaks the protocol."""
        if isinstance(error, ProtocolError):
            self._out_of_frame(c, error)
        elif isinstance(error, Refused):
            refuse_keys(c, error)
            c.hang_up(error.strerror or "")
        elif isinstance(error, OSError):
            c.hang_up(str(error))
        else:
            log.error("internal error: the connection from %s ends", c.link.peer.address, exc_info=error)
            c.hang_up("internal error")

    def _out_of_frame(self, c: Connection, error: ProtocolError) -> None:
        """End a connection whose framing is lost; on a line that may lose bytes, look for its next beginning instead."""
        if c.link.lossy:
            log.warning(line("garbled", **origin(c.link.peer), text=error))
            c.frames.drop_partial()
            c.frames.resync(m.Tversion.type)
        else:
            with contextlib.suppress(OSError):
                c.send()  # what came before it was valid
            refuse(c, "protocol", str(error))
            c.hang_up(str(error))
