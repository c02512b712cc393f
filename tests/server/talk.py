"""The other end of a server, by hand: frames as they are, one at a time or many, for tests of what the server does with them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from mk9p import testing
from mk9p.auth import Policy
from mk9p.dial import TRANSPORTS, Peer
from mk9p.server import Limits, Server, Tally
from mk9p.tree import Node
from mk9p.wire import Dialect

PRIVATE = Peer(TRANSPORTS["fd"], "test", loopback=True)

_open: dict[Server, list[trio.SocketStream]] = {}  # closed with their server


@attrs.define(eq=False)
class Talk(testing.Line):
    """One raw client, and the server that it talks to."""

    server: Server = attrs.field(kw_only=True)


@asynccontextmanager
async def serving(root: Node, limits: Limits | None = None, tally: Tally | None = None) -> AsyncIterator[Server]:
    async with testing.serving(root, limits=limits, tally=tally) as server:
        yield server
        for stream in _open.pop(server, []):
            await stream.aclose()


def connect(
    server: Server,
    dialect: Dialect = Dialect.L,
    *,
    policy: Policy | None = None,
    peer: Peer = PRIVATE,
    lossy: bool = False,
) -> Talk:
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(testing.joined(server, peer, policy, lossy=lossy)))
    _open.setdefault(server, []).append(stream)
    return Talk(stream, dialect, server=server)


async def talk_to(
    server: Server, dialect: Dialect = Dialect.L, *, uname: str = "root", msize: int = 65536, **how: Any
) -> Talk:
    """Connect, agree on a version, and attach as fid 0."""
    talk = connect(server, dialect, **how)
    await talk.start(uname=uname, msize=msize)
    return talk


@asynccontextmanager
async def talking(
    root: Node, dialect: Dialect = Dialect.L, *, limits: Limits | None = None, **start: Any
) -> AsyncIterator[Talk]:
    async with serving(root, limits) as server:
        yield await talk_to(server, dialect, **start)
