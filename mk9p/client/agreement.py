"""How a conversation begins: client and server agree on a dialect and an msize (version(5)), and a user attaches (attach(5)).

The client first asks for the richest dialect. A server answers with the same or a poorer one, as version(5) says. If it answers `unknown`, or an
error as some do, the client asks for the next poorer dialect. On a lossy link (a serial line) the client repeats Tversion until there is an
answer, because it may be lost, or come in the middle of what is left of an earlier conversation; the client skips whatever comes before its
answer.
"""

import errno
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

from mk9p.client.conversation import Conversation
from mk9p.errors import NineError, ProtocolError
from mk9p.status import user_name
from mk9p.wire import IOHDRSZ, NOBODY, NOFID, NONUNAME, NOTAG, Dialect, FrameBuffer, Qid, codec
from mk9p.wire import messages as m

MSIZE: Final = (
    1 << 20
) + IOHDRSZ  # the most of v9fs over sockets, and the header: so 1 MiB of data goes in one message
LEAST: Final = 256  # a smaller msize cannot even hold a stat
REPEAT: Final = 0.5  # seconds, on a lossy link: several round trips at 9600 baud
DEADLINE: Final = 10.0  # seconds to dial and agree
_SHOWN: Final = 32  # characters to show of an unknown version
FIRST: Final = 8192  # no Rversion is longer, and the client expects nothing else

Answer: TypeAlias = tuple[int, str] | None
"""The msize and version of an Rversion; None for an error."""


def wanted(address: str, version: str, msize: int) -> Dialect:
    """Return the dialect of a version's name; raises EINVAL for a version that cannot be asked for."""
    dialect = Dialect.of(version)
    if dialect is None or msize < LEAST:
        raise NineError(
            errno.EINVAL,
            f"{address}: version {version} with msize {msize}: want 9P2000, 9P2000.u or 9P2000.L, and at least {LEAST}",
        )
    return dialect


def agreement(address: str, dialect: Dialect, msize: int) -> Generator[Dialect, Answer, tuple[Dialect, int]]:
    """Yield the dialects to ask for, take their answers, and return the agreed dialect and msize. Raises EPROTO if there are none."""
    for asked in reversed(Dialect):
        if asked > dialect:
            continue
        answer = yield asked
        if answer is None:
            continue
        got, version = answer
        agreed = next((known for known in Dialect if known.version == version), None)
        if agreed is not None and agreed <= asked and LEAST <= got <= msize:
            return agreed, got
        if version != "unknown":
            raise NineError(
                errno.EPROTO,
                f"{address}: {asked.version} with msize {msize} was answered {version[:_SHOWN]!r} with msize {got}",
            )
    raise NineError(errno.EPROTO, f"{address}: the server speaks no version of 9P that is known here")


def tversion(dialect: Dialect, msize: int) -> bytes:
    """Return the frame that asks for a dialect."""
    return codec(dialect, m.Tversion.type).pack(NOTAG, msize, dialect.version)


def answer_in(frames: FrameBuffer) -> tuple[Answer] | None:
    """Return the received answer, if it is there as a whole. What was said to an earlier conversation is none."""
    span = frames.next()
    if span is None:
        return None
    start, end = span
    number = frames.buf[start + 4]
    if number in (m.Rerror.type, m.Rlerror.type):
        return (None,)
    if number != m.Rversion.type:
        raise ProtocolError(f"message of type {number} in answer to Tversion")
    _, msize, version = codec(Dialect.P9, number).unpack(frames.buf, start + 5, end)
    if msize == NOBODY:
        frames.resync(number)
        return answer_in(frames)
    return ((msize, version),)


@contextmanager
def agreeing(address: str) -> Iterator[None]:
    """Name the address in every error."""
    try:
        yield
    except ProtocolError as error:
        raise NineError(errno.EPROTO, f"{address}: this is no 9P server: {error}") from None
    except OSError as error:
        if isinstance(error, NineError):
            raise
        raise NineError(error.errno or errno.EIO, f"{address}: {error.strerror or error}") from None


def received(frames: FrameBuffer, count: int, peer: str) -> None:
    """Take received bytes. Raises ECONNRESET for none, which is the end, and ProtocolError if that is how TLS refuses who does not speak it."""
    if not count:
        if frames.speaks_tls:
            raise ProtocolError("it speaks TLS: dial tls!")
        raise NineError(errno.ECONNRESET, f"{peer}: the other side closed the connection before it agreed on a version")
    frames.received(count)


async def attach(
    connection: Conversation, uname: str | None = None, n_uname: int | None = None, aname: str = ""
) -> tuple[int, Qid]:
    """Attach a user and return the fid and the qid of the root; without names it is the user that this process runs as.

    Raises NineError: what the server said (ENOENT for an `aname` that does not exist, EACCES …). If cancelled, nothing stays attached.
    """
    if uname is None:
        n_uname = os.geteuid() if n_uname is None else n_uname
        uname = user_name(n_uname)
    fid = connection.new_fid()
    (qid,) = await connection.rpc(m.Tattach, fid, NOFID, uname, aname, NONUNAME if n_uname is None else n_uname)
    return fid, qid


async def refusal(
    connection: Conversation, error: NineError, uname: str | None, n_uname: int | None, aname: str
) -> NineError:
    """Attach once more on a connection whose dialect has words for errors; return what it says, or `error` if it says something else now."""
    try:
        await attach(connection, uname, n_uname, aname)
    except NineError as said:
        return said if said.errno == error.errno else error
    return error
