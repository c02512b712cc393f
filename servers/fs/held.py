"""A file of the host, held by a descriptor for its path: its status and attributes (nodes.py has its names and contents)."""

import errno
import os
import stat as st
from os import stat as os_stat
from typing import Final, Protocol

import trio

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.servers.fs import changes, kernel, marks
from mk9p.servers.fs.export import Export
from mk9p.servers.fs.names import from_host, to_host
from mk9p.sysfs import boot
from mk9p.tree import Change, Maybe, Node, Stat, StatFs
from mk9p.wire import QTDIR, QTFILE, QTSYMLINK

WEIGHT: Final = 208  # bytes that it takes, without its status: itself, its numbers, and its handle (grips.py)
_SPECIAL: Final = "devices, pipes and sockets are used where they are, and not opened through here"


class Directory(Protocol):
    """The directory that a file was listed in, and that finds it again."""

    def at(self) -> int:
        """Return the descriptor of the directory."""

    def listed(self, raw: bytes) -> os.stat_result:
        """Return the status of a name in it."""

    async def stat_across(self, raw: bytes) -> Stat:
        """Return the status of a name in it that is on another file system."""


class Held(Node):
    """A file of the host: which it is, and its status."""

    __slots__ = (
        "__weakref__",
        "_known",
        "_stat",
        "dtype",
        "export",
        "grip",
        "path",
        "qtype",
    )

    descriptors = 1
    weight = WEIGHT
    lasting = False  # its operations may wait for ever, so threads do them, and it keeps its descriptor
    marks = True
    path: int

    def __init__(self, export: Export, path: int, mode: int) -> None:
        self.export, self.path = export, path
        # the number of its descriptor (grips.py), or the directory and name of a file that was listed and not yet used
        self.grip: int | tuple[Directory, bytes] = -1
        # what `_stat` was made from, while it is kept
        self._known: os.stat_result | None = None
        self._stat: Stat | None = None
        kind = mode & 0o170000
        self.qtype = QTDIR if kind == st.S_IFDIR else QTSYMLINK if kind == st.S_IFLNK else QTFILE
        self.dtype = None if self.qtype or kind == st.S_IFREG else kind >> 12

    def __del__(self) -> None:
        if type(grip := self.grip) is int and grip >= 0:
            self.export.grips.drop(grip)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and other.path == self.path

    def __hash__(self) -> int:
        return self.path

    @property
    def guards(self) -> bool:  # type: ignore[override]  # a slot of each of very many files would be eight bytes more
        return self.export.guards

    def at(self) -> int:
        """Return the descriptor of this file, and open it again if it was given back. Raises ESTALE if the file no longer exists."""
        if self._stat is None:
            self._known = None
        grip, export = self.grip, self.export
        if type(grip) is int:
            fd = export.fds[grip]
            return fd if fd >= 0 else export.grips.again(grip)
        assert isinstance(grip, tuple)
        where, name = grip
        fd = kernel.open_beneath(where.at(), name, os.O_PATH, resolve=kernel.NO_XDEV, waits=self.lasting)
        with export.grips.lock:
            if self.grip is grip:
                self.hold_by(fd)
                return fd
        os.close(fd)  # another thread was faster
        return self.at()

    def hold_by(self, fd: int) -> None:
        """Take a new descriptor for this file's path, which belongs to the node from then on."""
        grips = self.export.grips
        self.grip = grips.take(fd)
        if self.lasting:
            grips.keep(self.grip)

    def spare(self) -> None:
        """Keep the descriptor, and do not count it as one of those that may be held."""
        assert isinstance(self.grip, int)
        self.export.grips.spare(self.grip)

    def lies_on(self, device: int) -> None:
        """Note the device, if `lasting`: its threads do the work."""

    # status

    def stat(self) -> Maybe[Stat]:
        grip, stat = self.grip, self._stat
        if stat is None:
            if self._known is not None:
                return self.status(self._known)
        elif grip.__class__ is int:
            fd = self.export.fds[grip]
            now = os_stat(fd) if fd >= 0 else os_stat(self.at())
            # as `status` finds out, without calling it: most files are asked again and again
            if (
                now == self._known
                and now.st_ctime_ns == stat.ctime
                and now.st_atime_ns == stat.atime
                and now.st_blocks == stat.blocks
            ):
                return stat
            return self.status(now)
        if isinstance(grip, int):
            return self.status(os_stat(self.at()))
        directory, name = grip
        try:
            return self.status(directory.listed(name))
        except OSError as error:
            if error.errno != errno.EXDEV or self.export.xdev:
                raise
            return directory.stat_across(name)

    def status(self, now: os.stat_result) -> Stat:
        """Return what is told of the file, whose status is this now: the same object as before, if nothing has changed."""
        stat, known = self._stat, self._known
        if stat is not None:
            if (
                now == known
                and now.st_ctime_ns == stat.ctime
                and now.st_atime_ns == stat.atime
                and now.st_blocks == stat.blocks
            ):
                return stat
        elif known is None:
            self.export.knows(self)
        self._known = now
        mode, mtime, ctime, size = now.st_mode, now.st_mtime_ns, now.st_ctime_ns, now.st_size
        exclusive = append = False
        if mode & marks.HINT == marks.HINTED and (mark := marks.read(self._in_proc())) is not None:
            mode &= ~st.S_ISVTX
            exclusive, append = mark
        self._stat = stat = Stat(
            mode,
            now.st_uid,
            now.st_gid,
            size,
            mtime,
            now.st_atime_ns,
            ctime,
            # ctime, because anybody can set mtime back; and never 0, which would say that it is synthetic
            (mtime ^ mtime >> 32 ^ (ctime ^ ctime >> 32) << 1 ^ size << 7) & 0xFFFFFFFF or 1,
            now.st_nlink,
            now.st_rdev,
            now.st_blksize,
            now.st_blocks,
            exclusive,
            append,
        )
        return stat

    def forget(self) -> None:
        """Stop keeping the status."""
        self._known = self._stat = None

    def born(self) -> Maybe[int | None]:
        return kernel.born(self.at())

    def life(self) -> Maybe[int]:
        return boot()  # what was written is in the kernel's memory

    def statfs(self) -> Maybe[StatFs]:
        s = os.statvfs(self.at())
        return StatFs(
            bsize=s.f_frsize,
            blocks=s.f_blocks,
            bfree=s.f_bfree,
            bavail=s.f_bavail,
            files=s.f_files,
            ffree=s.f_ffree,
            fsid=s.f_fsid & 0xFFFFFFFFFFFFFFFF,
            namelen=s.f_namemax,
        )

    def readlink(self) -> Maybe[str]:
        if self.qtype != QTSYMLINK:
            raise NineError(errno.EINVAL)
        if self.export.readonly:
            return from_host(kernel.read_link(self.at()))
        return from_host(os.readlink(b"", dir_fd=self.at()))

    def change(self, change: Change, who: Principal) -> Maybe[None]:
        """Change owner, mode, length and times, as far as the kernel lets this user."""
        changes.apply(self, change, who)
        return None

    def now(self) -> Stat:
        """Return the status of this file, which is held; threads may call this, too."""
        found = Held.stat(self)
        assert isinstance(found, Stat)
        return found

    def give(self, gid: int) -> Maybe[None]:
        if not self.export.identity.alone:
            os.chown(str(self.at()), -1, gid, dir_fd=self.export.proc)
        return None

    async def sync(self, who: Principal, *, data: bool = False) -> None:
        fd = self._open_to_sync(who)
        if fd is None:
            return
        try:
            await trio.to_thread.run_sync(os.fdatasync if data else os.fsync, fd)
        finally:
            os.close(fd)

    def _open_to_sync(self, who: Principal) -> int | None:
        if self.qtype != QTDIR and (self.qtype == QTSYMLINK or self.dtype is not None):
            return None
        at = self.at()
        with self.export.acting(who, at):
            return self.export.reopen(at, os.O_RDONLY)

    def require_regular(self) -> None:
        if self.qtype == QTSYMLINK:
            raise NineError(errno.ELOOP)
        if self.dtype is not None:
            raise NineError(errno.EPERM, _SPECIAL)

    # extended attributes; /proc/self/fd/N is this very file, also for a symbolic link

    def _in_proc(self) -> str:
        return f"/proc/self/fd/{self.at()}"

    def xattr(self, name: str, who: Principal) -> Maybe[bytes]:
        path = self._in_proc()
        with self.export.acting(who, self.at()):
            return os.getxattr(path, to_host(name))

    def xattrs(self, who: Principal) -> Maybe[list[str]]:
        path = self._in_proc()
        with self.export.acting(who, self.at()):
            return [from_host(name) for name in os.listxattr(path)]

    def set_xattr(self, name: str, value: bytes, who: Principal, *, flags: int = 0) -> Maybe[None]:
        path = self._in_proc()
        self.export.require(who)
        with self.export.acting(who, self.at()):
            os.setxattr(path, to_host(name), value, flags)
        return None

    def remove_xattr(self, name: str, who: Principal) -> Maybe[None]:
        path = self._in_proc()
        self.export.require(who)
        with self.export.acting(who, self.at()):
            os.removexattr(path, to_host(name))
        return None
