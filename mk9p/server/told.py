"""What the answers of another server tell (relay.py): of fids, and where a qid is in them."""

import logging
from struct import Struct
from typing import Final

from mk9p.errors import ProtocolError
from mk9p.recovery.again import locks_after
from mk9p.server.connection import Connection
from mk9p.server.hops import ONCE, WHEN, Alias, Asked, Far, Hop, Known, Late
from mk9p.server.jobs import follow
from mk9p.server.tags import forget
from mk9p.status import Lock
from mk9p.wire import LOCK_SUCCESS
from mk9p.wire import messages as m
from mk9p.wire.roles import CREATES, MADE, MOVES, NOTED, SYNCS

log = logging.getLogger("mk9p.server")

_RWALK, _RLERROR, _RREADDIR, _TFLUSH = m.Rwalk.type, m.Rlerror.type, m.Rreaddir.type, m.Tflush.type
LOCKS: Final = 4096  # ranges of a connection that are set again; a file with more cannot be opened again
HEAD: Final = 7  # size[4] type[1] tag[2]
_NAME_MAX: Final = 255  # bytes: Linux's include/uapi/linux/limits.h
_u16, _u64 = Struct("<H").unpack_from, Struct("<Q").unpack_from
_put64: Final = Struct("<Q").pack_into
_head: Final = Struct("<IBHI").pack  # size[4] type[1] tag[2] count[4]


def learned(c: Connection, b: Far, known: Known | None, type_: int, buf: bytearray, start: int, end: int) -> None:
    """Note what an answer tells of a fid; map the qids of a walk. A walk that did not go all the way has made no fid."""
    if not isinstance(known, Asked) or known.backend is not b or type_ not in (known.type + 1, _RLERROR):
        raise b.garbage(type_)
    hop, base = known.hop, known.base
    if known.type == _TFLUSH:
        old, known.old = known.old, None  # otherwise flushes of flushes would be kept, one by the other
        c.common.patience.end(known)
        here = c.asked.get(known.number)
        # the flushed request gets no answer any more
        if old is not None and old in (here, here.known if isinstance(here, Alias) else None):
            forget(c, known.number)
            if isinstance(old, Asked):
                failed(c, old)
        return
    count = path = 0
    if type_ == _RWALK:
        count = counted(b, known, buf, start, end)
        for at in range(start + 14, end, 13):
            _put64(buf, at, path := b.way.paths[_u64(buf, at)[0]])
    if hop is not None:
        hop.sure = True
        if hop.named is not None or known.type in CREATES:
            hop.named = True
    if type_ == _RLERROR or count < known.count:
        failed(c, known)
    elif hop is None:
        pass
    elif base is None:
        if known.type in NOTED:
            noted(c, hop, known, buf, start, end)
            return
        hop.flags = known.flags
        if known.names and end - start >= 20:  # otherwise it is refused for its length
            hop.names, hop.path = hop.names + known.names, b.way.paths[_u64(buf, start + 12)[0]]
    elif known.type in MOVES:
        hop.place, hop.names, hop.lead = base.place, base.names + known.names, base.lead
    else:
        hop.path = path if count else base.path
        if known.before is base:
            hop.flags = base.flags if hop.flags is None else hop.flags
        if base.names is not known.names:  # the start of the walk was not where it seemed to be
            hop.names = base.names + hop.names[len(known.names) :]


def noted(c: Connection, hop: Hop, known: Asked, buf: bytearray, start: int, end: int) -> None:
    """Note what is known of an open file after a lock of it was set, or after it was synced."""
    wish = known.wish
    if isinstance(wish, Lock) and end - start > HEAD and buf[start + HEAD] == LOCK_SUCCESS:
        before = hop.locks or []
        after = locks_after(before, wish)
        c.locked += len(after) - len(before)
        if c.locked > LOCKS:  # some went with their fids
            c.locked = sum(len(other.locks) for other in c.relays.values() if other.locks) + len(after) - len(before)
        if c.locked > LOCKS:
            c.locked -= len(after)
            after, hop.flags = [], ONCE
        hop.locks = after or None


