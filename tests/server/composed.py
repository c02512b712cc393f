"""A composed lab in this process: trees as kernels on unix sockets, and the namespace that they are mounted in, served too."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from mk9p.composing import namespace
from mk9p.testing import serving_at
from mk9p.tree import Node


@asynccontextmanager
async def composed(folder: Path, kernels: Mapping[str, Node]) -> AsyncIterator[str]:
    """Serve trees at sockets of their names in a folder, mount each at k/NAME, and give the namespace's address."""
    async with trio.open_nursery() as nursery:
        ns = namespace(nursery)
        async with AsyncExitStack() as stack:
            for name, tree in kernels.items():
                await stack.enter_async_context(serving_at(f"unix!{folder}/{name}", tree))
                ns.mount(f"unix!{folder}/{name}", f"/k/{name}")
            await stack.enter_async_context(serving_at(f"unix!{folder}/ns", ns.root))
            yield f"unix!{folder}/ns"
        nursery.cancel_scope.cancel()
