"""`Walked`: a `Remote` before any operation: a file of another server, its fid, and its names.

Rules
* While the fid of a file lives, it is the file that was walked to, whatever names it and the directories above have got since. All operations use
  that fid, and a file without one is walked to from the nearest directory that has one.
* A directory that a walk passed on its way to a file has no fid. But it is above that file, so it is walked to from there, by `..`, and not by names
  that may belong to another file by now.
* Names from the root are used only on a new connection. The qid must be the same then, otherwise the answer is ESTALE.
* What a listing has found is a name until somebody uses it, because directories have names. A new file is a file from the start.
* A fid belongs to one user. Another user's way to the same file is its names, and they must lead to the same file, too.
"""

import errno
from collections.abc import Awaitable
from typing import Any, Protocol, Self, TypeVar
from weakref import ReferenceType, ref

from mk9p.auth import Principal
from mk9p.client import requests
from mk9p.client.calls import Lost
from mk9p.client.connection import Connection
from mk9p.errors import NineError
from mk9p.tree import Node
from mk9p.tree.qids import Foreign
from mk9p.wire import QTDIR, Qid

T = TypeVar("T")


class Host(Protocol):
    """What this module asks of the server with the files: remote.py has it."""

    paths: Foreign
    moves: int
    wait: float

    def outlast(self, lost: Lost, until: float | None, *, placed: bool = False) -> float: ...

    async def root(self, who: Principal) -> tuple[Connection, int, Qid]: ...

    async def soon(self, answer: Awaitable[T]) -> T: ...


