"""A fid is of a file, and a name is of whatever has it now.

A fid keeps the name that it was walked by. Tremove, Trename, ORCLOSE and a Twstat of the name act on that name, and somebody else may have given
it to another file meanwhile. So before, the name is walked again: another file's is refused. What a session renames itself, its other fids learn.
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

MOVES: Final = 64  # renames that a session remembers: who renames a file and then uses another fid of it by its name does so at once
_SLICE: Final = 4096  # fids that are looked at before others have their turn


async def require_named(place: Place, who: Principal) -> None:
    """Raise ESTALE if the name of a place is another file's, ENOENT if it is nobody's, or what walking to it raises."""
    parent = place.parent
    node = await settle(parent.node.walk(place.name, who))
    if parent.entry_path(place.name, node) != place.path or node.qtype != place.node.qtype:
        raise NineError(errno.ESTALE, f"{place.name} is the name of another file now")


Moves = dict[tuple[int, str], tuple[Place, str]]
"""What a session renamed by directory and name: the directory's path and the old name, and the directory and name that it has now."""


def note(moves: Moves, old: Place, name: str, parent: Place, newname: str) -> None:
    """Note a rename by directory and name. Which file it was is not known, so its fids are told only when one is used by its name."""
    moves.pop((old.path, name), None)
    moves[old.path, name] = parent, newname
    if len(moves) > MOVES:
        del moves[next(iter(moves))]


async def find_named(moves: Moves, f: Fid) -> None:
    """Let a fid have the name that its session gave its file, if it was given another; raises as `require_named` for one that it does not have."""
    place = f.place
    for _ in range(len(moves) + 1):
        try:
            await require_named(place, f.who)
        except OSError as error:
            to = moves.get((place.parent.path, place.name))
            if to is None or error.errno not in (errno.ENOENT, errno.ESTALE):
                raise
            place = to[0].copy().child(to[1], f.place.node)
        else:
            break
    if place is not f.place:
        place.holders = f.place.holders
        f.move(place, force=True)


async def renamed(fids: Mapping[int, Fid], old: Place, parent: Place, name: str) -> None:
    """Let all fids of a file, which was at a place, have the name that it got in a directory."""
    for number, f in enumerate(list(fids.values())):
        place = f.place
        if place.path == old.path and place.name == old.name and place.parent.path == old.parent.path:
            f.move(parent.copy().child(name, place.node), force=True)
            f.place.holders = place.holders  # those that know of it, if it is open
        if number % _SLICE == _SLICE - 1:
            await trio.lowlevel.checkpoint()
