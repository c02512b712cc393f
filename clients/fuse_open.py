"""`OpenFiles`: opening, reading and writing files by FUSE (fuse.py).

* A stored file is opened, asked for its status, and, if it is short and the kernel does not have its contents yet, read, all in one round trip.
  The kernel keeps contents while version and ctime stay, and gets at once what was read on the way (`_give`).
* A synthetic file (qid.version 0, or of length 0 and only read) is open for direct I/O: it is read until an empty read whatever its length says, a
  read(2) returns what one record brings, and each write(2) is one Twrite at once, with its errno. Without a cache all files are.
"""

import errno
import math
import os
import stat as st
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import attrs
import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileHandleT, FileInfo, InodeT, RequestContext

from mk9p.auth import Principal
from mk9p.client.flights import Astray
from mk9p.clients.fuse_asks import Answer, drop, open_
from mk9p.clients.fuse_common import BELIEVED, Common
from mk9p.clients.fuse_files import contents, how_of, same, text
from mk9p.clients.fuse_inodes import Inode
from mk9p.clients.fuse_requests import Request
from mk9p.compose.opened import RemoteHandle
from mk9p.compose.remote import Remote
from mk9p.errors import NineError
from mk9p.tree import Stat

REST: Final = 0.1  # seconds that a read waits for more when it has a full message already
SHORT: Final = 1 << 16  # bytes of a file to read when it is opened


@attrs.define(eq=False)
class Opened:
    """An open file; `who` is the user and `opener` the thread that opened it. `first` is its beginning, only for the first read."""

    handle: RemoteHandle
    inode: Inode
    who: Principal
    opener: int
    direct: bool
    reads: bool  # … and does not write
    first: bytes = b""
    writes: int = 0  # those of the inode, when that was read


