"""`Line`: one end of a connection by hand. A test sends the messages that it wants, and bytes that are none, and sees each frame that comes."""

from typing import Any

import attrs
import trio

from mk9p.wire import NOFID, NONUNAME, Dialect, codec, decode
from mk9p.wire import messages as m


@attrs.define(eq=False)
class Line:
    """A raw client, or a server that is played: `reply = await line.rpc(m.Twalk, tag, fid, newfid, names)`. Whoever made the stream closes it."""

    stream: trio.SocketStream
    dialect: Dialect = Dialect.L
    _buffer: bytearray = attrs.field(factory=bytearray)

    async def send(self, cls: type[m.Message], tag: int, *fields: Any) -> None:
        await self.raw(codec(self.dialect, cls.type).pack(tag, *fields))

    async def raw(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def frame(self) -> bytes:
        """Return the next frame as it is, and nothing when the other end has hung up."""
        while len(self._buffer) < 4 or len(self._buffer) < int.from_bytes(self._buffer[:4], "little"):
            try:
                data = await self.stream.receive_some()
            except trio.BrokenResourceError:
                return b""
            if not data:
                return b""
            self._buffer += data
        size = int.from_bytes(self._buffer[:4], "little")
        frame = bytes(self._buffer[:size])
        del self._buffer[:size]
        return frame

    async def receive(self) -> Any:
        """Return the next message, and None when the other end has hung up. Raises NineError for a frame that is no message."""
        frame = await self.frame()
        return decode(self.dialect, frame) if frame else None

    async def rpc(self, cls: type[m.Message], tag: int, *fields: Any) -> Any:
        """Send a request, and return the message that comes next."""
        await self.send(cls, tag, *fields)
        return await self.receive()

    async def start(self, *, uname: str = "root", msize: int = 65536, version: str | None = None) -> None:
        """Agree on a version, and attach as fid 0."""
        reply = await self.rpc(m.Tversion, 0xFFFF, msize, version or self.dialect.version)
        assert isinstance(reply, m.Rversion), reply
        await self.attach(0, uname)

    async def attach(self, fid: int, uname: str = "root") -> Any:
        more = () if self.dialect is Dialect.P9 else (NONUNAME,)
        reply = await self.rpc(m.Tattach, 1, fid, NOFID, uname, "", *more)
        assert isinstance(reply, m.Rattach), reply
        return reply

    async def open(self, fid: int, *names: str, mode: int = 0) -> Any:
        """Walk from fid 0 to a new fid and open it; return the last reply, which may be an error."""
        reply = await self.rpc(m.Twalk, 1, 0, fid, names)
        if not isinstance(reply, m.Rwalk):
            return reply
        return await self.rpc(m.Tlopen if self.dialect is Dialect.L else m.Topen, 1, fid, mode)
