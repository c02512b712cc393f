"""`RemoteHandle`: an open file of another server, which is open again when its server is there again (recovery/again.py).

* Offsets pass unchanged.
* Where records end (tree/waiting.py) concerns a server and a client of 9P2000.L. Between two of these there is nothing to do. To a client of
  another dialect an empty read is the end, so this handle swallows a mark: after a short answer, it asks once more for an empty one. A server of
  another dialect sends no marks, so this handle makes one: after a short answer, one empty answer.
* After its connection is gone, the first request walks to the file again and opens it. What that finds out is the answer of all requests until it
  can be opened again: ESTALE, or EIO for a conversation.
* Nothing is written a second time that was answered: others may have written there since. So what was written and not synced may be lost, and the
  next sync says so. A handle whose client waits for its server asks with its first write which life of the kernel has it (Node.life): if that is
  still the same, nothing was lost.
"""

import errno
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

import trio

from mk9p.auth import Principal
from mk9p.client import changes, requests, stored
from mk9p.client.calls import Lost
from mk9p.client.connection import Connection
from mk9p.errors import NineError
from mk9p.recovery import again
from mk9p.tree import Change, Handle, Lock, Open, Stat
from mk9p.wire import L_APPEND, Dialect, Qid

T = TypeVar("T")

# seconds that a close waits for the other server: the closing server is shielded, and must not hang with it
CLOSING: Final = 1.0
AGAIN: Final = 0.2  # seconds between two looks for a file that may still come


class Host(Protocol):
    """The server with the file (line.py)."""

    wait: float

    @property
    def shown(self) -> str: ...

    def settles(self) -> bool: ...

    def outlast(self, lost: Lost, until: float | None, *, placed: bool = False) -> float: ...


class Remote(Protocol):
    """The file that is open, as the user who opened it sees it (remote.py)."""

    who: Principal

    @property
    def server(self) -> Host: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    async def in_words(self, error: NineError) -> NineError:
        """Return an error about this file with the words that its server has for it."""

    async def reopened(self, how: Open) -> tuple[Connection, int, Qid, int]:
        """Walk to the file again, and open it as it was open. Return the connection, the fid, its qid, and the most bytes of one read or write."""


