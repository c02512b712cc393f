"""What the relay (relay.py) asks another server itself, and what it reads of a client's requests."""

import errno
from struct import Struct
from typing import Any

from mk9p.dial import Link, receive, send_all
from mk9p.errors import NineError
from mk9p.wire import NOFID, Dialect, FrameBuffer, codec, decode
from mk9p.wire import messages as m
from mk9p.wire.roles import BETWEEN

_u16, _u32 = Struct("<H").unpack_from, Struct("<I").unpack_from


async def rpc(link: Link, frames: FrameBuffer, message: type[m.Message], tag: int, *fields: Any) -> m.Message:
    """Ask another server, when nothing else is under way there, and return its answer. Raises OSError, EIO when it has closed the link."""
    await send_all(link, codec(Dialect.L, message.type).pack(tag, *fields))
    while (frame := frames.next()) is None:
        count = await receive(link, frames.space())
        if not count:
            raise NineError(errno.EIO, "it was closed by the other side")
        frames.received(count)
    return decode(Dialect.L, bytes(frames.view[slice(*frame)]))


def other_fid(type_: int, buf: bytearray, start: int, end: int) -> int:
    """Return the second fid that a request names, NOFID if it is too short to."""
    fixed, strings = BETWEEN[type_]
    at = start + 11 + fixed
    for _ in range(strings):
        at += 2 + (_u16(buf, at)[0] if at + 2 <= end else 0)
    return int(_u32(buf, at)[0]) if at + 4 <= end else NOFID


def text_at(buf: bytearray, at: int, end: int) -> str:
    """Return the name that begins at a place of a request; the other server judges it."""
    size = _u16(buf, at)[0] if at + 2 <= end else 0
    return buf[at + 2 : min(at + 2 + size, end)].decode("utf-8", "surrogateescape")
