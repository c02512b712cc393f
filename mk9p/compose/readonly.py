"""`ReadOnly`: a tree in which nobody may change anything (`bind -r`, `mount -r`)."""

import errno

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.tree import Change, Handle, Maybe, Node, Open, ThroughHandle, settle
from mk9p.tree.shown import Question, Shown, T


class ReadOnly(Shown):
    """Shows a node and everything below it; answers EROFS to every change."""

    def __init__(self, node: Node) -> None:
        super().__init__(node.node if isinstance(node, ReadOnly) else node)

    def _show(self, node: Node) -> Node:
        return ReadOnly(node)

    def _alter(self, who: Principal, ask: Question[T]) -> Maybe[T]:
        raise NineError(errno.EROFS)

    async def open(self, how: Open) -> Handle:
        if how.write or how.truncate or how.remove:
            raise NineError(errno.EROFS)
        return _ReadOnlyHandle(await settle(self.node.open(how)))


class _ReadOnlyHandle(ThroughHandle):
    """An open file of such a tree: a descriptor that is open for reading could still change the status (fchmod(2)).

    Locks are no change: they belong to the file, whichever way it was walked to.
    """

    def __init__(self, handle: Handle) -> None:
        super().__init__(handle)
        self.truncates = False

    def write(self, offset: int, data: memoryview) -> Maybe[int]:
        raise NineError(errno.EROFS)

    def change(self, change: Change) -> Maybe[None] | None:
        raise NineError(errno.EROFS)
