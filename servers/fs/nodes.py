"""A file of the host as a Node.

A descriptor for its path holds it (export.py), so it stays this file whatever happens to its name. All operations use that descriptor, or a single
name in a directory's: `..`, links and mount points of others lead nowhere (openat2(2), RESOLVE_BENEATH). Symbolic links are files with a text
here: clients follow them, in their own tree. Devices, pipes and sockets are shown and never opened: that is for the client's kernel.
"""

import errno
import os
import stat as st
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final, TypeVar

from mk9p.auth import ROOT, Principal
from mk9p.errors import NineError
from mk9p.servers.fs import kernel
from mk9p.servers.fs.export import Export, Path
from mk9p.servers.fs.handles import FsDirectory, FsFile, flags_of
from mk9p.servers.fs.held import Held
from mk9p.servers.fs.names import entry_name, from_host, to_host
from mk9p.tree import Handle, Maybe, Node, Open, Stat, settle
from mk9p.wire import QTDIR

_DEVICE: Final = "devices are used where they are, and not made through here"
_MADE: Final = (st.S_IFREG, st.S_IFIFO, st.S_IFSOCK)

T = TypeVar("T")


def root(export: Export, path: str) -> "FsNode":
    """Return the node of the exported directory; its path is the only one that the kernel ever gets. Raises OSError: ENOENT, ENOTDIR.

    It assumes that all file systems below it answer (slow.py).
    """
    node = held(export, os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    node.spare()  # it is used all the time
    export.arrive = held
    return node


def held(export: Export, fd: int, kind: "type[FsNode] | None" = None) -> "FsNode":
    """Return the node of the file that a new descriptor is for; the node owns the descriptor from then on."""
    try:
        stat = os.stat(fd)
        node = (kind or FsNode)(export, export.path(stat.st_dev, stat.st_ino), stat.st_mode)
        if node.lasting:
            node.lies_on(stat.st_dev)
    except BaseException:
        os.close(fd)
        raise
    node.hold_by(fd)
    node._known = stat
    export.knows(node)
    return node


def cross(export: Export, at: int, raw: bytes, who: Principal) -> "FsNode":
    """Walk to a name in the directory of a descriptor, whatever file system it is on. May wait for ever."""
    with export.acting(who, at):
        fd = kernel.open_beneath(at, raw, os.O_PATH, resolve=kernel.NO_XDEV if export.xdev else 0, waits=True)
    found: FsNode = export.arrive(export, fd)
    return found


class FsNode(Held):
    """See the module's theory."""

    __slots__ = ()

    files: "type[FsFile]" = FsFile
    directories: "type[FsDirectory]" = FsDirectory

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

    # names

    def walk(self, name: str, who: Principal) -> Maybe["FsNode"]:
        raw = entry_name(name)
        export = self.export
        grips = export.grips
        if len(export.fds) >= grips.most and grips.full:
            grips.shrink()
        try:
            return self._walked(raw, who)
        except OSError as error:
            if error.errno == errno.EXDEV and not export.xdev:
                return self._across(raw, who)
            if error.errno != errno.EMFILE or not grips.shrink():
                raise
        return self._walked(raw, who)

    def _walked(self, raw: bytes, who: Principal) -> "FsNode":
        """Walk to a name on the same file system; raises EXDEV for a mount point."""
        fd = self.at()
        if who.uid == 0:
            new = kernel.open_beneath(fd, raw, os.O_PATH, resolve=kernel.NO_XDEV, waits=self.lasting)
        else:
            with self.export.acting(who, fd):
                new = kernel.open_beneath(fd, raw, os.O_PATH, resolve=kernel.NO_XDEV, waits=self.lasting)
        return held(self.export, new, self.__class__)

    async def _across(self, raw: bytes, who: Principal) -> "FsNode":
        """Walk onto a mount point, in a thread: nobody knows whether what is mounted there answers."""
        export, at = self.export, Path(os.dup(self.at()))
        return await export.later(kernel.glance(at.fd, raw).device, lambda: cross(export, at.fd, raw, who))

    def entries(self, who: Principal) -> Maybe[Iterable[tuple[str, Node]]]:
        return self._entries(Path(self._open_directory(who)))

    def _entries(self, directory: Path) -> Iterator[tuple[str, Node]]:
        """Give names and nodes as they are read, so the caller may pause."""
        export, fd = self.export, directory.fd
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
                node.grip = self, os.fsencode(entry.name)
                yield from_host(entry.name), node

    # open files

    def _open_directory(self, who: Principal) -> int:
        """Open this directory as a user. It opens the directory itself and not `.` in it: reading it needs no right to search it."""
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
            # Linux has such an opening only in execve(2): a user who may execute and not read gets no contents
            if how.execute:
                kernel.require_executable(export.proc, str(at).encode())
            fd = export.reopen(at, flags)
        if export.readonly:
            export.keep_times(fd)
        return self.files(self, fd, how, self._known)

    def create(self, name: str, perm: int, how: Open) -> Maybe[tuple["Node", Handle]]:
        """Make a file and open it. 9P2000.L without O_EXCL opens an existing file; otherwise that is EEXIST."""
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
        """Open a file that was to be made and exists."""
        if not isinstance(found, FsNode):
            return self._reuse_later(found, how)
        if found.qtype == QTDIR:
            raise NineError(errno.EISDIR)
        handle = found.open(how)
        return (found, handle) if isinstance(handle, Handle) else _with(found, handle)

    async def _reuse_later(self, found: Awaitable["FsNode"], how: Open) -> tuple["Node", Handle]:
        return await settle(self._reuse(await found, how))

    def _make(self, make: Callable[[int], T], who: Principal) -> T:
        """Call a function that makes a file in this directory, as a user, with the requested mode: the client has applied its umask."""
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
