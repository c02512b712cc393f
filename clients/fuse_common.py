"""`Common`: what all requests to the FUSE adapter (fuse.py) have in common: who asks, of which file, and what the kernel is told of it.

What the kernel may believe, and for how long
* A status of a stored file, for `BELIEVED` seconds. Whoever opens the file asks again, and what is another status then is told at once.
* The name of a stored regular file, as long as its status; but it is enough for stat(2) alone: what opens a file, or changes it by its name, has the
  name walked to again. If it leads to another file, ESTALE makes the kernel look it up and ask again, of what it found then: open(2) and the
  others try once more by themselves.
* Names of directories and of all else are looked up each time, and so are those that there are not.
* Nothing of what has qid.version 0. Without a cache, nothing at all.
"""

import errno
import stat as st
from functools import lru_cache
from typing import Final

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, RequestContext

from mk9p.auth import Principal
from mk9p.clients.fuse_asks import look
from mk9p.clients.fuse_files import attributes, kind_of
from mk9p.clients.fuse_inodes import Inode, Inodes
from mk9p.clients.fuse_requests import Request
from mk9p.clients.interrupts import Interrupts
from mk9p.compose.remote import Remote
from mk9p.errors import NineError
from mk9p.tree import Node, Stat

BELIEVED: Final = 1.0  # seconds: as sshfs has it
SLACK: Final = 0.1  # seconds that the kernel believes more: its clock ticks, and a reply takes its time to get there


class Common(pyfuse3.Operations):
    """The file system of one tree. `who` is the user of all requests; None: each is its own user's. `cache`: stored files may be cached."""

    supports_dot_lookup = False

    def __init__(self, root: Remote, *, who: Principal | None = None, cache: bool = False) -> None:
        super().__init__()
        self.who, self.cache = who, cache
        self.interrupts = Interrupts()
        self.inodes = Inodes(root)
        self._handle = 0

    def _asks(self, ctx: RequestContext) -> Request:
        return Request(self.interrupts, ctx.pid)

    def _user(self, ctx: RequestContext) -> Principal:
        return self.who or _principal(ctx.uid)

    def _inode(self, number: int) -> Inode:
        inode = self.inodes.by_number.get(number)
        if inode is None:
            raise NineError(errno.ESTALE)
        return inode

    def _node(self, number: int, ctx: RequestContext) -> Remote:
        return self._inode(number).seen_by(self._user(ctx))

    def _number(self) -> int:
        """Return a number for what is opened."""
        self._handle += 1
        return self._handle

    async def _tell(self, parent: int, name: str, node: Node, stat: Stat, asked: float) -> EntryAttributes:
        """Return a child's attributes, which were asked for at some time, for a reply that makes the kernel know it."""
        assert isinstance(node, Remote)
        kind = kind_of(node, stat)
        inode = self.inodes.known(parent, name, node, kind)
        if inode is None:
            inode = await self.inodes.found(parent, name, node, kind, stat.nlink)
        inode.known += 1
        return self._taken(inode, stat, asked)

    async def _told(self, parent: int, name: str, node: Remote) -> EntryAttributes:
        asked = trio.current_time()
        stat = await node.stat()  # before the kernel knows of it: this may fail
        return await self._tell(parent, name, node, stat, asked)

    def _taken(self, inode: Inode, stat: Stat, asked: float) -> EntryAttributes:
        """Return a status for a reply to the kernel, which may believe it for a while."""
        entry = attributes(inode.number, inode.kind, stat)
        inode.take(stat, entry, asked)
        self._believe(inode, entry, trio.current_time())
        return entry

    def _believe(self, inode: Inode, entry: EntryAttributes, now: float) -> None:
        """Say in a status how long the kernel may believe it."""
        if not self.cache or not inode.stored:
            return
        rest = max(inode.seen + BELIEVED - now, 0)
        entry.attr_timeout = rest
        if st.S_ISREG(inode.kind):
            entry.entry_timeout = rest
            inode.believed = max(inode.believed, inode.seen + BELIEVED + SLACK)

    def _by_name(self, inode: Inode, who: Principal) -> Remote | None:
        """Return the directory to walk from where the kernel may have gone by a name that it believes; None if it has just looked it up."""
        if inode.believed <= trio.current_time() or (inode.parent, inode.name) not in inode.names:
            return None
        directory = self.inodes.by_number.get(inode.parent)
        return None if directory is None else directory.seen_by(who)

    async def _still(self, inode: Inode, who: Principal) -> None:
        """Raise ESTALE if the name of a file that the kernel believes leads to another one."""
        directory = self._by_name(inode, who)
        if directory is None:
            return
        try:
            found, _ = await look(directory, inode.name)
        except FileNotFoundError:
            found = None
        if found is None or found.path != inode.path:
            raise self._stale(inode)

    def _stale(self, inode: Inode) -> NineError:
        """Return the error that makes the kernel look a name up, once: who asks again means this file."""
        inode.believed = 0
        return NineError(errno.ESTALE)


@lru_cache(maxsize=1024)
def _principal(uid: int) -> Principal:
    return Principal.of(uid)
