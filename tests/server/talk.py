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
from mk9p.wire import NOFID, NONUNAME, Dialect, codec, decode
from mk9p.wire import messages as m

PRIVATE = Peer(TRANSPORTS["fd"], "test", loopback=True)

_open: dict[Server, list[trio.SocketStream]] = {}  # closed with their server


@attrs.define(eq=False)
class Talk:
    """One raw client. `rpc(m.Twalk, tag, fields...)` sends and returns the next reply as a message."""

    stream: trio.SocketStream
    server: Server
    dialect: Dialect = Dialect.L
    _buffer: bytearray = attrs.field(factory=bytearray)

    async def send(self, cls: type[m.Message], tag: int, *fields: Any) -> None:
        await self.stream.send_all(codec(self.dialect, cls.type).pack(tag, *fields))

    async def raw(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def receive(self) -> Any:
        """Return the next reply, None when the server hung up."""
        while len(self._buffer) < 4 or len(self._buffer) < int.from_bytes(self._buffer[:4], "little"):
            try:
                data = await self.stream.receive_some()
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self._buffer += data
        size = int.from_bytes(self._buffer[:4], "little")
        frame = bytes(self._buffer[:size])
        del self._buffer[:size]
        return decode(self.dialect, frame)

    async def rpc(self, cls: type[m.Message], tag: int, *fields: Any) -> Any:
        await self.send(cls, tag, *fields)
        return await self.receive()

    async def start(self, *, uname: str = "root", msize: int = 65536, version: str | None = None) -> None:
        reply = await self.rpc(m.Tversion, 0xFFFF, msize, version or self.dialect.version)
        assert isinstance(reply, m.Rversion), reply
        await self.attach(0, uname)

    async def attach(self, fid: int, uname: str = "root") -> Any:
        more = () if self.dialect is Dialect.P9 else (NONUNAME,)
        reply = await self.rpc(m.Tattach, 1, fid, NOFID, uname, "", *more)
        assert isinstance(reply, m.Rattach), reply
        return reply

    async def open(self, fid: int, *names: str, mode: int = 0) -> Any:
        """Walk from the root to a new fid and open it; returns the last reply."""
        reply = await self.rpc(m.Twalk, 1, 0, fid, names)
        if not isinstance(reply, m.Rwalk):
            return reply
        return await self.rpc(m.Tlopen if self.dialect is Dialect.L else m.Topen, 1, fid, mode)


@asynccontextmanager
async def serving(root: Node, limits: Limits | None = None, tally: Tally | None = None) -> AsyncIterator[Server]:
    async with testing.serving(root, limits=limits, tally=tally) as server:
        yield server
        for stream in _open.pop(server, []):
            await stream.aclose()


def connect(
    server: Server, dialect: Dialect = Dialect.L, *, policy: Policy | None = None, peer: Peer = PRIVATE
) -> Talk:
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(testing.joined(server, peer, policy)))
    _open.setdefault(server, []).append(stream)
    return Talk(stream, server, dialect)


@asynccontextmanager
async def talking(
    root: Node, dialect: Dialect = Dialect.L, *, limits: Limits | None = None, **start: Any
) -> AsyncIterator[Talk]:
    async with serving(root, limits) as server:
        talk = connect(server, dialect)
        await talk.start(**start)
        yield talk
