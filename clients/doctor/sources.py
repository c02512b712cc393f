"""Where doctor looks at a tree: at its server, as a client of its own, or in a directory of this kernel."""

import errno
import os
import stat as st
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

import trio

from mk9p.client import Client, changes, requests, stored
from mk9p.client.stats import of_getattr
from mk9p.clients.doctor.judge import Content, Finding, Look
from mk9p.errors import NineError
from mk9p.tree import Change, Stat
from mk9p.wire import (
    GETATTR_BASIC,
    L_CREAT,
    L_RDONLY,
    L_WRONLY,
    OREAD,
    OWRITE,
    QTDIR,
    QTSYMLINK,
    SETATTR_CTIME,
    SETATTR_MTIME,
    SETATTR_SIZE,
    Dialect,
    Qid,
    unpack_dirents,
)
from mk9p.wire import messages as m

SAMPLE: Final = 4096  # bytes to read of a file that is too long to read whole
LEAST_MSIZE: Final = 4096  # net/9p/client.c refuses a smaller one

T = TypeVar("T")
Names = tuple[str, ...]


class Source(Protocol):
    """A tree to look at. Each method raises OSError as the tree does, and may be cancelled."""

    async def top(self) -> list[Finding]:
        """Return what is wrong with the server as a whole."""

    async def names(self, path: Names) -> list[tuple[str, Qid]]:
        """Return the names in a directory, without `.` and `..`. Raises ELOOP for a listing that never ends."""

    async def look(self, path: Names) -> Look | None:
        """Walk to a file and ask for its status; None for a file that does not belong to this tree. Raises what the walk raises."""

    async def content(self, path: Names, length: int, most: int) -> Content | None:
        """Open a file, read at most `most` bytes of it, and close it; None if that must not be tried."""

    async def readlink(self, path: Names) -> str:
        """Return where a symbolic link points."""

    async def truncate(self, path: Names) -> str | None:
        """Open a file of length 0 as the shell's `>` does, truncate and close it; return in words what was refused."""


class Served:
    """A tree at its server, from the directory `prefix` on."""

    def __init__(self, client: Client, prefix: Names = ()) -> None:
        self.client, self.connection, self.prefix = client, client.connection, prefix

    async def _walk(self, path: Names) -> tuple[int, list[Qid]]:
        return await requests.walk(self.connection, self.client.root, self.prefix + path)

    async def top(self) -> list[Finding]:
        found = []
        if self.connection.msize < LEAST_MSIZE:
            found.append(Finding("/", "msize", f"{self.connection.msize}: Linux mounts nothing below {LEAST_MSIZE}"))
        try:
            await stored.statfs(self.connection, self.client.root)
        except NineError as error:
            if error.errno != errno.ENOSYS:  # for ENOSYS the kernel makes something up
                found.append(Finding("/", "statfs", f"{error.strerror}: df fails; ENOSYS would not"))
        return found

    async def names(self, path: Names) -> list[tuple[str, Qid]]:
        c = self.connection
        fid, _ = await self._walk(path)
        try:
            if c.dialect is not Dialect.L:
                return [(name, qid) for name, qid, _ in await requests.entries(c, fid)]
            _, iounit = await requests.open_(c, fid)
            found: list[tuple[str, Qid]] = []
            cookies: set[int] = {0}
            offset = 0
            while True:
                (data,) = await c.rpc(m.Treaddir, fid, offset, iounit)
                if not data:
                    return found
                for qid, offset, _, name in unpack_dirents(data):  # noqa: B007  # the last is where to go on
                    if name not in (".", ".."):
                        found.append((name, qid))
                if offset in cookies:
                    raise NineError(errno.ELOOP, f"the listing goes back to offset {offset}, and never ends")
                cookies.add(offset)
        finally:
            c.clunk_nowait(fid)

    async def look(self, path: Names) -> Look | None:
        c = self.connection
        fid, qids = await self._walk(path)
        try:
            name = path[-1] if path else "/"
            if c.dialect is Dialect.L:
                said = await c.rpc(m.Tgetattr, fid, GETATTR_BASIC)
                # as Linux sees it: the client gives each file a kind
                stat = of_getattr(said, name)._replace(mode=said[2])
            else:
                stat = await requests.stat(c, fid, name)
        except NineError as error:
            return Look(qids[-1], None, error.strerror or str(error))
        finally:
            c.clunk_nowait(fid)
        return Look(qids[-1] if qids else self.client.qid, stat)

    async def content(self, path: Names, length: int, most: int) -> Content | None:
        c = self.connection
        fid, _ = await self._walk(path)
        try:
            linux = c.dialect is Dialect.L
            _, iounit = await c.rpc(m.Tlopen if linux else m.Topen, fid, L_RDONLY if linux else OREAD)
            largest = min(iounit or c.iounit, c.iounit)
            data, count = b"", wanted(length, most)
            while len(data) < count and (
                more := await requests.read(c, fid, len(data), min(count - len(data), largest))
            ):
                data += more
            if length <= most:
                return Content(data, len(data) < length, bool(length) and len(data) > length, iounit)
            last = await requests.read(c, fid, length - 1, 1)
            return Content(data, not last, bool(await requests.read(c, fid, length, 1)), iounit)
        finally:
            c.clunk_nowait(fid)

    async def readlink(self, path: Names) -> str:
        fid, _ = await self._walk(path)
        try:
            return await requests.readlink(self.connection, fid)
        finally:
            self.connection.clunk_nowait(fid)

    async def truncate(self, path: Names) -> str | None:
        c = self.connection
        fid, _ = await self._walk(path)
        try:
            if c.dialect is not Dialect.L:
                await c.rpc(m.Topen, fid, OWRITE)
                await changes.change(c, fid, Change(length=0))
                return None
            again, _ = await requests.walk(c, fid, ())
            try:
                await c.rpc(m.Tlopen, again, L_WRONLY)
            finally:
                c.clunk_nowait(again)
            try:  # from here on a file that allowed opening must not refuse: the messages are those of `echo x > file`
                await c.rpc(m.Tlopen, fid, L_WRONLY | L_CREAT)
            except NineError as error:
                return f"to open it with O_CREAT, as the shell's > does: {error.strerror}"
            valid = SETATTR_SIZE | SETATTR_MTIME | SETATTR_CTIME
            try:
                await c.rpc(m.Tsetattr, fid, valid, 0, 0, 0, 0, 0, 0, 0, 0)
            except NineError as error:
                return f"size=0, which > sends: {error.strerror}"
            return None
        finally:
            c.clunk_nowait(fid)


