"""`View`: what a guest sees of the namespace: what it was granted, at the paths where everybody sees it, and nothing else.

Theory
* A guest has a tree of its own, made of two kinds of directory: those that lead to what was granted, which have only the next name, and from a
  granted path on the namespace's own files. From one of these the only way to its parent is the path that was walked (the server does `..`, by the
  places of the walk), so a guest cannot say a name that was not granted. Such a name is ENOENT, not EACCES: a guest does not learn what exists.
* A grant is for a path, whatever is there at the time of a walk: what is bound or mounted below is granted too, what is bound elsewhere is not.
* A grant is for everything at the path: below it the guest is root, under its own name, to the server that the path leads to. So permission bits
  keep nothing from it there, and `ro` refuses every change. Outside of it the guest's own number owns nothing.
* The guest's own tree is there without a grant, as the kernel serves it: not what others have mounted or bound over it. A grant that covers that
  path decides instead what is there.
"""

import errno
import stat as st
from collections.abc import Callable, Iterable
from typing import Final

import attrs
import trio

from mk9p.auth import Principal
from mk9p.compose.namespace import KERNELS, Namespace
from mk9p.compose.readonly import ReadOnly
from mk9p.compose.table import clean, within
from mk9p.compose.through import Question, Shown, T
from mk9p.compose.union import Composed, lexical
from mk9p.errors import NineError
from mk9p.tree import Dir, Handle, Maybe, Node, Open, Stat, Text, Way, join, settle
from mk9p.wire import QTDIR

AUTH: Final = "/auth"
PATIENCE: Final = 1.0  # seconds that a listing waits to find the kind of a granted file


@attrs.frozen
class Grant:
    """One line of what a guest may use: a cleaned path of the namespace, and whether it may only read."""

    path: str
    readonly: bool

    @classmethod
    def parse(cls, words: Iterable[str]) -> "Grant":
        """Read `PATH ro|rw`; raises EINVAL."""
        path, mode, *more = (*words, "", "")
        if not path.startswith("/") or mode not in ("ro", "rw") or any(more):
            raise NineError(errno.EINVAL, "usage: grant PATH ro|rw")
        return cls(clean(path), mode == "ro")

    def __str__(self) -> str:
        return join([self.path or "/", "ro" if self.readonly else "rw"])


def merged(grants: Iterable[Grant]) -> list[Grant]:
    """Return the grants without those inside another; raises EINVAL for one that contradicts the grant around it."""
    kept: list[Grant] = []
    for grant in sorted(grants, key=lambda grant: len(grant.path)):
        above = next((other for other in kept if within(grant.path, other.path)), None)
        if above is None:
            kept.append(grant)
        elif above.readonly != grant.readonly:
            raise NineError(errno.EINVAL, f"grant {grant} lies in {above}: say only one of both")
    return kept


@attrs.define(eq=False)
class View:
    """The tree of one guest. `own` finds the root of its kernel's tree, None while that is not mounted."""

    ns: Namespace
    kernel: str
    guest: Principal
    grants: list[Grant] = attrs.field(converter=merged)
    own: Callable[[], Node | None]
    _root_there: Principal = attrs.field(init=False)
    _auth: Node = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._root_there = Principal(self.guest.name, 0, frozenset({0}))
        self._auth = Dir({"whoami": Text(self.whoami)})

    def tree(self) -> Node:
        """Return its root."""
        whole = self._grant("")
        return _Leads(self, "") if whole is None else _Whole(self._granted(self.ns.root, whole), self)

    def whoami(self) -> str:
        """Return who comes by this line, how that is known, and what is granted, one a line."""
        grants = [grant for grant in (self._implied(), *self.grants) if grant is not None]
        head = f"principal {self.guest.name}\nproof the line of kernel {self.kernel}\n"
        return head + "".join(f"grant {grant}\n" for grant in grants)

    def _implied(self) -> Grant | None:
        """Return the grant of its own tree, which needs no line, unless a line covers it."""
        path = f"{KERNELS}/{self.kernel}"
        return None if any(within(path, grant.path) for grant in self.grants) else Grant(path, readonly=False)

    def _grant(self, path: str) -> Grant | None:
        return next((grant for grant in self.grants if grant.path == path), None)

    def _granted(self, node: Node, grant: Grant) -> "Granted":
        return Granted(ReadOnly(node) if grant.readonly else node, self._root_there, edge=True)

    async def at(self, path: str) -> Node:
        """Return what a guest finds at a path that is below no grant; raises ENOENT."""
        if path == AUTH:
            return self._auth
        grant = self._grant(path)
        if grant is not None:
            return self._granted(await self._walk(path), grant)
        own = self._implied()
        if own is not None and path == own.path:
            node = self.own()
            if node is None:
                raise NineError(errno.ENOENT)
            return Granted(node, self._root_there, edge=True)
        if self.below(path):
            return _Leads(self, path)
        raise NineError(errno.ENOENT)

    def below(self, path: str) -> list[str]:
        """Return the next names on the paths from here to what is granted."""
        own = self._implied()
        ends = [grant.path for grant in (*self.grants, own) if grant is not None] + [AUTH]
        return sorted({end[len(path) + 1 :].partition("/")[0] for end in ends if end != path and within(end, path)})

    async def entry(self, path: str) -> Node | None:
        """Return what a listing shows at a path, None for nothing. It does not ask a mounted server; other files have a second."""
        grant = self._grant(path)
        if grant is not None and path in self.ns.table.points:
            return self._granted(Composed(self.ns.resolver, path, self._root_there), grant)
        with trio.move_on_after(PATIENCE):
            try:
                return await self.at(path)
            except OSError:
                return None
        return None

    async def _walk(self, path: str) -> Node:
        node: Node = self.ns.root
        for name in path.split("/")[1:]:
            node = await settle(node.walk(name, self._root_there))
        return node


