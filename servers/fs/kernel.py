"""System calls that Python has no functions for: openat2(2), utimensat(2) with now and omit, statfs's type, file handles, the time of birth.

A call to a file system may wait for ever, so it releases the interpreter's lock (CDLL). Only the calls at every step of a walk keep it (PyDLL):
they take a microsecond on disks of this machine, and releasing the lock would take more.
"""

import ctypes
import errno
import os
import platform
import struct
from functools import lru_cache
from typing import Final, NamedTuple

from mk9p.tree import NOW

_libc: Final = ctypes.CDLL(None, use_errno=True)
_keeping: Final = ctypes.PyDLL(None, use_errno=True)
_OPENAT2: Final = 437  # on every architecture
NO_XDEV: Final = 0x01  # RESOLVE_NO_XDEV
_BENEATH: Final = 0x08 | 0x04 | 0x02  # RESOLVE_BENEATH, _NO_SYMLINKS, _NO_MAGICLINKS
_EMPTY: Final = 0x1000  # AT_EMPTY_PATH
_STATX: Final = {"x86_64": 332, "i386": 383, "i686": 383, "armv7l": 397, "ppc64le": 383, "s390x": 379}.get(
    platform.machine(), 291
)
_BTIME: Final = 0x800  # STATX_BTIME
_BASIC: Final = 0x7FF  # STATX_BASIC_STATS
_GLANCE: Final = 0x4000 | 0x800 | 0x100  # AT_STATX_DONT_SYNC, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW
_FACCESSAT2: Final = 439  # on every architecture, since Linux 5.8
_EACCESS: Final = 0x200  # AT_EACCESS
_CLONE_FS: Final = 0x200
_OPEN_TREE: Final = 428  # these two on every architecture
_MOUNT_SETATTR: Final = 442
# struct mount_attr: set MOUNT_ATTR_NOATIME, clear MOUNT_ATTR__ATIME
_NOATIME: Final = struct.pack("=QQQQ", 0x10, 0x70, 0, 0)
_NOW: Final = (1 << 30) - 1  # UTIME_NOW
_OMIT: Final = (1 << 30) - 2  # UTIME_OMIT
_NS: Final = 1_000_000_000
_HANDLE: Final = 128  # MAX_HANDLE_SZ
MEMORY: Final = (0x01021994, 0x858458F6)  # f_type of tmpfs and ramfs, whose files are read at once

_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_openat2 = _keeping["syscall"]  # function objects of their own, with types of their own
_openat2_waiting = _libc["syscall"]
for _call in (_openat2, _openat2_waiting):
    _call.restype = ctypes.c_long
    _call.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
# Without types and errno it takes half of the time. It is only for calls that may be made again, to learn what went wrong.
_openat2_blind = ctypes.PyDLL(None)["syscall"]
_how: Final = struct.Struct("=QQQ")
_times: Final = struct.Struct("@llll")


def _fail(name: bytes | str = "") -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), name)


@lru_cache(maxsize=256)
def _opening(flags: int, mode: int, resolve: int) -> bytes:
    return _how.pack(flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode, _BENEATH | resolve)


def open_beneath(
    directory: int, name: bytes, flags: int, mode: int = 0, *, resolve: int = 0, waits: bool = False
) -> int:
    """Open a name in the directory of a descriptor and return a descriptor; follow no link, and never leave the directory.

    `flags` are those of open(2), and O_CLOEXEC is always added; `resolve` are more of openat2(2)'s. `waits`: it may wait for ever, and others must
    run meanwhile. Raises OSError.
    """
    how = _opening(flags, mode, resolve)
    fd: int
    if flags == os.O_PATH and not waits and (fd := _openat2_blind(_OPENAT2, directory, name, how, 24)) >= 0:
        return fd
    call = _openat2_waiting if waits else _openat2
    while True:
        fd = call(_OPENAT2, directory, name, how, 24)
        if fd >= 0:
            return fd
        if ctypes.get_errno() not in (errno.EINTR, errno.EAGAIN):  # EAGAIN: somebody renamed at that moment
            raise _fail(name)


def set_times(directory: int, name: bytes, atime: int | None, mtime: int | None) -> None:
    """Set times, in ns, NOW, or None to leave one, of the file that a name stands for, following links. Raises OSError."""
    times = _times.pack(*_timespec(atime), *_timespec(mtime))
    if _libc.utimensat(ctypes.c_int(directory), name, times, 0) < 0:
        raise _fail(name)


def _timespec(ns: int | None) -> tuple[int, int]:
    return (0, _OMIT) if ns is None else (0, _NOW) if ns == NOW else divmod(ns, _NS)