def counted(b: Far, known: Asked, buf: bytearray, start: int, end: int) -> int:
    """Return how many qids an Rwalk has."""
    count: int = 0
    if end - start < 9 or end - start != 9 + 13 * (count := _u16(buf, start + 7)[0]):
        raise b.garbage(_RWALK)
    if count > known.count:
        raise ProtocolError(f"{b.way.address} answers a walk of {known.count} names with {count} qids")
    return count


def failed(c: Connection, known: Asked) -> None:
    """Undo what a request would have made of a fid. Its number may be another fid's by now."""
    hop, before = known.hop, known.before
    release(c, known)
    if known.type in SYNCS and hop is not None:
        hop.dirty = hop.dirty or bool(known.wish)
    if known.type not in MADE or hop is None:
        return
    if before is not None and not before.void:
        hop.place, hop.names, hop.path, hop.lead = before.place, before.names, before.path, before.lead
        hop.flags = before.flags if hop.flags is None else hop.flags
        return
    hop.void = True
    if c.relays.get(known.number) is hop:
        del c.relays[known.number]


def release(c: Connection, known: Asked) -> None:
    """Let go on what waited for a walk."""
    request, known.request = known.request, None
    if request is not None and not request.cleared:  # else its connection is about to end
        follow(c, *c.session.finish(request))


def forsake(c: Connection, b: Far) -> list[tuple[int, int, int]]:
    """Treat everything that was asked of another server as failed; return the tags and types that the client must get an answer to, and when each
    came."""
    told = []
    for number, known in list(c.asked.items()):
        if isinstance(known, Late):
            known.owed.pop(b, None)
            if not known.owed and known.alias is None:
                del c.asked[number]
            continue
        if isinstance(known, Alias):
            known = known.known
        if not b.mine(known):
            continue
        tag = forget(c, number)
        if isinstance(known, int):
            told.append((tag, known & 0xFF, known >> WHEN))
        elif isinstance(known, Asked):
            failed(c, known)
            told.append((tag, known.type, known.since))
    return told


def listed(b: Far, buf: bytearray, start: int, end: int, count: int) -> int:
    """Map the qids of a directory's entries, in a frame of `count` bytes of data, and leave out the names that no file can have. Return where the
    frame begins, which is shorter then. Raises ProtocolError if it does not have as many bytes, or the last entry is not whole.
    """
    at, paths = start + 11, b.way.paths
    bad: list[tuple[int, int]] = []
    while at + 24 <= end:
        _put64(buf, at + 5, paths[_u64(buf, at + 5)[0]])
        begins = at
        at += 24 + _u16(buf, at + 22)[0]
        name = buf[begins + 24 : at]
        if b"/" in name or 0 in name or not 0 < len(name) <= _NAME_MAX:
            bad.append((begins, at))
    if at != end or end - start != 11 + count:
        raise b.garbage(m.Rreaddir.type)
    return _without(b, buf, start, end, bad) if bad else start


def _without(b: Far, buf: bytearray, start: int, end: int, bad: list[tuple[int, int]]) -> int:
    """Take entries out of a listing, for with one of them Linux's v9fs says EIO instead of the others. Return where the frame begins now."""
    if not b.odd:
        b.odd = True
        name = bytes(buf[bad[0][0] + 24 : bad[0][1]])
        log.warning("%s lists a file that no file can be called, and is left out: %a", b.way.address, name[:99])
    good, at = bytearray(), start + 11
    for begins, ends in bad:
        good += buf[at:begins]
        at = ends
    good += buf[at:end]
    if (
        not good
    ):  # no entries would be the end of the directory: one that is in every directory, with the offset where to go on
        begins = bad[-1][0]
        good = buf[begins : begins + 21] + b"\4\1\0."
    if len(good) > end - start - 11:
        return start  # one nameless entry alone, which leaves no room for that
    begins = end - 11 - len(good)
    buf[begins:end] = _head(11 + len(good), _RREADDIR, _u16(buf, start + 5)[0], len(good)) + good
    return begins
