"""Another server's tree as Nodes: `Remote` is a file there. line.py has the connection, opened.py open files.

Theory
* A `Remote` is a file on a server, as one user: its fid, and names that find it again on a new connection (walked.py). So a path works again when
  its kernel is back, and no mount notices; and an open file is opened again (opened.py).
* A flushed request is a cancelled task here, and a cancelled call of the client is flushed at the other server.
* A listing's nodes give the kind of each file (`dtype`) as the server does, because `find -type` and `ls -F` use that and ask no file.
* 9P2000.L carries no words of errors. The composer reads those of a refused ctl from the `error` beside it, so its users read what they would read
  there.
"""

import errno
import os
from typing import TYPE_CHECKING, Final

import attrs
import trio

from mk9p.auth import Principal
from mk9p.client import changes, requests, stored
from mk9p.client.connection import Connection
from mk9p.compose.lasting import lasting
from mk9p.compose.line import Line
from mk9p.compose.opened import RemoteHandle
from mk9p.compose.walked import Walked
from mk9p.errors import NineError
from mk9p.recovery import again
from mk9p.tree import Change, Node, Open, Stat, StatFs, Way, settle
from mk9p.wire import L_DSYNC, L_NOATIME, L_NONBLOCK, L_SYNC, Qid

if TYPE_CHECKING:
    from collections.abc import Iterable
from contextlib import suppress

_SLICE: Final = 1000  # entries of a listing that become nodes while nobody else has a turn: 3 ms
_NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})
PASSED: Final = L_NONBLOCK | L_DSYNC | L_SYNC | L_NOATIME  # the Linux flags that concern the server with the file


@attrs.define(eq=False)
class Server(Line):
    """Another 9P server, and the root of its tree."""

    def tree(self, who: Principal | None = None) -> "Remote":
        """Return the root of its tree. `who` asks where no user is named; by default the user that this process runs as."""
        return Remote(self, who or Principal.of(os.geteuid()))


