"""What a path of the composed namespace stands for: a list of `Element`. Open and stat use the first.

Theory. An element is a node of some tree, and the places where it is known: the lexical paths below which mount points belong to it. The tree of
server k1 mounted at /k/k1 has the place /k/k1; bound to /n it is known as /n too, so what is mounted at /k/k1/x is seen at /n/x. In Plan 9 it
would be the same, because there a mount point is the file and not its name. A step by a name first looks for a mount point at the path itself,
then goes through the elements in order; in each, a mount point at one of its places comes before the tree's own file. A name that only leads to
mount points further down is a synthetic directory.

No element of a union can spoil the others: one that is down, or has no such name, is skipped, and its error is returned only if no other has the
name (`unionread` and `walk` of chan.c do the same).

Binds may lead around in circles. One resolution follows each bind once on any way down. If it meets the bind's mount point again on that way, it
takes the mount point without the bind, or what lies underneath if nothing else is there. So every way ends, but a table can have very many ways:
`HOPS` limits them, and more is ELOOP.
"""

import errno
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeAlias

import attrs

from mk9p.auth import Principal
from mk9p.compose.readonly import ReadOnly
from mk9p.compose.table import Item, Table
from mk9p.errors import NineError
from mk9p.tree import Dir, Node, settle
from mk9p.wire import QTDIR

# mount points entered to find one path: a rich namespace has some tens, and even this many take only milliseconds
HOPS: Final = 512

# binds of binds: far above what anybody can follow, and below what Python can do (calls within calls)
NESTED: Final = 64

Busy: TypeAlias = frozenset[tuple[str, str]]
"""The binds that are being followed: (mount point, bound name)."""


@attrs.frozen(eq=False)
class Element:
    """A node at a path, and the places where it is known: (path, whether it is read-only as seen from there).

    `create`: clients may create files in it, as far as it lets them.
    """

    node: Node
    places: tuple[tuple[str, bool], ...]
    create: bool = True

    def read_only(self) -> "Element":
        """Return it as seen through a read-only mount point: everything below is read-only too."""
        return Element(ReadOnly(self.node), tuple((path, True) for path, _ in self.places), self.create)

    def known_as(self, path: str, *, create: bool) -> "Element":
        """Return it as known at a path. That place comes first, even if it was known before: a client that walks there sees what is mounted there."""
        return Element(self.node, tuple(({path: False} | dict(self.places)).items()), create)


