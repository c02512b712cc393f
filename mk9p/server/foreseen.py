"""What a request that is passed on (relay.py) makes of a fid. It is noted before the answer comes, because requests after it may name the fid."""

import errno
from struct import Struct
from typing import Final

from mk9p.errors import NineError
from mk9p.server.asking import other_fid, text_at
from mk9p.server.connection import Connection
from mk9p.server.fids import Place
from mk9p.server.hops import ONCE, ROOT, Asked, Far, Hop
from mk9p.status import Lock
from mk9p.tree import Node
from mk9p.wire import messages as m
from mk9p.wire.roles import CREATES, MADE, MOVES, NOTED, OPENS, PAIRS, SYNCS

LOCK: Final = Struct("<BIQQI")  # type[1] flags[4] start[8] length[8] proc_id[4]
_u16, _u32 = Struct("<H").unpack_from, Struct("<I").unpack_from


def of_walk(c: Connection, hop: Hop, fid: int, type_: int, buf: bytearray, start: int, end: int) -> Asked | None:
    """Return what must be known of a walk; None if it does not go over. Raises EEXIST for a fid in use, ENOMEM."""
    if end - start < 17:
        return None
    b = hop.backend
    newfid, count = _u32(buf, start + 11)[0], _u16(buf, start + 15)[0]
    at, names = start + 17, []
    for _ in range(count):
        if at + 2 > end:
            return None  # the codec says what is wrong with it
        size = _u16(buf, at)[0]
        names.append(bytes(buf[at + 2 : at + 2 + size]))
        at += 2 + size
    if at != end or any(name in (b"", b".") or b"/" in name or b"\0" in name for name in names):
        return None
    if newfid in b.limbo or (hop.crossing and (not names or newfid == fid or not _stands(hop))):
        return None
    way = _led(hop, names) if b".." in names else (*hop.names, *(_text(name) for name in names))
    if way is None:
        return None
    before = hop if newfid == fid else before_of(c, b, newfid)
    made = make_hop(c, b, newfid, hop.place, way, hop.lead)
    made.named = hop.named and before is None
    return Asked(b, type_, newfid, made, hop, hop.names, count, before)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _led(hop: Hop, names: list[bytes]) -> tuple[str, ...] | None:
    """Return where a walk with `..` leads, if it stays below the root of the mounted tree; what is above, or a bind of a part, is for this server."""
    way, theirs = hop.place.node.way, hop.backend.way
    if not hop.sure or way is None or way.names or way.line != theirs.line:
        return None
    to = list(hop.names)
    for name in names:
        if name != b"..":
            to.append(_text(name))
        elif len(to) > 1:
            to.pop()
        else:
            return None
    return tuple(to)


def _stands(hop: Hop) -> bool:
    """Tell whether the way at a crossing is still what it was."""
    way = hop.place.node.way
    if way is not hop.way and way == hop.way:
        hop.way = way  # the mount table has changed elsewhere
    return way is hop.way


def before_of(c: Connection, b: Far, fid: int) -> Hop | None:
    """Return what a new fid may still be, if this server does not know yet that it is none; raises EEXIST for one in use."""
    before = c.relays.get(fid)
    if fid in c.session.fids or fid == ROOT or (before and (before.sure or before.backend is not b)):
        raise NineError(errno.EEXIST, "fid already in use")
    return before


def make_hop(c: Connection, b: Far, fid: int, place: Place, names: tuple[str, ...], lead: Node | None) -> Hop:
    """Return what a fid will be, and note it. Raises EMFILE, ENOMEM."""
    if len(c.relays) >= c.max_relays:
        c.account.fids.more()
    if c.crowded:
        raise NineError(errno.ENOMEM)
    made = c.relays[fid] = Hop(b, place, names, lead=lead)
    made.sure = False
    return made


def flags_of(type_: int, buf: bytearray, start: int, end: int) -> int:
    """Return how a file is opened, ONCE if it is none that can be opened again."""
    if type_ == m.Tlopen.type:
        at = start + 11
    elif type_ == m.Tlcreate.type and end - start > 13:
        at = start + 13 + _u16(buf, start + 11)[0]
    else:
        return ONCE
    return int(_u32(buf, at)[0]) if at + 4 <= end else ONCE


def noted(b: Far, type_: int, fid: int, hop: Hop, buf: bytearray, start: int, end: int) -> Asked:
    """Return what must be known of a lock, or of a sync: what was written before that survives the server, if it succeeds."""
    asked = Asked(b, type_, fid, hop)
    if type_ in SYNCS:
        asked.wish, hop.dirty = hop.dirty, False
    elif end - start > LOCK.size + 11:
        kind, _, begin, length, process = LOCK.unpack_from(buf, start + 11)
        asked.wish = Lock(kind, begin, length, process, text_at(buf, start + 11 + LOCK.size, end))
    return asked


def of_other(c: Connection, hop: Hop, fid: int, type_: int, buf: bytearray, start: int, end: int) -> int | Asked | None:
    """Return what must be known of a request that is not plain and no walk; None if it does not go over. Raises as `of_walk`, and EXDEV."""
    b, relays = hop.backend, c.relays
    if type_ in OPENS:
        names = (text_at(buf, start + 11, end),) if type_ in CREATES else ()
        opening = Asked(b, type_, fid, hop, names=names)
        opening.flags = flags_of(type_, buf, start, end)
        return opening
    if type_ in NOTED:
        return noted(b, type_, fid, hop, buf, start, end)
    if type_ in PAIRS:
        number = other_fid(type_, buf, start, end)
        if number == ROOT:
            # this server's own fid there is not the client's: the client has this number here, or it is unknown
            c.session.fid(number)
        other = relays.get(number)
        if number in c.session.fids if other is None else other.backend is not b:
            raise NineError(errno.EXDEV)
        if other is not None and (other.crossing or other.maybe):
            return None  # the mount table says what may be made at a mount point
        if type_ not in MOVES:
            return type_
        return Asked(b, type_, fid, hop, other, (text_at(buf, start + 15, end),))
    if type_ in MADE and end - start >= 17:
        newfid = _u32(buf, start + 11)[0]
        if newfid in b.limbo:
            return None
        before = before_of(c, b, newfid)
        return Asked(b, type_, newfid, make_hop(c, b, newfid, hop.place, hop.names, hop.lead), before=before)
    return None
