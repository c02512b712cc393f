"""System calls that Python has no functions for: openat2(2), utimensat(2) with now and omit, statfs's type, file handles, the time of birth.

They are made without giving the interpreter lock away (PyDLL): each takes microseconds, and a switch of threads would take more.
"""

import ctypes
import errno
import os
import platform
import struct
from functools import lru_cache
from typing import Final

from mk9p import tree

_libc: Final = ctypes.PyDLL(None, use_errno=True)
_OPENAT2: Final = 437  # on every architecture
NO_XDEV: Final = 0x01  # RESOLVE_NO_XDEV
_BENEATH: Final = 0x08 | 0x04 | 0x02  # RESOLVE_BENEATH, _NO_SYMLINKS, _NO_MAGICLINKS
_EMPTY: Final = 0x1000  # AT_EMPTY_PATH
_STATX: Final = {"x86_64": 332, "i386": 383, "i686": 383, "armv7l": 397, "ppc64le": 383, "s390x": 379}.get(
    platform.machine(), 291
)
_BTIME: Final = 0x800  # STATX_BTIME
NOW: Final = (1 << 30) - 1  # UTIME_NOW
OMIT: Final = (1 << 30) - 2  # UTIME_OMIT
_NS: Final = 1_000_000_000
_HANDLE: Final = 128  # MAX_HANDLE_SZ
MEMORY: Final = (0x01021994, 0x858458F6)  # f_type of tmpfs and ramfs, whose files are read at once

_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_openat2 = _libc["syscall"]  # a function object of its own, with its own types
_openat2.restype = ctypes.c_long
_openat2.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
_how: Final = struct.Struct("=QQQ")
_times: Final = struct.Struct("@llll")


def _fail(name: bytes | str = "") -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), name)


@lru_cache(maxsize=256)
def _opening(flags: int, mode: int, resolve: int) -> bytes:
    return _how.pack(flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode, _BENEATH | resolve)


def open_beneath(directory: int, name: bytes, flags: int, mode: int = 0, *, resolve: int = 0) -> int:
    """Open a name in the directory of a descriptor and return a descriptor; follows no link, and leaves the directory under no circumstances.

    `flags` are those of open(2), O_CLOEXEC comes of itself; `resolve` are more of openat2(2)'s. Raises OSError.
    """
    how = _opening(flags, mode, resolve)
    while True:
        fd: int = _openat2(_OPENAT2, directory, name, how, 24)
        if fd >= 0:
            return fd
        if ctypes.get_errno() not in (errno.EINTR, errno.EAGAIN):  # EAGAIN: somebody renamed at that moment
            raise _fail(name)


def set_times(directory: int, name: bytes, atime: int | None, mtime: int | None) -> None:
    """Set times in ns, `tree.NOW` for now, None to leave, of what a name stands for, links followed. Raises OSError."""
    times = _times.pack(*_timespec(atime), *_timespec(mtime))
    if _libc.utimensat(ctypes.c_int(directory), name, times, 0) < 0:
        raise _fail(name)


def _timespec(ns: int | None) -> tuple[int, int]:
    return (0, OMIT) if ns is None else (0, NOW) if ns == tree.NOW else divmod(ns, _NS)


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


def file_handle(fd: int) -> tuple[bytes, int] | None:
    """Return what a file can be opened with again, and the number of its mount; None if its file system has no such (name_to_handle_at(2))."""
    buffer = ctypes.create_string_buffer(8 + _HANDLE)
    struct.pack_into("=I", buffer, 0, _HANDLE)
    mount = ctypes.c_int()
    if _libc.name_to_handle_at(ctypes.c_int(fd), b"", buffer, ctypes.byref(mount), ctypes.c_int(_EMPTY)) < 0:
        return None
    return buffer.raw[: 8 + struct.unpack_from("=I", buffer)[0]], mount.value


def open_handle(mount: int, handle: bytes) -> int:
    """Open a file by its handle, for its path only; `mount` is a descriptor of something on its mount. Raises OSError: ESTALE if it is no more."""
    fd: int = _libc.open_by_handle_at(ctypes.c_int(mount), handle, ctypes.c_int(os.O_PATH | os.O_CLOEXEC))
    if fd < 0:
        raise _fail()
    return fd
