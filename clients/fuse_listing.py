"""`Listings`: reading directories by FUSE (fuse.py). The kernel gets each name with its status, so `ls -l` and `find` ask for nothing more.

The entries of a stored directory are read again when it has another version or time than at the last reading, which was at most a second ago. A
time that is younger than that proves nothing, because the clock of a file system ticks in steps.
"""

import stat as st
import time
from typing import Final

import attrs
import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileHandleT, InodeT, RequestContext

from mk9p.auth import Principal
from mk9p.clients.fuse_asks import AT_ONCE, look_at_some
from mk9p.clients.fuse_common import BELIEVED, Common
from mk9p.clients.fuse_files import attributes, raw, same
from mk9p.clients.fuse_inodes import Inode
from mk9p.clients.fuse_requests import Request
from mk9p.compose.remote import Remote
from mk9p.tree import Stat

KEPT: Final = 64  # directories whose names are kept for that second …
ENTRIES: Final = 4096  # … and at most so many names of one


@attrs.define(eq=False)
class Kept:
    """The entries of a directory when it was read; `names` are in the form of the kernel. `inodes`: those that the kernel knows of them, as far as
    that is known.

    `stat` is the directory's status before the reading; None: one cannot know whether this still holds.
    """

    entries: list[tuple[str, Remote]]
    names: list[bytes]
    inodes: list[Inode | None]
    stat: Stat | None
    read: float


@attrs.define(eq=False)
class Listing:
    """An open directory. `stats`: the answers for the next entries, by place, and when they came."""

    inode: Inode
    who: Principal
    kept: Kept
    told: bool = False
    stats: dict[int, tuple[Remote, Stat | None]] = attrs.field(factory=dict)
    asked: float = 0


class Listings(Common):
    """The open directories of a mount."""

    def __init__(self, root: Remote, *, who: Principal | None = None, cache: bool = False) -> None:
        super().__init__(root, who=who, cache=cache)
        self.listings: dict[int, Listing] = {}
        self._kept: dict[tuple[Inode, Principal], Kept] = {}

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        with self._asks(ctx):
            directory, who = self._inode(inode), self._user(ctx)
            fh = self._number()
            self.listings[fh] = Listing(directory, who, await self._held(directory, who))
            return FileHandleT(fh)

    async def _held(self, inode: Inode, who: Principal) -> Kept:
        """Return the entries of a directory, as a user sees them."""
        node, stat, asked = inode.seen_by(who), None, trio.current_time()
        if self.cache and inode.stored:
            stat = await self._status(inode, who)
            if stat is None:
                raise self._stale(self.inodes.route(inode, asked)[1])
            inode.searchable = stat.mode & 0o111 == 0o111
            kept = self._kept.pop((inode, who), None)
            if kept is not None and kept.read + BELIEVED > asked and kept.stat is not None and same(kept.stat, stat):
                self._kept[inode, who] = kept
                return kept
            if time.time_ns() - max(stat.mtime, stat.ctime) < BELIEVED * 1e9:
                stat = None
        entries = [(name, child) for name, child in await node.entries(who) if raw(name)]
        inodes = [
            self.inodes.listed(inode.number, name, child) if stat or self.cache else None for name, child in entries
        ]
        kept = Kept(entries, [raw(name) for name, _ in entries], inodes, stat, asked)
        if stat is not None and len(entries) <= ENTRIES:
            while self._kept and (len(self._kept) >= KEPT or next(iter(self._kept.values())).read + BELIEVED < asked):
                del self._kept[next(iter(self._kept))]
            self._kept[inode, who] = kept
        return kept

    async def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self.listings[fh]
        here = listing.inode
        with Request(self.interrupts, 0, here.number):
            if start_id == 0 and listing.told:  # rewinddir(3)
                listing.kept, listing.stats = await self._held(here, listing.who), {}
            listing.told = True
            for place, (name, number) in enumerate(((b".", here.number), (b"..", here.parent)), 1):
                if start_id < place:
                    there = attributes(number, st.S_IFDIR, Stat(0))
                    if not pyfuse3.readdir_reply(token, name, there, place):
                        return
            kept, now = listing.kept, trio.current_time()
            for at in range(max(start_id - 2, 0), len(kept.entries)):
                inode = kept.inodes[at]
                entry = None if inode is None else self._fresh(inode, now)
                if inode is None or entry is None:
                    if at not in listing.stats:
                        await self._ask(listing, at)
                        now = trio.current_time()
                    node, stat = listing.stats[at]
                    if stat is None:
                        continue
                    entry = await self._tell(here.number, kept.entries[at][0], node, stat, listing.asked)
                    inode = kept.inodes[at] = self.inodes.by_number[entry.st_ino]
                else:
                    inode.known += 1
                if not pyfuse3.readdir_reply(token, kept.names[at], entry, at + 3):
                    self.inodes.forget(inode.number, 1)
                    return
                listing.stats.pop(at, None)

    def _fresh(self, inode: Inode, now: float) -> EntryAttributes | None:
        """Return what the mount may say of a file without asking; None if it must ask. The kernel believes it for the rest of the time."""
        entry, rest = inode.entry, inode.seen + BELIEVED - now
        if (
            entry is None
            or rest <= 0
            or not inode.stored
            or inode.known <= 0
            or not self.cache
            or inode.kind != st.S_IFREG
        ):
            return None
        entry.attr_timeout = rest
        if entry.entry_timeout:  # else its name may not be believed
            entry.entry_timeout = rest
        return entry

    async def _ask(self, listing: Listing, start: int) -> None:
        """Ask for the status of the next entries."""
        kept, now = listing.kept, trio.current_time()
        places = [start]
        for at in range(start + 1, min(start + AT_ONCE, len(kept.entries))):
            inode = kept.inodes[at]
            if inode is None or self._fresh(inode, now) is None:
                places.append(at)
        listing.asked = now
        directory = listing.inode.seen_by(listing.who)
        found = await look_at_some(directory, [kept.entries[at] for at in places])
        listing.stats = dict(zip(places, found, strict=True))

    async def releasedir(self, fh: FileHandleT) -> None:
        del self.listings[fh]

    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        listing = self.listings[fh]
        with Request(self.interrupts, 0, listing.inode.number):
            await listing.inode.seen_by(listing.who).sync(listing.who, data=datasync)
