"""The directory of a checkpoint, as a program's process sees it: the checkpoint, and what was granted there, which alone the program sees."""

import errno
from collections.abc import Iterable, Mapping

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.servers.wasm.written import PART
from mk9p.tree import Handle, Maybe, Node, Open, Stat, settle
from mk9p.wire import QTDIR


class Kept(Node):
    """Shows of a directory only the file `name` and what it is made from, and beside them what was granted."""

    qtype = QTDIR

    def __init__(self, node: Node, name: str, granted: Mapping[str, Node]) -> None:
        self.node, self.names, self.granted = node, (name, name + PART), granted
        self.path = node.path

    def _require(self, *names: str) -> None:
        """Raise EACCES for a name that is no checkpoint's."""
        if not set(names) <= set(self.names):
            raise NineError(errno.EACCES)

    def stat(self) -> Maybe[Stat]:
        return self.node.stat()

    def walk(self, name: str, who: Principal) -> Maybe[Node]:
        if name in self.granted:
            return self.granted[name]
        if name not in self.names:
            raise NineError(errno.ENOENT)
        return self.node.walk(name, who)

    async def entries(self, who: Principal) -> Iterable[tuple[str, Node]]:
        there = [(name, node) for name, node in await settle(self.node.entries(who)) if name in self.names]
        return [*self.granted.items(), *there]

    def create(self, name: str, perm: int, how: Open) -> Maybe[tuple[Node, Handle]]:
        self._require(name)
        return self.node.create(name, perm, how)

    def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> Maybe[None]:
        self._require(name)
        return self.node.remove(name, who, directory=directory)

    def rename(self, name: str, to: Node, newname: str, who: Principal, *, replace: bool = True) -> Maybe[None]:
        self._require(name, newname)
        if not isinstance(to, Kept) or to.names != self.names:
            raise NineError(errno.EXDEV)
        return self.node.rename(name, to.node, newname, who, replace=replace)

    def sync(self, who: Principal, *, data: bool = False) -> Maybe[None]:
        return self.node.sync(who, data=data)
