"""A file of the host as a Node.

It is held by a descriptor for its path (export.py), so that it stays this file whatever happens to its name. Everything is done by that descriptor,
or by a single name in a directory's: `..`, links and mount points of others lead nowhere (openat2(2), RESOLVE_BENEATH). Symbolic links are files
with a text here: clients follow them, in their own tree. Devices, pipes and sockets are shown and never opened: that is the client kernel's matter.
"""

import errno
import os
import stat as st
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import trio

from mk9p.auth import EXEC, Principal, may
from mk9p.errors import NineError
from mk9p.tree import Change, Handle, Node, Open, Stat, StatFs
from mk9p.wire import L_DSYNC, L_NOATIME, L_SYNC, QTDIR, QTSYMLINK
from servers.fs import kernel, marks
from servers.fs.export import Export
from servers.fs.handles import FsDirectory, FsFile
from servers.fs.names import from_host, to_host

_PASSED: Final = ((L_DSYNC, os.O_DSYNC), (L_SYNC, os.O_SYNC), (L_NOATIME, os.O_NOATIME))
_ANY: Final = L_DSYNC | L_SYNC | L_NOATIME
_SPECIAL: Final = "devices, pipes and sockets are used where they are, and neither made nor opened through here"
_MOST: Final = 1 << 63

T = TypeVar("T")


