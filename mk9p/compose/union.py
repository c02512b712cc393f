"""`Composed`: a directory of the composed namespace in which the mount table still has a say. It may have one element or many.

Rules:
* It knows its path. Each walk asks the table as it is then; so a mount or bind takes effect for all walks from a Composed directory, also from one
  that was walked to before (a shell in /k sees a new kernel there). What was walked to stays what it was when its mount point goes.
* Where the table has nothing to say about a name or what is below it, a walk gives the backend's own node, and nothing is between it and its
  client any more. Such a node does not see what is mounted below it later.
* Listing merges the elements in order, each name once, then adds mount points that no element has a file for. It asks no mounted server below.
* Creation goes to the first element with `-c`; removing and renaming go to the first that has the name; status is that of the first that answers.
* A file is renamed within its element. If an earlier element's file would then hide it, or it would have to go to another server, the answer is
  EXDEV: then mv(1) copies, by the same rules.
* Attributes are those of the first element; fsync(2) is for all that may have changed.
* qid.path is the lexical place for a mount point, because its server may be down; another directory keeps the path of the file that it shows.
"""

import errno
from collections.abc import Callable, Iterable

import attrs

from mk9p.auth import NONE, Principal
from mk9p.compose.readonly import ReadOnly
from mk9p.compose.resolve import Element, Resolver
from mk9p.compose.routes import Routes
from mk9p.errors import NineError
from mk9p.tree import Ahead, Maybe, Node, Route, Stat, Way, qids, settle
from mk9p.tree.shown import Question, T, Through
from mk9p.wire import QTDIR

_FORBIDDEN = "mounted directory forbids creation"  # Plan 9's Enocreate


