"""How walks that cross into other servers (across.py) go over: which these are, and what happens to their answers.

A client has few walks, and repeats them: it reads `k/k1/cpu/status` each second. So the server works out once how a walk goes over, and keeps it
under the bytes of its names as long as the mount table stays the same. Nothing that a server has answered is in it.
"""

from collections.abc import Callable
from typing import Any, Final

import attrs

from mk9p.server.fids import Place
from mk9p.tree import Node, Route, Stat, Way
from mk9p.wire import Dialect, codec
from mk9p.wire import messages as m

_pack = codec(Dialect.L, m.Twalk.type).pack
NAMES: Final = 15  # size[4] type[1] tag[2] fid[4] newfid[4] come before the names


@attrs.frozen(eq=False)
class Lead:
    """One server that a walk may go over to, and how its answers become the client's.

    `key` identifies a client's connection there. `names` lead from its root: `dots` of them are `..`, and then come those below; `packed` are all
    of them, as in a Twalk. `top`: how many of its qids stand for these; `cut`: how many of them the client did not ask for; `known`: for how many
    names it did, and `path` is the qid.path of the last of those, which this server must give.
    """

    way: Way
    node: Node
    key: tuple[object, ...]
    known: int
    path: int
    rest: tuple[str, ...]
    names: tuple[str, ...] = attrs.field(init=False)
    packed: bytes = attrs.field(init=False)
    top: int = attrs.field(init=False)
    dots: int = attrs.field(init=False)
    cut: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        put, above = object.__setattr__, self.way.names
        put(self, "dots", max(0, self.known - len(above)))
        put(self, "top", self.dots + len(above))
        put(self, "cut", self.top - self.known)
        put(self, "names", ("..",) * self.dots + above + self.rest)
        put(self, "packed", packed(self.names))


@attrs.define(eq=False)
class Plan:
    """A walk from one place: how it goes on if it is not answered the way it was passed on; its route; the places to which the names of the route
    lead, of which the last is `place`; and the servers behind it, none if the walk goes through the nodes.

    `head` are the qids of the others, and of the last too if that is this server's; made when their files' status was `stats`.
    """

    start: Place
    names: tuple[str, ...]
    again: Callable[..., Any]
    route: Route
    places: tuple[Place, ...]
    place: Place
    leads: tuple[Lead, ...]
    sure: bool  # it is on the first of these, or nowhere
    stats: list[Stat] = attrs.field(factory=list)
    head: bytes = b""


def packed(names: tuple[str, ...]) -> bytes:
    """Return names as in a Twalk."""
    data: bytes = _pack(0, 0, 0, names)[NAMES:]
    return data
