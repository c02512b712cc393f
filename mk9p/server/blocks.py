"""The tight loops of the fast way (relay.py): whole blocks of frames, to another server and back.

Theory
* A composed namespace costs what a frame costs here: besides, there are only the system calls, two more for each batch in each direction. So a
  loop looks at one frame with one unpacking and a few lookups, and calls nothing for it. A frame that needs more than that ends the block, and the
  engine takes it from there.
* A plain request names one fid, and nothing in its answer must be known: it goes over unchanged. Under its tag the server keeps one number: its
  type in the lowest byte, above that the server that got it in 24 bits, then how many bytes it asked for in 32, and above these when it came. So
  requests of one kind that came together are one number, and count as one run (counts.py) going and coming. The owner of a number is checked once
  for each run.
* The other server is not believed: no answer goes to the client that answers nothing, is larger than the client takes, brings more bytes than were
  asked for, or reports an error that is none. The rest of an answer is between that server and its client, who checks it as any server's.
* A client's tags are in one table, whichever of its servers got the requests: finding that a tag is in use elsewhere costs no frame anything.
* Neighbouring frames are sent from where they are, in one call; only what the kernel does not take at once is copied.
"""

from errno import EIO
from struct import Struct
from time import monotonic_ns
from typing import Final

from mk9p.errors import is_errno
from mk9p.server.across import Across, again, crossed
from mk9p.server.asking import answered
from mk9p.server.connection import Connection
from mk9p.server.foreseen import flags_of, noted
from mk9p.server.going import forward_walk
from mk9p.server.hops import COUNT, WHEN, WHOSE, Alias, Asked, Far, Hop, Late, Own
from mk9p.server.leased import ALTERS
from mk9p.server.narrow import FREE
from mk9p.server.owed import came
from mk9p.server.passing import deliver
from mk9p.server.tags import returned
from mk9p.server.told import learned, listed
from mk9p.server.turns import BLOCK
from mk9p.wire import messages as m
from mk9p.wire.roles import COUNTED, CREATES, DATA, ENDS, NOTED, OPENS, PATH_AT, PLAIN

# As PATH_AT; -1 for replies that begin with a number to check: of bytes that were asked for, or of an error.
_PATH_AT: Final = [*PATH_AT]
_RREADDIR, _RLERROR = m.Rreaddir.type, m.Rlerror.type
for _type in COUNTED:
    _PATH_AT[_type + 1] = -1
_PATH_AT[_RLERROR] = -1

NEAR: Final = 4096  # bytes; more are cheaper to send separately than to move
LARGE: Final = 4096  # bytes of a request; a block has as many of these as there are

_request, _reply = Struct("<IBHI").unpack_from, Struct("<IBH").unpack_from
_get16 = Struct("<H").unpack_from
_get32, _put32 = Struct("<I").unpack_from, Struct("<I").pack_into
_get64, _put64 = Struct("<Q").unpack_from, Struct("<Q").pack_into


_OPENS: Final = OPENS - CREATES
_WALK: Final = m.Twalk.type
_WRITE: Final = m.Twrite.type
PASSED: Final = PLAIN | ENDS | _OPENS | NOTED | {_WALK}  # requests that may go over in a block
# by type: whether nothing must be known of its answer, the least bytes that it has, and whether nothing else in it must be looked at
_KINDS: Final = [(n in PLAIN, COUNTED.get(n, 11), n not in COUNTED and n != _WALK) for n in range(256)]
UNALTERED: Final = PASSED - ALTERS  # those while somebody has leased something


def forward(c: Connection) -> bool:
    """Pass on the first of the received requests, as far as they may all go over at once; return True if nothing is left.

    They are at most a block, not counting large ones: the caller looks at the clock.
    """
    if c.session.tags:
        return False  # somebody waits here: check frame by frame what must wait for it
    passed, gate = PASSED, c.common.gate
    if c.narrow:
        passed = FREE
    elif gate is not None and gate.active:
        passed = UNALTERED
    frames, relays, asked, counts = c.frames, c.relays, c.asked, c.counts
    buf, limit = frames.buf, frames.limit
    at, tail = (frames.head, frames.tail) if frames.sought is None else frames.ahead()
    stop = tail - 10
    if stop - at > BLOCK:
        stop = at + BLOCK
    b, first, last, mark, since = None, at, -1, 0, counts.since << WHEN
    kind, run, n, known, least, most = -1, at, 0, 0, 11, 0
    plain = easy = True
    hop: Hop | None = None
    while at < stop:
        size, type_, tag, fid = _request(buf, at)
        if type_ != kind:
            if n:
                counts.passed(kind, n, at - run)
            kind, run, n, most = type_, at, 0, 0
            if type_ not in passed:
                break
            plain, least, easy = _KINDS[type_]
            if type_ == _WRITE and fid == last and hop is not None:
                hop.dirty = True  # it is that of the frame before
            known = since | type_
        if not least <= size <= limit or size > tail - at:
            break
        if size > LARGE and stop < tail - 10:
            stop = min(stop + size, tail - 10)  # it costs no more than a small one
        if not easy:
            if type_ == _WALK:
                if b is not None:
                    b.goes(buf, first, at)
                    b, last = None, -1
                frames.head = at
                if tag in asked or not forward_walk(c, tag, buf, at, at + size):
                    break
                frames.head = at = at + size
                n += 1
                continue
            if (count := _get32(buf, at + least - 4)[0]) != most:
                most, known = count, since | count << COUNT | type_
        if fid != last:
            hop = relays.get(fid)
            if hop is None or hop.crossing or hop.maybe or (there := hop.backend).link is None:
                break
            if type_ == _WRITE:
                hop.dirty = True
            if there is not b:
                if b is not None:
                    b.goes(buf, first, at)
                b, first = there, at
                if b.mark != mark:
                    since += b.mark - mark
                    mark, known = b.mark, since | most << COUNT | type_
            last = fid
        if tag in asked:
            break
        asked[tag] = known
        if not plain:
            if type_ in ENDS:
                del relays[fid]
                last = -1
            else:
                if type_ in NOTED:
                    assert hop is not None
                    some = noted(there, type_, fid, hop, buf, at, at + size)
                else:
                    some = Asked(there, type_, fid, hop)
                    some.flags = flags_of(type_, buf, at, at + size)
                some.since = counts.since
                asked[tag] = some
        at += size
        n += 1
    if n:
        counts.passed(kind, n, at - run)
    if b is not None:
        b.goes(buf, first, at)
        frames.head = at
    return at == tail


