"""A tree of another server as a FUSE file system: `Fuse`, one adapter of `Remote` to pyfuse3.

Rules
* Whatever the kernel asks goes to the server; nothing is kept here: entries and attributes are valid for 0 seconds. What an inode is to the kernel
  is a `Remote` here, names that are walked again when the server is back, as long as the kernel remembers it.
* Inode numbers are qid.path, in our own space; only the root is 1, as FUSE wants it. A file's latest names count: who looks it up renews them.
* Made-up files (qid.version 0, or of length 0) are open for direct I/O: they are read until an empty read whatever their length says, a read(2)
  returns what one record brings, and each write(2) is one Twrite at once, with its errno. Without a cache, which is the default, all files are.
* Each request is the user's who made it, or `who` for all; the server checks the permissions. Errors are the server's errno; EIO while it is down.
* A request may wait as long as it likes, others go on meanwhile; who is killed or gets a signal while he waits is answered EINTR (interrupts.py).
"""

import errno
import logging
import math
import os
import stat as st
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from types import TracebackType
from typing import Any, Final

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, InodeT, RequestContext

from clients.fuse_files import Inode, Listing, Opened, attributes, entries_of, stat_some, text
from clients.interrupts import Asked, Interrupts
from mk9p.auth import EXEC, READ, WRITE, Principal, may
from mk9p.compose.opened import RemoteHandle
from mk9p.compose.remote import Remote
from mk9p.errors import NineError
from mk9p.tree import Change, Handle, Node, Open, Stat, settle

log = logging.getLogger("mk9p.fuse")

TASKS: Final = 100_000  # each blocked read holds one: there must always be another
REST: Final = 0.1  # seconds that a read waits for more when it has a full message already


class _Request:
    """Around each request: cancelled when its asker is interrupted; whatever goes wrong is the errno that the kernel is told."""

    __slots__ = ("asked", "interrupts")

    def __init__(self, interrupts: Interrupts, tid: int, inode: int = 0, opener: int = 0) -> None:
        self.interrupts, self.asked = interrupts, Asked(tid, inode, opener)

    def __enter__(self) -> None:
        self.asked.scope.__enter__()
        self.interrupts.add(self.asked)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.interrupts.waiting.discard(self.asked)
        self.asked.scope.__exit__(kind, error, trace)
        if self.asked.scope.cancelled_caught:
            raise FUSEError(errno.EINTR) from None
        if isinstance(error, OSError):
            raise FUSEError(error.errno or errno.EIO) from None
        if isinstance(error, Exception) and not isinstance(error, FUSEError):
            log.error("internal error", exc_info=error)
            raise FUSEError(errno.EIO) from None