def rename(directory: int, name: bytes, there: int, newname: bytes) -> None:
    """Rename if the new name is free; raises FileExistsError if it is not (renameat2(2), RENAME_NOREPLACE)."""
    if _libc.renameat2(ctypes.c_int(directory), name, ctypes.c_int(there), newname, ctypes.c_uint(1)) == 0:
        return
    if ctypes.get_errno() != errno.EINVAL:
        raise _fail(newname)
    # a file system that cannot do both in one step, such as NFS
    try:
        os.stat(newname, dir_fd=there, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(name, newname, src_dir_fd=directory, dst_dir_fd=there)
    else:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), newname)


def filesystem(fd: int) -> int:
    """Return the f_type of the file system of a descriptor (statfs(2))."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.fstatfs(ctypes.c_int(fd), buffer) < 0:
        raise _fail()
    return int(struct.unpack_from("@l", buffer)[0]) & 0xFFFFFFFF


def born(fd: int) -> int | None:
    """Return when the file of a descriptor was made, in ns, if its file system knows (statx(2))."""
    buffer = ctypes.create_string_buffer(256)
    if _syscall(_STATX, ctypes.c_int(fd), b"", ctypes.c_int(_EMPTY), ctypes.c_uint(_BTIME), buffer) < 0:
        raise _fail()
    if not struct.unpack_from("=I", buffer)[0] & _BTIME:
        return None
    seconds, rest = struct.unpack_from("=qI", buffer, 80)
    return int(seconds * _NS + rest)


class Glance(NamedTuple):
    """What is known of a name without asking its file system, which may not answer."""

    mode: int
    uid: int
    gid: int
    device: int


def glance(directory: int, name: bytes) -> Glance:
    """Look at what this kernel knows of a name in a directory without asking its file system (statx(2), AT_STATX_DONT_SYNC). Raises OSError.

    It waits as long as the directory's file system takes to find the name.
    """
    buffer = ctypes.create_string_buffer(256)
    if _syscall(_STATX, ctypes.c_int(directory), name, ctypes.c_int(_GLANCE), ctypes.c_uint(_BASIC), buffer) < 0:
        raise _fail(name)
    uid, gid, mode = struct.unpack_from("=IIH", buffer, 20)
    return Glance(mode, uid, gid, os.makedev(*struct.unpack_from("=II", buffer, 136)))


def require_executable(directory: int, name: bytes) -> None:
    """Raise EACCES if the user of this thread may not execute the file that a name stands for, following links (faccessat2(2) with AT_EACCESS)."""
    if _syscall(_FACCESSAT2, ctypes.c_int(directory), name, ctypes.c_int(os.X_OK), ctypes.c_int(_EACCESS)) < 0:
        raise _fail(name)


def read_link(fd: int) -> bytes:
    """Return the text of a symbolic link without changing its time of access, which needs a mount of its own for a moment; otherwise as
    readlink(2)."""
    clone: int = _syscall(_OPEN_TREE, ctypes.c_int(fd), b"", ctypes.c_int(_EMPTY | 1 | os.O_CLOEXEC))  # OPEN_TREE_CLONE
    if clone < 0:  # not root, or Linux before 5.12
        return os.readlink(b"", dir_fd=fd)
    try:
        _syscall(_MOUNT_SETATTR, ctypes.c_int(clone), b"", ctypes.c_int(_EMPTY), _NOATIME, ctypes.c_size_t(32))
        return os.readlink(b"", dir_fd=clone)
    finally:
        os.close(clone)


def unshare_files() -> None:
    """Give this thread a file mode mask, and a working directory, of its own (unshare(2)). Raises OSError."""
    if _libc.unshare(_CLONE_FS) < 0:
        raise _fail()


def file_handle(fd: int) -> tuple[bytes, int] | None:
    """Return the handle that opens a file again, and the number of its mount; None if its file system has none (name_to_handle_at(2))."""
    buffer = ctypes.create_string_buffer(8 + _HANDLE)
    struct.pack_into("=I", buffer, 0, _HANDLE)
    mount = ctypes.c_int()
    if _libc.name_to_handle_at(ctypes.c_int(fd), b"", buffer, ctypes.byref(mount), ctypes.c_int(_EMPTY)) < 0:
        return None
    return buffer.raw[: 8 + struct.unpack_from("=I", buffer)[0]], mount.value


def open_handle(mount: int, handle: bytes) -> int:
    """Open a file by its handle, only for its path; `mount` is a descriptor of something on its mount. Raises OSError: ESTALE if it no longer
    exists."""
    fd: int = _libc.open_by_handle_at(ctypes.c_int(mount), handle, ctypes.c_int(os.O_PATH | os.O_CLOEXEC))
    if fd < 0:
        raise _fail()
    return fd
