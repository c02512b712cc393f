"""`Common`: what all requests to the FUSE adapter (fuse.py) have in common: who asks, about which file, and what the kernel learns of it.

What the kernel may believe, and for how long
* The status of stored files, and that a name leads to a stored file or directory, for `BELIEVED` seconds. Only stat(2) is content with that.
* Every request that opens, looks up, lists or changes something walks all the names again that the kernel believes (`Inodes.route`), in the same
  round trip if possible. If they lead elsewhere by now, ESTALE makes the kernel look up each of them, and ask again: calls that go by names then
  try once more by themselves. The second request may also not go by these names, but start from a directory that was moved meanwhile: so the thread
  is excused when it comes to the same file again. Other threads are not, because the kernel goes on believing the names.
* Opening a file also asks for its status, and the kernel learns at once what has changed.
* The kernel believes names whoever asks, so only names in directories that anybody may search. When this mount changes the permissions of a
  directory, the kernel asks again for the status of what is below it.
* It believes nothing of files with qid.version 0, and never that a name does not exist. Without a cache it believes nothing at all.
"""

import errno
import stat as st
from collections import deque
from contextlib import suppress
from functools import lru_cache
from typing import Final

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, InodeT, RequestContext

from mk9p.auth import Principal
from mk9p.client.connection import Connection
from mk9p.client.flights import Astray
from mk9p.clients.fuse_asks import leads, look
from mk9p.clients.fuse_files import attributes, kind_of
from mk9p.clients.fuse_inodes import Inode, Inodes
from mk9p.clients.fuse_requests import ASKER, Request
from mk9p.clients.interrupts import Interrupts
from mk9p.compose.remote import Remote
from mk9p.errors import NineError
from mk9p.tree import Node, Stat
from mk9p.wire import MAXWELEM

BELIEVED: Final = 1.0  # seconds: as sshfs has it
THREADS: Final = 1024  # that look names up again; if there are more, some get ESTALE
SOON: Final = 0.05  # seconds after which a fid is clunked at the latest
SLACK: Final = 0.1  # seconds that the kernel believes longer: its clock ticks, and a reply takes its time


