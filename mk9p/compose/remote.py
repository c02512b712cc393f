"""Another server's tree as Nodes: `Server` is the connection, which comes back when it was lost; `Remote` is a file there. opened.py has open
files.

Theory
* A `Remote` is a file on a server, as one user: its fid, and names that find it again on a new connection (walked.py). So a path works again when
  its kernel is back, and no mount notices. An open file cannot (nobody knows what its offset or its conversation was), so its handle answers EIO
  from then on.
* A server is dialled when somebody first uses it, and again after it died. There is one attempt at a time, with a deadline, and its failure is the
  answer for all who ask within the next half second: the branch of a dead kernel says EIO at once, and a listing of it does not dial once for each
  file.
* The user of each request attaches with their own name and number on the one connection, at their first request. The server at the other end
  decides whether to believe that.
* A flushed request is a cancelled task here, and a cancelled call of the client is flushed at the other server.
* A listing's nodes give the kind of each file (`dtype`) as the server does, because `find -type` and `ls -F` use that and ask no file.
* 9P2000.L carries no words of errors. The composer reads those of a refused ctl from the `error` beside it, so its users read what they would read
  there.
"""

import errno
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from hashlib import blake2b
from secrets import token_bytes
from typing import Any, Final, TypeVar

import attrs
import trio

from mk9p.auth import Principal
from mk9p.client import changes, requests, stored
from mk9p.client.agreement import MSIZE, attach
from mk9p.client.calls import Call
from mk9p.client.connection import Connection, TrioCall
from mk9p.client.handshake import open_connection
from mk9p.compose.opened import RemoteHandle
from mk9p.compose.walked import Walked
from mk9p.dial import Link, dial, parse
from mk9p.errors import NineError
from mk9p.tree import Change, Node, Open, Stat, StatFs, Way, settle
from mk9p.tree.later import HAND
from mk9p.tree.qids import Foreign
from mk9p.wire import L_DSYNC, L_NOATIME, L_NONBLOCK, L_SYNC, MAXWELEM, Qid
from mk9p.wire import messages as m

T = TypeVar("T")

log = logging.getLogger("mk9p.compose")

_SLICE: Final = 1000  # entries of a listing that become nodes while nobody else has a turn: 3 ms
PASSED: Final = L_NONBLOCK | L_DSYNC | L_SYNC | L_NOATIME  # the Linux flags that concern the server with the file


FRESH: Final = token_bytes(32)  # the secret of a process that keeps none