def back(c: Connection, b: Far) -> None:
    """Pass on the complete replies that were received; `more` says whether the turn was over before the end of them.

    Raises ProtocolError for something that is no reply; what came before it was passed on.
    """
    frames, asked, paths, counts = b.frames, c.asked, b.way.paths, c.counts
    base = b.mark - 1
    buf, limit = frames.buf, frames.limit
    at, tail = frames.head, frames.tail
    turns = c.links.turns
    last = stop = tail - 6
    if stop - at > BLOCK:
        stop = at + BLOCK
    now = monotonic_ns()
    first = run = at
    kind, right, n, bad, most = -1, 0, 0, 0, 0
    try:
        while at < stop or (at < last and (stop := turns.further(at, last)) > at):
            size, type_, tag = _reply(buf, at)
            if not 7 <= size <= limit:
                raise b.garbage(type_)
            if size > tail - at:
                break
            known = asked.get(tag)
            if known != kind:
                if n:
                    counts.returned(kind & 0xFF, n, bad, at - run, now - (kind >> WHEN))
                run, n, bad = at, 0, 0
                if known.__class__ is Alias:
                    known = returned(c, tag, known, buf, at)
                if known.__class__ is int:
                    kind, right, most = known, (known & WHOSE) - base, known >> COUNT & 0xFFFFFFFF
                elif known.__class__ is Asked:
                    kind = -1
                    learned(c, b, known, type_, buf, at, at + size)
                elif (isinstance(known, Own) and known.backend is b) or (isinstance(known, Late) and b in known.owed):
                    kind = -1
                    if isinstance(known, Own):
                        del asked[tag]
                        answered(c, known, type_, buf, at, size)
                    else:
                        came(c, b, tag, type_, buf, at, at + size)
                    _deliver(c, b, first, at)
                    first = run = at = at + size
                    continue
                elif isinstance(known, Across):
                    kind = -1
                    if (begins := crossed(c, b, known, type_, buf, at, at + size)) < 0:
                        _deliver(c, b, first, at)
                        del asked[tag]
                        again(
                            c, _get16(buf, at + 5)[0], known, begins
                        )  # the client's tag, if it went over with another
                        first = run = at = at + size
                        continue
                    if begins > at:
                        first = _shorter(c, b, first, at, begins)
                else:
                    kind = -1
                    learned(c, b, known, type_, buf, at, at + size)
            if kind < 0:
                assert isinstance(known, Asked)
                counts.returned(known.type, 1, type_ == _RLERROR, size, now - known.since)
            else:
                if type_ != right:
                    if type_ != _RLERROR or not 0 < right < 256:  # the tag may belong to another server
                        raise b.garbage(type_)
                    bad += 1
                n += 1
            if (path := _PATH_AT[type_]) > 0:
                if path + 8 > size:
                    raise b.garbage(type_)
                _put64(buf, at + path, paths[_get64(buf, at + path)[0]])
            elif path:
                if size < 11:
                    raise b.garbage(type_)
                count = _get32(buf, at + 7)[0]
                if type_ == _RLERROR:
                    if size != 11:
                        raise b.garbage(type_)
                    if not is_errno(count):
                        _put32(buf, at + 7, EIO)
                elif count > most:
                    raise b.too_much(type_, count)
                elif type_ == _RREADDIR:
                    if (begins := listed(b, buf, at, at + size, count)) > at:
                        first = _shorter(c, b, first, at, begins)
                elif size - 11 != (count if type_ in DATA else 0):
                    raise b.garbage(type_)
            del asked[tag]
            at += size
        b.more = stop <= at < last
    finally:
        if n:
            counts.returned(kind & 0xFF, n, bad, at - run, now - (kind >> WHEN))
        frames.head = at
        if first < at:
            deliver(c, frames.view[first:at])


def _shorter(c: Connection, b: Far, first: int, at: int, begins: int) -> int:
    """Close the gap that a reply at `at` left which has become shorter, at the front. Return where what is not yet passed on begins."""
    if at - first > NEAR:
        _deliver(c, b, first, at)
        return begins
    buf = b.frames.buf
    buf[first + begins - at : begins] = buf[first:at]
    return first + begins - at


def _deliver(c: Connection, b: Far, first: int, last: int) -> None:
    if first < last:
        deliver(c, b.frames.view[first:last])
