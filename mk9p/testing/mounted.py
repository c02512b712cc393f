"""A tree, served and used in one process, over a socket pair: the whole way is gone, from path to wire to tree and back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from socket import AF_UNIX, SOCK_STREAM, socket, socketpair
from typing import Final

import trio

from mk9p.auth import Policy
from mk9p.client import Client, connect
from mk9p.dial import TRANSPORTS, Peer, SocketLink
from mk9p.server import Server
from mk9p.tree import Node

PRIVATE: Final = Peer(TRANSPORTS["fd"], "in memory", loopback=True)


def joined(server: Server, peer: Peer = PRIVATE, policy: Policy | None = None) -> socket:
    """Add a client to a running server, and return its end of the line: a non-blocking socket, the caller's to close."""
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    ours.setblocking(False)
    theirs.setblocking(False)
    server.add(SocketLink(theirs, peer), policy)
    return ours


@asynccontextmanager
async def mounted(tree: Node, *, uname: str = "root", version: str = "9P2000.L") -> AsyncIterator[Client]:
    """Serve a tree to a client of this process: `async with mounted(tree) as client`.

    `uname` is believed. When the block is left, everything that was open is closed.
    """
    server = Server(tree)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        number = joined(server).detach()
        async with connect(f"fd!{number}!{number}", uname=uname, version=version) as client:
            yield client
        nursery.cancel_scope.cancel()
