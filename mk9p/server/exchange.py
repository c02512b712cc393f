"""Where the engine and its relays meet: when a fid goes over, who watches the other servers' links, and what is done when one breaks.

relay.py tells the theory.
"""

import errno
import logging
import select
from collections.abc import Callable
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import trio

from mk9p.auth import Principal
from mk9p.errors import NineError, ProtocolError
from mk9p.server.across import Across
from mk9p.server.blocks import back
from mk9p.server.connection import Connection, Reply
from mk9p.server.fids import Fid, Place
from mk9p.server.hops import Alias, Asked, Hop, Own
from mk9p.server.owed import PATIENCE, give_up, require_free
from mk9p.server.relay import Backend
from mk9p.tree import Maybe, Open, Way, settle
from mk9p.wire import NOFID, QTDIR, Dialect, codec
from mk9p.wire import messages as m
from mk9p.wire.roles import ENDS, LOCAL, THERE

if TYPE_CHECKING:
    from mk9p.server.links import Links

log = logging.getLogger("mk9p.server")

_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
Call = tuple[Callable[..., Any], Callable[..., Any]]


async def crossed(c: Connection, place: Place, who: Principal) -> Backend | None:
    """Return this client's connection to the server that a place really is on, made if need be; None if it is to go the general way.

    Cancelled, nothing has changed.
    """
    way = place.node.way
    if way is None or who.readonly or place.holders or c.dialect is not Dialect.L or place.node.qtype & ~QTDIR:
        return None
    return await reach(c, way, who)


async def reach(c: Connection, way: Way, who: Principal) -> Backend | None:
    """Return this client's connection to a server, made if need be; None if there can be none now. Cancelled, nothing has changed."""
    key = (way.address, way.aname, who, way.who)
    b = c.backends.get(key)
    if b is None or (b.dead and b.tried.is_set() and trio.current_time() >= b.resting):
        b = c.backends[key] = Backend(c, way, who)
        try:
            if await b.make():
                if c.dead or c.backends.get(key) is not b:
                    b.close()
                else:
                    c.exchange.watch(b)
        finally:
            b.tried.set()
    await b.tried.wait()
    return None if b.dead else b


async def carry(c: Connection, number: int, f: Fid, b: Backend | None) -> None:
    """Let a fid that has just crossed into another server go over to it."""
    way = f.place.node.way
    if (
        b is None
        or b.dead
        or number in b.limbo
        or way is None
        or (way.address, way.aname, way.who) != (b.way.address, b.way.aname, b.way.who)
    ):
        return
    if (
        await b.enter(number, way.names, f.place.path if way.whole else None)
        and not b.dead
        and c.session.fids.get(number) is f
    ):
        c.relays[number] = Hop(b, f.place, (), way)
        if way.whole:
            del c.session.fids[number]
            f.release()


def theirs(c: Connection, type_: int, args: tuple[Any, ...]) -> list[int]:
    """Return the fids that a request names, newfids aside, and that are another server's alone."""
    numbers = [args[1 + i] for i in THERE[type_]]
    return [number for number in numbers if number in c.relays and number not in c.session.fids]


async def here(c: Connection, type_: int, call: Call, args: tuple[Any, ...], numbers: list[int]) -> Reply:
    """Do a request here although fids of it are theirs: because it can't be passed on, or their server is gone."""
    hop = c.relays[numbers[0]]
    if type_ in ENDS and hop.backend.dead and (hop.opened or type_ == m.Tclunk.type):
        del c.relays[numbers[0]]
        if type_ != m.Tclunk.type:
            raise NineError(errno.EIO)
        return c.reply(m.Rclunk, args[0])
    lent: dict[int, Fid] = {}
    try:
        for number in numbers:
            if (f := await _bring(c, number)) is not None:
                lent[number] = f
        return await settle(call[1](c, *args))
    finally:
        for number, f in lent.items():
            if number in c.relays and c.session.fids.get(number) is f:
                del c.session.fids[number]
        if type_ in ENDS:
            c.relays.pop(numbers[0], None)  # remove(5): it is clunked, whatever comes of it


