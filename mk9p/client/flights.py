"""Requests that go out together: what one step needs, in one write and one round trip. Only with 9P2000.L.

* A later request names the fid that an earlier one makes. A server that answers in the order of arrival, as mk9p's own does, has the fid by then.
  Another one (diod) answers the later ones with an error, or with the status of what the fid was during the walk: its qid shows that. Then the
  client asks again for what is missing, one request after the other, and never sends requests together on that connection again
  (`Conversation.ordered`).
* It opens no file together with its walk before it has seen a walk and its status come back in order. It never sends an open that truncates before
  it is known which file that is: the caller must see to that.
* If cancelled, it flushes all requests of a flight, and clunks what they made.

Errors are those of requests.py; `Astray` is the error of a walk that ends before the last name.
"""

import errno
import math
from collections.abc import Sequence
from typing import Any, Final

import attrs

from mk9p.client import requests
from mk9p.client.calls import Call, Result
from mk9p.client.conversation import Conversation
from mk9p.client.stats import of_getattr
from mk9p.errors import NineError
from mk9p.status import Stat
from mk9p.wire import GETATTR_BASIC, Dialect, Qid
from mk9p.wire import messages as m

# answers of servers to a fid that does not exist yet
_EARLY: Final = (errno.EBADF, errno.EIO, errno.EINVAL, errno.EPROTO)


class Astray(Exception):
    """A walk that ended before the last name, for whatever reason; `qids` are those of the names before."""

    def __init__(self, qids: Sequence[Qid]) -> None:
        super().__init__()
        self.qids = qids


@attrs.frozen
class Opened:
    """An opened file: its fid, the qids of the walked names, its own qid, the most bytes of one read or write, and what was requested: its status,
    and its beginning."""

    fid: int
    qids: Sequence[Qid]
    qid: Qid
    iounit: int
    stat: Stat | None
    first: bytes


def can(c: Conversation) -> bool:
    """Tell whether a walk may go out together with what follows it."""
    return c.dialect is Dialect.L and c.ordered is not False


async def look(
    c: Conversation, fid: int, names: tuple[str, ...], *, keep: bool = True, patience: float = math.inf
) -> tuple[int, Sequence[Qid], Stat]:
    """Walk to names and ask for the status; return the new fid, clunked already without `keep`, the qids and the status.

    Raises Astray, and ETIMEDOUT without an answer within `patience` seconds.
    """
    new = c.new_fid()
    asked: list[tuple[Any, ...]] = [(m.Twalk, fid, new, names), (m.Tgetattr, new, GETATTR_BASIC)]
    if keep or not c.ordered:
        walked, told = await _fly(c, asked, [new], patience)
        qids = _walked(c, new, walked, len(names))
        stat = await _told(c, new, qids[-1], told)
        if not keep:
            c.clunk_nowait(new)
        return new, qids, stat
    asked.append((m.Tclunk, new))
    walked, told, _ = await _fly(c, asked, [], patience)
    if isinstance(walked, NineError):
        raise walked
    (qids,) = walked
    if len(qids) < len(names):
        raise Astray(qids)
    if isinstance(told, tuple) and _same(told[1], qids[-1]):
        return new, qids, of_getattr(told, "")
    if isinstance(told, NineError) and told.errno not in _EARLY:
        raise told
    c.ordered = False
    new, qids = await requests.walk(c, fid, names)
    try:
        return new, qids, await requests.stat(c, new)
    finally:
        c.clunk_nowait(new)


async def look_at_all(
    c: Conversation, fid: int, names: Sequence[str], patience: float = math.inf
) -> list[tuple[int, Qid, Stat] | NineError]:
    """Do as `look` does for many names of a directory, all at once. A name that was not walked to, or that has no status, has its error here.

    That is ETIMEDOUT without an answer within `patience` seconds.
    """
    made = [c.new_fid() for _ in names]
    asked: list[tuple[Any, ...]] = []
    for new, name in zip(made, names, strict=True):
        asked += ((m.Twalk, fid, new, (name,)), (m.Tgetattr, new, GETATTR_BASIC))
    results = await _fly(c, asked, made, patience)
    found: list[tuple[int, Qid, Stat] | NineError] = []
    try:
        for walked, told, new in zip(results[::2], results[1::2], made, strict=True):
            try:
                (qid,) = _walked(c, new, walked, 1)
                found.append((new, qid, await _told(c, new, qid, told)))
            except Astray:
                found.append(NineError(errno.ENOENT))
            except NineError as error:
                found.append(error)
    except BaseException:
        for at, (walked, new) in enumerate(zip(results[::2], made, strict=True)):
            done = at < len(found) and isinstance(found[at], tuple)
            if done or (at > len(found) and isinstance(walked, tuple)):
                c.clunk_nowait(new)
        raise
    return found


