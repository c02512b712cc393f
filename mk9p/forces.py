"""Task forces of a composed namespace (servers/tf): what they may reach, and for whom."""

from collections.abc import Callable
from typing import Final

import trio

from mk9p.auth import Principal
from mk9p.compose.resources import key_of
from mk9p.lease.gate import Gate
from mk9p.loading import available
from mk9p.tree import Node

NAME: Final = "tf"


async def begin(nursery: trio.Nursery, reach: Callable[[Principal], Node], gate: Gate) -> Node:
    """Return the directory of task forces, which a task of the nursery keeps.

    `reach` gives the root of the namespace as a user may see it. What somebody has leased is not written to for others.
    """

    def permit(node: Node, path: str, who: Principal) -> None:
        gate.require(key_of(node, path), who.name)

    async def keep(*, task_status: trio.TaskStatus[Node]) -> None:
        async with available()[NAME].load()(reach, permit=permit) as tree:
            task_status.started(tree)
            await trio.sleep_forever()

    tree: Node = await nursery.start(keep)
    return tree