async def _bring(c: Connection, number: int) -> Fid | None:
    """Make a fid ours by its names: for good if its server is gone, and raises EIO for one that was open then; else returns what is lent.

    Raises ESTALE if the names lead to another file by now.
    """
    hop = c.relays.get(number)
    if hop is None or number in c.session.fids:
        return None
    if hop.opened and hop.backend.dead:
        raise NineError(errno.EIO)
    place, who = hop.place, hop.backend.who
    if hop.lead is not None and hop.names:
        place = await settle(c.step(place.shows(hop.lead), hop.names[0], who))
        place.parent = hop.place
    for name in hop.names[hop.lead is not None :]:
        place = await settle(c.step(place, name, who))
    if hop.names and hop.path is not None and place.path != hop.path:
        raise NineError(errno.ESTALE)
    if c.relays.get(number) is not hop or number in c.session.fids:
        return None  # another request was quicker
    f = Fid(place, who)
    if hop.backend.dead:
        c.enter(number, f, c.account_of(who))
        del c.relays[number]
        return None
    c.session.fids[number] = f
    f.how = Open(who) if hop.opened else None
    return f


class Exchange:
    """The engine's relays: their links are in its epoll."""

    def __init__(self, engine: "Links") -> None:
        self.engine = engine
        self._flushes: dict[Asked, float] = {}  # that were passed on, in order, and until when they are waited for
        self._some = trio.Event()

    def watch(self, b: Backend) -> None:
        """Take in a connection that was just made."""
        self.mind(b)

    def mind(self, b: Backend) -> None:
        """Wait for what a link can do now: send what is left, receive if there is room for it."""
        if b.link is None:
            return
        if b.more and not b.c.blocked:
            self.engine.call(b)
        fd, by_fd, poller = b.link.rfd, self.engine.by_fd, self.engine.poller
        wanted = (_OUT if b.blocked else 0) | (0 if b.c.blocked else _IN)
        if (
            not wanted
        ):  # epoll(7) would tell of a hang-up again and again, and what came before it is still to be received
            if by_fd.pop(fd, None) is not None:
                poller.unregister(fd)
        elif fd in by_fd:
            poller.modify(fd, wanted)
        else:
            by_fd[fd] = b
            poller.register(fd, wanted)

    def send(self, c: Connection) -> None:
        """Pass on what a batch of requests has left for other servers."""
        for b in tuple(c.backends.values()):
            if b.link is not None and (b.out or b.run[1]):
                self._send(b)

    def _send(self, b: Backend) -> None:
        was = b.blocked
        try:
            b.send()
        except OSError as error:
            self.lost(b, str(error))
            return
        if b.blocked and not was:
            b.c.choked.add(b)
            self.engine.rewatch(b.c)
        elif was and not b.blocked:
            self._unchoke(b)

    def _unchoke(self, b: Backend) -> None:
        b.c.choked.discard(b)
        self.engine.again(b.c)

    def turn(self, b: Backend) -> None:
        """Do what a link is ready for."""
        c = b.c
        try:
            if b.blocked:
                self._send(b)
            count = full = 0
            while b.link is not None and not c.blocked:
                if b.more:  # received when its last turn was over
                    b.more = False
                else:
                    space = b.frames.space()
                    count, full = b.link.recv_into(space), len(space)
                    if not count:
                        self.lost(b, "it was closed by the other side")
                        break
                    b.frames.received(count)
                back(b)
                if b.more or count < full:
                    break
                if monotonic_ns() > self.engine.turns.until:
                    b.more = True
                    break
        except BlockingIOError:
            return
        except (OSError, ProtocolError) as error:
            self.lost(b, str(error))
        except Exception as error:
            log.exception("internal error: the fast way to %s ends", b.way.address)
            self.lost(b, str(error))

    def deliver(self, c: Connection, replies: memoryview) -> None:
        """Send a client replies from where they lie; what the kernel does not take is copied, and waits."""
        if c.dead:
            return
        try:
            if not c.out:
                try:
                    count = c.link.send(replies)
                except BlockingIOError:
                    count = 0
                if count == len(replies):
                    return
                replies = replies[count:]
            c.queue(bytes(replies))
            self.engine.send(c)
        except OSError as error:
            self.engine.hang_up(c, str(error))

    def _tell(self, c: Connection) -> None:
        """Send a client what is queued for it."""
        if c.dead:
            return
        try:
            self.engine.send(c)
        except OSError as error:
            self.engine.hang_up(c, str(error))

    def refuse(self, c: Connection, tag: int) -> None:
        """Raise EINVAL if a tag is that of a request that was passed on; those of our own requests are not the client's, and never meet it."""
        known = c.asked.get(tag)
        if not isinstance(known, Own | Alias):
            require_free(known)

    def flush(self, c: Connection, tag: int, oldtag: int, frame: bytes) -> bool:
        """Pass on a Tflush of a request that was passed on; False if it was not."""
        return any(b.flush(tag, oldtag, frame) for b in c.backends.values())

    def flushing(self, flush: Asked) -> None:
        """Wait for the answer to a flush that was passed on, but not for ever."""
        self._flushes[flush] = trio.current_time() + PATIENCE
        self._some.set()

    def flushed(self, flush: Asked) -> None:
        """Wait for the answer to a flush no more."""
        self._flushes.pop(flush, None)

    async def be_patient(self) -> None:
        """Answer flushes that other servers do not answer in time."""
        while True:
            await self._some.wait()
            self._some = trio.Event()
            while self._flushes:
                flush, until = next(iter(self._flushes.items()))
                await trio.sleep_until(until)
                if self._flushes.pop(flush, None) is not None:
                    self._give_up(flush)

    def _give_up(self, flush: Asked) -> None:
        b = flush.backend
        tag = give_up(b, flush)
        if tag is None:
            self.lost(b, "it does not answer a flush")
            return
        reply = b.c.reply(m.Rflush, tag)
        b.c.counts.returned(m.Tflush.type, 1, 0, len(reply), monotonic_ns() - flush.since)
        b.c.queue(reply)
        self._tell(b.c)

    def settle(self, c: Connection) -> None:
        """End the runs of frames in a client's buffer, which is about to be another."""
        for b in c.backends.values():
            b.settle(c.frames.buf)

    def leave(self, c: Connection, number: int) -> None:
        """Let a fid be ours alone from now on."""
        b = c.relays.pop(number).backend
        if not b.dead:
            b.leave(number)

    def late(self, c: Connection, type_: int, tag: int, args: tuple[Any, ...]) -> bool:
        """Pass on a request that had to wait for its fid to go over; False if it is to be answered here. Raises as `passes`."""
        hop = c.relays.get(args[1])
        if hop is None or hop.backend.dead or type_ in LOCAL:
            return False
        frame = bytearray(codec(c.dialect, type_).pack(*args))
        b = hop.backend
        b.settle(c.frames.buf)
        if not b.passes(c, hop, args[1], type_, tag, frame, 0, len(frame)):
            return False
        b.settle(frame)
        self.send(c)
        return True

    def again(self, c: Connection, tag: int, known: Across) -> None:
        """Do a walk here, name by name, that another server would not do as it was passed on."""
        walk, old = known.again

        def op(c: Connection, tag: int, fid: int, newfid: int, names: tuple[str, ...]) -> Maybe[Reply]:
            return walk(c, tag, old, newfid, names)

        self.engine.begin(c, known.type, op, (tag, NOFID, known.number, known.names), known.since)

    def lost(self, b: Backend, reason: str) -> None:
        """End a connection that broke: what was asked is answered, what was open stays dead."""
        log.info("the fast way to %s is gone: %s", b.way.address, reason)
        self.close(b)
        c = b.c
        now = monotonic_ns()
        for tag, type_, since in b.forsake():
            flush = type_ == m.Tflush.type
            reply = c.reply(m.Rflush, tag) if flush else c.error(tag, NineError(errno.EIO))
            c.counts.returned(type_, 1, not flush, len(reply), now - since)
            c.queue(reply)
        self._tell(c)

    def close(self, b: Backend) -> None:
        if b.link is not None and self.engine.by_fd.pop(b.link.rfd, None) is not None:
            self.engine.poller.unregister(b.link.rfd)
        self._flushes = {flush: until for flush, until in self._flushes.items() if flush.backend is not b}
        b.close()
        if b in b.c.choked:
            self._unchoke(b)

    def drop(self, c: Connection) -> list[dict[int, Any]]:
        """End all of a client's connections to other servers, and forget what was theirs; returns that, for it takes time to free it."""
        for b in list(c.backends.values()):
            self.close(b)
        old: list[dict[int, Any]] = [{**c.relays}, {**c.asked}]
        c.backends.clear()
        c.relays.clear()
        c.asked.clear()
        c.plans.clear()
        return old