def root(export: Export, path: str) -> "FsNode":
    """Return the node of the directory to be exported; the only path that is ever given to the kernel. Raises OSError: ENOENT, ENOTDIR."""
    node = _held(export, os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    export.spare(node.fd)  # it is used all the time
    return node


def _held(export: Export, fd: int) -> "FsNode":
    """Return the node of the file that a new descriptor is for, which is the node's from then on."""
    try:
        stat = os.stat(fd)
        node = FsNode(export, export.path(stat.st_dev, stat.st_ino), stat.st_mode)
        node._fresh = stat
    except BaseException:
        os.close(fd)
        raise
    node.hold_by(fd)
    return node


def _name(name: str) -> bytes:
    """Return the name of a file in a directory; raises EINVAL for one that leads elsewhere."""
    if name in ("", ".", "..") or "/" in name:
        raise NineError(errno.EINVAL, "illegal name")
    return to_host(name)


def _flags(how: Open) -> int:
    """Return the flags of open(2), in this machine's numbers."""
    flags = os.O_RDONLY if not how.write else os.O_RDWR if how.read else os.O_WRONLY
    if how.append:
        flags |= os.O_APPEND
    if how.flags & _ANY:
        for bit, ours in _PASSED:
            if how.flags & bit == bit:
                flags |= ours
    return flags


class FsNode(Node):
    """See the module's theory."""

    path: int
    fd: int = -1
    _entry: "tuple[FsNode, bytes] | None" = None  # the directory and name of a file that was listed and not yet used
    _handle: tuple[int, bytes] | None = None  # what it is opened with again, after it gave its descriptor back
    _known: os.stat_result | None = None
    _fresh: os.stat_result | None = None  # from when the descriptor was opened, for who asks in the same breath
    marks = True

    def __init__(self, export: Export, path: int, mode: int) -> None:
        self.export, self.path = export, path
        kind = mode & 0o170000
        if kind == st.S_IFDIR:
            self.qtype = QTDIR
        elif kind == st.S_IFLNK:
            self.qtype = QTSYMLINK
        elif kind != st.S_IFREG:
            self.dtype = kind >> 12
        self.guards = not export.identity.alone

    def __del__(self) -> None:
        if self.fd >= 0:
            self.export.drop(self.fd)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FsNode) and other.path == self.path

    def __hash__(self) -> int:
        return self.path

    def at(self) -> int:
        """Return the descriptor of this file, opened again if it was given back. Raises ESTALE if the file is no more."""
        fd = self.fd
        self._fresh = None
        if fd < 0:
            if self._handle is not None:
                fd = kernel.open_handle(*self._handle)
            else:
                assert self._entry is not None
                directory, name = self._entry
                fd = self.export.look(directory.at(), name)
            self.hold_by(fd)
        return fd

    def hold_by(self, fd: int) -> None:
        """Take a descriptor that is for this file's path."""
        self.fd = fd
        self.export.keep(fd, self)

    def let_go(self, handle: tuple[int, bytes]) -> None:
        """Use a handle from now on: the descriptor is about to be closed."""
        self.fd, self._handle = -1, handle

    # status

    def stat(self) -> Stat:
        fd = self.fd
        if (fresh := self._fresh) is not None:
            now, self._fresh = fresh, None
        elif fd >= 0:
            now = os.stat(fd)
        elif self._entry is not None:
            directory, name = self._entry
            now = os.stat(name, dir_fd=directory.at(), follow_symlinks=False)
        else:
            now = os.stat(self.at())
        known = self._known
        if (
            known is not None
            and now == known
            and now.st_ctime_ns == known.st_ctime_ns
            and now.st_atime_ns == known.st_atime_ns
            and now.st_blocks == known.st_blocks
        ):
            return self._stat
        self._known = now
        mode, mtime, size = now.st_mode, now.st_mtime_ns, now.st_size
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
            now.st_ctime_ns,
            (mtime ^ mtime >> 32 ^ size << 7) & 0xFFFFFFFF or 1,  # never 0, which would say that it is made up
            now.st_nlink,
            now.st_rdev,
            now.st_blksize,
            now.st_blocks,
            exclusive,
            append,
        )
        return stat

    _stat: Stat

    def born(self) -> int | None:
        return kernel.born(self.at())

    def statfs(self) -> StatFs:
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

    def readlink(self) -> str:
        if self.qtype != QTSYMLINK:
            raise NineError(errno.EINVAL)
        return from_host(os.readlink(b"", dir_fd=self.at()))

    def change(self, change: Change, who: Principal) -> None:
        """Change owner, mode, length and times, as far as the kernel lets this user."""
        self.export.require(who)
        if change.length is not None:
            if change.length >= _MOST:
                raise NineError(errno.EINVAL)
            if self.qtype == QTDIR:
                raise NineError(errno.EISDIR)
            self._require_regular()
            self.require_length(change.length)
            at = self.at()
            with self.export.acting(who, at):
                fd = self.export.reopen(at, os.O_WRONLY)
                try:
                    os.ftruncate(fd, change.length)
                finally:
                    os.close(fd)
        self.change_status(change, who)

    def change_status(self, change: Change, who: Principal) -> None:
        """Change everything but the length: the owner first, since a new one takes setuid bits away."""
        export, fd = self.export, self.at()
        name = str(fd)
        if change.mode is not None and self.qtype == QTSYMLINK:
            raise NineError(errno.EOPNOTSUPP, "a symbolic link has no mode of its own")
        now = self.stat()
        with export.acting(who, fd):
            if change.uid is not None or change.gid is not None:
                uid, gid = change.uid, change.gid
                os.chown(name, -1 if uid is None else uid, -1 if gid is None else gid, dir_fd=export.proc)
            if change.exclusive is not None or change.append is not None:
                marks.change(name, self._in_proc(), export.proc, now, change)
            elif change.mode is not None:
                os.chmod(name, change.mode | (st.S_ISVTX if now.exclusive or now.append else 0), dir_fd=export.proc)
            if change.atime is not None or change.mtime is not None:
                kernel.set_times(export.proc, name.encode(), change.atime, change.mtime)

    def require_length(self, length: int) -> None:
        """Raise EPERM for a length that cuts off what was appended to an append-only file."""
        now = self.stat()
        if now.append and length < now.length:
            raise NineError(errno.EPERM, "the file is append-only")

    def give(self, gid: int) -> None:
        if not self.export.identity.alone:
            os.chown(str(self.at()), -1, gid, dir_fd=self.export.proc)

    async def sync(self, who: Principal, *, data: bool = False) -> None:
        if self.qtype != QTDIR and (self.qtype == QTSYMLINK or self.dtype is not None):
            return
        with self.export.acting(who):
            fd = self.export.reopen(self.at(), os.O_RDONLY)
        try:
            await trio.to_thread.run_sync(os.fdatasync if data else os.fsync, fd)
        finally:
            os.close(fd)

    def _require_regular(self) -> None:
        if self.qtype == QTSYMLINK:
            raise NineError(errno.ELOOP)
        if self.dtype is not None:
            raise NineError(errno.EPERM, _SPECIAL)

    # names

    def walk(self, name: str, who: Principal) -> "FsNode":
        raw = _name(name)
        export = self.export
        if export.full:
            export.shrink()
        try:
            new = self._look(raw, who)
        except OSError as error:
            if error.errno != errno.EMFILE or not export.shrink():
                raise
            new = self._look(raw, who)
        return _held(export, new)

    def _look(self, raw: bytes, who: Principal) -> int:
        fd = self.at()
        with self.export.acting(who, fd):
            return self.export.look(fd, raw)

    def entries(self, who: Principal) -> Iterable[tuple[str, Node]]:
        export, at = self.export, self.at()
        with export.acting(who, at):
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
        found: list[tuple[str, Node]] = []
        try:
            device = os.stat(fd).st_dev
            with os.scandir(fd) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        mode = st.S_IFDIR
                    elif entry.is_file(follow_symlinks=False):
                        mode = st.S_IFREG
                    elif entry.is_symlink():
                        mode = st.S_IFLNK
                    else:
                        try:
                            mode = os.stat(entry.name, dir_fd=fd, follow_symlinks=False).st_mode
                        except FileNotFoundError:
                            continue
                    node = FsNode(export, export.path(device, entry.inode()), mode)
                    node._entry = self, os.fsencode(entry.name)
                    found.append((from_host(entry.name), node))
        finally:
            os.close(fd)
        return found

    # extended attributes; /proc/self/fd/N is this very file, a symbolic link too

    def _in_proc(self) -> str:
        return f"/proc/self/fd/{self.at()}"

    def xattr(self, name: str, who: Principal) -> bytes:
        path = self._in_proc()
        with self.export.acting(who, self.fd):
            return os.getxattr(path, to_host(name))

    def xattrs(self, who: Principal) -> list[str]:
        path = self._in_proc()
        with self.export.acting(who, self.fd):
            return [from_host(name) for name in os.listxattr(path)]

    def set_xattr(self, name: str, value: bytes, who: Principal, *, flags: int = 0) -> None:
        path = self._in_proc()
        self.export.require(who)
        with self.export.acting(who, self.fd):
            os.setxattr(path, to_host(name), value, flags)

    def remove_xattr(self, name: str, who: Principal) -> None:
        path = self._in_proc()
        self.export.require(who)
        with self.export.acting(who, self.fd):
            os.removexattr(path, to_host(name))

    # open files

    def open(self, how: Open) -> Handle:
        export = self.export
        if self.qtype == QTDIR:
            with export.acting(how.who, self.at()):
                return FsDirectory(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.at()))
        self._require_regular()
        flags = _flags(how) | (os.O_TRUNC if how.truncate else 0)
        if (how.write or how.truncate) and self.stat().append:
            if how.truncate and how.records:
                raise NineError(errno.EPERM, "the file is append-only")
            flags = flags & ~os.O_TRUNC | os.O_APPEND  # open(5): the open succeeds, and nothing is truncated
        if how.write or how.truncate:
            export.require(how.who)
        acting = export.acting(how.who, self.at())
        if how.execute:  # reading what may be executed and not be read; Linux has no such opening, so the bits decide
            stat = self.stat()
            if not may(how.who, stat.mode, stat.uid, stat.gid, EXEC):
                raise NineError(errno.EACCES)
            acting = export.identity.itself
        with acting:
            fd = export.reopen(self.at(), flags)
        return FsFile(self, fd, how, self._known)

    def create(self, name: str, perm: int, how: Open) -> "tuple[FsNode, Handle]":
        """Make a file and open it; what is there already is opened by 9P2000.L without O_EXCL, and else EEXIST."""
        raw = _name(name)
        flags = _flags(how) | os.O_CREAT | os.O_EXCL
        try:
            fd = self._make(lambda at: kernel.open_beneath(at, raw, flags, perm), how.who)
        except FileExistsError:
            if not how.reuses:
                raise
            node = self.walk(name, how.who)
            if node.qtype == QTDIR:
                raise NineError(errno.EISDIR) from None
            return node, node.open(how)
        try:
            node = _held(self.export, self.export.reopen(fd, os.O_PATH))
            return node, FsFile(node, fd, how, None)
        except BaseException:
            os.close(fd)
            raise

    def _make(self, make: Callable[[int], T], who: Principal) -> T:
        """Call a function that makes a file in this directory, as a user, with the mode as it was asked for: the client has applied its umask."""
        at = self.at()
        with self.export.changing(who, at):
            before = os.umask(0)
            try:
                return make(at)
            finally:
                os.umask(before)

    def mkdir(self, name: str, perm: int, who: Principal) -> "FsNode":
        raw = _name(name)
        self._make(lambda at: os.mkdir(raw, perm, dir_fd=at), who)
        return self.walk(name, who)

    def symlink(self, name: str, target: str, who: Principal) -> "FsNode":
        raw = _name(name)
        self._make(lambda at: os.symlink(to_host(target), raw, dir_fd=at), who)
        return self.walk(name, who)

    def mknod(self, name: str, mode: int, rdev: int, who: Principal) -> "FsNode":
        """Make a regular file, as mknod(2) can; nothing else."""
        if st.S_IFMT(mode) not in (0, st.S_IFREG):
            raise NineError(errno.EPERM, _SPECIAL)
        raw = _name(name)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        os.close(self._make(lambda at: kernel.open_beneath(at, raw, flags, mode & 0o7777), who))
        return self.walk(name, who)

    def link(self, name: str, target: Node, who: Principal) -> None:
        raw, export = _name(name), self.export
        if not isinstance(target, FsNode) or target.export is not export:
            raise NineError(errno.EXDEV)
        fd, at = target.at(), self.at()
        with export.changing(who, fd, at):
            os.link(str(fd), raw, src_dir_fd=export.proc, dst_dir_fd=at, follow_symlinks=True)

    def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> None:
        raw, at = _name(name), self.at()
        with self.export.changing(who, at, names=((at, raw),)):
            if directory:
                os.rmdir(raw, dir_fd=at)
                return
            try:
                os.unlink(raw, dir_fd=at)
            except IsADirectoryError:
                if directory is not None:
                    raise
                os.rmdir(raw, dir_fd=at)

    def rename(self, name: str, to: Node, newname: str, who: Principal, *, replace: bool = True) -> None:
        old, new = _name(name), _name(newname)
        if not isinstance(to, FsNode) or to.export is not self.export:
            raise NineError(errno.EXDEV)
        at, there = self.at(), to.at()
        with self.export.changing(who, at, there, names=((at, old), (there, new))):
            if replace:
                os.rename(old, new, src_dir_fd=at, dst_dir_fd=there)
            else:
                kernel.rename(at, old, there, new)
