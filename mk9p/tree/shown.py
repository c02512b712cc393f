"""`Through` and `Shown`: nodes that show other nodes.

Every request to a node is written down here once, so no class that shows other nodes forgets a method: each is one line over `_ask`, `_tell`,
`_alter` or `_make`. There a class says which node to ask, and as which user; in `_show` it says what a found or new node becomes; in `_theirs`
what a second file is. A method of its own says what else differs.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias, TypeVar

import attrs

from mk9p.auth import NONE, Principal
from mk9p.status import Change, Stat, StatFs
from mk9p.tree.node import Handle, Maybe, Node, Open, settle
from mk9p.wire import Qid

T = TypeVar("T")
Question: TypeAlias = Callable[[Node, Principal], Maybe[T]]


class Through(Node):
    """Shows other nodes: every request is made there."""

    def _ask(self, who: Principal, ask: Question[T]) -> Maybe[T]:
        """Ask the shown node. The methods below call it for everything that has no other word."""
        raise NotImplementedError(type(self))

    def _tell(self, ask: Callable[[Node], Maybe[T]]) -> Maybe[T]:
        """Ask for an answer that is the same for every user."""
        return self._ask(NONE, lambda node, _: ask(node))

    def _alter(self, who: Principal, ask: Question[T]) -> Maybe[T]:
        """Ask for a change, of the file or of its names."""
        return self._ask(who, ask)

    def _make(self, name: str, who: Principal, ask: Question[T]) -> Maybe[T]:
        """Ask for a new name in a directory."""
        return self._alter(who, ask)

    def _show(self, node: Node) -> Node:
        """Return what a node that was found or made there becomes."""
        return node

    def _theirs(self, node: Node) -> Node:
        """Return what a second file of a request is there; raises EXDEV if it is not there."""
        return node

    def _found(self, node: Maybe[Node]) -> Maybe[Node]:
        return self._show(node) if isinstance(node, Node) else self._later(node)

    async def _later(self, node: Awaitable[Node]) -> Node:
        return self._show(await node)

    def stat(self) -> Maybe[Stat]:
        return self._tell(lambda node: node.stat())

    def readlink(self) -> Maybe[str]:
        return self._tell(lambda node: node.readlink())

    def born(self) -> Maybe[int | None]:
        return self._tell(lambda node: node.born())

    def life(self) -> Maybe[int]:
        return self._tell(lambda node: node.life())

    def statfs(self) -> Maybe[StatFs]:
        return self._tell(lambda node: node.statfs())

    def walk(self, name: str, who: Principal) -> Maybe[Node]:
        return self._found(self._ask(who, lambda node, who: node.walk(name, who)))

    async def entries(self, who: Principal) -> Iterable[tuple[str, Node]]:
        found = await settle(self._ask(who, lambda node, who: node.entries(who)))
        return [(name, self._show(node)) for name, node in found]

    def open(self, how: Open) -> Maybe[Handle]:
        return self._ask(how.who, lambda node, who: node.open(_by(how, who)))

    def sync(self, who: Principal, *, data: bool = False) -> Maybe[None]:
        return self._ask(who, lambda node, who: node.sync(who, data=data))

    def xattr(self, name: str, who: Principal) -> Maybe[bytes]:
        return self._ask(who, lambda node, who: node.xattr(name, who))

    def xattrs(self, who: Principal) -> Maybe[Iterable[str]]:
        return self._ask(who, lambda node, who: node.xattrs(who))

    def set_xattr(self, name: str, value: bytes, who: Principal, *, flags: int = 0) -> Maybe[None]:
        return self._alter(who, lambda node, who: node.set_xattr(name, value, who, flags=flags))

    def remove_xattr(self, name: str, who: Principal) -> Maybe[None]:
        return self._alter(who, lambda node, who: node.remove_xattr(name, who))

    def change(self, change: Change, who: Principal) -> Maybe[None]:
        return self._alter(who, lambda node, who: node.change(change, who))

    def give(self, gid: int) -> Maybe[None]:
        return self._alter(NONE, lambda node, _: node.give(gid))

    def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> Maybe[None]:
        return self._alter(who, lambda node, who: node.remove(name, who, directory=directory))

    def rename(self, name: str, to: Node, newname: str, who: Principal, *, replace: bool = True) -> Maybe[None]:
        to = self._theirs(to)
        return self._alter(who, lambda node, who: node.rename(name, to, newname, who, replace=replace))

    def link(self, name: str, target: Node, who: Principal) -> Maybe[None]:
        target = self._theirs(target)
        return self._make(name, who, lambda node, who: node.link(name, target, who))

    async def create(self, name: str, perm: int, how: Open) -> tuple[Node, Handle]:
        made, handle = await settle(self._make(name, how.who, lambda node, who: node.create(name, perm, _by(how, who))))
        return self._show(made), handle

    def mkdir(self, name: str, perm: int, who: Principal) -> Maybe[Node]:
        return self._found(self._make(name, who, lambda node, who: node.mkdir(name, perm, who)))

    def symlink(self, name: str, target: str, who: Principal) -> Maybe[Node]:
        return self._found(self._make(name, who, lambda node, who: node.symlink(name, target, who)))

    def mknod(self, name: str, mode: int, rdev: int, who: Principal) -> Maybe[Node]:
        return self._found(self._make(name, who, lambda node, who: node.mknod(name, mode, rdev, who)))

    def home(self, name: str, who: Principal) -> Maybe[Node]:
        return self._found(self._make(name, who, lambda node, who: node.home(name, who)))


class Shown(Through):
    """Shows one node. It equals that node, so exclusive use of a file is the same whichever way it was walked to."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.qtype, self.path, self.dtype = node.qtype, node.path, node.dtype
        self.guards, self.marks, self.descriptors, self.weight = node.guards, node.marks, node.descriptors, node.weight
        self.hold, self.release = node.hold, node.release
        self.below = None if node.below is None else self._below
        self.ahead = None if node.ahead is None else self._ahead

    def _below(self, name: str, who: Principal) -> Node:
        def ask(node: Node, who: Principal) -> Node:
            assert node.below is not None
            return node.below(name, who)

        found = self._ask(who, ask)
        assert isinstance(found, Node)
        return self._show(found)

    async def _ahead(self, names: tuple[str, ...], who: Principal, here: bool) -> list[tuple[Node, Qid]]:
        def ask(node: Node, who: Principal) -> Awaitable[list[tuple[Node, Qid]]]:
            assert node.ahead is not None
            return node.ahead(names, who, here)

        found: list[tuple[Node, Qid]] = await settle(self._ask(who, ask))
        return [(self._show(node), qid) for node, qid in found]

    def __eq__(self, other: object) -> bool:
        return self.node == (other.node if isinstance(other, Shown) else other)

    def __hash__(self) -> int:
        return hash(self.node)

    def _ask(self, who: Principal, ask: Question[T]) -> Maybe[T]:
        return ask(self.node, who)

    def stat(self) -> Maybe[Stat]:
        return self.node.stat()  # every getattr comes here, so this takes no detour


def _by(how: Open, who: Principal) -> Open:
    return how if who is how.who else attrs.evolve(how, who=who)