class Remote(Walked):
    """A file of another server, with all operations on it."""

    server: Server

    @property
    def way(self) -> Way | None:  # type: ignore[override]
        """Return where this is, for callers that can dial its server."""
        server = self.server
        return Way(server.address, server.aname, self.names, server.paths, heard=server.heard) if server.many else None

    def _child(
        self,
        name: str,
        who: Principal,
        qid: Qid,
        at: tuple[Connection, int] | None = None,
        *,
        listed: bool = False,
        dtype: int | None = None,
    ) -> "Remote":
        return Remote(self.server, who, self, name, qid, at, listed=listed, dtype=dtype)

    def below(self, name: str, who: Principal) -> "Remote":
        return Remote(self.server, who, self.seen_by(who), name, listed=True)

    @lasting
    async def ahead(self, names: tuple[str, ...], who: Principal, here: bool) -> list[tuple[Node, Qid]]:
        # `..` of the root is the root, so a walk by it returns the root's own qid together with those of the names.
        me = self.seen_by(who)
        connection, start, _ = await self.server.root(who)
        above: tuple[str, ...] = ()
        if me.parent is not None and not me.listed:
            connection, start = await me.here()
        elif me.parent is not None:
            near = me._nearest(connection)
            start = start if near is None or near._at is None else near._at[1]
            above = me._names(near)
        if here and not above:
            if me.parent is not None:
                raise NineError(errno.EOPNOTSUPP)
            above = ("..",)
        fid, qids = await self.server.walk(connection, start, (*above, *names))
        if len(qids) < len(above):
            raise NineError(errno.ENOENT)
        found: list[tuple[Node, Qid]] = [(self, qids[len(above) - 1])] if here else []
        at = me
        for name, qid in zip(names, qids[len(above) :], strict=False):
            at = at._child(name, who, qid)
            found.append((at, qid))
        if fid is not None:
            at._at = connection, fid
            at.note_passed()
        return found

    @lasting
    async def walk(self, name: str, who: Principal) -> "Remote":
        me = self.seen_by(who)
        connection, fid = await me.here()
        new, qids = await self.server.soon(requests.walk(connection, fid, (name,)))
        return me._child(name, who, qids[0], (connection, new))

    @lasting
    async def stat(self) -> Stat:
        connection, fid = await self.here()
        return await self.server.soon(requests.stat(connection, fid))

    @lasting
    async def entries(self, who: Principal) -> "Iterable[tuple[str, Remote]]":
        me = self.seen_by(who)
        connection, fid = await me.here()
        listed = await self.server.soon(requests.listing(connection, fid))
        found: list[tuple[str, Remote]] = []
        for at in range(0, len(listed), _SLICE):
            await trio.lowlevel.checkpoint()
            some = listed[at : at + _SLICE]
            found += [(name, me._child(name, who, qid, listed=True, dtype=kind)) for name, qid, _, kind in some]
        return found

    @lasting
    async def open(self, how: Open) -> RemoteHandle:
        me = self.seen_by(how.who)
        connection, fid = await me.here()
        new, qid, iounit = await _opened(connection, fid, how, how.flags & PASSED, truncate=how.truncate)
        return RemoteHandle(me, connection, new, qid, iounit, how)

    async def reopened(self, how: Open) -> tuple[Connection, int, Qid, int]:
        """Walk to the file again, and open it as it was open. Return the connection, the fid, its qid, and the most bytes of one read or write.

        Raises ESTALE for another file, EIO for a conversation.
        """
        try:
            connection, fid = await self.here()
        except NineError as error:
            if error.errno in _NOT_THERE:
                raise await self._lost() from None
            raise
        return connection, *await _opened(connection, fid, how, again.reopening(how.flags & PASSED), truncate=False)

    async def _lost(self) -> NineError:
        """Return why an open file is not there any more."""
        for names in again.clones(self.names):
            connection, root, _ = await self.server.root(self.who)
            with suppress(NineError):
                fid, _ = await self.server.soon(requests.walk(connection, root, names))
                connection.clunk_nowait(fid)
                return again.ended(self.server.shown)
        return NineError(errno.ESTALE)

    async def in_words(self, error: NineError) -> NineError:
        """Return an error about this file with the words that its server has for it. For that nobody waits for one that is down."""
        if self.parent is None or not self.server.up:
            return error
        try:
            connection, directory = await self.parent.seen_by(self.who).here()
        except OSError:
            return error
        return await requests.in_words(connection, directory, (self.name,), error)

    @lasting
    async def create(self, name: str, perm: int, how: Open) -> "tuple[Remote, RemoteHandle]":
        me = self.seen_by(how.who)
        connection, fid = await me.here()
        new, _ = await requests.walk(connection, fid, ())
        try:
            qid, iounit = await requests.create(
                connection,
                new,
                name,
                perm,
                read=how.read,
                truncate=how.truncate,
                append=how.append,
                exclusive=not how.reuses,
                gid=how.who.group,
                flags=how.flags & PASSED,
            )
        except BaseException:
            connection.clunk_nowait(new)
            raise
        child = me._child(name, how.who, qid)
        return child, RemoteHandle(child, connection, new, qid, iounit, how)

    @lasting
    async def mkdir(self, name: str, perm: int, who: Principal) -> "Remote":
        me = self.seen_by(who)
        connection, fid = await me.here()
        return me._child(name, who, await changes.mkdir(connection, fid, name, perm, gid=who.group))

    @lasting
    async def symlink(self, name: str, target: str, who: Principal) -> "Remote":
        me = self.seen_by(who)
        connection, fid = await me.here()
        return me._child(name, who, await changes.symlink(connection, fid, name, target, gid=who.group))

    @lasting
    async def mknod(self, name: str, mode: int, rdev: int, who: Principal) -> "Remote":
        me = self.seen_by(who)
        connection, fid = await me.here()
        return me._child(name, who, await changes.mknod(connection, fid, name, mode, rdev, gid=who.group))

    @lasting
    async def link(self, name: str, target: Node, who: Principal) -> None:
        me, other = self.seen_by(who), self._beside(target, who)
        connection, fid, of = await me._both(other)
        await changes.link(connection, fid, of, name)

    @lasting
    async def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> None:
        me = self.seen_by(who)
        connection, fid = await me.here()
        await changes.remove(connection, fid, name, directory=directory)

    @lasting
    async def rename(self, name: str, to: Node, newname: str, who: Principal, *, replace: bool = True) -> None:
        # 9P2000.L has no word for `replace`: a caller that asks for it has looked for the name before
        me, other = self.seen_by(who), self._beside(await settle(to.home(newname, who)), who)
        connection, fid, into = await me._both(other)
        await changes.rename(
            connection, fid, name, into, newname, same=other.path == me.path and other.names == me.names
        )

    def _beside(self, node: Node, who: Principal) -> "Remote":
        """Return another file of this server as a user sees it; raises EXDEV for a file elsewhere."""
        if not isinstance(node, Remote) or node.server is not self.server:
            raise NineError(errno.EXDEV)
        return node.seen_by(who)

    async def _both(self, other: "Remote") -> tuple[Connection, int, int]:
        """Return the fids of two files on one connection."""
        connection, fid = await self.here()
        second, of = await other.here()
        if second is not connection:  # the server came back between the two
            raise NineError(errno.EIO, f"{self.server.shown} was lost")
        return connection, fid, of

    @lasting
    async def change(self, change: Change, who: Principal) -> None:
        me = self.seen_by(who)
        connection, fid = await me.here()
        await changes.change(connection, fid, change)

    @lasting
    async def sync(self, who: Principal, *, data: bool = False) -> None:
        me = self.seen_by(who)
        connection, fid = await me.here()
        new, _ = await requests.walk(connection, fid, ())
        try:
            await requests.open_(connection, new)
            await requests.sync(connection, new, data=data)
        finally:
            connection.clunk_nowait(new)

    @lasting
    async def readlink(self) -> str:
        connection, fid = await self.here()
        return await requests.readlink(connection, fid)

    @lasting
    async def born(self) -> int | None:
        connection, fid = await self.here()
        return await self.server.soon(requests.born(connection, fid))

    @lasting
    async def life(self) -> int:
        connection, fid = await self.here()
        return await self.server.soon(requests.life(connection, fid))

    @lasting
    async def statfs(self) -> StatFs:
        connection, fid = await self.here()
        return await stored.statfs(connection, fid)

    @lasting
    async def xattr(self, name: str, who: Principal) -> bytes:
        me = self.seen_by(who)
        connection, fid = await me.here()
        return await stored.xattr(connection, fid, name)

    async def xattrs(self, who: Principal) -> list[str]:
        names = await self.xattr("", who)
        return [name.decode("utf-8", "surrogateescape") for name in names.split(b"\0") if name]

    @lasting
    async def set_xattr(self, name: str, value: bytes, who: Principal, *, flags: int = 0) -> None:
        me = self.seen_by(who)
        connection, fid = await me.here()
        await stored.set_xattr(connection, fid, name, value, flags)

    async def remove_xattr(self, name: str, who: Principal) -> None:
        await self.set_xattr(name, b"", who, flags=os.XATTR_REPLACE)


async def _opened(c: Connection, fid: int, how: Open, flags: int, *, truncate: bool) -> tuple[int, Qid, int]:
    """Open the file that a fid stands for by a new fid; return that, its qid, and the most bytes of one read or write."""
    new, _ = await requests.walk(c, fid, ())
    try:
        qid, iounit = await requests.open_(
            c,
            new,
            read=how.read or how.execute,
            write=how.write,
            truncate=truncate,
            append=how.append,
            execute=how.execute,
            flags=flags,
        )
    except BaseException:
        c.clunk_nowait(new)
        raise
    return new, qid, iounit
