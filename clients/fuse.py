"""A tree of another server as a FUSE file system: `Fuse`, one adapter of `Remote` to pyfuse3.

Rules
* Whatever the kernel asks goes to the server; nothing is kept here, and names are looked up each time. What an inode is to the kernel is a `Remote`
  here, a file of the server, as long as the kernel remembers it; its names are walked again when the server is back (fuse_inodes.py).
* With a cache, the kernel believes the status of a stored file for a second, and keeps its contents while its version stays: that is looked at
  whenever it is opened, so who opens a file after another has closed it sees what that one wrote.
* Made-up files (qid.version 0, or of length 0 and only read) are open for direct I/O: they are read until an empty read whatever their length
  says, a read(2) returns what one record brings, and each write(2) is one Twrite at once, with its errno. Without a cache, the default, all are.
* Each request is the user's who made it, or `who` for all; the server checks the permissions, and is asked where the bits do not tell (`access`).
* Errors are the server's errno; EIO while it is down (fuse_requests.py).
* Numbers are the server's as far as the kernel takes them. What it would make a file or a whole listing EIO for is not given to it (fuse_files.py).
* A request may wait as long as it likes, others go on meanwhile; who is killed or gets a signal meanwhile is answered EINTR (interrupts.py).
"""

import errno
import math
import os
import stat as st
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

import attrs
import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, InodeT, RequestContext

from mk9p.auth import EXEC, READ, WRITE, Principal
from mk9p.clients.fuse_access import allowed
from mk9p.clients.fuse_files import (
    Listing,
    Opened,
    attributes,
    entries_of,
    how_of,
    is_now,
    kind_of,
    raw,
    stat_some,
    text,
)
from mk9p.clients.fuse_inodes import Inode, Inodes
from mk9p.clients.fuse_requests import Request
from mk9p.clients.interrupts import Interrupts
from mk9p.compose.opened import RemoteHandle
from mk9p.compose.remote import Remote
from mk9p.errors import NineError
from mk9p.tree import NOW, Change, Node, Stat, settle

TASKS: Final = 100_000  # each blocked read holds one: there must always be another
PATH_MAX: Final = 4096  # of limits.h: the kernel takes no longer target of a symbolic link
BELIEVED: Final = 1.0  # seconds that the kernel may believe the status of a stored file, with a cache: as sshfs has it
REST: Final = 0.1  # seconds that a read waits for more when it has a full message already