async def open_(
    c: Conversation, fid: int, names: tuple[str, ...], flags: int, *, stat: bool = True, count: int = 0
) -> Opened:
    """Open the file of a fid, or the file that names lead to from it, with Linux's flags, by a fid of its own; also ask for its status and first
    bytes.

    Raises Astray.
    """
    if not c.ordered:
        return await _open(c, fid, names, flags, stat=stat)
    new = c.new_fid()
    asked: list[tuple[Any, ...]] = [(m.Twalk, fid, new, names), (m.Tlopen, new, flags)]
    if stat:
        asked.append((m.Tgetattr, new, GETATTR_BASIC))
    if count:
        asked.append((m.Tread, new, 0, min(count, c.iounit)))
    walked, opened, *more = await _fly(c, asked, [new])
    qids = _walked(c, new, walked, len(names))
    try:
        if isinstance(opened, NineError) and opened.errno not in _EARLY:
            raise opened
        if isinstance(opened, NineError) or (names and not _same(opened[0], qids[-1])):
            c.ordered = False
            return await _open(c, fid, names, flags, stat=stat)
        qid, iounit = opened
        status = await _told(c, new, qid, more[0], keep=True) if stat else None
        first = more[-1][0] if count and isinstance(more[-1], tuple) else b""
        made, new = Opened(new, qids, qid, requests.most_of(c, iounit), status, first), -1
        return made
    finally:
        if new >= 0:
            c.clunk_nowait(new)


async def _open(c: Conversation, fid: int, names: tuple[str, ...], flags: int, *, stat: bool) -> Opened:
    """Open as `open_` does, but send each request after the answer to the one before."""
    new, qids = await requests.walk(c, fid, names)
    try:
        qid, iounit = await c.rpc(m.Tlopen, new, flags)
        status = await requests.stat(c, new) if stat else None
    except BaseException:
        c.clunk_nowait(new)
        raise
    return Opened(new, qids, qid, requests.most_of(c, iounit), status, b"")


async def _status(c: Conversation, fid: int) -> Stat:
    """Return the status of a fid, and clunk the fid if there is none."""
    try:
        return await requests.stat(c, fid)
    except BaseException:
        c.clunk_nowait(fid)
        raise


def _walked(c: Conversation, new: int, walked: Result, names: int) -> Sequence[Qid]:
    """Return the qids of a walk of some names; a walk that failed has made no fid."""
    if isinstance(walked, NineError):
        raise walked
    (qids,) = walked
    if len(qids) < names:
        c.clunk_nowait(new)  # as in requests.walk
        raise Astray(qids)
    return qids  # type: ignore[no-any-return]


async def _told(c: Conversation, fid: int, qid: Qid, told: Result, *, keep: bool = False) -> Stat:
    """Return the status that came with a walk, if it belongs to the file that was walked to, else ask again. A fid without a status is clunked,
    unless `keep`."""
    if isinstance(told, tuple):
        if _same(told[1], qid):
            c.ordered = c.ordered is not False
            return of_getattr(told, "")
    elif told.errno not in _EARLY:
        if not keep:
            c.clunk_nowait(fid)
        raise told
    stat = await (requests.stat(c, fid) if keep else _status(c, fid))
    c.ordered = False
    return stat


def _same(one: Qid, other: Qid) -> bool:
    return one.path == other.path and one.type == other.type


async def _fly(
    c: Conversation, asked: Sequence[tuple[Any, ...]], made: Sequence[int], patience: float = math.inf
) -> list[Result]:
    """Send requests in one go and return what happened to each. The caller owns the fids of the walks that succeeded."""
    calls: list[Call] = []
    results: list[Result] = [NineError(errno.ETIMEDOUT)] * len(asked)

    async def come() -> None:
        for at in range(len(calls) - 1, -1, -1):  # the last comes last: then all others are there
            try:
                results[at] = await calls[at].reply()
            except NineError as error:
                results[at] = error

    try:
        await c.checkpoint()
        c.cork()
        try:
            for message, *fields in asked:
                calls.append(c.call(message, *fields))
        finally:
            c.uncork()
        if calls[-1].type == m.Tclunk.type:
            calls[0].made = None  # its fid goes with the clunk, whatever happens
        calls[-1].glance()
        if patience == math.inf or all(call.result is not None for call in calls):
            await come()
        else:
            try:
                await c.within(patience, come)
            except NineError:  # give up what has not come
                for at in range(len(calls) - 1, -1, -1):
                    came = calls[at].result
                    if not calls[at].left and came is not None:
                        results[at], calls[at].left = came, True
                    calls[at].abandon()
    except BaseException:
        for at in range(len(calls) - 1, -1, -1):  # requests that use a fid before the request that makes it
            calls[at].abandon()
            new = calls[at].made
            if new is not None and isinstance(results[at], tuple):
                c.clunk_nowait(new)
        for new in made[sum(call.type == m.Twalk.type for call in calls) :]:
            c.free_fid(new)  # the fid of a request that was not sent
        raise
    return results
