"""How a connection begins: dial, agree on a dialect and an msize (version(5)), attach (attach(5)).

The richest dialect is asked for first. A server answers with the same or a poorer one, as version(5) says; one that answers `unknown`, or an error as
some do, is asked again for the next poorer. On a lossy link (a serial line) Tversion is repeated until it is answered, since it may be lost, or come
in the middle of what is left of an earlier conversation; whatever comes before its answer is skipped.
"""

import errno
import math
import os
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from mk9p.client.connection import Connection
from mk9p.dial import Link, dial
from mk9p.errors import NineError, ProtocolError
from mk9p.wire import IOHDRSZ, NOFID, NONUNAME, NOTAG, Dialect, FrameBuffer, Qid, codec
from mk9p.wire import messages as m

MSIZE: Final = (
    1 << 20
) + IOHDRSZ  # v9fs's own most over sockets, and the header: so that 1 MiB of data goes in one message
LEAST: Final = 256  # an msize below that cannot even hold a stat
REPEAT: Final = 0.5  # seconds, on a lossy link: several round trips at 9600 baud
_SHOWN: Final = 32  # characters of a version that nobody knows
_FIRST: Final = 8192  # no Rversion is longer, and nothing else is expected


async def open_connection(
    address: str,
    nursery: trio.Nursery,
    *,
    msize: int = MSIZE,
    version: str = "9P2000.L",
    deadline: float = 10.0,
    dialler: Callable[[str], Awaitable[Link]] = dial,
) -> Connection:
    """Dial an address, agree on a version, and return the connection, whose tasks run in `nursery`. `dialler` dials, where it is no dial string.

    Raises NineError: as `dial` does, ETIMEDOUT after `deadline` seconds, EPROTO if nothing the server speaks is known, EINVAL for a version that is
    none. Every message begins with the address. Cancelled, the link is closed.
    """
    dialect = Dialect.of(version)
    if dialect is None or msize < LEAST:
        raise NineError(
            errno.EINVAL,
            f"{address}: version {version} with msize {msize}: want 9P2000, 9P2000.u or 9P2000.L, and at least {LEAST}",
        )
    with trio.move_on_after(deadline):
        link = await dialler(address)
        try:
            connection = await _agree(link, address, dialect, msize)
        except BaseException:
            link.close()
            raise
        connection.start(nursery)
        return connection
    raise NineError(errno.ETIMEDOUT, f"{address}: no answer within {deadline:g} s")


async def attach(
    connection: Connection, uname: str | None = None, n_uname: int | None = None, aname: str = ""
) -> tuple[int, Qid]:
    """Attach a user and return the fid and the qid of the root; without names it is the user that this process runs as.

    Raises NineError: what the server said (ENOENT for an `aname` that is not there, EACCES …). Cancelled, nothing stays attached.
    """
    if uname is None:
        n_uname = os.geteuid() if n_uname is None else n_uname
        uname = user_name(n_uname)
    fid = connection.new_fid()
    (qid,) = await connection.rpc(m.Tattach, fid, NOFID, uname, aname, NONUNAME if n_uname is None else n_uname)
    return fid, qid


def user_name(uid: int) -> str:
    """Return the name of a user, or the number in decimal if it has none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


async def _agree(link: Link, address: str, dialect: Dialect, msize: int) -> Connection:
    frames = FrameBuffer(max(msize, _FIRST))
    try:
        for asked in reversed(Dialect):
            if asked > dialect:
                continue
            answer = await _ask(link, frames, asked, msize)
            if answer is None:
                continue
            got, version = answer
            agreed = next((known for known in Dialect if known.version == version), None)
            if agreed is not None and agreed <= asked and LEAST <= got <= msize:
                frames.limit = got
                return Connection(link, address, dialect=agreed, msize=got, frames=frames)
            if version != "unknown":
                raise NineError(
                    errno.EPROTO,
                    f"{address}: {asked.version} with msize {msize} was answered {version[:_SHOWN]!r} with msize {got}",
                )
    except ProtocolError as error:
        raise NineError(errno.EPROTO, f"{address}: this is no 9P server: {error}") from None
    except OSError as error:
        if isinstance(error, NineError):
            raise
        raise NineError(error.errno or errno.EIO, f"{address}: {error.strerror or error}") from None
    raise NineError(errno.EPROTO, f"{address}: the server speaks no version of 9P that is known here")


async def _ask(link: Link, frames: FrameBuffer, dialect: Dialect, msize: int) -> tuple[int, str] | None:
    """Send Tversion; return msize and version of the answer, None if it was an error."""
    request = memoryview(codec(dialect, m.Tversion.type).pack(NOTAG, msize, dialect.version))
    while True:
        rest = request
        while rest:  # outside of the timeout: half a message on the line would spoil the next
            try:
                rest = rest[link.send(rest) :]
            except BlockingIOError:
                await link.wait_writable()
        if link.lossy:
            frames.resync(m.Rversion.type)
        with trio.move_on_after(REPEAT if link.lossy else math.inf):
            return await _answer(link, frames)


async def _answer(link: Link, frames: FrameBuffer) -> tuple[int, str] | None:
    while (span := frames.next()) is None:
        try:
            count = link.recv_into(frames.space())
        except BlockingIOError:
            await link.wait_readable()
            continue
        if not count:
            raise NineError(
                errno.ECONNRESET,
                f"{link.peer.address}: the other side closed the connection before it agreed on a version",
            )
        frames.received(count)
    start, end = span
    number = frames.buf[start + 4]
    if number in (m.Rerror.type, m.Rlerror.type):
        return None
    if number != m.Rversion.type:
        raise ProtocolError(f"message of type {number} in answer to Tversion")
    _, msize, version = codec(Dialect.P9, number).unpack(frames.buf, start + 5, end)
    return msize, version
