"""A tree of another server as a FUSE file system: `Fuse`, an adapter of `Remote` to pyfuse3.

Rules
* An inode of the kernel is a `Remote` here, a file of the server, as long as the kernel remembers it; its names are walked again when the server
  is back (fuse_inodes.py).
* The server answers what the kernel asks. fuse_common.py says what the kernel may keep, and for how long; fuse_open.py says how it keeps contents.
* A step takes one round trip if the server answers in order: requests that belong together go out together (fuse_asks.py).
* Each request belongs to the user who made it, or to `who` for all. The server checks the permissions, and is asked where the bits do not tell
  (`access`).
* Errors have the server's errno, and are EIO while it is down (fuse_requests.py).
* Numbers are the server's as far as the kernel takes them. The kernel does not get values that would make a file or a whole listing EIO
  (fuse_files.py).
* A request may wait as long as it likes, and others go on meanwhile. A process that is killed or gets a signal meanwhile gets EINTR
  (interrupts.py).
"""

import errno
import stat as st
from collections.abc import Sequence
from typing import Final

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, InodeT, RequestContext

from mk9p.auth import EXEC, READ, WRITE, Principal
from mk9p.clients.fuse_access import allowed
from mk9p.clients.fuse_files import is_now, kind_of, text
from mk9p.clients.fuse_inodes import Inode
from mk9p.clients.fuse_listing import Listings
from mk9p.clients.fuse_open import OpenFiles
from mk9p.errors import NineError
from mk9p.tree import NOW, Change

TASKS: Final = 100_000  # each blocked read holds one: there must always be another
IDLE: Final = 8  # tasks that wait for a request: a new task for each costs more than most requests do
PATH_MAX: Final = 4096  # from limits.h: the kernel takes no longer target of a symbolic link


class Fuse(OpenFiles, Listings):
    """The file system of one tree."""

    async def _attributes(self, inode: Inode) -> EntryAttributes:
        """Return the present state of an inode. Raises ESTALE if it has become a file of another kind: the kernel would accept nothing of it from
        then on."""
        asked = trio.current_time()
        try:
            stat = await inode.node.stat()
        except FileNotFoundError:
            now = next((opened.handle.stat() for opened in self._opened_of(inode)), None)
            if now is None:
                raise
            stat = await now
        if inode is not self.inodes.root and kind_of(inode.node, stat) != inode.kind:
            raise NineError(errno.ESTALE)
        return self._taken(inode, stat, asked)

    # Names

    async def lookup(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> EntryAttributes:
        with self._asks(ctx):
            called, asked = text(name), trio.current_time()
            node, stat = await self._look(self._inode(parent_inode), called, self._user(ctx))
            return await self._tell(parent_inode, called, node, stat, asked)

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        for number, times in inode_list:
            self.inodes.forget(number, times)

    async def mkdir(self, parent_inode: InodeT, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        with self._asks(ctx):
            called = text(name)
            await self._sure(self._inode(parent_inode), self._user(ctx))
            node = await self._node(parent_inode, ctx).mkdir(called, mode & 0o7777, self._user(ctx))
            return await self._told(parent_inode, called, node)

    async def mknod(
        self, parent_inode: InodeT, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        with self._asks(ctx):
            called = text(name)
            await self._sure(self._inode(parent_inode), self._user(ctx))
            node = await self._node(parent_inode, ctx).mknod(called, mode, rdev, self._user(ctx))
            return await self._told(parent_inode, called, node)

    async def symlink(self, parent_inode: InodeT, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        with self._asks(ctx):
            called = text(name)
            await self._sure(self._inode(parent_inode), self._user(ctx))
            node = await self._node(parent_inode, ctx).symlink(called, text(target), self._user(ctx))
            return await self._told(parent_inode, called, node)

    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        with self._asks(ctx):
            directory, called, who = self._node(new_parent_inode, ctx), text(new_name), self._user(ctx)
            await self._meant(self._inode(inode), who)
            await self._sure(self._inode(new_parent_inode), who)
            await directory.link(called, self._node(inode, ctx), who)
            return await self._told(new_parent_inode, called, await directory.walk(called, who))

    async def unlink(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        with self._asks(ctx):
            await self._remove(parent_inode, text(name), ctx, directory=False)

    async def rmdir(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        with self._asks(ctx):
            await self._remove(parent_inode, text(name), ctx, directory=True)

    async def _remove(self, parent: int, name: str, ctx: RequestContext, *, directory: bool) -> None:
        await self._sure(self._inode(parent), self._user(ctx))
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
            if flags:  # 9P cannot say RENAME_NOREPLACE or RENAME_EXCHANGE; then mv(1) does without
                raise NineError(errno.EINVAL)
            for inode in (parent_inode_old, parent_inode_new):
                await self._sure(self._inode(inode), self._user(ctx))
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
            file, who, asked = self._inode(inode), self._user(ctx), trio.current_time()
            # A user who came by names that the kernel believes may be one who may not: the server says so. An open file is shown to the user who
            # opened it.
            if self.inodes.route(file, asked)[1] and not any(it.who == who for it in self._opened_of(file)):
                stat = await self._status(file, who)
                if stat is not None and kind_of(file.node, stat) == file.kind:
                    return self._taken(file, stat, asked)
            return await self._attributes(file)

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
            await self._meant(inode, who)
            await inode.seen_by(who).change(change, who)
        else:
            await self.opened[fh].handle.change(change)
        inode.changed()
        if inode.kind == st.S_IFDIR and (change.mode, change.uid, change.gid) != (None, None, None):
            self._unbelieve(inode)

    async def _meant(self, inode: Inode, who: Principal) -> None:
        """Raise ESTALE if a change is meant for a name that leads to another file by now. It may be meant for an open file itself: fchmod(2)."""
        if next(self._opened_of(inode), None) is None:
            await self._sure(inode, who)

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
