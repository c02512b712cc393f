"""A fid is of a file, and a name is of whatever has it now.

A fid keeps the name that it was walked by. Tremove, Trename, ORCLOSE and a Twstat of the name act on that name, and somebody else may have given
it to another file meanwhile. So before, the name is walked again: another file's is refused. What a session renames by a fid, its other fids are
told.
Between the look and the act another process of the host can still come; Linux has no call that compares and acts.
"""

import errno
from collections.abc import Mapping
from typing import Final

import trio

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.server.fids import Fid, Place
from mk9p.tree import settle

_SLICE: Final = 4096  # fids that are looked at before others have their turn


async def require_named(place: Place, who: Principal) -> None:
    """Raise ESTALE if the name of a place is another file's, ENOENT if it is nobody's, or what walking to it raises."""
    parent = place.parent
    node = await settle(parent.node.walk(place.name, who))
    if parent.entry_path(place.name, node) != place.path or node.qtype != place.node.qtype:
        raise NineError(errno.ESTALE, f"{place.name} is the name of another file now")


async def renamed(fids: Mapping[int, Fid], old: Place, parent: Place, name: str) -> None:
    """Let all fids of a file, which was at a place, have the name that it got in a directory."""
    for number, f in enumerate(list(fids.values())):
        place = f.place
        if place.path == old.path and place.name == old.name and place.parent.path == old.parent.path:
            f.place, f.attr_of = parent.child(name, place.node), None
            f.place.holders = place.holders  # those that know of it, if it is open
        if number % _SLICE == _SLICE - 1:
            await trio.lowlevel.checkpoint()
