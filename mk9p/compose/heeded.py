"""`kernels/` of another process, which holds the kernels; and `Heeded`: a tree whose words concern this process too."""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from mk9p.auth import ROOT
from mk9p.compose.remote import Server
from mk9p.tree import Handle, Node, Open, ThroughHandle, settle
from mk9p.tree.shown import Shown

PATIENCE: Final = 5.0  # seconds for that process's first answer


def kept_by(address: str, nursery: trio.Nursery, *, wait: int = 0) -> Node:
    """Return `kernels/` of another process: `mk9p serve kernels?run=DIR`."""
    return Server(address, nursery, aname="kernels", name="kernels", deadline=PATIENCE, wait=wait).tree(ROOT)


async def read_text(tree: Node, path: str) -> str:
    """Return the text of a file of a tree, as root."""
    node = tree
    for name in path.split("/"):
        node = await settle(node.walk(name, ROOT))
    handle = await settle(node.open(Open(ROOT)))
    try:
        return bytes(await settle(handle.read(0, 1 << 20))).decode()
    finally:
        await settle(handle.close())


class Heeded(Shown):
    """Shows a node and everything below it; after each write, `heed` is waited for: a word is answered when it has been taken here too."""

    def __init__(self, node: Node, heed: Callable[[], Awaitable[None]]) -> None:
        super().__init__(node)
        self.heed = heed

    def _show(self, node: Node) -> Node:
        return Heeded(node, self.heed)

    async def open(self, how: Open) -> Handle:
        handle = await settle(self.node.open(how))
        return _HeededHandle(handle, self.heed) if how.write else handle


class _HeededHandle(ThroughHandle):
    def __init__(self, handle: Handle, heed: Callable[[], Awaitable[None]]) -> None:
        super().__init__(handle)
        self.heed = heed

    async def write(self, offset: int, data: memoryview) -> int:
        count = await settle(self.handle.write(offset, data))
        await self.heed()
        return count
