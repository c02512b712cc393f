"""`RemoteHandle`: an open file of another server.

* Offsets pass unchanged. It answers EIO after its connection is gone: nobody knows what its offset or its conversation was.
* Where records end (tree/waiting.py) concerns a server and a client of 9P2000.L. Between two of these there is nothing to do. To a client of
  another dialect an empty read is the end, so this handle swallows a mark: after a short answer, it asks once more for an empty one. A server of
  another dialect sends no marks, so this handle makes one: after a short answer, one empty answer.
"""

from typing import Final, Protocol

import trio

from mk9p.auth import Principal
from mk9p.client import changes, requests, stored
from mk9p.client.connection import Connection
from mk9p.errors import NineError
from mk9p.tree import Change, Handle, Lock, Stat
from mk9p.wire import Dialect

# seconds that a close waits for the other server: the closing server is shielded, and must not hang with it
CLOSING: Final = 1.0


class Remote(Protocol):
    """The file that is open, as the user who opened it sees it (remote.py)."""

    who: Principal

    async def in_words(self, error: NineError) -> NineError:
        """Return an error about this file with the words that its server has for it."""


class RemoteHandle(Handle):
    """An open file of another server. Offsets pass unchanged; it answers EIO after its connection is gone."""

    truncates = True
    duplex = True  # requests are passed on as they come, and the other server knows which must wait for which

    def __init__(self, remote: Remote, connection: Connection, fid: int, iounit: int, records: bool) -> None:
        self.remote, self.connection, self.fid, self.iounit = remote, connection, fid, iounit
        marks = connection.dialect is Dialect.L
        self._swallow, self._make = marks and not records, records and not marks
        self._end = -1  # where the last answer ended, if it was short

    async def read(self, offset: int, count: int) -> bytes:
        count = min(count, self.iounit)
        marked = offset == self._end
        if marked and self._make:
            self._end = -1
            return b""
        data = await requests.read(self.connection, self.fid, offset, count)
        if not data and marked and self._swallow:
            data = await requests.read(self.connection, self.fid, offset, count)
        self._end = offset + len(data) if 0 < len(data) < count else -1
        return data

    async def write(self, offset: int, data: memoryview) -> int:
        try:
            return await requests.write(self.connection, self.fid, offset, data[: self.iounit])
        except NineError as error:
            raise await self.remote.in_words(error) from None

    async def stat(self) -> Stat:
        return await requests.stat(self.connection, self.fid)

    async def change(self, change: Change) -> None:
        await changes.change(self.connection, self.fid, change)

    async def lock(self, lock: Lock) -> bool:
        return await stored.lock(self.connection, self.fid, lock)

    async def locked(self, lock: Lock) -> Lock | None:
        return await stored.locked(self.connection, self.fid, lock)

    async def sync(self, *, data: bool = False) -> None:
        await requests.sync(self.connection, self.fid, data=data)

    async def close(self) -> None:
        with trio.move_on_after(CLOSING):
            await self.connection.clunk(self.fid)
