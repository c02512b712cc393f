"""A request that failed, and one that held up everybody: its answer, and what the log says of it.

This module alone decides between the three fates (errors.py). An error that an author raised with words of its own
(`ValueError("n must be positive")`, `OSError(EIO, "device gone")`) goes to the client, and the log says who got it and where, once for each file
of a connection, so nobody fills a log over one connection. A bug of ours, or of a server, is logged with its place and answered `internal error`.

    failed path=/counter/ctl user=glenda request=write error=ValueError text="n must be positive"
    held path=/lamp/ctl user=glenda request=write ms=1500 requests=1

`held`: the program did nothing else for this time. A file of this server keeps it waiting in a call (`time.sleep`, a slow device), which belongs
in a thread (`mk9p.tree.aside`). If several `requests` of one kind came together, the log names the first.
"""

import errno
import logging
from typing import TYPE_CHECKING, Final

from mk9p.auth import NONE
from mk9p.errors import INTERNAL, NineError, translate
from mk9p.server.counts import name_of
from mk9p.server.refusals import line, place

if TYPE_CHECKING:
    from mk9p.server.connection import Connection
    from mk9p.server.fids import Fid

log = logging.getLogger("mk9p.server")

HELD: Final = 100_000_000  # ns: a person begins to notice this, and it is more than answering a full buffer takes
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})  # what the audit log has
_TOLD: Final = 64  # failures that the log tells of a connection


def failure(c: "Connection", type_: int, tag: int, fid: int, error: BaseException) -> bytes:
    """Return the reply to a request that failed; `fid` is the first that it names, and may be unknown."""
    c.counts.failed(type_)
    try:
        return _said(c, type_, tag, fid, error)
    except Exception:  # the error cannot be reported: its number is bad, or asking for its words raises another
        log.exception(line(INTERNAL, **_where(c, type_, fid), from_=place(c.link.peer)))
        return c.error(tag, NineError(errno.EIO, INTERNAL))


def _said(c: "Connection", type_: int, tag: int, fid: int, error: BaseException) -> bytes:
    if isinstance(error, OverflowError):  # the wire has unsigned numbers of 64 bits, and the kernel's calls take fewer
        return c.error(tag, NineError(errno.EINVAL, "a number is out of range"))
    if not isinstance(error, OSError | ValueError):
        where = line(INTERNAL, **_where(c, type_, fid), from_=place(c.link.peer))
        log.error(where, exc_info=error)
        return c.error(tag, NineError(errno.EIO, INTERNAL))
    said = translate(error)
    note_refusal(c, said, c.session.fids.get(fid), name_of(type_))
    if isinstance(error, ValueError) or (said is not error and said.ename != _plain(said)):
        _tell(c, "failed", type_, fid, error=type(error).__name__, text=said.ename)
    return c.error(tag, said)


def note_refusal(c: "Connection", error: OSError, f: "Fid | None", request: str) -> None:
    """Write it down where somebody was refused something (auth/log), if that is not there yet."""
    if error.errno in _REFUSED:
        who, path = (NONE, "-") if f is None else (f.who, f.place.way)
        c.common.authority.refused(who, c.link.peer, request, path, error)


def _plain(said: NineError) -> str:
    return NineError(said.errno).ename


def held(c: "Connection", type_: int, fid: int, ns: int, requests: int = 1) -> None:
    """Report that answering took `ns`, in which nothing else was done."""
    _tell(c, "held", type_, fid, ms=ns // 1_000_000, requests=requests)


def _tell(c: "Connection", word: str, type_: int, fid: int, **fields: object) -> None:
    where = _where(c, type_, fid)
    what = word, where["path"], type_
    if what not in c.told and len(c.told) < _TOLD:
        c.told.add(what)
        log.warning(line(word, **where, **fields))


def _where(c: "Connection", type_: int, fid: int) -> dict[str, object]:
    f = c.session.fids.get(fid)
    path = "-" if f is None else f.place.way
    return {"path": path, "user": "-" if f is None else f.who.name, "request": name_of(type_)}
