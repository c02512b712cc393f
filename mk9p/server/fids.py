"""What a fid stands for: a `Place` in the tree, and once it is open, a Handle and all that must be undone at its end."""

from typing import Any, Final

from mk9p.auth import Principal
from mk9p.tree import Handle, Node, Open, Stat, qids
from mk9p.wire import QTAPPEND, QTEXCL, Qid

_qid: Final = tuple.__new__  # what Qid() does, without its checks: one is made for each name walked


class Place:
    """A node and the way that was walked to it. `..` is the place before, whatever the node is part of (lexical, as Plan 9's names are)."""

    __slots__ = ("depth", "holders", "name", "node", "parent", "path")

    def __init__(self, node: Node, name: str, parent: "Place | None") -> None:
        self.node, self.name = node, name
        self.holders: tuple[Node, ...]
        self.parent: Place = parent or self
        self.depth: int = parent.depth + 1 if parent else 0
        if node.path is not None:
            self.path = node.path
        else:
            self.path = qids.child(parent.path, name) if parent else qids.ROOT
        holders = parent.holders if parent else ()
        self.holders = holders if node.hold is None else (*holders, node)

    def child(self, name: str, node: Node) -> "Place":
        return Place(node, name, self)

    @property
    def way(self) -> str:
        """Return the names that were walked from the root, as a path."""
        names: list[str] = []
        place = self
        while place.parent is not place:
            names.append(place.name)
            place = place.parent
        return "/" + "/".join(reversed(names))

    def entry_path(self, name: str, node: Node) -> int:
        """Return the qid.path of a child without walking to it."""
        return node.path if node.path is not None else qids.child(self.path, name)


class Fid:
    """What the server keeps for a fid."""

    __slots__ = (
        "attr",
        "attr_of",
        "closed",
        "directory",
        "exclusive",
        "gone",
        "handle",
        "held",
        "how",
        "listing",
        "place",
        "uses",
        "who",
    )

    def __init__(self, place: Place, who: Principal) -> None:
        self.place, self.who = place, who
        self.handle: Handle | None = None
        self.directory: Handle | None = None  # of an open directory, where its node gives one
        self.how: Open | None = None  # set once open, for a directory too
        self.held = False  # the nodes above know of it
        self.listing: Any = None  # a directory's snapshot while it is read
        self.uses = 0  # requests under way that need the handle: it is closed when none is left
        self.gone = False  # clunked
        self.closed = False
        self.exclusive = False  # holds its node's exclusive use
        self.attr_of: Stat | None = None  # the Stat that `attr` was made of
        self.attr = b""  # encoded Rgetattr of it, without size, type and tag

    def hold(self) -> None:
        """Tell the nodes that count the files open below them."""
        for holder in self.place.holders:
            if holder.hold is not None:
                holder.hold()
        self.held = True


def qid(place: Place, stat: Stat) -> Qid:
    """Return the qid of what is at a place."""
    type_ = place.node.qtype
    if stat.exclusive or stat.append:
        type_ |= (QTEXCL if stat.exclusive else 0) | (QTAPPEND if stat.append else 0)
    return _qid(Qid, (type_, stat.version, place.path))
