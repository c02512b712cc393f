"""A tree, served and used in one process, over a socket pair: a request goes the whole way, from path to wire to tree and back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mk9p.client import Client, connect
from mk9p.testing.serving import address_of, serving
from mk9p.tree import Node


@asynccontextmanager
async def mounted(
    tree: Node, *, uname: str = "root", version: str = "9P2000.L", **options: Any
) -> AsyncIterator[Client]:
    """Serve a tree to a client of this process: `async with mounted(tree) as client`.

    The server believes `uname`; `options` are those of `connect`. Leaving the block closes everything that was open.
    """
    async with (
        serving(tree) as server,
        connect(address_of(server), uname=uname, version=version, **options) as client,
    ):
        yield client
