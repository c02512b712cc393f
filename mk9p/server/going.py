"""Walks that go over to other servers at once, and in blocks: across.py has the theory, plans.py says what is kept of them."""

from struct import Struct
from typing import Final

from mk9p.auth import EXEC, Principal, may
from mk9p.server.across import Across
from mk9p.server.connection import Connection
from mk9p.server.fids import Fid, qid
from mk9p.server.foreseen import before_of, make_hop
from mk9p.server.hops import ROOT, Far
from mk9p.server.plans import NAMES, Plan
from mk9p.server.tags import enter
from mk9p.tree import Stat
from mk9p.wire import messages as m

SHORTEST: Final = 17  # bytes of a Twalk without names

_put_qid: Final = Struct("<BIQ").pack
_put_walk: Final = Struct("<IBHII").pack
_fids: Final = Struct("<II").unpack_from
_WALK: Final = m.Twalk.type


def forward_walk(c: Connection, tag: int, buf: bytearray, start: int, end: int) -> bool:
    """Pass on a Twalk that has gone over before; return False, and do nothing, if it needs a closer look."""
    if end - start < SHORTEST:
        return False
    fid, newfid = _fids(buf, start + 7)
    old = c.session.fids.get(fid)
    if old is None or newfid == fid or newfid >= ROOT:
        return False
    plan = c.plans.get((old.place, bytes(buf[start + NAMES : end])))
    if plan is None or not plan.route.stands() or not may_search(plan, old.who):
        return False
    b = there_now(c, plan, newfid)
    if b is None:
        return False
    try:
        pass_on(c, b, tag, newfid, plan, old)
    except OSError:
        return False
    return True


def there_now(c: Connection, plan: Plan, newfid: int) -> Far | None:
    """Return where a walk goes first; None if the client has no connection there."""
    lead = plan.leads[0]
    b = c.backends.get(lead.key)
    if b is None or b.link is None or newfid in b.limbo or not (b.dots or not lead.dots):
        return None
    return b


def may_search(plan: Plan, who: Principal) -> bool:
    """Tell whether a user may search the directories up to the mount point, and note their qids; also False if that can't be told at once."""
    at, stats = plan.start, list[Stat]()
    for place in plan.places:
        if who.uid != 0 and not at.node.guards:
            stat = at.node.stat()
            if type(stat) is not Stat or not may(who, stat.mode, stat.uid, stat.gid, EXEC):
                return False
        if place is not plan.place or plan.route.alias:
            stat = place.node.stat()
            if type(stat) is not Stat:
                return False
            stats.append(stat)
        at = place
    if stats != plan.stats:
        plan.stats = stats
        plan.head = b"".join(_put_qid(*qid(place, stat)) for place, stat in zip(plan.places, stats, strict=False))
    return True


def pass_on(c: Connection, b: Far, tag: int, newfid: int, plan: Plan, old: Fid) -> None:
    """Pass on a walk. Raises EEXIST, EMFILE, ENOMEM, and then does nothing."""
    lead = plan.leads[0]
    before = before_of(c, b, newfid)
    hop = make_hop(c, b, newfid, plan.place, lead.rest, lead.node)
    hop.maybe, hop.named = not plan.sure, before is None
    known = Across(b, newfid, hop, before, plan, old)
    known.since = c.counts.since
    packed = lead.packed
    frame: bytes | bytearray = _put_walk(NAMES + len(packed), _WALK, tag, ROOT, newfid) + packed
    if tag in c.asked:  # an old answer to it may still come
        frame = bytearray(frame)
        enter(c, tag, known, frame, 0)
    else:
        c.asked[tag] = known
    b.end_run(c.frames.buf)
    b.out.append(frame)
