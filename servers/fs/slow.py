"""Files of a file system that may not answer: of another machine (NFS), or of a program (FUSE).

A system call on such a file can wait for ever, so a thread makes each. Each file system has its own count of threads: a dead one stops those who
use it, after THREADS of them, and nobody else. A client that gives up, or hangs up, is let go at once; its call goes on without it, and what that
still opens is closed. A walk onto a mount point finds out which files these are; all other files are on the file system of their directory.

File systems on disks and in memory of this machine are asked at once (nodes.py). An overlay is one of them, whatever lies under it.
"""

import errno
import os
import threading
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final, TypeVar

import trio

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.servers.fs import kernel, locks, nodes
from mk9p.servers.fs.export import Export
from mk9p.servers.fs.handles import FsDirectory, FsFile
from mk9p.servers.fs.names import entry_name
from mk9p.servers.fs.nodes import FsNode
from mk9p.tree import Buffer, Change, Handle, Lock, Maybe, Node, Open, Stat, StatFs, settle

T = TypeVar("T")

# f_type of file systems of this machine: ext, xfs, btrfs, f2fs, tmpfs, ramfs, overlay, squashfs, erofs, iso9660; udf, fat, exfat, ntfs3, zfs,
# bcachefs, jfs, nilfs, hfs+
_PROMPT: Final = frozenset(
    (
        *(0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, *kernel.MEMORY, 0x794C7630, 0x73717368, 0xE0F5E1E2, 0x9660),
        *(0x15013346, 0x4D44, 0x2011BAB0, 0x7366746E, 0x2FC12FC1, 0xCA451A4E, 0x3153464A, 0x3434, 0x482B),
    )
)


async def root(export: Export, path: str) -> FsNode:
    """Return the node of the exported directory, as `nodes.root` does; whatever it is on, only those who ask wait for it."""
    export.arrive = _arrived

    def find() -> FsNode:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        node = _arrived(export, fd)
        node.spare()
        return node

    return await export.later(0, find)


def _arrived(export: Export, fd: int) -> FsNode:
    """Return the node of the file that a new descriptor is for, on any file system."""
    try:
        prompt = kernel.filesystem(fd) in _PROMPT
    except BaseException:
        os.close(fd)
        raise
    return nodes.held(export, fd, FsNode if prompt else SlowNode)


class _Slow(Handle):
    """An open file that threads ask: it is closed when nobody wants it any more and no thread uses it."""

    _fd: int
    _device: int
    _export: Export

    def _begin(self, export: Export, fd: int, device: int) -> None:
        self._export, self._fd, self._device = export, fd, device
        self._lock = threading.Lock()
        self._users, self._closed = 0, False

    def __del__(self) -> None:
        if not self._closed:  # it was opened for somebody who had given up
            trio.lowlevel.start_thread_soon(partial(os.close, self._fd), lambda _: None)

    async def _do(self, call: Callable[..., Maybe[T]], *args: Any) -> T:
        (done,) = await self._export.later(self._device, self._done, call, *args)
        return await settle(done)

    def _done(self, call: Callable[..., Maybe[T]], *args: Any) -> tuple[Maybe[T]]:
        with self._lock:
            if self._closed:
                raise NineError(errno.EBADF)
            self._users += 1
        try:
            return (call(*args),)
        finally:
            with self._lock:
                self._users -= 1
                last = self._closed and not self._users
            if last:
                os.close(self._fd)

    async def _end(self) -> None:
        """End the use; a file system may write only then. A caller that waits for that gets no error (close(2))."""
        with self._lock:
            self._closed = True
            idle = not self._users
        if idle:
            await trio.to_thread.run_sync(os.close, self._fd, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))


class SlowDirectory(_Slow, FsDirectory):
    """An open directory."""

    prompt = False

    def __init__(self, node: FsNode, fd: int) -> None:
        FsDirectory.__init__(self, node, fd)
        self._begin(node.export, fd, os.fstat(fd).st_dev)

    async def sync(self, *, data: bool = False) -> None:
        await self._do(os.fdatasync if data else os.fsync, self._fd)

    def close(self) -> Maybe[None]:
        return self._end()


class SlowFile(_Slow, FsFile):
    """An open file."""

    prompt = False

    def __init__(self, node: FsNode, fd: int, how: Open, known: os.stat_result | None) -> None:
        FsFile.__init__(self, node, fd, how, known)
        self._begin(node.export, fd, os.fstat(fd).st_dev)

    def stat(self) -> None:
        return None  # its node asks in a thread

    def read(self, offset: int, count: int) -> Maybe[Buffer]:
        if offset >= 1 << 63:
            raise NineError(errno.EINVAL)
        return self._do(os.pread, self._fd, count, offset)

    def write(self, offset: int, data: memoryview) -> Maybe[int]:
        if offset >= 1 << 63:
            raise NineError(errno.EINVAL)
        return self._do(self._write, bytes(data), offset)

    def change(self, change: Change) -> Awaitable[None]:
        return self._do(super().change, change)

    def lock(self, lock: Lock) -> Maybe[bool]:
        return self._do(super().lock, lock)

    def locked(self, lock: Lock) -> Maybe[Lock | None]:
        return self._do(super().locked, lock)

    async def sync(self, *, data: bool = False) -> None:
        await self._do(os.fdatasync if data else os.fsync, self._fd)

    def close(self) -> Maybe[None]:
        locks.forget(self.node.path, self.fd)
        return self._end()


