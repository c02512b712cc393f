"""Sending to other servers and delivering what comes back; and when a link breaks, the answers to what was asked (relay.py)."""

import errno
import logging
from time import monotonic_ns
from typing import Any

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.server.connection import Connection
from mk9p.server.hops import Alias, Asked, Far
from mk9p.server.told import forsake
from mk9p.tree import Way
from mk9p.wire import FrameBuffer
from mk9p.wire import messages as m

log = logging.getLogger("mk9p.server")


class Backend(Far):
    """A connection to another server, with the client that it is for."""

    def __init__(self, c: Connection, way: Way, who: Principal) -> None:
        super().__init__(way, who, c.user, c.links, c.asked)
        self.c = c
        self.frames = FrameBuffer(c.msize)
        marks = {b.mark for b in c.backends.values()}
        while self.mark in marks:
            self.mark += 256

    def cool(self) -> bool:
        left = super().cool()
        self.c.count()
        return left


def send(c: Connection) -> None:
    """Pass on what a batch of requests has left for other servers."""
    for b in tuple(c.backends.values()):
        if b.link is not None and (b.out or b.run[1]):
            send_to(c, b)


def send_to(c: Connection, b: Far) -> None:
    """Pass on what is left for one server; while it takes no more, its client is not read."""
    was = b.blocked
    try:
        b.send(c.frames.buf)
    except OSError as error:
        lost(c, b, str(error))
        return
    if b.blocked and not was:
        c.choked.add(b)
        c.wait()
    elif was and not b.blocked:
        _unchoke(c, b)


def _unchoke(c: Connection, b: Far) -> None:
    c.choked.discard(b)
    c.again()


def deliver(c: Connection, replies: memoryview) -> None:
    """Send a client replies from where they are; what the kernel does not take is copied, and waits."""
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
        c.send()
    except OSError as error:
        c.hang_up(str(error))


def tell(c: Connection) -> None:
    """Send a client what is queued for it, between two batches."""
    if c.dead:
        return
    try:
        c.send()
    except OSError as error:
        c.hang_up(str(error))


def lost(c: Connection, b: Far, reason: str) -> None:
    """End a broken connection: requests are answered, and open files stay dead."""
    log.info("the fast way to %s is gone: %s", b.way.address, reason)
    close(c, b)
    if b.way.heard is not None:
        b.way.heard(False, reason)
    now = monotonic_ns()
    for tag, type_, since in forsake(c, b):
        flush = type_ == m.Tflush.type
        reply = c.reply(m.Rflush, tag) if flush else c.error(tag, NineError(errno.EIO))
        c.counts.returned(type_, 1, not flush, len(reply), now - since)
        c.queue(reply)
    tell(c)


def draw_back(c: Connection, reason: str) -> None:
    """End all of a client's connections to other servers, as if they had broken."""
    for b in tuple(c.backends.values()):
        if not b.dead:
            lost(c, b, reason)
            b.resting = 0.0
    c.forget_plans()


def close(c: Connection, b: Far) -> None:
    """Close a connection to another server, and stop waiting for its answers to flushes."""
    for known in c.asked.values():
        known = known.known if isinstance(known, Alias) else known
        if isinstance(known, Asked) and known.backend is b:
            c.common.patience.end(known)
    b.close()
    if b in c.choked:
        _unchoke(c, b)


def drop(c: Connection) -> list[dict[int, Any]]:
    """End all of a client's connections to other servers, and forget which fids were theirs; return these fids, because it takes time to free
    them."""
    for b in list(c.backends.values()):
        close(c, b)
    old: list[dict[int, Any]] = [{**c.relays}, {**c.asked}]
    c.backends.clear()
    c.relays.clear()
    c.asked.clear()
    c.forget_plans()
    return old
