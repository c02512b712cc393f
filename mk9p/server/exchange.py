"""Where the engine and its relays meet: when a fid goes over, who watches the other servers' links, and what is done when one breaks.

relay.py tells the theory.
"""

import errno
import logging
import select
from typing import TYPE_CHECKING, Any, Final

from mk9p.errors import NineError, ProtocolError
from mk9p.server.connection import Connection, Reply
from mk9p.server.fids import Fid
from mk9p.server.relay import Backend, Hop
from mk9p.tree import settle
from mk9p.wire import QTDIR, Dialect
from mk9p.wire import messages as m

if TYPE_CHECKING:
    from mk9p.server.engine import Server

log = logging.getLogger("mk9p.server")

BATCHES: Final = 4
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT


async def carry(c: Connection, tag: int, number: int, f: Fid) -> None:
    """Let a fid that has just crossed into another server go the fast way, if there is one. `tag` is that of the request that made it."""
    way = f.place.node.way
    if way is None or f.who.readonly or f.place.holders or c.dialect is not Dialect.L or f.place.node.qtype & ~QTDIR:
        return
    key = (way.address, way.aname, f.who)
    b = c.backends.get(key)
    if b is None or b.dead:
        b = c.backends[key] = Backend(c, way, f.who)
        if not await b.make() or c.dead or c.backends.get(key) is not b:
            b.close()
            return  # it stays in the table, dead: the next walk tries again
        c.exchange.watch(b)
    if await b.enter(tag, number, way.names) and c.session.fids.get(number) is f and not b.dead:
        c.relays[number] = Hop(b, f.place, (), way)
        if way.whole:
            del c.session.fids[number]


async def revive(c: Connection, number: int, hop: Hop) -> None:
    """Make a fid ours again, by its names, after its server is gone; raises EIO for one that was open."""
    if c.relays.get(number) is hop:
        del c.relays[number]
    if number in c.session.fids:
        return
    if hop.opened:
        c.relays[number] = hop
        raise NineError(errno.EIO)
    place = hop.place
    who = hop.backend.who
    try:
        for name in hop.names:
            place = await settle(c.step(place, name, who))
    except OSError:
        c.relays.setdefault(number, hop)
        raise
    if number not in c.session.fids:
        c.session.new(number, Fid(place, who))


async def revived(c: Connection, number: int, hop: Hop, call: Any, args: tuple[Any, ...]) -> Reply:
    """Do a request whose fid was theirs, on a server that is gone: as ours."""
    if call is None:
        raise NineError(errno.EIO)
    if hop.opened and args[0] is not None and call[1].__name__ in ("clunk", "remove"):
        c.relays.pop(number, None)
        return c.reply(m.Rclunk, args[0])
    await revive(c, number, hop)
    reply: Reply = await settle(call[1](c, *args))
    return reply


class Exchange:
    """The engine's relays: their links are in its epoll."""

    def __init__(self, engine: "Server") -> None:
        self.engine = engine

    def watch(self, b: Backend) -> None:
        """Take in a connection that was just made."""
        assert b.link is not None
        self.engine.by_fd[b.link.rfd] = b
        self.engine.poller.register(b.link.rfd, _IN)

    def mind(self, b: Backend) -> None:
        """Wait for what a link can do now: send what is left, receive if there is room for it."""
        if b.link is not None:
            self.engine.poller.modify(b.link.rfd, (_OUT if b.blocked else 0) | (0 if b.c.blocked else _IN))

    def send(self, c: Connection) -> None:
        """Pass on what a batch of requests has left for other servers."""
        for b in list(c.backends.values()):
            if b.link is not None and (b.out or b.run[1]):
                self._send(b)

    def _send(self, b: Backend) -> None:
        was = b.blocked
        try:
            b.send()
        except OSError as error:
            self.lost(b, str(error))
            return
        if b.blocked != was:
            (b.c.choked.add if b.blocked else b.c.choked.discard)(b)
            self.mind(b)
            self.engine.rewatch(b.c)

    def turn(self, b: Backend) -> None:
        """Do what a link is ready for."""
        c = b.c
        if b.blocked:
            self._send(b)
        try:
            for _ in range(BATCHES):
                if b.link is None or c.blocked:
                    break
                space = b.frames.space()
                count = b.link.recv_into(space)
                if not count:
                    self.lost(b, "it was closed by the other side")
                    break
                b.frames.received(count)
                b.replies()
                self.engine.send(c)
                if count < len(space):
                    break
        except BlockingIOError:
            return
        except (OSError, ProtocolError) as error:
            self.lost(b, str(error))
        except Exception as error:
            log.exception("internal error: the fast way to %s ends", b.way.address)
            self.lost(b, str(error))

    def flush(self, c: Connection, tag: int, oldtag: int, frame: bytes) -> bool:
        """Pass on a Tflush of a request that was passed on; False if it was not."""
        for b in c.backends.values():
            if oldtag in b.asked:
                b.flush(tag, frame)
                return True
        return False

    def lost(self, b: Backend, reason: str) -> None:
        """End a connection that broke: what was asked is answered, what was open stays dead."""
        log.info("the fast way to %s is gone: %s", b.way.address, reason)
        self.close(b)
        c, asked = b.c, b.asked
        b.asked = {}
        for tag, (type_, *_) in asked.items():
            c.queue(c.reply(m.Rflush, tag) if type_ == m.Tflush.type else c.error(tag, NineError(errno.EIO)))
        if not c.dead:
            self.engine.send(c)

    def close(self, b: Backend) -> None:
        if b.link is not None:
            self.engine.by_fd.pop(b.link.rfd, None)
            self.engine.poller.unregister(b.link.rfd)
        b.close()
        if b in b.c.choked:
            b.c.choked.discard(b)
            if not b.c.dead:
                self.engine.rewatch(b.c)

    def drop(self, c: Connection) -> None:
        """End all of a client's connections to other servers, and forget what was theirs."""
        for b in list(c.backends.values()):
            self.close(b)
        c.backends.clear()
        c.relays.clear()