class SlowNode(FsNode):
    """A file of such a file system: what FsNode does, done in a thread."""

    files = SlowFile
    directories = SlowDirectory
    lasting = True
    device = 0

    def lies_on(self, device: int) -> None:
        self.device = device

    async def _later(self, call: Callable[..., Maybe[T]], *args: Any, **more: Any) -> T:
        (done,) = await self.export.later(self.device, _as_one_of_its_own, self.export, lambda: call(*args, **more))
        return await settle(done)

    def stat(self) -> Maybe[Stat]:
        return self._later(super().stat)

    def born(self) -> Maybe[int | None]:
        return self._later(super().born)

    def statfs(self) -> Maybe[StatFs]:
        return self._later(super().statfs)

    def readlink(self) -> Maybe[str]:
        return self._later(super().readlink)

    def change(self, change: Change, who: Principal) -> Maybe[None]:
        return self._later(super().change, change, who)

    async def walk(self, name: str, who: Principal) -> FsNode:
        """Walk as FsNode does. It gives descriptors back here and not in a thread: others may be about to use them."""
        raw, export, grips = entry_name(name), self.export, self.export.grips
        if grips.full:
            grips.shrink()
        try:
            return await self._later(self._walked, raw, who)
        except OSError as error:
            if error.errno == errno.EXDEV and not export.xdev:
                return await self._across(raw, who)
            if error.errno != errno.EMFILE or not grips.shrink():
                raise
        return await self._later(self._walked, raw, who)

    async def _across(self, raw: bytes, who: Principal) -> FsNode:
        device = await self._later(lambda: kernel.glance(self.at(), raw).device)
        return await self.export.later(device, lambda: nodes.cross(self.export, self.at(), raw, who))

    def entries(self, who: Principal) -> Maybe[Iterable[tuple[str, Node]]]:
        return self._later(self._listed, who)

    def _listed(self, who: Principal) -> Iterable[tuple[str, Node]]:
        found = super().entries(who)
        assert isinstance(found, Iterable)
        return list(found)  # it is read while the list is made, and a thread must do that

    def xattr(self, name: str, who: Principal) -> Maybe[bytes]:
        return self._later(super().xattr, name, who)

    def xattrs(self, who: Principal) -> Maybe[list[str]]:
        return self._later(super().xattrs, who)

    def set_xattr(self, name: str, value: bytes, who: Principal, *, flags: int = 0) -> Maybe[None]:
        return self._later(super().set_xattr, name, value, who, flags=flags)

    def remove_xattr(self, name: str, who: Principal) -> Maybe[None]:
        return self._later(super().remove_xattr, name, who)

    def open(self, how: Open) -> Maybe[Handle]:
        return self._later(super().open, how)

    def create(self, name: str, perm: int, how: Open) -> Maybe[tuple[Node, Handle]]:
        return self._later(super().create, name, perm, how)

    def mkdir(self, name: str, perm: int, who: Principal) -> Maybe[FsNode]:
        return self._later(super().mkdir, name, perm, who)

    def symlink(self, name: str, target: str, who: Principal) -> Maybe[FsNode]:
        return self._later(super().symlink, name, target, who)

    def mknod(self, name: str, mode: int, rdev: int, who: Principal) -> Maybe[FsNode]:
        return self._later(super().mknod, name, mode, rdev, who)

    def link(self, name: str, target: Node, who: Principal) -> Maybe[None]:
        return self._later(super().link, name, target, who)

    def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> Maybe[None]:
        return self._later(super().remove, name, who, directory=directory)

    def rename(self, name: str, to: Node, newname: str, who: Principal, *, replace: bool = True) -> Maybe[None]:
        return self._later(super().rename, name, to, newname, who, replace=replace)

    def give(self, gid: int) -> Maybe[None]:
        return self._later(super().give, gid)

    async def sync(self, who: Principal, *, data: bool = False) -> None:
        await self._later(self._synced, who, data=data)

    def _synced(self, who: Principal, *, data: bool) -> None:
        fd = self._open_to_sync(who)
        if fd is not None:
            try:
                (os.fdatasync if data else os.fsync)(fd)
            finally:
                os.close(fd)


_threads = threading.local()


def _as_one_of_its_own(export: Export, call: Callable[[], T]) -> tuple[T]:
    """Call in a thread that has a file mode mask of its own: while it makes a file, the masks of all others stay as they are.

    A function in a thread of trio may not return an awaitable, so that comes in a tuple.
    """
    if not getattr(_threads, "own", False):
        kernel.unshare_files()
        os.umask(export.umask)  # its old mask may belong to another thread, which is making a file
        _threads.own = True
    return (call(),)