class Fuse(pyfuse3.Operations):
    """The file system of one tree. `who` is the user of all requests; None: each is its own user's. `cache`: stored files may be cached."""

    supports_dot_lookup = False

    def __init__(self, root: Remote, *, who: Principal | None = None, cache: bool = False) -> None:
        super().__init__()
        self.who, self.cache = who, cache
        self.interrupts = Interrupts()
        self.inodes = Inodes(root)
        self.opened: dict[int, Opened | Listing] = {}
        self._next = 0

    # What requests have in common

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

    def _open(self, fh: int) -> Opened:
        opened = self.opened[fh]
        assert isinstance(opened, Opened)
        return opened

    def _keep(self, opened: Opened | Listing) -> int:
        self._next += 1
        self.opened[self._next] = opened
        return self._next

    async def _tell(self, parent: int, name: str, node: Node, stat: Stat) -> EntryAttributes:
        """Return a child's attributes for a reply that makes the kernel know it."""
        assert isinstance(node, Remote)
        kind = kind_of(node, stat)
        inode = await self.inodes.found(parent, name, node, kind, stat.nlink)
        inode.known += 1
        inode.stored = stat.version != 0
        return attributes(inode.number, kind, stat, self._believed(stat))

    async def _told(self, parent: int, name: str, node: Node) -> EntryAttributes:
        stat = await settle(node.stat())  # before the kernel knows of it: this may fail
        return await self._tell(parent, name, node, stat)

    async def _attributes(self, inode: Inode) -> EntryAttributes:
        """Return what an inode is now. Raises ESTALE if it has become a file of another kind: the kernel would take none of it from then on."""
        try:
            stat = await inode.node.stat()
        except FileNotFoundError:
            now = next((opened.handle.stat() for opened in self._opened_of(inode)), None)
            if now is None:
                raise
            stat = await settle(now)
        if inode is not self.inodes.root and kind_of(inode.node, stat) != inode.kind:
            raise NineError(errno.ESTALE)
        return attributes(inode.number, inode.kind, stat, self._believed(stat))

    def _believed(self, stat: Stat) -> float:
        return BELIEVED if self.cache and stat.version else 0

    def _opened_of(self, inode: Inode) -> Iterator[Opened]:
        return (it for it in self.opened.values() if isinstance(it, Opened) and it.inode == inode.number)

    # Names

    async def lookup(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> EntryAttributes:
        with self._asks(ctx):
            called, who = text(name), self._user(ctx)
            return await self._told(parent_inode, called, await self._node(parent_inode, ctx).walk(called, who))

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        for number, times in inode_list:
            self.inodes.forget(number, times)

    async def mkdir(self, parent_inode: InodeT, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        with self._asks(ctx):
            called = text(name)
            node = await self._node(parent_inode, ctx).mkdir(called, mode & 0o7777, self._user(ctx))
            return await self._told(parent_inode, called, node)

    async def mknod(
        self, parent_inode: InodeT, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        with self._asks(ctx):
            called = text(name)
            node = await self._node(parent_inode, ctx).mknod(called, mode, rdev, self._user(ctx))
            return await self._told(parent_inode, called, node)

    async def symlink(self, parent_inode: InodeT, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        with self._asks(ctx):
            called = text(name)
            node = await self._node(parent_inode, ctx).symlink(called, text(target), self._user(ctx))
            return await self._told(parent_inode, called, node)

    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        with self._asks(ctx):
            directory, called, who = self._node(new_parent_inode, ctx), text(new_name), self._user(ctx)
            await directory.link(called, self._node(inode, ctx), who)
            return await self._told(new_parent_inode, called, await directory.walk(called, who))

    async def unlink(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        with self._asks(ctx):
            await self._remove(parent_inode, text(name), ctx, directory=False)

    async def rmdir(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        with self._asks(ctx):
            await self._remove(parent_inode, text(name), ctx, directory=True)

    async def _remove(self, parent: int, name: str, ctx: RequestContext, *, directory: bool) -> None:
        await self._node(parent, ctx).remove(name, self._user(ctx), directory=directory)
        self.inodes.removed(parent, name)

    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: bytes,
        parent_inode_new: InodeT,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        with self._asks(ctx):
            if flags:  # 9P cannot say RENAME_NOREPLACE, nor RENAME_EXCHANGE; mv(1) does without then
                raise NineError(errno.EINVAL)
            old, new = self._node(parent_inode_old, ctx), self._node(parent_inode_new, ctx)
            await old.rename(text(name_old), new, text(name_new), self._user(ctx))
            self.inodes.renamed(parent_inode_old, text(name_old), parent_inode_new, text(name_new))

    async def readlink(self, inode: InodeT, ctx: RequestContext) -> bytes:
        with self._asks(ctx):
            target = (await self._inode(inode).node.readlink()).encode(errors="surrogateescape")
            if len(target) >= PATH_MAX or b"\0" in target:
                raise NineError(errno.EIO)
            return target

    # Status

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        with self._asks(ctx):
            return await self._attributes(self._inode(inode))

    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        with self._asks(ctx):
            there = self._inode(inode)
            change = Change(
                mode=attr.st_mode & 0o7777 if fields.update_mode else None,
                uid=attr.st_uid if fields.update_uid else None,
                gid=attr.st_gid if fields.update_gid else None,
                length=attr.st_size if fields.update_size else None,
                atime=attr.st_atime_ns if fields.update_atime else None,
                mtime=attr.st_mtime_ns if fields.update_mtime else None,
            )
            if change != Change():
                try:
                    await self._change(there, change, fh, ctx)
                except NineError as error:
                    if error.errno != errno.EPERM or not is_now(change):
                        raise
                    await self._change(there, change._replace(atime=NOW, mtime=NOW), fh, ctx)
            return await self._attributes(there)

    async def _change(self, inode: Inode, change: Change, fh: int | None, ctx: RequestContext) -> None:
        if fh is None:
            who = self._user(ctx)
            await inode.seen_by(who).change(change, who)
        else:
            await _settled(self._open(fh).handle.change(change))

    async def access(self, inode: InodeT, mode: int, ctx: RequestContext) -> bool:
        with self._asks(ctx):
            node, who = self._node(inode, ctx), self._user(ctx)
            want = sum(bit for bit in (READ, WRITE, EXEC) if mode & bit)  # the bits of access(2) are these
            return await allowed(node, who, await node.stat(), want)

    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        with self._asks(ctx):
            found = await self._node(pyfuse3.ROOT_INODE, ctx).statfs()
            data = pyfuse3.StatvfsData()
            data.f_bsize = data.f_frsize = found.bsize or 4096
            data.f_blocks, data.f_bfree, data.f_bavail = found.blocks, found.bfree, found.bavail
            data.f_files, data.f_ffree, data.f_favail = found.files, found.ffree, found.ffree
            data.f_namemax = found.namelen
            return data

    # Open files

    async def _file(self, handle: RemoteHandle, inode: Inode, flags: int, ctx: RequestContext) -> FileInfo:
        """Return what the kernel is told of a file that was just opened: whether it may have pages of it, and whether those from before hold."""
        try:
            stat = await handle.stat() if self.cache else None
        except BaseException:
            with trio.CancelScope(shield=True):
                await handle.close()
            raise
        # What is written will have a length, and may be mapped.
        direct = stat is None or stat.version == 0 or (stat.length == 0 and flags & os.O_ACCMODE == os.O_RDONLY)
        version = 0 if stat is None else stat.version
        keep, inode.version = not direct and version == inode.version, version
        fh = self._keep(Opened(handle, inode.number, ctx.pid, direct, handle.iounit))
        return FileInfo(fh=fh, direct_io=direct, keep_cache=keep)

    async def open(self, inode: InodeT, flags: int, ctx: RequestContext) -> FileInfo:
        with self._asks(ctx):
            file, who = self._inode(inode), self._user(ctx)
            # What is stored has no records, so an empty read need not be asked for twice.
            handle = await file.seen_by(who).open(attrs.evolve(how_of(who, flags), records=file.stored))
            return await self._file(handle, file, flags, ctx)

    async def create(
        self, parent_inode: InodeT, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        with self._asks(ctx):
            directory, called, how = self._node(parent_inode, ctx), text(name), how_of(self._user(ctx), flags)
            try:
                node, handle = await directory.create(called, mode & 0o7777, how)
            except FileExistsError:  # somebody else made it since the kernel looked
                if flags & os.O_EXCL:
                    raise
                node = await directory.walk(called, how.who)
                handle = await node.open(how)
            try:
                stat = await handle.stat()
                with suppress(OSError):  # its name may be another's by now; open it is all the same
                    await node.here()
                entry = await self._tell(parent_inode, called, node, stat)
            except BaseException:
                with trio.CancelScope(shield=True):
                    await handle.close()
                raise
            try:
                return await self._file(handle, self._inode(entry.st_ino), flags, ctx), entry
            except BaseException:
                self.inodes.forget(entry.st_ino, 1)
                raise

    async def read(self, fh: int, off: int, size: int) -> bytes:
        opened = self._open(fh)
        with Request(self.interrupts, 0, opened.inode, opened.opener):
            data = first = bytes(await settle(opened.handle.read(off, size)))
            if opened.direct and len(first) < opened.iounit:
                return data
            # The page cache takes what is short for the end of the file; and where a message of the server's was full, there is mostly more.
            # A stream may have nothing more now: then what has come is all.
            with trio.move_on_after(REST if opened.direct else math.inf):
                while 0 < len(data) < size:
                    more = bytes(await settle(opened.handle.read(off + len(data), size - len(data))))
                    if not more:
                        break
                    data += more
            return data

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        opened = self._open(fh)
        with Request(self.interrupts, 0, opened.inode, opened.opener):
            view = memoryview(buf)
            done = await settle(opened.handle.write(off, view))
            while not opened.direct and 0 < done < len(buf):
                more = await settle(opened.handle.write(off + done, view[done:]))
                if not more:
                    break
                done += more
            if not done and buf:  # a program would try again for ever
                raise NineError(errno.EIO)
            return done

    async def flush(self, fh: int) -> None:
        pass  # every write was sent when it was made

    async def fsync(self, fh: int, datasync: bool) -> None:
        opened = self._open(fh)
        with Request(self.interrupts, 0, opened.inode, opened.opener):
            await settle(opened.handle.sync(data=datasync))

    async def release(self, fh: int) -> None:
        opened = self._open(fh)
        del self.opened[fh]
        with Request(self.interrupts, -1):
            await settle(opened.handle.close())

    # Directories

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> int:
        with self._asks(ctx):
            directory, who = self._inode(inode), self._user(ctx)
            return self._keep(Listing(directory, who, await entries_of(directory.seen_by(who), who)))

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self.opened[fh]
        assert isinstance(listing, Listing)
        with Request(self.interrupts, 0, listing.inode.number):
            here = listing.inode
            if start_id == 0 and listing.stats:  # rewinddir(3)
                listing.entries, listing.stats = await entries_of(here.seen_by(listing.who), listing.who), {}
            for place, (name, number) in enumerate(((b".", here.number), (b"..", here.parent)), 1):
                if start_id < place:
                    there = attributes(number, st.S_IFDIR, Stat(0))
                    if not pyfuse3.readdir_reply(token, name, there, place):
                        return
            for at in range(max(start_id - 2, 0), len(listing.entries)):
                if at not in listing.stats:
                    await stat_some(listing, at)
                stat = listing.stats[at]
                if stat is None:
                    continue
                child, node = listing.entries[at]
                entry = await self._tell(here.number, child, node, stat)
                if not pyfuse3.readdir_reply(token, raw(child), entry, at + 3):
                    self.inodes.forget(entry.st_ino, 1)
                    return

    async def releasedir(self, fh: int) -> None:
        del self.opened[fh]

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        listing = self.opened[fh]
        assert isinstance(listing, Listing)
        with Request(self.interrupts, 0, listing.inode.number):
            await listing.inode.seen_by(listing.who).sync(listing.who, data=datasync)


@lru_cache(maxsize=1024)
def _principal(uid: int) -> Principal:
    return Principal.of(uid)


async def _settled(done: Any) -> None:
    if done is not None:
        await done
