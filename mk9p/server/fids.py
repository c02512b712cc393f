"""What a fid stands for: a `Place` in the tree, and once it is open, a Handle and all that must be undone at its end.

The cost of a fid is charged to its account (accounts.py) when it is entered, and given back when it is released: the fid itself, what is kept for
it, and those of the places on its way that no other fid uses.
"""

import errno
from typing import Any, Final, Generic, TypeVar

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.server.accounts import FID, FILE, PLACE, Account
from mk9p.tree import Handle, Node, Open, Stat, qids
from mk9p.tree.paths import NAME
from mk9p.wire import QTAPPEND, QTEXCL, Qid

UNKNOWN: Final = (None, b"")  # no encoded attributes are kept
_qid: Final = tuple.__new__  # what Qid() does, without its checks: each walked name makes one


# charges by what a name and its node take, each as one object for all places that cost as much: a number for each place would be 32 bytes
_LEAST: Final = PLACE - "".__sizeof__()
_MOST: Final = 2048
_COSTS: Final = tuple(range(_LEAST, _LEAST + _MOST))


class Place:
    """A node and the path by which it was walked. `..` is the place before, whatever the node is part of (lexical, as Plan 9's names are)."""

    __slots__ = ("cost", "depth", "holders", "name", "node", "parent", "path", "top", "uses")

    def __init__(self, node: Node, name: str, parent: "Place | None") -> None:
        self.node, self.name = node, name
        size = name.__sizeof__() + node.weight
        # its charge while it is in use
        self.cost = _COSTS[size] if size < _MOST else size + _LEAST
        self.uses = 0  # fids here, and places right below that are in use
        self.holders: tuple[Node, ...]
        self.parent: Place
        self.depth: int
        self.top: str  # of the root of an attach: its path in the whole tree, if it is not the root of that
        path = node.path
        if parent is None:
            self.parent, self.depth = self, 0
            self.path = qids.ROOT if path is None else path
            self.holders = () if node.hold is None else (node,)
        else:
            self.parent, self.depth = parent, parent.depth + 1
            self.path = qids.child(parent.path, name) if path is None else path
            self.holders = parent.holders if node.hold is None else (*parent.holders, node)

    def hold(self) -> int:
        """Use it once more. Return what it costs, with the way to it, as far as that was not in use."""
        self.uses += 1
        if self.uses > 1:
            return 0
        place, cost = self, self.cost
        while (parent := place.parent) is not place:
            place = parent
            place.uses += 1
            if place.uses > 1:
                break
            cost += place.cost
        return cost

    def let_go(self) -> int:
        """Stop using it. Return what it had cost, with the way to it, as far as that is no longer in use."""
        self.uses -= 1
        if self.uses:
            return 0
        place, cost = self, self.cost
        while (parent := place.parent) is not place:
            place = parent
            place.uses -= 1
            if place.uses:
                break
            cost += place.cost
        return cost

    def copy(self) -> "Place":
        """Return the same place and way, which no other fid uses: neither of two users could be charged for what their fids have in common."""
        way, place = [], self
        while place.parent is not place:
            way.append(place)
            place = place.parent
        made = Place(place.node, place.name, None)
        made.path, made.holders, made.depth = place.path, place.holders, place.depth
        for place in reversed(way):
            made = Place(place.node, place.name, made)
            made.path, made.holders = place.path, place.holders
        return made

    def shows(self, node: Node) -> "Place":
        """Return the same place with another node there."""
        made = Place(node, self.name, self.parent)
        made.path, made.holders, made.depth = self.path, self.holders, self.depth
        return made

    def child(self, name: str, node: Node) -> "Place":
        return Place(node, name, self)

    @property
    def way(self) -> str:
        """Return the names that were walked from the root, as a path."""
        return self._way()[0]

    @property
    def full(self) -> str:
        """Return the path in the whole tree, also of what was reached from the root of an attach to a part of it."""
        path, root = self._way()
        return getattr(root, "top", "") + path

    def _way(self) -> "tuple[str, Place]":
        names: list[str] = []
        place = self
        while place.parent is not place:
            names.append(place.name)
            place = place.parent
        return "/" + "/".join(reversed(names)), place

    def entry_path(self, name: str, node: Node) -> int:
        """Return the qid.path of a child without walking to it."""
        return node.path if node.path is not None else qids.child(self.path, name)


T = TypeVar("T")


class _Rare(Generic[T]):
    """Something that few fids have, kept in `more` where there is any of it: most fids stand for a cached name, and are never opened."""

    def __init__(self, default: T) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, fid: "Fid", owner: type) -> T:
        more = fid.more
        return self.default if more is None else more.get(self.name, self.default)

    def __set__(self, fid: "Fid", value: T) -> None:
        if fid.more is None:
            fid.more = {}
        fid.more[self.name] = value


