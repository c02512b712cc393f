"""What the relay (relay.py) itself asks another server: it makes the connection, walks to a fid there, and clunks it. And what it reads in
requests."""

import errno
import logging
from struct import Struct
from typing import Any, Final

import trio

from mk9p.dial import Link, dial, receive, send_all
from mk9p.errors import NineError, ProtocolError
from mk9p.server.connection import Connection
from mk9p.server.hops import ROOT, Far, Own
from mk9p.server.jobs import sleep
from mk9p.server.passing import send
from mk9p.server.tags import free_tag
from mk9p.tree.later import HAND
from mk9p.wire import NOFID, NOTAG, Dialect, FrameBuffer, codec, decode
from mk9p.wire import messages as m
from mk9p.wire.roles import BETWEEN

log = logging.getLogger("mk9p.server")

PATIENCE: Final = 5.0  # seconds to make a connection; the general way works meanwhile
REST: Final = 30.0  # seconds after a failure before the next attempt

_u16, _u32 = Struct("<H").unpack_from, Struct("<I").unpack_from


async def rpc(link: Link, frames: FrameBuffer, message: type[m.Message], tag: int, *fields: Any) -> m.Message:
    """Ask another server, when nothing else is running there, and return its answer. Raises OSError, EIO when it has closed the link."""
    await send_all(link, codec(Dialect.L, message.type).pack(tag, *fields))
    while (frame := frames.next()) is None:
        count = await receive(link, frames.space())
        if not count:
            raise NineError(errno.EIO, "it was closed by the other side")
        frames.received(count)
    return decode(Dialect.L, bytes(frames.view[slice(*frame)]))


async def make(c: Connection, b: Far) -> bool:
    """Dial, agree on the client's dialect and msize, and attach; return False, and make no link, if that is impossible."""
    link = None
    try:
        with trio.fail_after(PATIENCE):
            link = await dial(b.way.address)
            version = await rpc(link, b.frames, m.Tversion, NOTAG, c.msize, Dialect.L.version)
            if not isinstance(version, m.Rversion) or (version.msize, version.version) != (c.msize, Dialect.L.version):
                raise NineError(errno.EPROTO, "it speaks otherwise than the client")
            who = b.way.who or b.who
            attached = await rpc(link, b.frames, m.Tattach, 1, ROOT, NOFID, who.name, b.way.aname, who.uid)
            if not isinstance(attached, m.Rattach):
                raise NineError(errno.EACCES)
    except (OSError, ProtocolError, trio.TooSlowError) as error:
        log.debug("no fast way to %s: %s", b.way.address, error)
        b.resting = trio.current_time() + REST
        if link is not None:
            link.close()
        return False
    except BaseException:
        if link is not None:
            link.close()
        raise
    b.link, b.root = link, attached.qid.path
    return True


async def arrive(c: Connection, b: Far, number: int, names: tuple[str, ...], path: int | None) -> bool:
    """Walk to a fid there by the names from the root. Return True if it is there now, and its path in our space is `path`, if the caller wants
    that checked.

    It cannot be cancelled: the answer comes, or the link ends.
    """
    own = walk(c, b, number, names)
    if not own.done.settled:
        with trio.CancelScope(shield=True):
            await sleep(own.done)
    if own.good and path is not None and own.path is not None and b.way.paths[own.path] != path:
        # the names lead to another file by now
        if not b.dead:
            leave(c, b, number)
        return False
    return own.good


def walk(c: Connection, b: Far, number: int, names: tuple[str, ...]) -> Own:
    """Walk to a fid there by names from the root. In a batch it is sent with the others."""
    own = _ask(c, b, m.Twalk, len(names), ROOT, number, names)
    if not HAND.now:
        send(c)
    return own


async def arrived(c: Connection, own: Own, number: int) -> None:
    """Wait for the answer to a walk to a fid. If cancelled, the fid is clunked when it is there."""
    b = own.backend
    try:
        await own.done.wait(sleep)
    except BaseException:
        if not own.done.settled:
            own.orphan = number
            b.limbo.add(number)
        elif own.good and not b.dead:
            leave(c, b, number)
        raise


def answered(c: Connection, own: Own, type_: int, buf: bytearray, start: int, size: int) -> None:
    """Take the answer to a request of this server's own."""
    own.answered(type_, buf, start, size)
    if own.orphan is not None:
        own.backend.limbo.discard(own.orphan)
        if own.good:
            leave(c, own.backend, own.orphan)


def leave(c: Connection, b: Far, number: int) -> None:
    """Clunk a fid there that was brought here. Do not wait for the answer: later requests come after it."""
    _ask(c, b, m.Tclunk, 0, number)
    send(c)


def _ask(c: Connection, b: Far, message: type[m.Message], wanted: int, *fields: Any) -> Own:
    tag = free_tag(c)
    own = c.asked[tag] = Own(b, wanted)
    b.end_run(c.frames.buf)
    b.out.append(codec(Dialect.L, message.type).pack(tag, *fields))
    return own


def other_fid(type_: int, buf: bytearray, start: int, end: int) -> int:
    """Return the second fid that a request names, NOFID if it is too short."""
    fixed, strings = BETWEEN[type_]
    at = start + 11 + fixed
    for _ in range(strings):
        at += 2 + (_u16(buf, at)[0] if at + 2 <= end else 0)
    return int(_u32(buf, at)[0]) if at + 4 <= end else NOFID


def text_at(buf: bytearray, at: int, end: int) -> str:
    """Return the name that begins at a place in a request; the other server checks it."""
    size = _u16(buf, at)[0] if at + 2 <= end else 0
    return buf[at + 2 : min(at + 2 + size, end)].decode("utf-8", "surrogateescape")
