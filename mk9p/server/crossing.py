"""Walks that cross into other servers, on their way there (across.py tells the theory).

Rules
* It is passed on at once, and what is asked after it too, if it is certain where it goes and the
  client has its connection there. Else it waits for its answers, and what names its fid waits for
  it: where the connection is yet to be made, and in a union, of which the next part is asked where
  one has no such name.
* Who may search the directories up to the mount point is judged here, with each walk; that one and
  what is below is the other server's to judge, which knows the user as itself.
* Whatever is not plain goes name by name, as do walks that would go another way than the client's
  requests for what they find: readers of listeners that refuse changes, other dialects, trees that
  count who has them open.
"""

import errno
from struct import Struct
from typing import Any, Final

from mk9p.auth import EXEC, Principal, may
from mk9p.errors import NineError
from mk9p.server.across import AGAIN, HEAD, QID, Across, General, mended
from mk9p.server.asking import arrived, leave, walk
from mk9p.server.connection import Connection, Reply
from mk9p.server.exchange import reach
from mk9p.server.fids import Fid, Place, qid
from mk9p.server.foreseen import before_of, make_hop
from mk9p.server.hops import ROOT, Far
from mk9p.server.jobs import LATE
from mk9p.server.plans import Lead, Plan
from mk9p.server.tags import enter
from mk9p.tree import Stat, settle
from mk9p.tree.paths import NAME
from mk9p.wire import MAXWELEM, Dialect
from mk9p.wire import messages as m

KEPT: Final = 256  # plans of a connection

_put_qid: Final = Struct("<BIQ").pack
_put_tag: Final = Struct("<H").pack_into
_put_walk: Final = Struct("<IBHII").pack
_WALK, _RWALK, _RLERROR = m.Twalk.type, m.Rwalk.type, m.Rlerror.type


def cross(c: Connection, tag: int, old: Fid, newfid: int, names: tuple[str, ...], general: General) -> Any:
    """Let a walk go over to another server. LATE: it has; an awaitable of its reply; NotImplemented: it is to go name by name.

    Raises EEXIST, ENOMEM, EMFILE.
    """
    place, who = old.place, old.who
    plan = c.plans.get((place, names))
    if plan is None or not plan.route.stands():
        plan = _plan(c, place, names, who)
        if plan is None:
            return NotImplemented
    if newfid >= ROOT or not _may(plan, who):
        return NotImplemented
    if plan.route.certain and len(plan.leads) == 1:
        lead = plan.leads[0]
        b = c.backends.get(lead.key)
        if b is not None and b.link is not None and newfid not in b.limbo and (b.dots or not lead.dots):
            _pass(c, b, tag, newfid, names, plan, (general, old))
            return LATE
    return _wait(c, tag, old, newfid, names, plan, general)


def _plan(c: Connection, start: Place, names: tuple[str, ...], who: Principal) -> Plan | None:
    """Return how a walk goes over; None if it does not."""
    if who.readonly or c.dialect is not Dialect.L or start.depth + len(names) > c.limits.depth:
        return None
    route = None if start.node.route is None else start.node.route(names, who)
    if route is None or not route.ways or not all(_is_plain(name) for name in names):
        return None
    place, places = start, list[Place]()
    for node, name in zip(route.nodes, names, strict=False):
        place = place.child(name, node)
        places.append(place)
    if place.holders:
        return None
    known = len(places)
    leads = tuple(
        Lead(way, node, (way.address, way.aname, who, way.who), known, place.path, names[known:])
        for way, node in zip(route.ways, route.leads, strict=True)
    )
    if any(len(lead.names) > MAXWELEM for lead in leads):
        return None
    if len(c.plans) >= KEPT:
        c.plans.clear()
    plan = c.plans[start, names] = Plan(start, route, tuple(places), place, leads)
    return plan


def _is_plain(name: str) -> bool:
    """Tell whether a name is none that needs a word: one that no file has, or `.` or `..`."""
    return 0 < len(name) <= NAME and name not in (".", "..") and "/" not in name and "\0" not in name


def _may(plan: Plan, who: Principal) -> bool:
    """Tell whether a user may search the directories up to the mount point, and note their qids; False too if that can't be told at once."""
    at, stats = plan.start, list[Stat]()
    for place in plan.places:
        if who.uid != 0 and not at.node.guards:
            stat = at.node.stat()
            if type(stat) is not Stat or not may(who, stat.mode, stat.uid, stat.gid, EXEC):
                return False
        if place is not plan.place:
            stat = place.node.stat()
            if type(stat) is not Stat:
                return False
            stats.append(stat)
        at = place
    if stats != plan.stats:
        plan.stats = stats
        plan.head = b"".join(_put_qid(*qid(place, stat)) for place, stat in zip(plan.places, stats, strict=False))
    return True


def _pass(
    c: Connection,
    b: Far,
    tag: int,
    newfid: int,
    names: tuple[str, ...],
    plan: Plan,
    again: tuple[General, Fid],
) -> None:
    lead = plan.leads[0]
    before = before_of(c, b, newfid)
    hop = make_hop(c, b, newfid, plan.place, lead.rest, lead.node)
    known = Across(b, newfid, hop, before, lead, plan.head, names, again)
    known.since = c.counts.since
    packed = lead.packed
    frame: bytes | bytearray = _put_walk(15 + len(packed), _WALK, tag, ROOT, newfid) + packed
    if tag in c.asked:  # it is owed an answer
        frame = bytearray(frame)
        enter(c, tag, known, frame, 0)
    else:
        c.asked[tag] = known
    b.settle(c.frames.buf)
    b.out.append(frame)


async def _wait(
    c: Connection,
    tag: int,
    old: Fid,
    newfid: int,
    names: tuple[str, ...],
    plan: Plan,
    general: General,
) -> Reply:
    """Walk over by one lead after the other, as far as the first that has the next name."""
    own: bytes | None = None
    missing = 0
    for lead in plan.leads:
        b = await reach(c, lead.way, old.who)
        if b is None or newfid in b.limbo or (lead.dots and b.dots is False):
            break
        walked = walk(c, b, newfid, lead.names)
        await arrived(c, walked, newfid)
        frame = walked.said
        if frame is None or b.dead:
            break
        if frame[4] != _RWALK:
            b.dots = b.dots or not lead.dots
            if lead.top or frame[4] != _RLERROR or int.from_bytes(frame[7:11], "little") != errno.ENOENT:
                break
            missing += 1
            continue
        begins = mended(b, lead, plan.head, own, frame, 0, len(frame)) if walked.fits else AGAIN
        if begins < 0:
            if walked.good:
                leave(c, b, newfid)
            break
        if not walked.good and lead is not plan.leads[-1] and len(frame) == HEAD + QID * lead.top:
            own = own or bytes(frame[-QID:])
            continue
        if walked.good:
            _enter(c, b, newfid, plan, lead, frame)
        _put_tag(frame, begins + 5, tag)
        return bytes(frame[begins:])
    if missing == len(plan.leads):
        raise NineError(errno.ENOENT)
    return await settle(general(c, tag, old, newfid, names))


def _enter(c: Connection, b: Far, newfid: int, plan: Plan, lead: Lead, frame: bytearray) -> None:
    try:
        hop = make_hop(c, b, newfid, plan.place, lead.rest, lead.node)
    except OSError:
        leave(c, b, newfid)
        raise
    hop.sure, hop.path = True, int.from_bytes(frame[-8:], "little")