class Fid:
    """What the server keeps for a fid."""

    __slots__ = ("account", "attr", "files", "handle", "how", "kept", "more", "place", "uses", "who")

    directory: _Rare[Handle | None] = _Rare(None)  # of an open directory, if its node gives one
    exclusive = _Rare(False)  # it holds its node's exclusive use
    gone = _Rare(False)  # clunked, and not yet closed
    held = _Rare(False)  # the nodes above know of it
    # a directory's listing, while somebody reads it, and its charge
    listing: _Rare[tuple[Any, int] | None] = _Rare(None)
    text = _Rare(0)  # the part of `kept` that its handle keeps: text for a reader, or locks

    def __init__(self, place: Place, who: Principal) -> None:
        self.place, self.who = place, who
        self.account: Account | None = None  # its account, while it is entered
        self.kept = 0  # bytes that are charged in addition to the charge for every fid, and for every open file
        self.files = 0  # descriptors that are charged for it
        self.uses = 0  # running requests that need the handle: it is closed when none is left
        self.handle: Handle | None = None
        self.how: Open | None = None  # set once it is open, also for a directory
        self.attr: tuple[Stat | None, bytes] = UNKNOWN  # the encoded Rgetattr of a Stat, without size, type and tag
        self.more: dict[str, Any] | None = None

    # what it costs

    def keep(self, n: int) -> None:
        """Charge for `n` more bytes that are kept for it. Raises ENOMEM if its user has too much."""
        if self.account is not None:
            self.account.take(n)
            self.kept += n

    def drop(self, n: int) -> None:
        """Give back what was charged for `n` bytes."""
        if self.account is not None:
            self.account.used -= n
            self.kept -= n

    def keep_text(self, n: int) -> None:
        """Charge for `n` bytes that its handle keeps, instead of those before, whatever the limits are."""
        self.drop(self.text - n)
        self.text = n

    def check(self, n: int = 0, *, waits: bool = False) -> None:
        """Raise ENOMEM if its user has no room for `n` bytes; `waits`: also none of the room that is left for requests that wait."""
        account = self.account
        if account is None or (waits and not account.full):
            return
        account.take(n)
        account.used -= n

    def keep_listing(self, listing: Any, n: int) -> None:
        """Keep a listing of `n` bytes while somebody reads it. Raises ENOMEM, and keeps none, if its user has too much."""
        self.drop_listing()
        self.keep(n)
        self.listing = (listing, n)

    def keep_more(self, n: int) -> None:
        """Charge for `n` more bytes of the listing. Raises ENOMEM if its user has too much."""
        if self.listing is not None:
            self.keep(n)
            self.listing = (self.listing[0], self.listing[1] + n)

    def drop_listing(self, instead: Any = None) -> None:
        """Forget the listing that was read."""
        if self.listing is not None:
            self.drop(self.listing[1])
        self.listing = None if instead is None else (instead, 0)

    def keep_file(self) -> None:
        """Charge for an open file, which it is from now on. Raises EMFILE or ENOMEM if its user has too much."""
        account = self.account
        if account is not None and self.how is None:
            account.used += FILE
            self.kept += FILE
            if (files := self.place.node.descriptors) or account.used > account.granted:
                self.files = files
                account.files.used += files
                try:
                    account.files.more()
                    account.more()
                except BaseException:
                    self.drop_file()
                    raise

    def drop_file(self) -> None:
        """Give back the charge for an open file, which it has not become."""
        if self.account is not None and self.how is None:
            self.account.files.used -= self.files
            self.files = 0
            self.drop(FILE)

    def move(self, place: Place, *, force: bool = False) -> None:
        """Let it stand for another place. Raises ENOMEM, and it stays, if its user has too much; not with `force`."""
        account = self.account
        if account is not None:
            account.used += place.hold()
            try:
                if not force:
                    account.more()
            except BaseException:
                account.used -= place.let_go()
                raise
            account.used -= self.place.let_go()
        self.place, self.attr = place, UNKNOWN

    def release(self) -> None:
        """Give back all charges for it; a second call does nothing."""
        account = self.account
        if account is not None:
            self.account = None
            place = self.place
            if place.uses > 1:
                place.uses -= 1
                account.used -= FID + self.kept
            # this place alone, behind places that others use too: nearly always
            elif (parent := place.parent).uses > 1:
                place.uses = 0
                parent.uses -= 1
                account.used -= FID + self.kept + place.cost
            else:
                account.used -= FID + self.kept + place.let_go()
            if self.files:
                account.files.used -= self.files
            if self.more is not None:
                self.listing = None

    def hold(self) -> None:
        """Tell the nodes that count the files open below them."""
        for holder in self.place.holders:
            self.held = True
            if holder.hold is not None:
                holder.hold()


def qid(place: Place, stat: Stat) -> Qid:
    """Return the qid of the node at a place."""
    type_ = place.node.qtype
    if stat.exclusive or stat.append:
        type_ |= (QTEXCL if stat.exclusive else 0) | (QTAPPEND if stat.append else 0)
    return _qid(Qid, (type_, stat.version, place.path))


def too_deep(depth: int) -> NineError:
    """Return the error of a path with too many names."""
    return NineError(errno.ENAMETOOLONG, f"a path has {depth} names at most")


def check_name(name: str) -> None:
    """Raise EINVAL or ENAMETOOLONG for a name that no file can have."""
    if len(name) > NAME:
        raise NineError(errno.ENAMETOOLONG)
    if not name or "/" in name or "\0" in name:
        raise NineError(errno.EINVAL, "illegal name")
