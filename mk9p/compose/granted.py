"""`View`: what a guest sees of the namespace: what it was granted, at the paths where everybody sees it, and nothing else.

Theory
* A guest has a tree of its own, made of two kinds of directory: those that lead to what was granted, which have only the next name, and from a
  granted path on the namespace's own files. From one of these the only way to its parent is the path that was walked (the server does `..`, by the
  places of the walk), so a guest cannot say a name that was not granted. Such a name is ENOENT, not EACCES: a guest does not learn what exists.
* A grant is for a path, whatever is there at the time of a walk: what is bound or mounted below is granted too, what is bound elsewhere is not.
* A grant is for everything at the path: below it the guest is root, under its own name, to the server that the path leads to. So permission bits
  keep nothing from it there, and `ro` refuses every change. Letters of OPS are looked at by the guard that capabilities have. Outside of it the
  guest's own number owns nothing.
* Grants change while the guest is there, and what it does next is judged by what is granted then (rights.py).
* The guest's own tree is there without a grant, as the kernel serves it: not what others have mounted or bound over it. A grant that covers that
  path decides instead what is there.
"""

import errno
import stat as st
from collections.abc import Callable, Iterable
from functools import reduce
from operator import or_
from typing import Final

import attrs
import trio

from mk9p.auth import Principal
from mk9p.authority.files import whoami
from mk9p.authority.guard import shown
from mk9p.compose.namespace import KERNELS, Namespace
from mk9p.compose.rights import AUTH, PLAIN, Changing, Granted, Holder, Right
from mk9p.compose.table import clean, within
from mk9p.compose.union import Composed, lexical
from mk9p.errors import NineError
from mk9p.scope import ALL, mode, mode_of
from mk9p.tree import Dir, Maybe, Node, Stat, Text, join, settle
from mk9p.wire import QTDIR

PATIENCE: Final = 1.0  # seconds that a listing waits to find the kind of a granted file


@attrs.frozen
class Grant:
    """One line of what a guest may use: a cleaned path of the namespace, and the OPS that it has there."""

    path: str
    ops: int

    @classmethod
    def parse(cls, words: Iterable[str]) -> "Grant":
        """Read `PATH ro|rw|OPS`; raises EINVAL."""
        path, how, *more = (*words, "", "")
        if not path.startswith("/") or not how or any(more):
            raise NineError(errno.EINVAL, "usage: grant PATH ro|rw|OPS")
        return cls(clean(path), mode_of(how))

    def __str__(self) -> str:
        return join([self.path or "/", mode(self.ops)])


def merged(grants: Iterable[Grant]) -> list[Grant]:
    """Return the grants without those inside another; raises EINVAL for one that contradicts the grant around it."""
    kept: list[Grant] = []
    for grant in sorted(grants, key=lambda grant: len(grant.path)):
        above = next((other for other in kept if within(grant.path, other.path)), None)
        if above is None:
            kept.append(grant)
        elif above.ops != grant.ops:
            raise NineError(errno.EINVAL, f"grant {grant} lies in {above}: say only one of both")
    return kept


