"""The kernel's small files in /sys and /proc, read and written at once. For servers of devices.

Nearly every device server needs these few functions. When a file is missing, reading it is no error: architectures, containers and user-mode Linux
each lack some files, a device may go between listing and reading, and some files say ENODATA or EIO for what they cannot tell. A failed write
raises the kernel's own error. (Documentation/filesystems/sysfs.rst: one value in each file, and one write is the whole value.)

Status files read hundreds of these files, and often. So the functions do without Python's buffers and the fstat(2) for each.
"""

import errno
import os
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Final, TypeVar

import trio

from mk9p.errors import NineError, wording
from mk9p.ktext import split_words, trim

__all__ = ["boot", "link", "names", "put", "put_hostname", "refused", "settable", "text", "threaded"]

T = TypeVar("T")
BOOT: Final = "/proc/sys/kernel/random/boot_id"
_HOSTNAME = 64  # __NEW_UTS_LEN; the kernel would cut a longer name off silently
_PAGE = 4096  # the most that sysfs shows; procfs goes on, in pieces of any size, until it says nothing more


def text(path: str, default: str = "") -> str:
    """Return what a file says, without blanks around it; `default` if that is nothing, or there is no such file, or the kernel will not tell."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return default
    try:
        said = os.read(fd, _PAGE)
        while more := os.read(fd, _PAGE << 4):
            said += more
    except OSError:
        return default
    finally:
        os.close(fd)
    return trim(said).decode("utf-8", "replace") or default


def boot() -> int:
    """Return a number of this life of the kernel, which is another after each start (random(4)); 0 if it does not tell."""
    said = text(f"{BOOT}").replace("-", "")
    return (
        int(said[:16], 16) if len(said) == 32 and said.isalnum() and all(c in "0123456789abcdef" for c in said) else 0
    )


def put(path: str, value: str) -> None:
    """Write a value in one write(2), to an existing file; never make one. Raises OSError as the kernel says."""
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def put_hostname(path: str, name: str) -> None:
    """Write a kernel's name to its file; raises EINVAL for one that is empty, longer than 64 bytes, or has blanks or control characters in it."""
    if not 1 <= len(name.encode()) <= _HOSTNAME or len(split_words(name)) != 1 or not name.isprintable():
        raise NineError(errno.EINVAL, f"a name is one word of 1 to {_HOSTNAME} bytes")
    put(path, f"{name}\n")


def names(path: str) -> list[str]:
    """Return the names in a directory as the kernel orders them; none if there is no such directory. Raises OSError for any other failure."""
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []


def link(path: str, default: str = "-") -> str:
    """Return the last part of what a link leads to (a device's driver, its IOMMU group), `default` if there is none."""
    try:
        return os.path.basename(os.readlink(path))
    except OSError:
        return default


def settable(path: str) -> list[str]:
    """Return the names of the files in a directory that can be written, in order; none if there is no such directory."""
    try:
        with os.scandir(path) as found:
            return sorted(file.name for file in found if file.is_file() and file.stat().st_mode & 0o200)
    except (FileNotFoundError, NotADirectoryError):
        return []


def refused(error: OSError, what: str) -> NineError:
    """Return the kernel's refusal of a `put` as `what: why`. For a missing permission, say which one."""
    number = error.errno or errno.EIO
    why = {
        errno.EACCES: "this needs root or CAP_DAC_OVERRIDE",  # the file's bits
        # what the code behind the file asks for
        errno.EPERM: "the kernel does not permit it, or only with CAP_SYS_ADMIN",
        errno.EROFS: "/sys is read-only here, as in a container",
        errno.ENOENT: "it is gone",
        errno.ENODEV: "it is gone",
    }.get(number, wording(number))
    return NineError(number, f"{what}: {why}")


def threaded(function: Callable[..., T], threads: trio.CapacityLimiter) -> Callable[..., Awaitable[T]]:
    """Return a function that runs `function` in a thread, for files that are slow in the kernel (a chip on a slow bus, a battery).

    It has the same signature, so it may be a ctl word. If cancelled, it leaves the thread to end by itself: the kernel goes on with the work,
    which counts as one of `threads` until then.
    """

    @wraps(function)
    async def waits(*args: object) -> T:
        return await trio.to_thread.run_sync(function, *args, limiter=threads, abandon_on_cancel=True)

    return waits