class _Leads(Node):
    """A directory on the way to something granted."""

    qtype = QTDIR
    _stat = Stat(st.S_IFDIR | 0o555, nlink=2)

    def __init__(self, view: View, at: str) -> None:
        self.view, self.at, self.path = view, at, lexical(at)

    def stat(self) -> Stat:
        return self._stat

    def walk(self, name: str, who: Principal) -> Maybe[Node]:
        return self.view.at(f"{self.at}/{name}")

    async def entries(self, who: Principal) -> Iterable[tuple[str, Node]]:
        names = self.view.below(self.at)
        found: dict[str, Node] = {}

        async def one(name: str) -> None:
            node = await self.view.entry(f"{self.at}/{name}")
            if node is not None:
                found[name] = node

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(one, name)
        return [(name, found[name]) for name in names if name in found]


class Granted(Shown):
    """Shows a node and everything below it to a guest: every request is made there as `root`, so it guards itself.

    `edge`: it is the granted path itself. Operations on its name happen in a directory that is not granted, so only files below it may be left
    entirely to another server.
    """

    def __init__(self, node: Node, root: Principal, *, edge: bool = False) -> None:
        super().__init__(node)
        self.root, self.edge, self.guards = root, edge, True
        self._there: Way | None = None
        self._way: Way | None = None

    @property
    def way(self) -> Way | None:  # type: ignore[override]
        """Return where the file is; requests there are made as root."""
        there = self.node.way
        if there is not self._there and there != self._there:
            self._there, self._way = there, None
            if there is not None:
                self._way = attrs.evolve(there, who=self.root, whole=there.whole and not self.edge)
        return self._way

    def _ask(self, who: Principal, ask: Question[T]) -> Maybe[T]:
        """Ask as root there, with the group that new files get."""
        return ask(self.node, self.root if who.gid is None else attrs.evolve(self.root, gid=who.gid))

    def _show(self, node: Node) -> Node:
        return Granted(node, self.root)

    def _theirs(self, node: Node) -> Node:
        """Return what a second file is; raises EXDEV for one that is not granted, such as a directory that only leads to something."""
        if not isinstance(node, Granted):
            raise NineError(errno.EXDEV)
        return node.node

    def open(self, how: Open) -> Maybe[Handle]:
        if self.qtype & QTDIR and not self.node.guards:
            return _Directory(self.node, self.root)
        return super().open(how)


class _Directory(Handle):
    """An open directory whose node has no handle."""

    prompt = True

    def __init__(self, node: Node, root: Principal) -> None:
        self.node, self.root = node, root

    def sync(self, *, data: bool = False) -> Maybe[None]:
        return self.node.sync(self.root, data=data)


class _Whole(Granted):
    """The root of a guest with a grant for everything: `auth` is there too."""

    def __init__(self, granted: Granted, view: View) -> None:
        super().__init__(granted.node, granted.root, edge=True)
        self.view = view

    def walk(self, name: str, who: Principal) -> Maybe[Node]:
        return self.view.at(AUTH) if f"/{name}" == AUTH else super().walk(name, who)

    async def entries(self, who: Principal) -> Iterable[tuple[str, Node]]:
        auth = AUTH[1:]
        rest = [(name, node) for name, node in await super().entries(who) if name != auth]
        return [*rest, (auth, await self.view.at(AUTH))]
