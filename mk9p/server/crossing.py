"""Walks that cross into other servers, on their way there (across.py has the theory).

Rules
* A walk is passed on at once, and so are the requests after it, if it is certain where it goes and the client has its connection there. Otherwise
  it waits for its answers, and requests that name its fid wait for it: if the connection must still be made, and in a union, whose next part is
  asked if one does not have the name.
* Each walk checks here who may search the directories up to the mount point. The other server, which knows the user itself, checks the mount point
  and what is below.
* Whatever is not plain goes name by name. So do walks that would take another way than the client's requests for what they find: readers of
  listeners that refuse changes, other dialects, trees that count who has them open.
"""

import errno
from functools import partial
from struct import Struct
from typing import Any, Final

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.server.across import AGAIN, HEAD, QID, General, mended
from mk9p.server.asking import arrived, leave, walk
from mk9p.server.connection import Connection, Reply
from mk9p.server.exchange import reach
from mk9p.server.fids import Fid, Place
from mk9p.server.foreseen import make_hop
from mk9p.server.going import may_search, pass_on, there_now
from mk9p.server.hops import ROOT, Far
from mk9p.server.jobs import LATE
from mk9p.server.plans import Lead, Plan, packed
from mk9p.tree import Maybe, Route, settle
from mk9p.wire import MAXWELEM, Dialect, is_name
from mk9p.wire import messages as m

KEPT: Final = 256  # plans of a connection

_put_head: Final = Struct("<IBHH").pack
_put_qid: Final = Struct("<BIQ").pack
_put_tag: Final = Struct("<H").pack_into
_RWALK, _RLERROR = m.Rwalk.type, m.Rlerror.type


def cross(c: Connection, tag: int, old: Fid, newfid: int, names: tuple[str, ...], general: General) -> Any:
    """Pass a walk on to another server. LATE: it has gone; an awaitable of its reply; NotImplemented: it must go name by name.

    Raises EEXIST, ENOMEM, EMFILE.
    """
    place, who = old.place, old.who
    key = place, packed(names)
    plan = c.plans.get(key) or c.asks.get(key)
    if plan is None or not plan.route.stands():
        plan = _plan(c, place, names, who, general)
        if plan is None:
            return NotImplemented
        c.plans.pop(key, None)
        c.asks.pop(key, None)
        plans = c.plans if plan.leads else c.asks
        if len(plans) >= KEPT:
            plans.clear()
        plans[key] = plan
    if newfid >= ROOT or not may_search(plan, who):
        return NotImplemented
    if not plan.leads:
        return _ahead(c, tag, old, newfid, plan, general)
    b = there_now(c, plan, newfid)
    if b is None:
        return _wait(c, tag, old, newfid, plan, plan.leads, general)
    pass_on(c, b, tag, newfid, plan, old)
    return LATE


def _plan(c: Connection, start: Place, names: tuple[str, ...], who: Principal, general: General) -> Plan | None:
    """Return how a walk goes over; None if it does not."""
    if start.depth + len(names) > c.limits.depth or start.node.route is None:
        return None
    route = start.node.route(names, who)
    if route is None or not all(is_name(name) for name in names):
        return None
    place, places = start, list[Place]()
    for node, name in zip(route.nodes, names, strict=False):
        place = place.child(name, node)
        places.append(place)
    if place.holders:
        return None
    known = len(places)
    if who.readonly or c.dialect is not Dialect.L:
        leads: tuple[Lead, ...] = ()
    else:
        rest = names[known:]
        leads = _leads(route, who, known, place.path, (route.alias, *rest[1:]) if route.alias else rest)
    if not leads and (route.alias or any(node.ahead is None for node in route.leads)):
        return None
    sure = route.certain and len(route.leads) == 1
    return Plan(start, names, partial(_again, general), route, tuple(places), place, leads, sure)


def _leads(route: Route, who: Principal, known: int, path: int, rest: tuple[str, ...]) -> tuple[Lead, ...]:
    leads = tuple(
        Lead(way, node, (way.line, who), known, path, rest) for way, node in zip(route.ways, route.leads, strict=False)
    )
    return () if any(len(lead.names) > MAXWELEM for lead in leads) else leads


async def _ahead(c: Connection, tag: int, old: Fid, newfid: int, plan: Plan, general: General) -> Reply:
    """Walk through the nodes to which the route leads: all names at once, in the first node that has the next name."""
    known = len(plan.places)
    rest, head = plan.names[known:], b""
    for node in plan.route.leads:
        assert node.ahead is not None
        try:
            found = await node.ahead(rest, old.who, known > 0)
        except OSError:
            break
        if known:
            mine = found.pop(0)[1]
            head = head or _put_qid(mine.type, mine.version, plan.place.path)
        if not found:
            continue
        place, more = plan.place, b""
        for name, (child, there) in zip(rest, found, strict=False):
            place = place.child(name, child)
            more += _put_qid(there.type, there.version, place.path)
        if len(found) == len(rest):
            c.enter(newfid, Fid(place, old.who), old.account or c.account_of(old.who))
        qids = plan.head + head + more
        return _put_head(HEAD + len(qids), _RWALK, tag, len(qids) // QID) + qids
    return await settle(general(c, tag, old, newfid, plan.names))


def _again(
    general: General, c: Connection, tag: int, old: Fid, newfid: int, plan: Plan, missing: bool, own: bytes | None
) -> Maybe[Reply]:
    """Go on with a walk that was passed on: by the next lead if its first name was missing, else name by name."""
    if missing:
        return _wait(c, tag, old, newfid, plan, plan.leads[1:], general, own)
    return general(c, tag, old, newfid, plan.names)


async def _wait(
    c: Connection,
    tag: int,
    old: Fid,
    newfid: int,
    plan: Plan,
    leads: tuple[Lead, ...],
    general: General,
    own: bytes | None = None,
) -> Reply:
    """Walk by one lead after the other, to the first that has the next name."""
    missing = 0
    for lead in leads:
        b = await reach(c, lead.way, old.who, newfid, lead.names)
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
        if not walked.good and lead is not leads[-1] and len(frame) == HEAD + QID * lead.top:
            own = own or bytes(frame[-QID:])
            continue
        if walked.good:
            _enter(c, b, newfid, plan, lead, frame)
        _put_tag(frame, begins + 5, tag)
        return bytes(frame[begins:])
    if missing == len(leads):
        raise NineError(errno.ENOENT)
    return await settle(general(c, tag, old, newfid, plan.names))


def _enter(c: Connection, b: Far, newfid: int, plan: Plan, lead: Lead, frame: bytearray) -> None:
    try:
        hop = make_hop(c, b, newfid, plan.place, lead.rest, lead.node)
    except OSError:
        leave(c, b, newfid)
        raise
    hop.sure, hop.named, hop.path = True, True, int.from_bytes(frame[-8:], "little")