@attrs.define(eq=False)
class _Search:
    """One resolution: for which user, and how many mount points it may still enter.

    `presume`: it asks no other server, and assumes that every name exists. `guessed`: the name may be elsewhere too.
    """

    who: Principal
    left: int = HOPS
    presume: bool = False
    guessed: bool = False

    def follow(self, busy: Busy) -> None:
        """Follow one more bind besides `busy`; each is some calls within calls."""
        if len(busy) >= NESTED:
            self.left = 0
            self.enter()

    def enter(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise NineError(errno.ELOOP, "too many binds of binds")


@attrs.define(eq=False)
class Resolver:
    """Finds what paths stand for: `table` over the composer's own tree `made`."""

    table: Table
    made: Node

    async def elements(self, path: str, who: Principal) -> list[Element]:
        """Return what is at a path, at least one element; raises ENOENT, or the error of the only tree that could have it."""
        return await self._elements(path, _Search(who), frozenset())

    async def child(self, elements: Sequence[Element], path: str, name: str, who: Principal) -> list[Element]:
        """Return what is at `name` in the directory at `path`, which consists of `elements`."""
        return await self._child(elements, path, name, _Search(who), frozenset())

    def presumed(
        self, elements: Sequence[Element], path: str, name: str, who: Principal
    ) -> tuple[list[Element], bool] | None:
        """Return what `child` would if every name existed on every server, without asking any server; and whether it is nowhere else.

        None: one cannot know without waiting, or there is nothing.
        """
        search = _Search(who, presume=True)
        work = self._child(elements, path, name, search, frozenset())
        try:
            work.send(None)
        except StopIteration as done:
            return done.value, not search.guessed
        except OSError:
            return None
        work.close()
        return None

    def special(self, elements: Iterable[Element], path: str, name: str) -> list[str]:
        """Return the places at or below which the table has something to say about a name; none: only the trees have it."""
        points, prefixes = self.table.points, self.table.prefixes
        places = [path, *(place for element in elements for place, _ in element.places)]
        return [q for place in places if (q := f"{place}/{name}") in points or q in prefixes]

    async def _elements(self, path: str, search: _Search, busy: Busy) -> list[Element]:
        """Walk down to a path, from the last mount point on the way under which nothing is looked for, or from the root."""
        names: list[tuple[str, str]] = []  # the directory and the name, the last first
        while path and not self._covered(path, busy):
            up, _, name = path.rpartition("/")
            names.append((up, name))
            path = up
        found: list[Element] = []
        failed: OSError | None = None
        try:
            found = await (self._point_or(path, _nothing, search, busy) if path else self._root(search, busy))
        except OSError as error:
            failed = error
        for up, name in reversed(names):

            async def under(
                up: str = up, name: str = name, above: list[Element] = found, failed: OSError | None = failed
            ) -> list[Element]:
                if failed is not None:
                    raise failed
                return await self._under(above, up, name, search, busy)

            if search.left < 0 and failed is not None:
                raise failed
            try:
                found, failed = await self._point_or(f"{up}/{name}", under, search, busy), None
            except OSError as error:
                failed = error
        if failed is not None:
            raise failed
        return found

    def _covered(self, path: str, busy: Busy) -> bool:
        """Tell whether a path is a mount point that does not show what lies underneath."""
        items = self._items(path, busy)
        return bool(items) and all(item.kind != "under" for item in items)

    async def _root(self, search: _Search, busy: Busy) -> list[Element]:
        async def root() -> list[Element]:
            return [Element(self.made, (("", False),))]

        # A bind of a name that did not exist when it was bound, and that turned out to be a file, does not make the root a file.
        found = [element for element in await self._point_or("", root, search, busy) if element.node.qtype & QTDIR]
        return found or await root()

    async def _child(
        self, elements: Sequence[Element], path: str, name: str, search: _Search, busy: Busy
    ) -> list[Element]:
        return await self._point_or(
            f"{path}/{name}", lambda: self._under(elements, path, name, search, busy), search, busy
        )

    async def _point_or(
        self, path: str, under: Callable[[], Awaitable[list[Element]]], search: _Search, busy: Busy
    ) -> list[Element]:
        items = self._items(path, busy)
        return await (self._point(path, items, under, search, busy) if items else under())

    def _items(self, path: str, busy: Busy) -> list[Item]:
        """Return what is at a mount point except the binds that are being followed; nothing for other paths."""
        items = self.table.points.get(path, ())
        return [item for item in items if item.kind != "bind" or (path, item.what) not in busy]

    async def _point(
        self,
        path: str,
        items: list[Item],
        under: Callable[[], Awaitable[list[Element]]],
        search: _Search,
        busy: Busy,
    ) -> list[Element]:
        """Return what is at a mount point; `under` finds what lies underneath."""
        search.enter()
        found: list[Element] = []
        failed: OSError | None = None
        for item in items:
            try:
                some = await self._item(item, path, under, search, busy)
            except OSError as error:
                if search.left < 0:
                    raise
                failed = failed or error
                continue
            for number, element in enumerate(some):
                # files are created only in the first of a bound union, as in cmount
                element = element.known_as(path, create=item.create and number == 0)
                found.append(element.read_only() if item.readonly else element)
        if not found:
            if path in self.table.prefixes:
                return [_made_up([(path, False)])]
            raise failed or NineError(errno.ENOENT)
        if found[0].node.qtype & QTDIR == 0:
            return found[:1]
        return [element for element in found if element.node.qtype & QTDIR]

    async def _item(
        self, item: Item, path: str, under: Callable[[], Awaitable[list[Element]]], search: _Search, busy: Busy
    ) -> list[Element]:
        if item.kind == "under":
            return await under()
        if item.node is not None:
            return [Element(item.node, ((path, False),))]
        search.follow(busy)
        return await self._elements(item.what, search, busy | {(path, item.what)})

    async def _under(
        self, elements: Sequence[Element], path: str, name: str, search: _Search, busy: Busy
    ) -> list[Element]:
        """Return what is at a name, except a mount point at that path itself."""
        here = f"{path}/{name}"
        prefixes = self.table.prefixes
        failed: OSError | None = None
        leads: dict[str, bool] = {}
        for element in elements:
            places = [(f"{place}/{name}", readonly) for place, readonly in element.places]
            inner = {place: readonly for place, readonly in places if place in prefixes}
            leads |= inner

            async def own(element: Element = element, places: list[tuple[str, bool]] = places) -> list[Element]:
                node = element.node
                if search.presume and node.below is not None:
                    search.guessed = search.guessed or len(elements) > 1
                    return [Element(node.below(name, search.who), tuple(places))]
                return [Element(await settle(node.walk(name, search.who)), tuple(places))]

            try:
                for place, readonly in places:
                    items = self._items(place, busy) if place != here else []
                    if items:
                        some = await self._point(place, items, own, search, busy)
                        found = [e.known_as(here, create=e.create) for e in some]
                        return [e.read_only() for e in found] if readonly else found
                found = await own()
                if found[0].node.qtype & QTDIR or not inner:
                    return found
            except OSError as error:
                if search.left < 0:
                    raise
                if failed is None or failed.errno == errno.ENOENT:
                    failed = error
        if leads:
            return [_made_up(list(leads.items()), here)]
        raise failed or NineError(errno.ENOENT)


async def _nothing() -> list[Element]:
    raise NineError(errno.ENOENT)


def _made_up(places: list[tuple[str, bool]], here: str | None = None) -> Element:
    """Return a directory that exists only because something is mounted further down."""
    element = Element(Dir(), tuple(places))
    return element if here is None else element.known_as(here, create=True)
