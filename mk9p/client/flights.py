"""Requests that go out together: what one step needs, in one write and one round trip. 9P2000.L alone.

* A later request names the fid that an earlier one makes. A server that answers in the order of arrival has it by then, as mk9p's own. Another one
  (diod) says an error to the later ones, or the status of what the fid was while it was walked: its qid tells. Then what is missing is asked
  again, one after the other, and nothing flies together on that connection any more (`Conversation.ordered`).
* No file is opened together with its walk before a walk and its status were seen to come back in order. An open that truncates is never sent before
  it is known which file that is: that is the caller's to see to.
* Cancelled, all of a flight is flushed, and what it made is clunked.

Errors are those of requests.py; `Astray` is that of a walk that ends before the last name.
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

_EARLY: Final = (errno.EBADF, errno.EIO, errno.EINVAL, errno.EPROTO)  # what servers say to a fid that is not there yet


class Astray(Exception):
    """A walk that ended before the last name, for whatever reason; `qids` are those of the names before."""

    def __init__(self, qids: Sequence[Qid]) -> None:
        super().__init__()
        self.qids = qids


@attrs.frozen
class Opened:
    """A file that was opened: its fid, the qids of the names that were walked, its own, the most bytes of one read or write, and what was asked for:
    its status, and how it begins."""

    fid: int
    qids: Sequence[Qid]
    qid: Qid
    iounit: int
    stat: Stat | None
    first: bytes


def can(c: Conversation) -> bool:
    """Tell whether a walk may fly together with what follows it."""
    return c.dialect is Dialect.L and c.ordered is not False


async def look(
    c: Conversation, fid: int, names: tuple[str, ...], *, keep: bool = True, patience: float = math.inf
) -> tuple[int, Sequence[Qid], Stat]:
    """Walk to names and ask for the status; return the new fid, clunked already unless it is to be kept, the qids and the status.

    Raises Astray, and ETIMEDOUT for what is not answered within so many seconds of patience.
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
    """Do as `look` does for many names of a directory, all at once. One that was not walked to, or tells no status, has its error here.

    That is ETIMEDOUT for what is not answered within so many seconds of patience.
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
    """Open the file of a fid, or what names lead to from it, with Linux's flags, by a fid of its own; ask for its status and first bytes, too.

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
    """Open as `open_` does, each request after the answer to the one before."""
    new, qids = await requests.walk(c, fid, names)
    try:
        qid, iounit = await c.rpc(m.Tlopen, new, flags)
        status = await requests.stat(c, new) if stat else None
    except BaseException:
        c.clunk_nowait(new)
        raise
    return Opened(new, qids, qid, requests.most_of(c, iounit), status, b"")


async def _status(c: Conversation, fid: int) -> Stat:
    """Return the status of a fid, which is clunked if there is none."""
    try:
        return await requests.stat(c, fid)
    except BaseException:
        c.clunk_nowait(fid)
        raise


def _walked(c: Conversation, new: int, walked: Result, names: int) -> Sequence[Qid]:
    """Return the qids of a walk of some names; one that failed has made no fid."""
    if isinstance(walked, NineError):
        raise walked
    (qids,) = walked
    if len(qids) < names:
        c.clunk_nowait(new)  # as in requests.walk
        raise Astray(qids)
    return qids  # type: ignore[no-any-return]


async def _told(c: Conversation, fid: int, qid: Qid, told: Result, *, keep: bool = False) -> Stat:
    """Return the status that came with a walk, if it is of what was walked to, else ask again. A fid that tells none is clunked, unless `keep`."""
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
    """Send requests in one go and return what became of each. The fids of the walks that succeeded are the caller's."""
    calls: list[Call] = []
    results: list[Result] = [NineError(errno.ETIMEDOUT)] * len(asked)

    async def come() -> None:
        for at in range(len(calls) - 1, -1, -1):  # the last comes last: all others are there then
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
            calls[0].made = None  # its fid is gone with the clunk, whatever becomes of it
        calls[-1].glance()
        if patience == math.inf or all(call.result is not None for call in calls):
            await come()
        else:
            try:
                await c.within(patience, come)
            except NineError:  # what has not come is given up
                for at in range(len(calls) - 1, -1, -1):
                    came = calls[at].result
                    if not calls[at].left and came is not None:
                        results[at], calls[at].left = came, True
                    calls[at].abandon()
    except BaseException:
        for at in range(len(calls) - 1, -1, -1):  # what uses a fid before what makes it
            calls[at].abandon()
            new = calls[at].made
            if new is not None and isinstance(results[at], tuple):
                c.clunk_nowait(new)
        for new in made[sum(call.type == m.Twalk.type for call in calls) :]:
            c.free_fid(new)  # of what was not sent
        raise
    return results
