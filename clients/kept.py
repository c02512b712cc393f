"""The process that holds a v9fs mount, so that it outlives the server behind it: `mk9p mount -w SECONDS`.

v9fs dials once, and after the end of its connection each request fails for ever. So it gets one end of a pair of sockets, and this process serves the
other end. It asks the server for everything that v9fs asks here, dials it again when it is gone, and finds the files again by their names, as the
composer does towards its servers (compose/, docs/recovery.md): it is a composer of one mount. It ends with the mount.
"""

import os
import socket
from collections.abc import Callable
from typing import Final

import trio

from mk9p.auth import Policy, Principal
from mk9p.client.capability import tree_name
from mk9p.clients.background import in_background
from mk9p.clients.v9fs import Wish
from mk9p.compose.remote import Server as Line
from mk9p.dial import TRANSPORTS, Peer, SocketLink
from mk9p.errors import NineError
from mk9p.server import Limits, Server
from mk9p.server.shares import descriptors
from mk9p.serving import collect_rarely, one_error

PATIENCE: Final = 5.0  # seconds for the server to answer the first time, and each time after dialling again
# v9fs keeps a fid for each name that it caches, and all its users are one connection, which the server behind this process limits
LIMITS: Final = Limits(user_fids=1 << 20, user_bytes=1 << 30, bytes=1 << 31)


def held(address: str, wish: Wish) -> int:
    """Start such a process; return v9fs's end of the line. Raises what dialling and attaching raise."""
    ours, theirs = socket.socketpair()

    def work(ready: Callable[[], None]) -> None:
        theirs.close()
        ours.setblocking(False)
        one_error(lambda: hold(address, wish, ours, ready))

    with ours:
        try:
            in_background(work)
        except BaseException:
            theirs.close()
            raise
    return theirs.detach()


async def hold(address: str, wish: Wish, ours: socket.socket, ready: Callable[[], None]) -> None:
    """Serve a tree on a socket until its other end is closed; call `ready` when the tree's root is there."""
    me = Principal.named(wish.user) if wish.user else Principal.of(os.geteuid())
    async with trio.open_nursery() as nursery:
        aname = tree_name(wish.aname, wish.cap, default=False) if wish.cap else wish.aname
        line = Line(address, nursery, aname=aname, deadline=PATIENCE)
        try:
            await line.root(me)
        except NineError as error:
            raise NineError(error.errno, line.reason if not line.up else f"{address}: {error}") from None
        line.waits(wish.wait)
        server = Server(line.tree(me), limits=LIMITS)
        descriptors(server.limits)
        await nursery.start(server.run)
        server.add(SocketLink(ours, Peer(TRANSPORTS["fd"], address, loopback=True)), Policy(readonly=wish.readonly))
        collect_rarely()
        ready()
        await server.deserted.wait()
        nursery.cancel_scope.cancel()