@attrs.define(eq=False)
class Server:
    """Another 9P server: its address, and the connection to it, made when it is first needed and again when it was lost.

    The tasks of its connections run in `nursery`. `name` identifies it: errors show it, and the paths of its files are made from it and `secret`
    (secret.py), so it should stay the same when the address changes. `on_change` is called with the server, whether it is up, and why it went down
    ("" if up), each time that changes; it may not wait and may not raise. `deadline` is how many seconds dialling, and attaching, may take; for
    `backoff` seconds after a failure there is no new attempt. `dialler` dials an address that is no dial string.
    """

    address: str
    nursery: trio.Nursery
    aname: str = attrs.field(default="", kw_only=True)
    name: str = attrs.field(default="", kw_only=True)
    secret: bytes = attrs.field(default=FRESH, kw_only=True, repr=False)
    version: str = attrs.field(default="9P2000.L", kw_only=True)
    msize: int = attrs.field(default=MSIZE, kw_only=True)
    dialler: Callable[[str], Awaitable[Link]] = attrs.field(default=dial, kw_only=True)
    deadline: float = attrs.field(default=1.0, kw_only=True)
    backoff: float = attrs.field(default=0.5, kw_only=True)
    silence: float = attrs.field(default=10.0, kw_only=True)
    on_change: list[Callable[["Server", bool, str], None]] = attrs.field(factory=list, kw_only=True)

    connection: Connection | None = attrs.field(default=None, init=False)  # while it is up
    reason: str = attrs.field(default="it was not used yet", init=False)  # why there is none
    _failed: float = attrs.field(default=float("-inf"), init=False)
    _dialling: trio.Event | None = attrs.field(default=None, init=False)
    # by user; an Event means that the attach is running
    _roots: dict[tuple[str, int], tuple[int, Qid] | trio.Event] = attrs.field(factory=dict, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    paths: Foreign = attrs.field(init=False, repr=False)  # of its files, as clients here see them
    # calls, and how long they may take
    _due: deque[tuple[float, TrioCall]] = attrs.field(factory=deque, init=False, repr=False)
    moves: int = attrs.field(default=0, init=False)  # how often a file was renamed from here
    # it can be dialled any number of times: a serial line and given descriptors cannot
    many: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.name = self.name or self.address
        self.paths = Foreign(blake2b(self.name.encode(), key=self.secret).digest())
        self.many = self.dialler is dial and parse(self.address).transport.redial

    @property
    def up(self) -> bool:
        """Tell whether there is a connection now."""
        return self.connection is not None

    def tree(self, who: Principal | None = None) -> "Remote":
        """Return the root of its tree. `who` asks where no user is named; by default the user that this process runs as."""
        return Remote(self, who or Principal.of(os.geteuid()))

    def close(self) -> None:
        """End the connection and never make one again."""
        self._closed = True
        self.reason = "it was closed here"
        if self.connection is not None:
            self.connection.end(self.reason)

    async def connected(self) -> Connection:
        """Return the connection, and dial if there is none. Raises NineError(EIO) if there can be none now."""
        resting = self._dialling is None and trio.current_time() < self._failed + self.backoff
        if self.connection is None and not self._closed and not resting:
            # A task of its own dials: the first caller may be flushed while others wait for the same.
            if self._dialling is None:
                done = trio.Event()
                self.nursery.start_soon(self._dial, done)
                self._dialling = done
            await self._dialling.wait()
        if self.connection is None:
            raise NineError(errno.EIO, f"{self.name} is down: {self.reason}")
        return self.connection

    async def _dial(self, done: trio.Event) -> None:
        try:
            connection = await open_connection(
                self.address,
                self.nursery,
                msize=self.msize,
                version=self.version,
                deadline=self.deadline,
                dialler=self.dialler,
            )
        except OSError as error:
            self._failed = trio.current_time()
            self.reason = str(error)
        except Exception:  # our bug must not end everything in the nursery
            log.exception("internal error: dialling %s", self.address)
            self._failed = trio.current_time()
            self.reason = "internal error"
        else:
            if self._closed:
                connection.end(self.reason)
                return
            self.connection, self._roots = connection, {}
            connection.on_end.append(self._lost)
            self._tell(True, "")
        finally:
            self._dialling = None
            done.set()

    def _lost(self, reason: str) -> None:
        self.connection, self.reason = None, reason
        self._tell(False, reason)

    def _tell(self, up: bool, reason: str) -> None:
        for tell in self.on_change:
            tell(self, up, reason)

    async def soon(self, answer: Awaitable[T]) -> T:
        """Return an answer for which the other server need not wait; raises EIO if that server is silent."""
        with trio.move_on_after(self.silence):
            return await answer
        raise NineError(errno.EIO, f"{self.name} does not answer")

    async def walk(self, connection: Connection, fid: int, names: tuple[str, ...]) -> tuple[int | None, Sequence[Qid]]:
        """Walk by names, at most MAXWELEM in a message. Return the new fid (None if the walk did not go all the way) and the qids.

        Raises what the server says of the first name, and EIO if it is silent.
        """
        at, found = fid, list[Qid]()
        try:
            while True:
                some = names[len(found) : len(found) + MAXWELEM]
                new = connection.new_fid()
                (qids,) = await self._prompt(connection.call(m.Twalk, at, new, some))
                if at != fid:
                    connection.clunk_nowait(at)
                at = new
                found += qids
                if len(qids) < len(some):
                    # walk(5) makes no fid then, but diod 1.0.24 does: this ends it. Other servers answer with an error
                    connection.clunk_nowait(new)
                    return None, found
                if len(found) == len(names):
                    return new, found
        except NineError:
            if not found:
                raise
            if at != fid:
                connection.clunk_nowait(at)
            return None, found

    async def _prompt(self, call: Call) -> tuple[Any, ...]:
        """Return the answer to a call that waits for nothing at the far end; raises EIO if the server is silent."""
        if not HAND.now or not isinstance(call, TrioCall):
            return await self.soon(call.reply())
        due, now = self._due, trio.current_time()
        while due and due[0][1].left:
            due.popleft()
        due.append((now + self.silence, call))
        if len(due) == 1:
            self.nursery.start_soon(self._expire)
        reply = await call.kept()
        if reply is None:
            raise NineError(errno.EIO, f"{self.name} does not answer")
        return reply

    async def _expire(self) -> None:
        """Give up calls that the server does not answer in time."""
        due = self._due
        while due:
            until, call = due[0]
            if not call.left:
                await trio.sleep_until(until)
                call.expire()
            if due and due[0][1] is call:
                due.popleft()

    async def root(self, who: Principal) -> tuple[Connection, int, Qid]:
        """Return the connection, and the fid (never clunk it) and the qid of the tree's root as a user sees it. Raises as `connected` and
        `attach`."""
        connection = await self.connected()
        roots, key = self._roots, (who.name, who.uid)
        while isinstance(found := roots.get(key), trio.Event):
            await found.wait()
        if found is None:
            event = roots[key] = trio.Event()
            try:
                with trio.move_on_after(self.deadline):
                    found = roots[key] = await attach(connection, who.name, who.uid, self.aname)
            finally:
                if found is None:
                    del roots[key]
                event.set()
        if found is None:
            raise NineError(errno.EIO, f"{self.name} does not answer")
        return connection, *found


class Remote(Walked):
    """A file of another server, with all operations on it."""

    server: Server

    @property
    def way(self) -> Way | None:  # type: ignore[override]
        """Return where this is, for callers that can dial its server."""
        server = self.server
        return Way(server.address, server.aname, self.names, server.paths) if server.many else None

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

    async def walk(self, name: str, who: Principal) -> "Remote":
        me = self.seen_by(who)
        connection, fid = await me.here()
        new, qids = await self.server.soon(requests.walk(connection, fid, (name,)))
        return me._child(name, who, qids[0], (connection, new))

    async def stat(self) -> Stat:
        connection, fid = await self.here()
        return await self.server.soon(requests.stat(connection, fid))

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

    async def open(self, how: Open) -> RemoteHandle:
        me = self.seen_by(how.who)
        connection, fid = await me.here()
        new, _ = await requests.walk(connection, fid, ())
        try:
            _, iounit = await requests.open_(
                connection,
                new,
                read=how.read or how.execute,
                write=how.write,
                truncate=how.truncate,
                append=how.append,
                execute=how.execute,
                flags=how.flags & PASSED,
            )
        except BaseException:
            connection.clunk_nowait(new)
            raise
        return RemoteHandle(me, connection, new, iounit, how.records)

    async def in_words(self, error: NineError) -> NineError:
        """Return an error about this file with the words that its server has for it."""
        if self.parent is None:
            return error
        try:
            connection, directory = await self.parent.seen_by(self.who).here()
        except OSError:
            return error
        return await requests.in_words(connection, directory, (self.name,), error)

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
        return child, RemoteHandle(child, connection, new, iounit, how.records)

    async def mkdir(self, name: str, perm: int, who: Principal) -> "Remote":
        me = self.seen_by(who)
        connection, fid = await me.here()
        return me._child(name, who, await changes.mkdir(connection, fid, name, perm, gid=who.group))

    async def symlink(self, name: str, target: str, who: Principal) -> "Remote":
        me = self.seen_by(who)
        connection, fid = await me.here()
        return me._child(name, who, await changes.symlink(connection, fid, name, target, gid=who.group))

    async def mknod(self, name: str, mode: int, rdev: int, who: Principal) -> "Remote":
        me = self.seen_by(who)
        connection, fid = await me.here()
        return me._child(name, who, await changes.mknod(connection, fid, name, mode, rdev, gid=who.group))

    async def link(self, name: str, target: Node, who: Principal) -> None:
        me, other = self.seen_by(who), self._beside(target, who)
        connection, fid, of = await me._both(other)
        await changes.link(connection, fid, of, name)

    async def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> None:
        me = self.seen_by(who)
        connection, fid = await me.here()
        await changes.remove(connection, fid, name, directory=directory)

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
            raise NineError(errno.EIO, f"{self.server.name} was lost")
        return connection, fid, of

    async def change(self, change: Change, who: Principal) -> None:
        me = self.seen_by(who)
        connection, fid = await me.here()
        await changes.change(connection, fid, change)

    async def sync(self, who: Principal, *, data: bool = False) -> None:
        me = self.seen_by(who)
        connection, fid = await me.here()
        new, _ = await requests.walk(connection, fid, ())
        try:
            await requests.open_(connection, new)
            await requests.sync(connection, new, data=data)
        finally:
            connection.clunk_nowait(new)

    async def readlink(self) -> str:
        connection, fid = await self.here()
        return await requests.readlink(connection, fid)

    async def born(self) -> int | None:
        connection, fid = await self.here()
        return await self.server.soon(requests.born(connection, fid))

    async def statfs(self) -> StatFs:
        connection, fid = await self.here()
        return await stored.statfs(connection, fid)

    async def xattr(self, name: str, who: Principal) -> bytes:
        me = self.seen_by(who)
        connection, fid = await me.here()
        return await stored.xattr(connection, fid, name)

    async def xattrs(self, who: Principal) -> list[str]:
        names = await self.xattr("", who)
        return [name.decode("utf-8", "surrogateescape") for name in names.split(b"\0") if name]

    async def set_xattr(self, name: str, value: bytes, who: Principal, *, flags: int = 0) -> None:
        me = self.seen_by(who)
        connection, fid = await me.here()
        await stored.set_xattr(connection, fid, name, value, flags)

    async def remove_xattr(self, name: str, who: Principal) -> None:
        await self.set_xattr(name, b"", who, flags=os.XATTR_REPLACE)