@attrs.define(eq=False)
class View:
    """The tree of one guest. `own` finds the root of its kernel's tree, None while that is not mounted.

    `on_less` is called with each right that has become less: what was opened by it elsewhere must end. It may not wait.
    """

    ns: Namespace
    kernel: str
    guest: Principal
    grants: list[Grant] = attrs.field(converter=merged)
    own: Callable[[], Node | None]
    on_less: Callable[[Right], None] = attrs.field(default=lambda right: None, kw_only=True)
    rights: dict[str, Right] = attrs.field(factory=dict, init=False)  # by path, for each path that was ever used
    _auth: Node = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._auth = Dir({"whoami": Text(self.whoami)})

    def tree(self) -> Node:
        """Return its root."""
        return _Top(self)

    def top(self) -> Node:
        """Return what its root is now."""
        if self._grant("") is None:
            return _Leads(self, "")
        right = self._right("")
        return _by_name(_Whole(self.ns.root, right, self), right)

    def allow(self, grant: Grant) -> None:
        """Grant something from now on, or in another mode. Raises EINVAL if that contradicts another grant."""
        self._change([*(other for other in self.grants if other.path != grant.path), grant])

    def withdraw(self, path: str) -> None:
        """End a grant, and what is open by it."""
        self._change([grant for grant in self.grants if grant.path != clean(path)])

    def become(self, grants: list[Grant]) -> None:
        """Grant these and nothing else from now on. Raises EINVAL, and then all is as before."""
        if merged(grants) != self.grants:
            self._change(grants)

    def _change(self, grants: list[Grant]) -> None:
        self.grants = merged(grants)
        for path, right in list(self.rights.items()):
            ops = self._ops(path)
            if ops and right.ops and (ops in PLAIN) != (right.ops in PLAIN):
                # what was walked to looks at names, or does not, and stays so: it ends
                ops = 0
                del self.rights[path]
            if right.become(ops):
                self.on_less(right)

    def _ops(self, path: str) -> int:
        """Return what the guest may do at a path now."""
        for grant in (*self.grants, self._implied()):
            if grant is not None and within(path, grant.path):
                return grant.ops
        return 0

    def _right(self, path: str) -> Right:
        """Return the one right of a path."""
        right = self.rights.get(path)
        if right is None:
            right = self.rights[path] = Right(path, Holder(self.guest.name, 0, frozenset({0}), by=path))
            right.become(self._ops(path))
        return right

    def whoami(self) -> str:
        """Return who comes by this line, how that is known, and what is granted, one a line."""
        grants = [grant for grant in (self._implied(), *self.grants) if grant is not None]
        some = reduce(or_, (grant.ops for grant in grants), 0)
        return whoami(self.guest, some) + "".join(f"grant {grant}\n" for grant in grants)

    def _implied(self) -> Grant | None:
        """Return the grant of its own tree, which needs no line, unless a line covers it."""
        path = f"{KERNELS}/{self.kernel}"
        return None if any(within(path, grant.path) for grant in self.grants) else Grant(path, ALL)

    def _grant(self, path: str) -> Grant | None:
        return next((grant for grant in self.grants if grant.path == path), None)

    def _granted(self, node: Node, path: str) -> Node:
        right = self._right(path)
        return _by_name(Granted(node, right, edge=True), right)

    async def at(self, path: str) -> Node:
        """Return what a guest finds at a path that is below no grant; raises ENOENT."""
        if path == AUTH:
            return self._auth
        if self._grant(path) is not None:
            return self._granted(await self._walk(path), path)
        own = self._implied()
        if own is not None and path == own.path:
            node = self.own()
            if node is None:
                raise NineError(errno.ENOENT)
            return self._granted(node, path)
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
        if self._grant(path) is not None and path in self.ns.table.points:
            return self._granted(Composed(self.ns.resolver, path, self._right(path).who), path)
        with trio.move_on_after(PATIENCE):
            try:
                return await self.at(path)
            except OSError:
                return None
        return None

    async def _walk(self, path: str) -> Node:
        node: Node = self.ns.root
        who = self._right(path).who
        for name in path.split("/")[1:]:
            node = await settle(node.walk(name, who))
        return node


def _by_name(node: Granted, right: Right) -> Node:
    """Return a granted node, or what looks at the names below it, where that matters."""
    return node if right.ops in PLAIN else shown(node, right.path, right.named, None)


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


class _Whole(Granted):
    """The root of a guest with a grant for everything: `auth` is there too."""

    def __init__(self, node: Node, right: Right, view: View) -> None:
        super().__init__(node, right, edge=True)
        self.view = view

    def walk(self, name: str, who: Principal) -> Maybe[Node]:
        return self.view.at(AUTH) if f"/{name}" == AUTH else super().walk(name, who)

    async def entries(self, who: Principal) -> Iterable[tuple[str, Node]]:
        auth = AUTH[1:]
        rest = [(name, node) for name, node in await super().entries(who) if name != auth]
        return [*rest, (auth, await self.view.at(AUTH))]


class _Top(Changing):
    """The root of a guest, whatever is granted when somebody asks."""

    def __init__(self, view: View) -> None:
        self.view, self.path = view, lexical("")

    def now(self) -> Node:
        return self.view.top()

    def _theirs(self, node: Node) -> Node:
        return self.now() if node is self else node
