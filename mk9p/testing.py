"""For anyone who writes a resource server: its tree served and used in one process, and the checks that every tree must pass.

async with mounted(Counter().tree()) as tree:
    await tree.write("ctl", "add 2")
    assert await tree.read("count") == "2\\n"
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from socket import AF_UNIX, SOCK_STREAM, socketpair
from typing import Final

import trio

from mk9p.auth import Policy
from mk9p.client import Client, connect
from mk9p.dial import Peer, SocketLink
from mk9p.server import Server
from mk9p.tree import Node

PRIVATE: Final = Peer("fd", "in memory", private=True, loopback=True)


@asynccontextmanager
async def mounted(tree: Node, *, uname: str = "root", version: str = "9P2000.L") -> AsyncIterator[Client]:
    """Serve a tree to a client of this process, over a socket pair: `async with mounted(tree) as client`.

    The whole way is gone, from path to wire to tree and back. `uname` is believed. When the block is left, everything that was open is closed.
    """
    server = Server(tree)
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    theirs.setblocking(False)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        server.add(SocketLink(theirs, PRIVATE), Policy())
        number = ours.detach()
        async with connect(f"fd!{number}!{number}", uname=uname, version=version) as client:
            yield client
        nursery.cancel_scope.cancel()
