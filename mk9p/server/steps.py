"""One step of a walk, as a user: by one name, in the tree (walk(5)). What must wait is an awaitable; nearly nothing must."""

import errno
from collections.abc import Awaitable
from typing import Final

from mk9p.auth import EXEC, Principal, may
from mk9p.errors import NineError
from mk9p.server.fids import Place, too_deep
from mk9p.tree import Maybe, Node, Stat, settle
from mk9p.wire import QTDIR

_DOTS: Final = (".", "..")


async def stat_at(place: Place) -> Stat:
    """Return the status of the node at a place."""
    found = place.node.stat()
    return found if isinstance(found, Stat) else await found


def step(place: Place, name: str, who: Principal, depth: int) -> Maybe[Place]:
    """Walk one name; a path has `depth` names at most. Raises ENOTDIR, EACCES, ENOENT, ENAMETOOLONG."""
    node = place.node
    if node.qtype & QTDIR == 0:
        raise NineError(errno.ENOTDIR)
    if who.uid != 0 and not node.guards:
        stat = node.stat()
        if not isinstance(stat, Stat):
            return _searched(place, name, who, depth, stat)
        if not may(who, stat.mode, stat.uid, stat.gid, EXEC):
            raise NineError(errno.EACCES)
    if name in _DOTS:
        return place.parent if name == ".." else place
    if place.depth >= depth:
        raise too_deep(depth)
    found = node.walk(name, who)
    return Place(found, name, place) if isinstance(found, Node) else _child(place, name, found)


async def _searched(place: Place, name: str, who: Principal, depth: int, later: Awaitable[Stat]) -> Place:
    stat = await later
    if not may(who, stat.mode, stat.uid, stat.gid, EXEC):
        raise NineError(errno.EACCES)
    if name in _DOTS:
        return place.parent if name == ".." else place
    if place.depth >= depth:
        raise too_deep(depth)
    return place.child(name, await settle(place.node.walk(name, who)))


async def _child(place: Place, name: str, later: Awaitable[Node]) -> Place:
    return place.child(name, await later)
