"""`ReadOnly`: a tree in which nothing may be changed, whoever asks (`bind -r`, `mount -r`)."""

import errno

from mk9p.auth import Principal
from mk9p.compose.through import Question, Shown, T
from mk9p.errors import NineError
from mk9p.tree import Buffer, Change, Handle, Lock, Maybe, Node, Open, Stat, settle
from mk9p.tree.node import Keeper


class ReadOnly(Shown):
    """Show a node and all below it; answer EROFS to every change."""

    def __init__(self, node: Node) -> None:
        super().__init__(node.node if isinstance(node, ReadOnly) else node)
        if self.node.below is not None:
            self.below = self._below

    def _below(self, name: str, who: Principal) -> Node:
        assert self.node.below is not None
        return ReadOnly(self.node.below(name, who))

    def _show(self, node: Node) -> Node:
        return ReadOnly(node)

    def _alter(self, who: Principal, ask: Question[T]) -> Maybe[T]:
        raise NineError(errno.EROFS)

    async def open(self, how: Open) -> Handle:
        if how.write or how.truncate or how.remove:
            raise NineError(errno.EROFS)
        return _ReadOnlyHandle(await settle(self.node.open(how)))


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
