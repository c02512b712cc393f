"""A fid stands for a file, and a name for whatever file has it now.

A fid keeps the name that it was walked by. Tremove, Trename, ORCLOSE and a Twstat of the name act on that name, and somebody else may have given
it to another file meanwhile. So the server first walks the name again, and refuses if another file has it. When a session renames a file, its
other fids learn the new name. Between the check and the act another process of the host can still come; Linux has no call that compares and acts.
"""

import errno
from collections.abc import Mapping
from typing import Final

import trio

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.server.fids import Fid, Place
from mk9p.tree import settle

# renames that a session remembers: a client that renames a file and then uses another fid of it by its name does so at once
MOVES: Final = 64
_SLICE: Final = 4096  # fids to look at before others have their turn


async def require_named(place: Place, who: Principal) -> None:
    """Raise ESTALE if another file has the name of a place, ENOENT if none has it, or what walking to it raises."""
    parent = place.parent
    node = await settle(parent.node.walk(place.name, who))
    if parent.entry_path(place.name, node) != place.path or node.qtype != place.node.qtype:
        raise NineError(errno.ESTALE, f"{place.name} is the name of another file now")


Moves = dict[tuple[int, str], tuple[Place, str]]
"""What a session renamed by directory and name: the directory's path and the old name, then its present directory and name."""


def note(moves: Moves, old: Place, name: str, parent: Place, newname: str) -> None:
    """Note a rename by directory and name. The server does not know which file it was, so the fids of the file learn it only when one is used by
    its name."""
    moves.pop((old.path, name), None)
    moves[old.path, name] = parent, newname
    if len(moves) > MOVES:
        del moves[next(iter(moves))]


async def find_named(moves: Moves, f: Fid) -> None:
    """Give a fid the name that its session gave its file, if it was renamed; raises as `require_named` if the file does not have that name."""
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
    """Give all fids of a file, which was at a place, its new name in a directory."""
    for number, f in enumerate(list(fids.values())):
        place = f.place
        if place.path == old.path and place.name == old.name and place.parent.path == old.parent.path:
            f.move(parent.copy().child(name, place.node), force=True)
            f.place.holders = place.holders  # those that know of it, if it is open
        if number % _SLICE == _SLICE - 1:
            await trio.lowlevel.checkpoint()
