"""A file of the host as a Node.

It is held by a descriptor for its path (export.py), so that it stays this file whatever happens to its name. Everything is done by that descriptor,
or by a single name in a directory's: `..`, links and mount points of others lead nowhere (openat2(2), RESOLVE_BENEATH). Symbolic links are files
with a text here: clients follow them, in their own tree. Devices, pipes and sockets are shown and never opened: that is the client kernel's matter.
"""

import errno
import os
import stat as st
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

import trio

from mk9p.auth import ROOT, Principal
from mk9p.errors import NineError
from mk9p.tree import Change, Handle, Maybe, Node, Open, Stat, StatFs, settle
from mk9p.wire import QTDIR, QTSYMLINK
from servers.fs import changes, kernel, marks
from servers.fs.export import Export, Path
from servers.fs.handles import FsDirectory, FsFile, flags_of
from servers.fs.names import entry_name, from_host, to_host

_SPECIAL: Final = "devices, pipes and sockets are used where they are, and not opened through here"
_DEVICE: Final = "devices are used where they are, and not made through here"
_MADE: Final = (st.S_IFREG, st.S_IFIFO, st.S_IFSOCK)

T = TypeVar("T")


def root(export: Export, path: str) -> "FsNode":
    """Return the node of the directory to be exported; the only path that is ever given to the kernel. Raises OSError: ENOENT, ENOTDIR."""
    node = held(export, os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    export.spare(node.fd)  # it is used all the time
    return node


def held(export: Export, fd: int, kind: "type[FsNode] | None" = None) -> "FsNode":
    """Return the node of the file that a new descriptor is for, which is the node's from then on."""
    try:
        stat = os.stat(fd)
        node = (kind or FsNode)(export, export.path(stat.st_dev, stat.st_ino), stat.st_mode)
        node._fresh = stat
        if node.lasting:
            node.device = stat.st_dev
    except BaseException:
        os.close(fd)
        raise
    node.fd = fd
    export.keep(fd, node)
    return node


def cross(export: Export, at: int, raw: bytes, who: Principal) -> "FsNode":
    """Walk to a name in the directory of a descriptor, whatever file system it is on. May wait for ever."""
    with export.acting(who, at):
        fd = kernel.open_beneath(at, raw, os.O_PATH, resolve=kernel.NO_XDEV if export.xdev else 0, waits=True)
    return export.arrive(export, fd)


class FsNode(Node):
    """See the module's theory."""

    files: "type[FsFile]" = FsFile
    directories: "type[FsDirectory]" = FsDirectory
    lasting = False  # what it does may wait for ever, so threads do it, and it keeps its descriptor
    device: int

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
                fd = kernel.open_beneath(directory.at(), name, os.O_PATH, resolve=kernel.NO_XDEV, waits=self.lasting)
            self.hold_by(fd)
        return self.fd

    def hold_by(self, fd: int) -> None:
        """Take a descriptor that is for this file's path, if another thread has not been here before."""
        with self.export.lock:
            if self.fd < 0:
                self.fd = fd
                self.export.keep(fd, self)
                return
        os.close(fd)

    def let_go(self, handle: tuple[int, bytes]) -> None:
        """Use a handle from now on: the descriptor is about to be closed."""
        self.fd, self._handle = -1, handle

    # status

    def stat(self) -> Maybe[Stat]:
        fd = self.fd
        if (fresh := self._fresh) is not None:
            now, self._fresh = fresh, None
        elif fd >= 0:
            now = os.stat(fd)
        elif self._entry is not None:
            directory, name = self._entry
            try:
                now = directory.listed(name)
            except OSError as error:
                if error.errno != errno.EXDEV or self.export.xdev:
                    raise
                return directory.stat_across(name)
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

    def listed(self, raw: bytes) -> os.stat_result:
        """Return the status of a name in this directory; raises EXDEV for a mount point."""
        fd = kernel.open_beneath(self.at(), raw, os.O_PATH, resolve=kernel.NO_XDEV, waits=self.lasting)
        try:
            return os.stat(fd)
        finally:
            os.close(fd)

    async def stat_across(self, raw: bytes) -> Stat:
        """Return the status of what is mounted on a name in this directory."""
        return await settle((await self._across(raw, ROOT)).stat())

    def born(self) -> Maybe[int | None]:
        return kernel.born(self.at())

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
        """Return the status of this file, which is held: what threads ask, too."""
        found = FsNode.stat(self)
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

    # names

    def walk(self, name: str, who: Principal) -> Maybe["FsNode"]:
        raw = entry_name(name)
        export = self.export
        if export.full:
            export.shrink()
        try:
            return self._walked(raw, who)
        except OSError as error:
            if error.errno == errno.EXDEV and not export.xdev:
                return self._across(raw, who)
            if error.errno != errno.EMFILE or not export.shrink():
                raise
        return self._walked(raw, who)

    def _walked(self, raw: bytes, who: Principal) -> "FsNode":
        """Walk to a name on the same file system; raises EXDEV for a mount point."""
        fd = self.at()
        with self.export.acting(who, fd):
            new = kernel.open_beneath(fd, raw, os.O_PATH, resolve=kernel.NO_XDEV)
        return held(self.export, new)

    async def _across(self, raw: bytes, who: Principal) -> "FsNode":
        """Walk onto a mount point: whether what is mounted there answers is not known, so a thread asks."""
        export, at = self.export, Path(os.dup(self.at()))
        return await export.later(kernel.glance(at.fd, raw).device, lambda: cross(export, at.fd, raw, who))

    def entries(self, who: Principal) -> Maybe[Iterable[tuple[str, Node]]]:
        export, fd = self.export, self._open_directory(who)
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
                            mode = kernel.glance(fd, os.fsencode(entry.name)).mode
                        except FileNotFoundError:
                            continue
                    node = self.__class__(export, export.path(device, entry.inode()), mode)
                    node._entry = self, os.fsencode(entry.name)
                    found.append((from_host(entry.name), node))
        finally:
            os.close(fd)
        return found

    # extended attributes; /proc/self/fd/N is this very file, a symbolic link too

    def _in_proc(self) -> str:
        return f"/proc/self/fd/{self.at()}"

    def xattr(self, name: str, who: Principal) -> Maybe[bytes]:
        path = self._in_proc()
        with self.export.acting(who, self.fd):
            return os.getxattr(path, to_host(name))

    def xattrs(self, who: Principal) -> Maybe[list[str]]:
        path = self._in_proc()
        with self.export.acting(who, self.fd):
            return [from_host(name) for name in os.listxattr(path)]

    def set_xattr(self, name: str, value: bytes, who: Principal, *, flags: int = 0) -> Maybe[None]:
        path = self._in_proc()
        self.export.require(who)
        with self.export.acting(who, self.fd):
            os.setxattr(path, to_host(name), value, flags)
        return None

    def remove_xattr(self, name: str, who: Principal) -> Maybe[None]:
        path = self._in_proc()
        self.export.require(who)
        with self.export.acting(who, self.fd):
            os.removexattr(path, to_host(name))
        return None

    # open files

    def _open_directory(self, who: Principal) -> int:
        """Open this directory as a user. It is opened by itself and not by `.` in it: reading it takes no right to search it."""
        export, at = self.export, self.at()
        with export.acting(who, at):
            fd = export.reopen(at, os.O_RDONLY | os.O_DIRECTORY)
        if export.readonly:
            export.keep_times(fd)
        return fd

    def open(self, how: Open) -> Maybe[Handle]:
        export = self.export
        if how.write or how.truncate or how.remove:
            export.require(how.who)
        if self.qtype == QTDIR:
            return self.directories(self, self._open_directory(how.who))
        self.require_regular()
        flags, at = flags_of(how) | (os.O_TRUNC if how.truncate else 0), self.at()
        if (how.write or how.truncate) and self.now().append:
            if how.truncate and how.records:
                raise NineError(errno.EPERM, "the file is append-only")
            flags = flags & ~os.O_TRUNC | os.O_APPEND  # open(5): the open succeeds, and nothing is truncated
        with export.acting(how.who, at):
            if how.execute:  # Linux has no such opening but in execve(2): who may execute and not read gets no contents
                kernel.require_executable(export.proc, str(at).encode())
            fd = export.reopen(at, flags)
        if export.readonly:
            export.keep_times(fd)
        return self.files(self, fd, how, self._known)

    def create(self, name: str, perm: int, how: Open) -> Maybe[tuple["Node", Handle]]:
        """Make a file and open it; what is there already is opened by 9P2000.L without O_EXCL, and else EEXIST."""
        raw = entry_name(name)
        flags = flags_of(how) | os.O_CREAT | os.O_EXCL
        try:
            fd = self._make(lambda at: kernel.open_beneath(at, raw, flags, perm, waits=self.lasting), how.who)
        except FileExistsError:
            if not how.reuses:
                raise
            return self._reuse(self.walk(name, how.who), how)
        try:
            node = held(self.export, self.export.reopen(fd, os.O_PATH))
            return node, self.files(node, fd, how, None)
        except BaseException:
            os.close(fd)
            raise

    def _reuse(self, found: Maybe["FsNode"], how: Open) -> Maybe[tuple["Node", Handle]]:
        """Open what was to be made and is there."""
        if not isinstance(found, FsNode):
            return self._reuse_later(found, how)
        if found.qtype == QTDIR:
            raise NineError(errno.EISDIR)
        handle = found.open(how)
        return (found, handle) if isinstance(handle, Handle) else _with(found, handle)

    async def _reuse_later(self, found: Awaitable["FsNode"], how: Open) -> tuple["Node", Handle]:
        return await settle(self._reuse(await found, how))

    def _make(self, make: Callable[[int], T], who: Principal) -> T:
        """Call a function that makes a file in this directory, as a user, with the mode as it was asked for: the client has applied its umask."""
        at = self.at()
        with self.export.changing(who, at):
            before = os.umask(0)
            try:
                return make(at)
            finally:
                os.umask(before)

    def mkdir(self, name: str, perm: int, who: Principal) -> Maybe["FsNode"]:
        raw = entry_name(name)
        self._make(lambda at: os.mkdir(raw, perm, dir_fd=at), who)
        return self._walked(raw, who)

    def symlink(self, name: str, target: str, who: Principal) -> Maybe["FsNode"]:
        raw = entry_name(name)
        self._make(lambda at: os.symlink(to_host(target), raw, dir_fd=at), who)
        return self._walked(raw, who)

    def mknod(self, name: str, mode: int, rdev: int, who: Principal) -> Maybe["FsNode"]:
        """Make a regular file, a pipe or a socket, as mknod(2) can; no device."""
        kind = st.S_IFMT(mode) or st.S_IFREG
        if kind not in _MADE:
            raise NineError(errno.EPERM, _DEVICE)
        raw = entry_name(name)
        self._make(lambda at: os.mknod(raw, kind | mode & 0o7777, dir_fd=at), who)
        return self._walked(raw, who)

    def link(self, name: str, target: Node, who: Principal) -> Maybe[None]:
        raw, export = entry_name(name), self.export
        if not isinstance(target, FsNode) or target.export is not export or target.files is not self.files:
            raise NineError(errno.EXDEV)
        fd, at = target.at(), self.at()
        with export.changing(who, fd, at):
            os.link(str(fd), raw, src_dir_fd=export.proc, dst_dir_fd=at, follow_symlinks=True)
        return None

    def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> Maybe[None]:
        raw, at = entry_name(name), self.at()
        with self.export.changing(who, at, names=((at, raw),)):
            if directory:
                os.rmdir(raw, dir_fd=at)
                return None
            try:
                os.unlink(raw, dir_fd=at)
            except IsADirectoryError:
                if directory is not None:
                    raise
                os.rmdir(raw, dir_fd=at)
        return None

    def rename(self, name: str, to: Node, newname: str, who: Principal, *, replace: bool = True) -> Maybe[None]:
        old, new = entry_name(name), entry_name(newname)
        if not isinstance(to, FsNode) or to.export is not self.export or to.files is not self.files:
            raise NineError(errno.EXDEV)
        at, there = self.at(), to.at()
        with self.export.changing(who, at, there, names=((at, old), (there, new))):
            if replace:
                os.rename(old, new, src_dir_fd=at, dst_dir_fd=there)
            else:
                kernel.rename(at, old, there, new)
        return None


async def _with(node: FsNode, handle: Awaitable[Handle]) -> tuple[Node, Handle]:
    return node, await handle