class Composed(Through):
    """What is at `path`, for one user. Without `elements` it finds them when first asked: a listing makes such nodes, and waits for nobody."""

    def __init__(
        self,
        resolver: Resolver,
        path: str,
        who: Principal = NONE,
        elements: list[Element] | None = None,
        qtype: int = QTDIR,
        *,
        dtype: int | None = None,
    ) -> None:
        self.resolver, self.at, self.who, self.qtype, self.dtype = resolver, path, who, qtype, dtype
        self.generation = -1
        self._way: Way | None = None
        self._routes: Routes | None = None
        self.elements = elements
        self.bare = False  # one element, and no mount point below: walks may pass on
        if elements is not None:
            self._settle(elements)
        if elements is None or self._mounted(elements) or len(elements) > 1:
            self.path = lexical(path)
        else:
            self.path = elements[0].node.path

    def _settle(self, elements: list[Element]) -> list[Element]:
        table = self.resolver.table
        self.elements, self.generation = elements, table.generation
        first = elements[0].node
        self.qtype, self.descriptors = first.qtype, first.descriptors
        self.guards = len(elements) == 1 and first.guards  # otherwise the bits of the first count for all
        self.marks = all(element.node.marks for element in elements)
        below = any(place in table.prefixes for element in elements for place, _ in element.places)
        self.bare = len(elements) == 1 and not below
        way = first.way if self.bare else None
        self._way = attrs.evolve(way, whole=False) if way is not None else None
        users = [element.node for element in elements if element.node.hold is not None]
        if users:
            self._forward(users)
        return elements

    def _forward(self, users: list[Node]) -> None:
        """Tell the trees that count their open files (conversations) about those below here."""

        def hold() -> None:
            for node in users:
                if node.hold is not None:
                    node.hold()

        async def release() -> None:
            for node in users:
                if node.release is not None:
                    await settle(node.release())

        self.hold, self.release = hold, release

    def _mounted(self, elements: list[Element]) -> bool:
        """Tell whether this is a mount point, here or where it is bound from."""
        points = self.resolver.table.points
        return self.at in points or any(place in points for element in elements for place, _ in element.places)

    def now(self, who: Principal) -> list[Element] | None:
        """Return what is here, if that is known for this user and no mount or bind may have changed it."""
        known = self.elements
        if known is None or (who is not self.who and who != self.who):
            return None
        if self.generation == self.resolver.table.generation:
            return known
        return None if self._mounted(known) else self._settle(known)

    async def _elements(self, who: Principal) -> list[Element]:
        known = self.now(who)
        if known is not None:
            return known
        try:
            fresh = await self.resolver.elements(self.at, who)
        except OSError:
            if self.elements is None or who != self.who:
                raise
            return self._settle(self.elements)  # what it is bound from is gone: a client that is here stays here
        return self._settle(fresh) if who == self.who else fresh

    @property
    def way(self) -> Way | None:  # type: ignore[override]
        """Return where this really is: on one server, if no mount or bind has a say here or below now."""
        return self._way if self.now(self.who) is not None else None

    @property
    def ahead(self) -> Ahead | None:  # type: ignore[override]
        """Return the function that walks several names at once, if nothing is mounted below."""
        known = self.now(self.who)
        return known[0].node.ahead if known is not None and self.bare else None

    # -- names

    def route(self, names: tuple[str, ...], who: Principal) -> Route | None:
        routes = self._routes
        if routes is None:
            routes = self._routes = Routes(self)
        return routes.find(names, who)

    def child(self, name: str, who: Principal, elements: list[Element]) -> "Composed":
        """Return the node for a name that consists of these elements."""
        return Composed(self.resolver, f"{self.at}/{name}", who, elements)

    def walk(self, name: str, who: Principal) -> Maybe[Node]:
        known = self.now(who)
        if known is not None and self.bare:
            return known[0].node.walk(name, who)
        return self._walk(name, who)

    async def _walk(self, name: str, who: Principal) -> Node:
        elements = await self._elements(who)
        if elements[0].node.qtype & QTDIR == 0:
            raise NineError(errno.ENOTDIR)
        found = await self.resolver.child(elements, self.at, name, who)
        first = found[0]
        if first.node.qtype & QTDIR == 0:
            return first.node
        table = self.resolver.table
        places = {f"{self.at}/{name}", *(place for element in found for place, _ in element.places)}
        if len(found) == 1 and not any(place in table.points or place in table.prefixes for place in places):
            return first.node
        return Composed(self.resolver, f"{self.at}/{name}", who, found)

    async def entries(self, who: Principal) -> Iterable[tuple[str, Node]]:
        elements = await self._elements(who)
        if elements[0].node.qtype & QTDIR == 0:
            raise NineError(errno.ENOTDIR)
        found: dict[str, Node] = {}
        failed: list[OSError] = []
        for element in elements:
            try:
                for name, node in await settle(element.node.entries(who)):
                    found.setdefault(name, node)
            except OSError as error:  # leave out its part, as unionread does
                failed.append(error)
        if len(failed) == len(elements):
            raise failed[0]
        mounted = self.resolver.table.names
        for place in (self.at, *(place for element in elements for place, _ in element.places)):
            for name in mounted.get(place, ()):
                found[name] = self._entry(elements, name, found.get(name), who)
        return list(found.items())

    def _entry(self, elements: list[Element], name: str, own: Node | None, who: Principal) -> Node:
        """Return the node that a listing shows for a mount point, or for a directory that leads to one."""
        points = self.resolver.table.points
        qtype, dtype = QTDIR, None
        for place in self.resolver.special(elements, self.at, name):
            if place in points:
                first = points[place][0]
                if first.kind == "under" and own is not None:
                    qtype, dtype = own.qtype, own.dtype
                else:
                    qtype = first.qtype
                break
        return Composed(self.resolver, f"{self.at}/{name}", who, qtype=qtype, dtype=dtype)

    # -- the file itself

    def stat(self) -> Maybe[Stat]:
        known = self.now(self.who)
        if known is not None and len(known) == 1:
            return known[0].node.stat()
        return super().stat()

    async def _tell(self, ask: Callable[[Node], Maybe[T]]) -> T:
        """Return the answer of the first element that has one; raises the first error if none has."""
        failed: OSError | None = None
        for element in await self._elements(self.who):
            try:
                return await settle(ask(element.node))
            except OSError as error:
                failed = failed or error
        raise failed or NineError(errno.ENOENT)

    async def _ask(self, who: Principal, ask: Question[T]) -> T:
        return await settle(ask((await self._elements(who))[0].node, who))

    async def sync(self, who: Principal, *, data: bool = False) -> None:
        failed: OSError | None = None
        for element in await self._elements(who):
            if not isinstance(element.node, ReadOnly):
                try:
                    await settle(element.node.sync(who, data=data))
                except OSError as error:
                    failed = failed or error
        if failed is not None:
            raise failed

    # -- making and taking away

    async def _make(self, name: str, who: Principal, ask: Question[T]) -> T:
        """Ask the element that gets a new file; raises EEXIST, EROFS or EPERM."""
        elements = await self._elements(who)
        if self.resolver.special(elements, self.at, name):
            raise NineError(errno.EEXIST)
        return await settle(ask(self._created_in(elements), who))

    @staticmethod
    def _created_in(elements: list[Element]) -> Node:
        for element in elements:
            if element.create:
                return element.node
        if isinstance(elements[0].node, ReadOnly):
            raise NineError(errno.EROFS)
        raise NineError(errno.EPERM, _FORBIDDEN)

    async def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> None:
        holder = await self._holder(await self._elements(who), name, who)
        await settle(holder.remove(name, who, directory=directory))

    async def rename(self, name: str, to: Node, newname: str, who: Principal, *, replace: bool = True) -> None:
        elements = await self._elements(who)
        node = await self._holder(elements, name, who)
        if isinstance(to, Composed) and to.at == self.at:
            self._no_point(elements, newname)
            await self._seen(elements, node, newname, who)
            to = node
        else:
            to = await settle(to.home(newname, who))
        await settle(node.rename(name, to, newname, who, replace=replace))

    async def home(self, name: str, who: Principal) -> Node:
        """Return the node that gets a new file; raises EBUSY for a mount point, EROFS, EPERM, EXDEV where it would be hidden."""
        elements = await self._elements(who)
        self._no_point(elements, name)
        node = self._created_in(elements)
        await self._seen(elements, node, name, who)
        return await settle(node.home(name, who))

    async def _holder(self, elements: list[Element], name: str, who: Principal) -> Node:
        """Return the first element's node that has a file; raises ENOENT, or EBUSY for a mount point."""
        self._no_point(elements, name)
        if len(elements) == 1:
            return elements[0].node
        failed: OSError | None = None
        for element in elements:
            try:
                await settle(element.node.walk(name, who))
            except OSError as error:
                failed = error if failed is None or failed.errno == errno.ENOENT else failed
            else:
                return element.node
        raise failed or NineError(errno.ENOENT)

    def _no_point(self, elements: list[Element], name: str) -> None:
        if self.resolver.special(elements, self.at, name):
            raise NineError(errno.EBUSY, "mount point")

    async def _seen(self, elements: list[Element], node: Node, name: str, who: Principal) -> None:
        """Raise EXDEV if a file of that name in an element's node would be hidden by one of an earlier element."""
        for element in elements:
            if element.node is node:
                return
            try:
                await settle(element.node.walk(name, who))
            except OSError:
                continue  # it has none, or is down and hides nothing now
            raise NineError(errno.EXDEV, "an earlier part of the union has a file of that name")


class Root(Composed):
    """The top of the namespace: one node for all users, so nothing found for one of them is kept for another."""

    def __init__(self, resolver: Resolver) -> None:
        super().__init__(resolver, "", NONE, [Element(resolver.made, (("", False),))])

    def now(self, who: Principal) -> list[Element] | None:
        assert self.elements is not None
        table = self.resolver.table
        if "" in table.points:
            return None
        return self.elements if self.generation == table.generation else self._settle(self.elements)

    async def _elements(self, who: Principal) -> list[Element]:
        known = self.now(who)
        if known is not None:
            return known
        return await self.resolver.elements("", who)


def lexical(path: str) -> int:
    """Return the qid.path of a place in the namespace."""
    number = qids.ROOT
    for name in path.split("/")[1:]:
        number = qids.child(number, name)
    return number
