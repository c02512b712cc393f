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
from mk9p.server.passing import send
from mk9p.server.tags import free_tag
from mk9p.tree import qids
from mk9p.tree.later import hand
from mk9p.tree.waiting import sleep
from mk9p.wire import NOFID, NOTAG, Dialect, FrameBuffer, codec, decode
from mk9p.wire import messages as m
from mk9p.wire.roles import BETWEEN

log = logging.getLogger("mk9p.server")

PATIENCE: Final = 5.0  # seconds to make a connection; the general way works meanwhile
REST: Final = 30.0  # seconds after a failure before the next attempt

MOST: Final = 65536  # servers that are known to be orderly
_NO_WAY: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM})  # what may be said of a name

_u16, _u32 = Struct("<H").unpack_from, Struct("<I").unpack_from


async def _heard(link: Link, frames: FrameBuffer) -> bytes:
    """Return the next answer of another server. Raises OSError, EIO when it has closed the link."""
    while (frame := frames.next()) is None:
        count = await receive(link, frames.space())
        if not count:
            raise NineError(errno.EIO, "it was closed by the other side")
        frames.received(count)
    return bytes(frames.view[slice(*frame)])


async def make(c: Connection, b: Far, number: int, names: tuple[str, ...]) -> bool:
    """Dial, agree on the client's dialect and msize, and attach; return False, and make no link, if that is impossible.

    To a server that is known to do what it is asked in its order, all that goes out at once, with the
    walk to the fid `number` by `names`; `b.first` is what that brought. diod 1.0.24 works at several
    requests at once, and a Tversion beside others is its end. So who is orderly must be known before:
    mk9p's own servers are, which are told by the qid of their root.
    """
    link: Link | None = None
    orderly, server = c.common.orderly, (b.way.address, b.way.aname)
    if server not in orderly:
        names = ()
    try:
        with trio.fail_after(PATIENCE):
            link = await dial(b.way.address)
            try:
                root = await _agreed(c, b, link, number, names)
            except (OSError, ProtocolError):
                orderly.discard(server)
                if not names:
                    raise
                link.close()
                b.frames = FrameBuffer(c.msize)
                link = await dial(b.way.address)
                root = await _agreed(c, b, link, number, ())
    except (OSError, ProtocolError, trio.TooSlowError) as error:
        why = f"no answer within {PATIENCE:g} s" if isinstance(error, trio.TooSlowError) else str(error)
        log.debug("no fast way to %s: %s", b.way.address, why)
        b.resting = trio.current_time() + REST
        if b.way.heard is not None:
            b.way.heard(False, why)
        if link is not None:
            link.close()
        return False
    except BaseException:
        if link is not None:
            link.close()
        raise
    b.link, b.root = link, root
    if b.way.heard is not None:
        b.way.heard(True, "")
    if root == qids.ROOT and len(orderly) < MOST:
        orderly.add(server)
    return True


async def _agreed(c: Connection, b: Far, link: Link, number: int, names: tuple[str, ...]) -> int:
    """Agree with another server and attach; return the qid.path of its root. Raises EPROTO, EACCES, EIO, ProtocolError."""
    who = b.way.who or b.who
    version = _packed(m.Tversion, NOTAG, c.msize, Dialect.L.version)
    attach = _packed(m.Tattach, 1, ROOT, NOFID, who.name, b.way.aname, who.uid)
    if names:
        await send_all(link, version + attach + _packed(m.Twalk, 2, ROOT, number, names))
    else:
        await send_all(link, version)
    said = decode(Dialect.L, await _heard(link, b.frames))
    if not isinstance(said, m.Rversion) or (said.msize, said.version) != (c.msize, Dialect.L.version):
        raise NineError(errno.EPROTO, "it speaks otherwise than the client")
    if not names:
        await send_all(link, attach)
    attached = decode(Dialect.L, await _heard(link, b.frames))
    if not isinstance(attached, m.Rattach):
        raise NineError(errno.EACCES)
    if names:
        frame = bytearray(await _heard(link, b.frames))
        if frame[4:7] != bytes((m.Rwalk.type, 2, 0)) and int.from_bytes(frame[7:11], "little") not in _NO_WAY:
            raise NineError(errno.EPROTO, "it has not waited for the end of what came before")
        own = Own(b, len(names))
        own.answered(frame[4], frame, 0, len(frame))
        b.first = number, own
    return attached.qid.path


def _packed(message: type[m.Message], tag: int, *fields: Any) -> bytes:
    data: bytes = codec(Dialect.L, message.type).pack(tag, *fields)
    return data


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
    first, b.first = b.first, None
    if first is not None and first[0] == number:
        return first[1]
    own = _ask(c, b, m.Twalk, len(names), ROOT, number, names)
    if not hand().now:
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