class OpenFiles(Common):
    """The open files of a mount."""

    def __init__(self, root: Remote, *, who: Principal | None = None, cache: bool = False) -> None:
        super().__init__(root, who=who, cache=cache)
        self.opened: dict[int, Opened] = {}

    def _opened_of(self, inode: Inode) -> Iterator[Opened]:
        return (opened for opened in self.opened.values() if opened.inode is inode)

    async def open(self, inode: InodeT, flags: int, ctx: RequestContext) -> FileInfo:
        with self._asks(ctx):
            file, who = self._inode(inode), self._user(ctx)
            # A stored file has no records, so there is no need to ask twice for an empty read.
            how, node = how_of(who, flags, records=file.stored), file.seen_by(who)
            if not self.cache or not file.stored or not st.S_ISREG(file.kind):
                answer = await open_(node, how, stat=self.cache and file.stored)
                return self._info(file, answer, flags, ctx)
            if how.truncate:  # not before it is known which file that is
                await self._sure(file, who)
                return self._info(file, await open_(node, how), flags, ctx)
            now = trio.current_time()
            start, below = self._route(file)
            known = file.stat
            recent = known if known is not None and file.seen + BELIEVED > now else None
            kept = file.paged and known is not None and contents(known) == file.contents
            count = SHORT if how.read and known is not None and 0 < known.length <= SHORT and not kept else 0
            names = tuple(inode.name for inode in below)
            try:
                answer = await open_(node, how, start=start.seen_by(who), names=names, stat=recent is None, count=count)
            except (Astray, FileNotFoundError):
                if not below:
                    raise
                raise self._stale(below) from None
            try:
                if below and answer.paths and answer.paths != [inode.path for inode in below]:
                    raise self._stale(below)
                if recent is not None and answer.stat is None:
                    stat = recent if answer.version == recent.version else await answer.handle.stat()
                    answer = Answer(answer.handle, answer.paths, answer.version, stat, answer.first)
            except BaseException:
                drop(answer.handle)
                raise
            return self._info(file, answer, flags, ctx)

    def _info(self, inode: Inode, answer: Answer, flags: int, ctx: RequestContext) -> FileInfo:
        """Return what to tell the kernel of a file that was just opened: whether it may have pages of it, and whether older pages are still valid."""
        stat, reads, keep = answer.stat, flags & os.O_ACCMODE == os.O_RDONLY, False
        opened = Opened(answer.handle, inode, self._user(ctx), ctx.pid, direct=True, reads=reads)
        if stat is not None:
            self._compare(inode, stat, written=bool(flags & os.O_TRUNC))
            # A file that is written will have a length, and may be mapped.
            opened.direct = stat.version == 0 or (stat.length == 0 and reads)
            if not opened.direct:
                keep = contents(stat) == inode.contents
                if 0 < len(answer.first) == stat.length:
                    if inode.paged or not self._give(inode, answer.first):
                        opened.first, opened.writes = answer.first, inode.writes
                    else:
                        keep = True
                inode.paged = True
        inode.contents = contents(stat) if stat is not None else None
        fh = self._number()
        self.opened[fh] = opened
        return FileInfo(fh=FileHandleT(fh), direct_io=opened.direct, keep_cache=keep)

    def _compare(self, inode: Inode, stat: Stat, *, written: bool) -> None:
        """Make the kernel ask for a status again if it got another one."""
        if written or inode.stat is None or not same(inode.stat, stat):
            inode.changed()
            self._forget_status(inode)

    def _give(self, inode: Inode, data: bytes) -> bool:
        """Give the kernel the contents of a file of which it has none, and fetches none: so no page is locked, and this waits for nobody."""
        try:
            pyfuse3.notify_store(InodeT(inode.number), 0, data)
        except OSError:
            return False
        return True

    async def create(
        self, parent_inode: InodeT, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        with self._asks(ctx):
            directory, called, how = self._node(parent_inode, ctx), text(name), how_of(self._user(ctx), flags)
            await self._sure(self._inode(parent_inode), how.who)
            try:
                node, handle = await directory.create(called, mode & 0o7777, how)
            except FileExistsError:  # somebody else made it since the kernel looked
                if flags & os.O_EXCL:
                    raise
                node = await directory.walk(called, how.who)
                handle = await node.open(how)
            try:
                asked = trio.current_time()
                stat = await handle.stat()
                with suppress(OSError):  # its name may belong to another file by now; it is open all the same
                    await node.here()
                entry = await self._tell(parent_inode, called, node, stat, asked)
            except BaseException:
                drop(handle)
                raise
            answer = Answer(handle, [], 0, stat if self.cache else None, b"")
            return self._info(self._inode(entry.st_ino), answer, flags & ~os.O_TRUNC, ctx), entry

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        opened = self.opened[fh]
        if opened.first:
            first, opened.first = opened.first, b""
            if opened.writes == opened.inode.writes:
                return first[off : off + size]
        handle = opened.handle
        with Request(self.interrupts, 0, opened.inode.number, opened.opener):
            data = await handle.read(off, size)
            if opened.direct and len(data) < handle.iounit:
                return data
            # The page cache takes a short answer for the end of the file; and if a message of the server was full, there is usually more. A stream
            # may have nothing more now: then the answer is what has come.
            with trio.move_on_after(REST if opened.direct else math.inf):
                while 0 < len(data) < size and not self._ends(opened, off + len(data)):
                    more = await handle.read(off + len(data), size - len(data))
                    if not more:
                        break
                    data += more
            return data

    def _ends(self, opened: Opened, at: int) -> bool:
        """Tell whether a stored file is known to end there: a reader that reads on asks again."""
        stat = opened.inode.stat
        return not opened.direct and stat is not None and stat.length == at

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        opened = self.opened[fh]
        with Request(self.interrupts, 0, opened.inode.number, opened.opener):
            opened.inode.changed()
            view = memoryview(buf)
            done = await opened.handle.write(off, view)
            while not opened.direct and 0 < done < len(buf):
                more = await opened.handle.write(off + done, view[done:])
                if not more:
                    break
                done += more
            if not done and buf:  # a program would try again for ever
                raise NineError(errno.EIO)
            opened.inode.changed()
            return done

    async def flush(self, fh: FileHandleT) -> None:
        raise pyfuse3.FUSEError(errno.ENOSYS)  # every write was sent when it was made: the kernel need not ask again

    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        opened = self.opened[fh]
        with Request(self.interrupts, 0, opened.inode.number, opened.opener):
            await opened.handle.sync(data=datasync)

    async def release(self, fh: FileHandleT) -> None:
        opened = self.opened.pop(fh)
        if opened.reads and not opened.direct:
            self._later((opened.handle.connection, opened.handle.fid))
        else:  # closing a written or synthetic file may end something
            drop(opened.handle)
