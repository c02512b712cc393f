"""Login with a capability before Linux's own client gets the line: `cap!` is then the name of its tree (docs/security.md).

v9fs never sends Tauth, and /proc/mounts shows every user the name of the tree that it attached to. So the capability is not said there: a short
conversation before v9fs's own says it (Tauth, and what is written to that fid), and the connection keeps it. It is in 9P2000.u, whose errors have
words.
"""

import errno
import os
from typing import Final

from mk9p.client.capability import PREFIX
from mk9p.dial import Link, receive, send_all
from mk9p.errors import NineError, ProtocolError, from_wire
from mk9p.status import user_name
from mk9p.wire import NONUNAME, NOTAG, Dialect, FrameBuffer, codec
from mk9p.wire import messages as m

TREE: Final = PREFIX
"""The name of the tree of whoever has logged in: `cap!`, or `cap!/PATH`."""
_MSIZE: Final = 8192
_AFID, _FID = 0, 1


async def login(link: Link, text: str, user: str | None) -> None:
    """Show a capability, as `user` or as the user that this process runs as. Raises EACCES with the server's words, EPROTO where it takes none."""
    uname, n_uname = (user, NONUNAME) if user else (user_name(os.geteuid()), os.geteuid())
    frames = FrameBuffer(_MSIZE)
    version = await _ask(link, frames, m.Tversion, NOTAG, _MSIZE, Dialect.U.version)
    if version[2] != Dialect.U.version:
        raise NineError(errno.EPROTO, "the server speaks no 9P2000.u, and so takes no capability")
    try:
        await _ask(link, frames, m.Tauth, 1, _AFID, uname, TREE, n_uname)
        await _ask(link, frames, m.Twrite, 1, _AFID, 0, text.encode())
        await _ask(link, frames, m.Tattach, 1, _FID, _AFID, uname, TREE, n_uname)
    except FileNotFoundError:
        raise NineError(errno.EPROTO, "the server takes no capability") from None


async def _ask(
    link: Link, frames: FrameBuffer, message: type[m.Message], tag: int, *fields: object
) -> tuple[object, ...]:
    """Send a request and return the fields of its reply, tag first. Raises what the server says, EPROTO, ECONNRESET."""
    await send_all(link, codec(Dialect.U, message.type).pack(tag, *fields))
    try:
        while (span := frames.next()) is None:
            count = await receive(link, frames.space())
            if not count:
                raise NineError(errno.ECONNRESET, "the server closed the line")
            frames.received(count)
        start, end = span
        number = frames.buf[start + 4]
        reply: tuple[object, ...] = codec(Dialect.U, number).unpack(frames.buf, start + 5, end)
    except (ProtocolError, KeyError) as error:
        raise NineError(errno.EPROTO, f"this is no 9P server: {error}") from None
    if number == m.Rerror.type:
        _, words, code = reply
        assert isinstance(words, str)
        assert isinstance(code, int)
        raise from_wire(code, words)
    if number != message.type + 1 or reply[0] != tag:
        raise NineError(errno.EPROTO, f"message of type {number} in answer to one of type {message.type}")
    return reply