class Fuse(pyfuse3.Operations):
    """The file system of one tree. `who` is the user of all requests; None: each is its own user's. `cache`: stored files may be cached."""

    supports_dot_lookup = False

    def __init__(self, root: Remote, *, who: Principal | None = None, cache: bool = False) -> None:
        super().__init__()
        self.who, self.cache = who, cache
        self.interrupts = Interrupts()
        self.inodes = {int(pyfuse3.ROOT_INODE): Inode(pyfuse3.ROOT_INODE, root, pyfuse3.ROOT_INODE)}
        self.opened: dict[int, Opened | Listing] = {}
        self._next = 0

    # What requests have in common

    def _asks(self, ctx: RequestContext) -> _Request:
        return _Request(self.interrupts, ctx.pid)

    def _user(self, ctx: RequestContext) -> Principal:
        return self.who or _principal(ctx.uid)

    def _inode(self, number: int) -> Inode:
        inode = self.inodes.get(number)
        if inode is None:
            raise NineError(errno.ESTALE)
        return inode

    def _open(self, fh: int) -> Opened:
        opened = self.opened[fh]
        assert isinstance(opened, Opened)
        return opened

    def _keep(self, opened: Opened | Listing) -> int:
        self._next += 1
        self.opened[self._next] = opened
        return self._next

    def _tell(self, parent: int, node: Node, stat: Stat) -> EntryAttributes:
        """Return a child's attributes for a reply that makes the kernel know it."""
        assert isinstance(node, Remote)
        assert node.path is not None
        inode = self.inodes.get(node.path)
        if inode is None:
            inode = self.inodes[node.path] = Inode(node.path, node, parent)
        else:
            inode.node, inode.parent = node, parent
        inode.known += 1
        return attributes(inode.number, stat)

    async def _told(self, parent: int, node: Node) -> EntryAttributes:
        stat = await settle(node.stat())  # before the kernel knows of it: this may fail
        return self._tell(parent, node, stat)

    # Names

    async def lookup(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> EntryAttributes:
        with self._asks(ctx):
            directory = self._inode(parent_inode)
            return await self._told(parent_inode, await directory.node.walk(text(name), self._user(ctx)))

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        for number, times in inode_list:
            inode = self.inodes.get(number)
            if inode is not None and number != pyfuse3.ROOT_INODE:
                inode.known -= times
                if inode.known <= 0:
                    del self.inodes[number]

    async def mkdir(self, parent_inode: InodeT, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        with self._asks(ctx):
            directory = self._inode(parent_inode)
            node = await directory.node.mkdir(text(name), mode & 0o7777, self._user(ctx))
            return await self._told(parent_inode, node)

    async def mknod(
        self, parent_inode: InodeT, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        with self._asks(ctx):
            directory = self._inode(parent_inode)
            node = await directory.node.mknod(text(name), mode, rdev, self._user(ctx))
            return await self._told(parent_inode, node)

    async def symlink(self, parent_inode: InodeT, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        with self._asks(ctx):
            directory = self._inode(parent_inode)
            node = await directory.node.symlink(text(name), text(target), self._user(ctx))
            return await self._told(parent_inode, node)

    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        with self._asks(ctx):
            directory, who = self._inode(new_parent_inode).node, self._user(ctx)
            await directory.link(text(new_name), self._inode(inode).node, who)
            return await self._told(new_parent_inode, await directory.walk(text(new_name), who))

    async def unlink(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        with self._asks(ctx):
            await self._inode(parent_inode).node.remove(text(name), self._user(ctx), directory=False)

    async def rmdir(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        with self._asks(ctx):
            await self._inode(parent_inode).node.remove(text(name), self._user(ctx), directory=True)

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
            old, new, who = self._inode(parent_inode_old).node, self._inode(parent_inode_new).node, self._user(ctx)
            await old.rename(text(name_old), new, text(name_new), who)
            # The kernel keeps the inode under its new name, and may ask for it without looking it up again.
            with suppress(OSError):
                node = await new.walk(text(name_new), who)
                assert isinstance(node, Remote)
                if node.path in self.inodes:
                    self.inodes[node.path].node = node

    async def readlink(self, inode: InodeT, ctx: RequestContext) -> bytes:
        with self._asks(ctx):
            return (await self._inode(inode).node.readlink()).encode(errors="surrogateescape")

    # Status

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        with self._asks(ctx):
            return attributes(inode, await self._inode(inode).node.stat())

    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        with self._asks(ctx):
            node = self._inode(inode).node
            change = Change(
                mode=attr.st_mode & 0o7777 if fields.update_mode else None,
                uid=attr.st_uid if fields.update_uid else None,
                gid=attr.st_gid if fields.update_gid else None,
                length=attr.st_size if fields.update_size else None,
                atime=attr.st_atime_ns if fields.update_atime else None,
                mtime=attr.st_mtime_ns if fields.update_mtime else None,
            )
            if change != Change():
                await (node.change(change, self._user(ctx)) if fh is None else _change(self._open(fh).handle, change))
            return attributes(inode, await node.stat())

    async def access(self, inode: InodeT, mode: int, ctx: RequestContext) -> bool:
        with self._asks(ctx):
            stat, who = await self._inode(inode).node.stat(), self._user(ctx)
            want = sum(bit for bit in (READ, WRITE, EXEC) if mode & bit)  # the bits of access(2) are these
            if who.uid == 0:  # executes what somebody may execute
                return not want & EXEC or bool(stat.mode & 0o111)
            return may(who, stat.mode, stat.uid, stat.gid, want)

    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        with self._asks(ctx):
            found = await self._inode(pyfuse3.ROOT_INODE).node.statfs()
            data = pyfuse3.StatvfsData()
            data.f_bsize = data.f_frsize = found.bsize
            data.f_blocks, data.f_bfree, data.f_bavail = found.blocks, found.bfree, found.bavail
            data.f_files, data.f_ffree, data.f_favail = found.files, found.ffree, found.ffree
            data.f_namemax = found.namelen
            return data

    # Open files

    def _how(self, flags: int, ctx: RequestContext) -> Open:
        access = flags & os.O_ACCMODE
        return Open(
            self._user(ctx),
            read=access != os.O_WRONLY,
            write=access != os.O_RDONLY,
            truncate=bool(flags & os.O_TRUNC),
            append=bool(flags & os.O_APPEND),
            flags=flags,
        )

    def _file(self, handle: Handle, inode: int, stat: Stat | None, ctx: RequestContext) -> FileInfo:
        direct = stat is None or stat.version == 0 or stat.length == 0
        assert isinstance(handle, RemoteHandle)
        fh = self._keep(Opened(handle, inode, ctx.pid, direct, handle.iounit))
        return FileInfo(fh=fh, direct_io=direct, keep_cache=False)

    async def open(self, inode: InodeT, flags: int, ctx: RequestContext) -> FileInfo:
        with self._asks(ctx):
            node = self._inode(inode).node
            stat = await node.stat() if self.cache else None
            return self._file(await node.open(self._how(flags, ctx)), inode, stat, ctx)

    async def create(
        self, parent_inode: InodeT, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        with self._asks(ctx):
            directory, how = self._inode(parent_inode).node, self._how(flags, ctx)
            node: Node
            handle: Handle
            try:
                node, handle = await directory.create(text(name), mode & 0o7777, how)
            except FileExistsError:  # somebody else made it since the kernel looked
                if flags & os.O_EXCL:
                    raise
                node = await directory.walk(text(name), how.who)
                handle = await settle(node.open(how))
            try:
                stat: Stat = await settle(node.stat())
            except BaseException:
                with trio.CancelScope(shield=True):
                    await settle(handle.close())
                raise
            entry = self._tell(parent_inode, node, stat)
            return self._file(handle, entry.st_ino, stat if self.cache else None, ctx), entry

    async def read(self, fh: int, off: int, size: int) -> bytes:
        opened = self._open(fh)
        with _Request(self.interrupts, 0, opened.inode, opened.opener):
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
        with _Request(self.interrupts, 0, opened.inode, opened.opener):
            view = memoryview(buf)
            done = await settle(opened.handle.write(off, view))
            while not opened.direct and 0 < done < len(buf):
                done += await settle(opened.handle.write(off + done, view[done:]))
            return done

    async def flush(self, fh: int) -> None:
        pass  # every write was sent when it was made

    async def fsync(self, fh: int, datasync: bool) -> None:
        opened = self._open(fh)
        with _Request(self.interrupts, 0, opened.inode, opened.opener):
            await settle(opened.handle.sync(data=datasync))

    async def release(self, fh: int) -> None:
        opened = self._open(fh)
        del self.opened[fh]
        with _Request(self.interrupts, -1):
            await settle(opened.handle.close())

    # Directories

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> int:
        with self._asks(ctx):
            directory, who = self._inode(inode), self._user(ctx)
            return self._keep(Listing(directory, who, await entries_of(directory.node, who)))

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self.opened[fh]
        assert isinstance(listing, Listing)
        with _Request(self.interrupts, 0, listing.inode.number):
            here = listing.inode
            if start_id == 0 and listing.stats:  # rewinddir(3)
                listing.entries, listing.stats = await entries_of(here.node, listing.who), {}
            for place, (name, number) in enumerate(((b".", here.number), (b"..", here.parent)), 1):
                if start_id < place:
                    there = attributes(number, Stat(st.S_IFDIR))
                    if not pyfuse3.readdir_reply(token, name, there, place):
                        return
            for at in range(max(start_id - 2, 0), len(listing.entries)):
                if at not in listing.stats:
                    await stat_some(listing, at)
                stat = listing.stats[at]
                if stat is None:
                    continue
                child, node = listing.entries[at]
                entry = self._tell(here.number, node, stat)
                if not pyfuse3.readdir_reply(token, child.encode(errors="surrogateescape"), entry, at + 3):
                    await self.forget([(entry.st_ino, 1)])
                    return

    async def releasedir(self, fh: int) -> None:
        del self.opened[fh]

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        listing = self.opened[fh]
        assert isinstance(listing, Listing)
        with _Request(self.interrupts, 0, listing.inode.number):
            await listing.inode.node.sync(listing.who, data=datasync)


@lru_cache(maxsize=1024)
def _principal(uid: int) -> Principal:
    return Principal.of(uid)


async def _change(handle: Handle, change: Change) -> None:
    done: Any = handle.change(change)
    if done is not None:
        await done
