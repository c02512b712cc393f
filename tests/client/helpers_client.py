"""Servers for the client: one played by hand, mk9p's own over a made-up tree, and diod."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from mk9p.client import Client, Connection, connect
from mk9p.dial import TRANSPORTS, Peer, SocketLink
from mk9p.server import Server
from mk9p.testing import SOON, Line, address_of, serving
from mk9p.tree import Node
from mk9p.wire import Dialect, FrameBuffer, Qid, encode
from mk9p.wire import messages as m

FILE, DIR = Qid(0, 0, 7), Qid(0x80, 0, 8)


def link(sock: socket.socket, *, lossy: bool = False) -> SocketLink:
    sock.setblocking(False)
    return SocketLink(sock, Peer(TRANSPORTS["fd"], "test", loopback=True), lossy=lossy)


class Hand(Line):
    """A server played by hand: what comes is looked at, what goes is said."""

    async def next(self, cls: type[m.Message]) -> Any:
        """Return the next request, which must be of this class."""
        with trio.fail_after(SOON):
            message = await self.receive()
        assert isinstance(message, cls), message or "the client hung up"
        return message

    async def say(self, *messages: m.Message) -> None:
        await self.raw(b"".join(encode(self.dialect, message) for message in messages))

    async def silent(self) -> None:
        """Check that the client says nothing until it waits."""
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0):
            data = await self.stream.receive_some()
            raise AssertionError(data)
        assert not self._buffer


@asynccontextmanager
async def by_hand(
    dialect: Dialect = Dialect.L, *, msize: int = 8192, **link_options: Any
) -> AsyncIterator[tuple[Connection, Hand]]:
    """Give a connection on which the version has been agreed, and the hand at its other end."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    hand = Hand(trio.SocketStream(trio.socket.from_stdlib_socket(theirs)), dialect)
    connection = Connection(
        link(ours, **link_options), "test!1", dialect=dialect, msize=msize, frames=FrameBuffer(msize)
    )
    async with hand.stream, trio.open_nursery() as nursery:
        connection.start(nursery)
        try:
            yield connection, hand
        finally:
            connection.end("the test is over")


@asynccontextmanager
async def served(root: Node, version: str = "9P2000.L", **options: Any) -> AsyncIterator[tuple[Client, Server]]:
    """Serve a tree, and connect to it."""
    async with serving(root) as server, connect(address_of(server), version=version, **options) as client:
        yield client, server
