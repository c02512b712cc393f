"""`ReadOnly`: a tree in which nothing may be changed, whoever asks (`bind -r`, `mount -r`)."""

import errno
from collections.abc import Awaitable, Iterable

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.tree import Buffer, Change, Handle, Lock, Maybe, Node, Open, Stat, StatFs, settle
from mk9p.tree.node import Keeper


class ReadOnly(Node):
    """Show a node and all below it; answer EROFS to every change.

    It equals the node it shows, so that exclusive use of a file is one whichever way it was walked to.
    """

    def __init__(self, node: Node) -> None:
        self.node: Node = node.node if isinstance(node, ReadOnly) else node
        self.qtype, self.path, self.dtype = node.qtype, node.path, node.dtype
        self.guards, self.marks, self.descriptors, self.weight = node.guards, node.marks, node.descriptors, node.weight
        self.hold, self.release = node.hold, node.release

    def __eq__(self, other: object) -> bool:
        return self.node == (other.node if isinstance(other, ReadOnly) else other)

    def __hash__(self) -> int:
        return hash(self.node)

    def stat(self) -> Maybe[Stat]:
        return self.node.stat()

    def walk(self, name: str, who: Principal) -> Maybe[Node]:
        child = self.node.walk(name, who)
        return ReadOnly(child) if isinstance(child, Node) else self._walk(child)

    async def _walk(self, child: Awaitable[Node]) -> Node:
        return ReadOnly(await child)

    async def entries(self, who: Principal) -> Iterable[tuple[str, Node]]:
        return [(name, ReadOnly(node)) for name, node in await settle(self.node.entries(who))]

    async def open(self, how: Open) -> Handle:
        if how.write or how.truncate or how.remove:
            raise NineError(errno.EROFS)
        return _ReadOnlyHandle(await settle(self.node.open(how)))

    def create(self, name: str, perm: int, how: Open) -> Maybe[tuple[Node, Handle]]:
        raise NineError(errno.EROFS)

    def mkdir(self, name: str, perm: int, who: Principal) -> Maybe[Node]:
        raise NineError(errno.EROFS)

    def symlink(self, name: str, target: str, who: Principal) -> Maybe[Node]:
        raise NineError(errno.EROFS)

    def link(self, name: str, target: Node, who: Principal) -> Maybe[None]:
        raise NineError(errno.EROFS)

    def mknod(self, name: str, mode: int, rdev: int, who: Principal) -> Maybe[Node]:
        raise NineError(errno.EROFS)

    def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> Maybe[None]:
        raise NineError(errno.EROFS)

    def rename(self, name: str, to: Node, newname: str, who: Principal, *, replace: bool = True) -> Maybe[None]:
        raise NineError(errno.EROFS)

    def home(self, name: str, who: Principal) -> Maybe[Node]:
        raise NineError(errno.EROFS)

    def give(self, gid: int) -> Maybe[None]:
        raise NineError(errno.EROFS)

    def change(self, change: Change, who: Principal) -> Maybe[None]:
        raise NineError(errno.EROFS)

    def sync(self, who: Principal, *, data: bool = False) -> Maybe[None]:
        return self.node.sync(who, data=data)

    def readlink(self) -> Maybe[str]:
        return self.node.readlink()

    def born(self) -> Maybe[int | None]:
        return self.node.born()

    def xattr(self, name: str, who: Principal) -> Maybe[bytes]:
        return self.node.xattr(name, who)

    def xattrs(self, who: Principal) -> Maybe[Iterable[str]]:
        return self.node.xattrs(who)

    def set_xattr(self, name: str, value: bytes, who: Principal, *, flags: int = 0) -> Maybe[None]:
        raise NineError(errno.EROFS)

    def remove_xattr(self, name: str, who: Principal) -> Maybe[None]:
        raise NineError(errno.EROFS)

    def statfs(self) -> Maybe[StatFs]:
        return self.node.statfs()


class _ReadOnlyHandle(Handle):
    """An open file of such a tree: a descriptor opened for reading could still be used to change the status (fchmod(2)).

    Locks are no change: they are those of the file, whichever way it was walked to.
    """

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.duplex, self.prompt, self.keeps = handle.duplex, handle.prompt, handle.keeps

    @property
    def locks(self) -> int:  # type: ignore[override]
        return self.handle.locks

    @property
    def keeper(self) -> Keeper | None:
        return self.handle.keeper

    @keeper.setter
    def keeper(self, keeper: Keeper | None) -> None:
        self.handle.keeper = keeper

    def read(self, offset: int, count: int) -> Maybe[Buffer]:
        return self.handle.read(offset, count)

    def write(self, offset: int, data: memoryview) -> Maybe[int]:
        raise NineError(errno.EROFS)

    def stat(self) -> Maybe[Stat] | None:
        return self.handle.stat()

    def change(self, change: Change) -> Maybe[None] | None:
        raise NineError(errno.EROFS)

    def lock(self, lock: Lock) -> Maybe[bool]:
        return self.handle.lock(lock)

    def locked(self, lock: Lock) -> Maybe[Lock | None]:
        return self.handle.locked(lock)

    def sync(self, *, data: bool = False) -> Maybe[None]:
        return self.handle.sync(data=data)

    def close(self) -> Maybe[None]:
        return self.handle.close()