def wanted(length: int, most: int) -> int:
    """Return how many bytes to read of a file with that length in its status: one more, so as to see the end."""
    if length > most:
        return SAMPLE
    return length + 1 if length else most


class Local:
    """A directory of this kernel, without other file systems that are mounted in it.

    With `reads` False it reads no content: on a v9fs mount the hazards that doctor looks for may never return.
    """

    def __init__(self, top: str, *, reads: bool = True) -> None:
        self._top, self._reads = top, reads
        self._dev = os.stat(top).st_dev

    def _path(self, path: Sequence[str]) -> str:
        return os.path.join(self._top, *path)

    async def _do(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True)

    async def top(self) -> list[Finding]:
        return []

    async def names(self, path: Names) -> list[tuple[str, Qid]]:
        def work() -> list[tuple[str, Qid]]:
            with os.scandir(self._path(path)) as entries:
                return [(entry.name, Qid(0, 0, entry.inode())) for entry in entries]

        return await self._do(work)

    async def look(self, path: Names) -> Look | None:
        found = await self._do(lambda: os.lstat(self._path(path)))
        if found.st_dev != self._dev:
            return None
        kind = st.S_IFMT(found.st_mode)
        qid = Qid({st.S_IFDIR: QTDIR, st.S_IFLNK: QTSYMLINK}.get(kind, 0), 0, found.st_ino)
        stat = Stat(
            found.st_mode,
            found.st_uid,
            found.st_gid,
            found.st_size,
            found.st_mtime_ns,
            nlink=found.st_nlink,
            rdev=found.st_rdev,
            qid=qid,
        )
        return Look(qid, stat)

    async def content(self, path: Names, length: int, most: int) -> Content | None:
        if not self._reads:
            return None

        def work() -> Content:
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
            fd = os.open(self._path(path), flags)
            try:
                data, count = b"", wanted(length, most)
                while len(data) < count and (more := os.pread(fd, count - len(data), len(data))):
                    data += more
                if length <= most:
                    return Content(data, len(data) < length, bool(length) and len(data) > length)
                return Content(data, not os.pread(fd, 1, length - 1), bool(os.pread(fd, 1, length)))
            finally:
                os.close(fd)

        return await self._do(work)

    async def readlink(self, path: Names) -> str:
        return await self._do(lambda: os.readlink(self._path(path)))

    async def truncate(self, path: Names) -> str | None:
        def work() -> str | None:
            os.close(os.open(self._path(path), os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))
            flags = os.O_WRONLY | os.O_TRUNC | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                os.close(os.open(self._path(path), flags))
            except OSError as error:
                return f"to be truncated, as the shell's > does: {os.strerror(error.errno or 0)}"
            return None

        return await self._do(work)
