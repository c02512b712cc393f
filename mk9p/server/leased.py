"""Where the server asks the gate of leases (mk9p/lease/gate.py), if it has one: before it opens for writing, makes, changes, renames, removes."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mk9p.lease.gate import Fenced, Gate
from mk9p.lease.wish import Key, Wish
from mk9p.server.fids import Place
from mk9p.server.foreseen import flags_of
from mk9p.server.hops import Asked, Hop
from mk9p.session import Request
from mk9p.tree import Handle, ThroughHandle
from mk9p.wire import messages as m
from mk9p.wire.roles import CREATES, OPENS, WRITES

if TYPE_CHECKING:
    from mk9p.auth import Principal
    from mk9p.server.connection import Connection

ALTERS: Final = (OPENS | CREATES) | {
    one.type
    for one in (
        m.Tsetattr,
        m.Twstat,
        m.Tmkdir,
        m.Tmknod,
        m.Tsymlink,
        m.Tunlinkat,
        m.Tremove,
        m.Trename,
        m.Trenameat,
        m.Tlink,
    )
}
"""Requests that open, make, change or remove a file."""
CHANGES: Final = ALTERS | WRITES


def key_at(gate: Gate, place: Place, name: str = "") -> Key:
    """Return the key of what is at a place, or of a name there."""
    key = gate.key_of(place.node, place.full)
    return (*key, name) if name else key


def require_unleased(c: "Connection", place: Place, who: "Principal", name: str = "", *, above: bool = False) -> None:
    """Raise EBUSY if somebody else has leased what is at a place, or at a name there; `above`: or something below that."""
    gate = c.common.gate
    if gate is not None and gate.active:
        gate.require(key_at(gate, place, name), who.name, above=above)


def as_leased(c: "Connection", place: Place, handle: Handle, who: "Principal") -> Handle:
    """Return a file that was opened for writing as its fid has it. Raises EBUSY if somebody else has leased it by now."""
    gate = c.common.gate
    return handle if gate is None or not gate.active else gate.opened(key_at(gate, place), handle, who.name)


def _is_fenced(handle: Handle | None) -> bool:
    """Tell whether an open file writes no longer than its own lease lasts."""
    while isinstance(handle, ThroughHandle):
        if isinstance(handle, Fenced):
            return True
        handle = handle.handle
    return False


# the fast way


def key_there(hop: Hop) -> Key | None:
    """Return the key of a fid of another server; None if nobody knows where it is."""
    way = (hop.lead or hop.place.node).way
    return None if way is None else ("9p", way.address, way.aname, *way.names, *hop.names)


def must_stay(gate: Gate, hop: Hop, type_: int, buf: bytearray, start: int, end: int) -> bool:
    """Tell whether a request that alters something must not be passed on, because the gate must see it."""
    if type_ in OPENS - CREATES:
        flags = flags_of(type_, buf, start, end)
        if type_ == m.Tlopen.type and flags & os.O_ACCMODE == os.O_RDONLY and not flags & os.O_TRUNC:
            return False
    return gate.lease_of((key_there(hop) or ())[:3], above=True) is not None


def writer(c: "Connection", gate: Gate, covers: Callable[[Key], bool]) -> str | None:
    """Return who has something open for writing on a connection that a wish covers; None for nobody."""
    for f in c.session.fids.values():
        how = f.how
        if how is None or not how.write or _is_fenced(f.handle):
            continue
        # it may just be opened: then it has no handle yet
        if covers(key_at(gate, f.place)):
            return f.who.name
    for hop in c.relays.values():
        if hop.flags is not None and hop.flags & os.O_ACCMODE and _covered(covers, hop):
            return hop.backend.who.name
    for known in c.asked.values():
        if not isinstance(known, Asked) or known.type not in OPENS or not known.flags & os.O_ACCMODE:
            continue
        if known.hop is not None and _covered(covers, known.hop):
            return known.backend.who.name
    return None


def changing(c: "Connection", gate: Gate, wish: Wish) -> list[tuple[dict[int, Any], int, object]]:
    """Return what is not answered on a connection, and may change something at a server that has some of what a wish is for: the table that has it as
    long as that is so, its tag, and what it is."""
    servers = {key[:3] for _, key in wish.resources}
    there = [b for b in c.backends.values() if ("9p", b.way.address, b.way.aname) in servers]
    passed = [
        (tag, known)
        for tag, known in c.asked.items()
        if isinstance(known, int | Asked)
        and (known & 0xFF if isinstance(known, int) else known.type) in CHANGES
        and any(b.mine(known) for b in there)
    ]
    tags = c.session.tags
    # what is open for writing is in the way itself, and closed only when its writes are done
    own = [one for one in tags.values() if one.type in ALTERS - OPENS and _key_of(c, gate, one)[:3] in servers]
    found: list[tuple[dict[int, Any], int, object]] = [(c.asked, tag, known) for tag, known in passed]
    return found + [(tags, one.tag, one) for one in own]


def _key_of(c: "Connection", gate: Gate, request: Request) -> Key:
    """Return the key of the first fid of a request; nothing for one that is not there any more."""
    args: tuple[Any, ...] = getattr(request.work, "args", ())
    f = c.session.fids.get(args[1]) if len(args) > 1 else None
    return () if f is None else key_at(gate, f.place)


def _covered(covers: Callable[[Key], bool], hop: Hop) -> bool:
    key = key_there(hop)
    return key is None or covers(key)