class RemoteHandle(Handle):
    """An open file of another server. Offsets pass unchanged."""

    truncates = True
    duplex = True  # requests are passed on as they come, and the other server knows which must wait for which

    def __init__(self, remote: Remote, connection: Connection, fid: int, qid: Qid, iounit: int, how: Open) -> None:
        self.remote, self.connection, self.fid, self.iounit, self.how = remote, connection, fid, iounit, how
        marks = connection.dialect is Dialect.L
        self._swallow, self._make = marks and not how.records, how.records and not marks
        self._end = -1  # where the last answer ended, if it was short
        self._qid = qid
        self._opening: trio.Event | None = None  # somebody opens it again
        self._locks: list[Lock] = []
        self._too_many = False  # more than are kept: then they cannot be set again
        self._dirty = False  # something was written, and not synced
        self._life: int | None = (
            None  # the number by which one knows that nothing was lost (Node.life); None: not asked
        )
        self._placed = False
        self._unsure = how.unsure  # … before the server came back
        self._news: _News | None = None  # what a reader of events must be told first
        if how.again:
            self._begins_anew()

    @property
    def locks(self) -> int:  # type: ignore[override]
        """Return how many ranges of the file are locked: the server counts them for its user."""
        return len(self._locks)

    # Coming back

    async def _here(self) -> tuple[Connection, int]:
        """Return the connection and the fid of the open file, and open it again where that is necessary."""
        while self.connection.gone is not None:
            if self._opening is None:
                self._opening = trio.Event()
                try:
                    await self._open_again()
                finally:
                    self._opening.set()
                    self._opening = None
            else:
                await self._opening.wait()
        return self.connection, self.fid

    async def _open_again(self) -> None:
        remote, server = self.remote, self.remote.server
        if again.begins_conversation(remote.names):
            raise again.ended(server.shown)
        if self._too_many:
            raise again.unlocked(server.shown)
        while True:
            try:
                connection, fid, qid, iounit = await remote.reopened(self.how)
                break
            except NineError as error:
                if error.errno != errno.ESTALE or not server.settles():
                    raise
            await trio.sleep(AGAIN)
        try:
            if qid.path != self._qid.path:
                raise NineError(errno.ESTALE)
            for lock in self._locks:
                if not await stored.lock(connection, fid, lock):
                    raise again.unlocked(server.shown)
            if self._dirty:
                before, self._life = self._life, await requests.life(connection, fid)
                if not before or before != self._life:
                    self._unsure, self._dirty = True, False
        except BaseException:
            connection.clunk_nowait(fid)
            raise
        self.connection, self.fid, self._qid = connection, fid, qid
        self.iounit, self._end = min(iounit, self.iounit), -1
        self._begins_anew()

    def _begins_anew(self) -> None:
        """Tell a reader of events that they begin anew."""
        if self.remote.names[-1:] == (again.EVENTS,) and self.how.read:
            self._news = _News(self.how.records and not self._make)

    async def _looked(self, connection: Connection, fid: int) -> None:
        """Before the first write: look which life of the kernel has the file, and whether its bytes have places, so that a write may be said again.

        When the server has gone it is too late to ask: who wrote a word would wait for it before they hear that it may have been done.
        """
        flags = self.how.flags | (L_APPEND if self.how.append else 0)
        length = 0 if self._qid.version else (await requests.stat(connection, fid)).length
        self._placed = again.has_places(self._qid, flags, length)
        self._life = await requests.life(connection, fid)

    async def _lasting(self, work: Callable[[Connection, int], Awaitable[T]], *, writes: bool = False) -> T:
        """Do some work with the open file, and again if the connection ends meanwhile, as far as that may be."""
        until: float | None = None
        while True:
            try:
                return await work(*await self._here())
            except Lost as lost:
                until = self.remote.server.outlast(lost, until, placed=writes and self._placed)

    # Requests

    async def read(self, offset: int, count: int) -> bytes:
        count = min(count, self.iounit)
        marked = offset == self._end
        if marked and self._make:
            self._end = -1
            return b""
        data = await self._read(offset, count)
        if not data and marked and self._swallow:
            data = await self._read(offset, count)
        self._end = offset + len(data) if 0 < len(data) < count else -1
        return data

    async def _read(self, offset: int, count: int) -> bytes:
        async def work(connection: Connection, fid: int) -> bytes:
            if self._news is not None and (said := self._news.read(offset, count)) is not None:
                return said
            self._news = None
            return await requests.read(connection, fid, offset, count)

        return await self._lasting(work)

    async def write(self, offset: int, data: memoryview) -> int:
        kept = bytes(data[: self.iounit]) if self.remote.server.wait else data[: self.iounit]

        async def work(connection: Connection, fid: int) -> int:
            if self._life is None and self.remote.server.wait:
                await self._looked(connection, fid)
            self._dirty = True
            return await requests.write(connection, fid, offset, kept)

        try:
            return await self._lasting(work, writes=True)
        except NineError as error:
            raise await self.remote.in_words(error) from None

    async def stat(self) -> Stat:
        return await self._lasting(requests.stat)

    async def change(self, change: Change) -> None:
        await self._lasting(lambda c, fid: changes.change(c, fid, change))

    async def lock(self, lock: Lock) -> bool:
        got = await self._lasting(lambda c, fid: stored.lock(c, fid, lock))
        if got:
            self._locks = again.locks_after(self._locks, lock)
            self._too_many = self._too_many or len(self._locks) > again.LOCKS
            del self._locks[again.LOCKS :]
        return got

    async def locked(self, lock: Lock) -> Lock | None:
        return await self._lasting(lambda c, fid: stored.locked(c, fid, lock))

    async def sync(self, *, data: bool = False) -> None:
        async def work(connection: Connection, fid: int) -> None:
            if self._unsure:
                self._unsure = False
                raise again.unsynced(self.remote.server.shown)
            was, self._dirty = self._dirty, False
            try:
                await requests.sync(connection, fid, data=data)
            except BaseException:
                self._dirty = self._dirty or was
                raise

        await self._lasting(work)

    async def close(self) -> None:
        if self.connection.gone is None:
            with trio.move_on_after(CLOSING):
                await self.connection.clunk(self.fid)


class _News:
    """The line that says that the events begin anew, as the first message (tree/waiting.py has the rule of `marks`)."""

    def __init__(self, marks: bool) -> None:
        self.marks, self.text = marks, again.restarted()
        self.base = -1
        self.short = False

    def read(self, offset: int, count: int) -> bytes | None:
        """Return what a read gets of it; None for one that is for the server."""
        if self.base < 0:
            self.base = offset
        at = offset - self.base
        if 0 <= at < len(self.text):
            piece = self.text[at : at + count]
            self.short = len(piece) < count
            return piece
        if at == len(self.text) and self.short and self.marks:
            self.short = False
            return b""
        return None