class Common(pyfuse3.Operations):
    """The file system of one tree. `who` is the user of all requests; None: each belongs to its own user. `cache`: the kernel may cache stored
    files."""

    supports_dot_lookup = False

    def __init__(self, root: Remote, *, who: Principal | None = None, cache: bool = False) -> None:
        super().__init__()
        self.who, self.cache = who, cache
        self.interrupts = Interrupts()
        self.inodes = Inodes(root)
        self._handle = 0
        self._lately: deque[tuple[float, Inode]] = deque()  # inodes whose names are believed, and until when
        self._late: set[Connection] = set()
        self._some_late = trio.Event()
        self._again: dict[int, float] = {}  # threads that look names up because they got ESTALE, and until when

    def _asks(self, ctx: RequestContext) -> Request:
        return Request(self.interrupts, ctx.pid)

    def _user(self, ctx: RequestContext) -> Principal:
        return self.who or principal(ctx.uid)

    def _inode(self, number: int) -> Inode:
        inode = self.inodes.by_number.get(number)
        if inode is None:
            raise NineError(errno.ESTALE)
        return inode

    def _node(self, number: int, ctx: RequestContext) -> Remote:
        return self._inode(number).seen_by(self._user(ctx))

    def _number(self) -> int:
        """Return a number for an open file."""
        self._handle += 1
        return self._handle

    def _later(self, fid: tuple[Connection, int] | None) -> None:
        """Clunk a fid with the next request, or soon: a clunk on its own would wake the server up."""
        if fid is not None:
            fid[0].garbage.append(fid[1])
            self._late.add(fid[0])
            self._some_late.set()

    async def tidy(self) -> None:
        """Clunk the fids that were left for later, until cancelled."""
        while True:
            await self._some_late.wait()
            await trio.sleep(SOON)
            self._some_late = trio.Event()
            while self._late:
                self._late.pop().tidy()

    async def _tell(self, parent: int, name: str, node: Node, stat: Stat, asked: float) -> EntryAttributes:
        """Return a child's attributes, which were asked for at a time, for a reply that makes the kernel know it."""
        assert isinstance(node, Remote)
        kind = kind_of(node, stat)
        inode = self.inodes.known(parent, name, node, kind)
        if inode is None:
            inode = await self.inodes.found(parent, name, node, kind, stat.nlink)
        if inode.views[node.who] is not node:
            self._later(node.let_go())
        inode.known += 1
        thread, now = ASKER.get(), trio.current_time()
        inode.excused = (thread, 0) if self._again.get(thread, 0) > now else (0, 0)
        return self._taken(inode, stat, asked, named=True)

    async def _told(self, parent: int, name: str, node: Remote) -> EntryAttributes:
        asked = trio.current_time()
        stat = await node.stat()  # before the kernel knows of it: this may fail
        return await self._tell(parent, name, node, stat, asked)

    def _taken(self, inode: Inode, stat: Stat, asked: float, *, named: bool = False) -> EntryAttributes:
        """Return a status for a reply to the kernel, which may believe it for a while, and the name that it used."""
        entry = attributes(inode.number, inode.kind, stat)
        inode.take(stat, entry, asked)
        self._believe(inode, entry, trio.current_time(), named=named)
        return entry

    def _believe(self, inode: Inode, entry: EntryAttributes, now: float, *, named: bool = True) -> None:
        """Set in a status how long the kernel may believe it, and the name."""
        if not self.cache or not inode.stored:
            return
        rest = max(inode.seen + BELIEVED - now, 0)
        entry.attr_timeout = rest
        if named and st.S_IFMT(inode.kind) in (st.S_IFREG, st.S_IFDIR) and inode.depth < MAXWELEM:
            above = self.inodes.by_number.get(inode.parent)
            if self.who is None and (above is None or not above.searchable):
                entry.entry_timeout = 0
                return
            entry.entry_timeout = rest
            until = inode.seen + BELIEVED + SLACK
            if until > inode.believed:
                inode.believed = until
                self._lately.append((until, inode))
                while self._lately and self._lately[0][0] <= now:
                    self._lately.popleft()

    async def _look(self, parent: Inode, name: str, who: Principal) -> tuple[Remote, Stat]:
        """Walk to a name in a directory and return the file with its status.

        Raises ESTALE if the names that the kernel believes lead to another file of that name by now. If they lead nowhere, look in the directory
        itself: mkdir(2) and similar calls do not try again when looking up the new name fails.
        """
        start, below = self.inodes.route(parent, trio.current_time(), ASKER.get())
        directory = parent.seen_by(who)
        known = self.inodes.by_name(parent.number, name)
        keep = known is None or who not in known.views
        names = (*(inode.name for inode in below), name)
        try:
            node, paths, stat = await look(start.seen_by(who), names, directory, keep=keep)
        except (Astray, NineError) as error:
            if not below and isinstance(error, NineError):
                raise
            node = await directory.walk(name, who)
            return node, await node.stat()
        if not _are(below, paths):
            self._later(node.let_go())
            raise self._stale(below)
        return node, stat

    def _route(self, inode: Inode) -> tuple[Inode, list[Inode]]:
        """Return `Inodes.route` for this thread, which is not excused any more."""
        thread = ASKER.get()
        start, below = self.inodes.route(inode, trio.current_time(), thread)
        if self._again.pop(thread, None) is not None and start.excused[0] == thread:
            start.excused = (0, 0)
        return start, below

    async def _sure(self, inode: Inode, who: Principal) -> None:
        """Raise ESTALE unless the way that the kernel believes to lead to a file does so."""
        start, below = self._route(inode)
        if not below:
            return
        try:
            paths = await leads(start.seen_by(who), tuple(inode.name for inode in below))
        except NineError as error:
            if error.errno == errno.EIO:
                raise
            paths = []
        if not _are(below, paths):
            raise self._stale(below)

    async def _status(self, inode: Inode, who: Principal) -> Stat | None:
        """Return the status of a file, after checking the way to it."""
        start, below = self._route(inode)
        above = self.inodes.by_number.get(inode.parent)
        if not below or above is None:
            return await inode.seen_by(who).stat()
        try:
            names = tuple(inode.name for inode in below)
            node, paths, stat = await look(start.seen_by(who), names, above.seen_by(who), keep=False)
        except (Astray, FileNotFoundError):
            with suppress(FileNotFoundError):  # which gives the reason, if it is another one
                await above.seen_by(who).walk(inode.name, who)
            return None
        self._later(node.let_go())
        return stat if _are(below, paths) else None

    def _unbelieve(self, directory: Inode) -> None:
        """Make the kernel ask, as the user who wants to know, for the status of what is below a directory that may be closed to some now."""
        now = trio.current_time()
        for until, inode in self._lately:
            if until > now and directory in self.inodes.route(inode, now)[1]:
                inode.entry = None
                self._forget_status(inode)

    def _forget_status(self, inode: Inode) -> None:
        with suppress(OSError):  # the kernel no longer knows it
            pyfuse3.invalidate_inode(InodeT(inode.number), attr_only=True)

    def _stale(self, below: list[Inode]) -> NineError:
        """Return the error that makes the kernel look names up, and excuse the thread when it asks again."""
        thread, until = ASKER.get(), trio.current_time() + BELIEVED
        for inode in below:  # if it was looked up for this, somebody was faster, and the program gets the error
            inode.excused = (0, 0) if inode.excused[0] == thread else (thread, until)
        if len(self._again) >= THREADS:
            self._again.clear()
        self._again[thread] = until
        return NineError(errno.ESTALE)


def _are(inodes: list[Inode], paths: list[int]) -> bool:
    """Tell whether a walk led to these inodes, as far as they go."""
    return len(paths) >= len(inodes) and all(inode.path == path for inode, path in zip(inodes, paths, strict=False))


@lru_cache(maxsize=1024)
def principal(uid: int) -> Principal:
    """Return the principal of a uid, each time the same object: it is a key that is looked up often."""
    return Principal.of(uid)