class Walked(Node):
    """A file of another server: its name, in which directory, and the user who asks for it. `parent` None is the root.

    `qid` is what the server said of it. `listed`: it is still a name in a directory, and becomes a file when somebody first uses it.
    """

    def __init__(
        self,
        server: Host,
        who: Principal,
        parent: Self | None = None,
        name: str = "",
        qid: Qid | None = None,
        at: tuple[Connection, int] | None = None,
        *,
        listed: bool = False,
        dtype: int | None = None,
    ) -> None:
        self.server, self.who, self.listed, self.dtype = server, who, listed, dtype
        self.parent: Self | None = parent
        self.name = name
        self.qtype = QTDIR if qid is None else qid.type  # nothing else is mounted
        # The root's path follows from its place: it must be one file before, while and after the server is there.
        self.path = None if qid is None else server.paths[qid.path]
        self._at = at
        self._old: tuple[Connection, int] | None = None  # the fid before, which a running request may still name
        self._moved, self._looked = 0, server.moves
        # For a directory that a walk only passed: a file below it that has a fid, and how many names below.
        self._passed: tuple[ReferenceType[Any], int] | None = None

    def __del__(self) -> None:
        # Nobody closes a Node: whoever walked here just drops it, and then its fid must go too. The collector may run in any thread and in the middle
        # of a send, so this only notes the clunk.
        for at in (getattr(self, "_at", None), getattr(self, "_old", None)):
            if at is not None and self.parent is not None:
                at[0].clunk_later(at[1])

    def let_go(self) -> tuple[Connection, int] | None:
        """Return the fid, if there is one, to be clunked by the caller: who has this object uses it no more."""
        at, self._at = self._at, None
        return at if self.parent is not None else None

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names from the root, as far as they are known here: others may have renamed the directories."""
        return self._names(None)

    def _names(self, above: Self | None) -> tuple[str, ...]:
        """Return the names from a directory above this file, None for the root."""
        names, at = list[str](), self
        while at.parent is not None and at is not above:
            names.append(at.name)
            at = at.parent
        return tuple(reversed(names))

    def moved(self, parent: Self, name: str) -> None:
        """Note that this file was renamed, and with it the files below it. Ignore a move of a directory below itself, which only a bad server
        reports."""
        at: Self | None = parent
        while at is not None and at is not self:
            at = at.parent
        if at is None:
            self.parent, self.name = parent, name
            self.server.moves += 1
            self._moved = self.server.moves

    def seen_by(self, who: Principal) -> Self:
        """Return this file as another user sees it. Keep it while its fid is used: `__del__` ends that."""
        if who == self.who:
            return self
        other = type(self)(self.server, who, self.parent, self.name, listed=self.listed, dtype=self.dtype)
        other.qtype, other.path = self.qtype, self.path
        return other

    async def here(self) -> tuple[Connection, int]:
        """Return the connection and this file's fid, which lives as long as this object.

        If it has none on this connection, walk to it from the nearest directory that has one. Raises EIO if the server is down, ESTALE if the
        names lead to another file now.
        """
        at = self._at
        if at is not None and at[0].gone is None:
            return at if self._looked == self.server.moves else await self._renewed(at)
        connection, root, qid = await self.server.root(self.who)
        if self.parent is None:
            self.qtype = qid.type
            self._at = connection, root
            return self._at
        if (back := await self._from_below(connection)) is not None:
            return back
        above = self._nearest(connection)
        start = root if above is None or above._at is None else above._at[1]
        fid, qids = await self.server.soon(requests.walk(connection, start, self._names(above)))
        path = self.server.paths[qids[-1].path]
        if self._at is not None and self._at[0] is connection:  # another task was quicker
            connection.clunk_nowait(fid)
            return self._at
        if not self.listed and (path != self.path or (qids[-1].type ^ self.qtype) & QTDIR):
            connection.clunk_nowait(fid)
            raise NineError(errno.ESTALE)
        self.qtype, self.path, self.listed = qids[-1].type, path, False
        self._at = connection, fid
        return self._at

    async def _from_below(self, connection: Connection) -> tuple[Connection, int] | None:
        """Walk to this directory from a file below it, and return its fid: whatever the names are by now, it is above that file."""
        if self._passed is None:
            return None
        below, depth = self._passed[0](), self._passed[1]
        if below is None or below._at is None or below._at[0] is not connection:
            return None
        try:
            fid, qids = await self.server.soon(requests.walk(connection, below._at[1], ("..",) * depth))
        except NineError:
            return None
        if (self._at is not None and self._at[0] is connection) or self.server.paths[qids[-1].path] != self.path:
            connection.clunk_nowait(fid)
            return self._at if self._at is not None and self._at[0] is connection else None
        self._at = connection, fid
        self.note_passed()
        return self._at

    def note_passed(self) -> None:
        """Note this directory, which has a fid, in those above it that have none, so that they can be found from here."""
        up, depth = self.parent, 1
        while up is not None and up._at is None:
            up._passed = ref(self), depth
            up, depth = up.parent, depth + 1

    async def _renewed(self, at: tuple[Connection, int]) -> tuple[Connection, int]:
        """Return a fid of this file by its new names, if it or a directory above was moved, and they lead to it.

        To many servers (diod, u9fs) a fid is the path that was walked, and leads nowhere after their own rename.
        """
        looked, self._looked = self._looked, self.server.moves
        above, moved, up = list[Self](), self._moved > looked, self.parent
        while up is not None:
            above.append(up)
            moved, up = moved or up._moved > looked, up.parent
        if not moved or self.parent is None:
            return at
        for directory in reversed(above):
            if directory._at is not None and directory.who == self.who:
                await directory.here()
        nearest = self._nearest(at[0])
        if nearest is None or nearest._at is None:
            return at
        try:
            fid, qids = await self.server.soon(requests.walk(at[0], nearest._at[1], self._names(nearest)))
        except NineError:
            return at
        if self._at is not at or self.server.paths[qids[-1].path] != self.path:
            at[0].clunk_nowait(fid)
            return at
        if self._old is not None:
            self._old[0].clunk_nowait(self._old[1])
        self._old, self._at = at, (at[0], fid)
        return self._at

    def _nearest(self, connection: Connection) -> Self | None:
        """Return the nearest directory above that has a fid of this user's on a connection."""
        at = self.parent
        while at is not None and (at._at is None or at._at[0] is not connection or at.who != self.who):
            at = at.parent
        return at
