"""What you can tell a disk to do, except reading and writing: block/ioctl.c for a block device, and the same for a plain file. All functions may
block: call them in threads."""

import ctypes
import errno
import fcntl
import os
import stat as st
import struct
from typing import Final

from mk9p.errors import NineError

_NONE: Final = 0x20000000 if os.uname().machine.startswith(("alpha", "mips", "ppc", "sparc")) else 0  # their _IO()
_BLKROSET: Final = _NONE | 0x125D
_BLKRRPART: Final = _NONE | 0x125F
_BLKDISCARD: Final = _NONE | 0x1277
_KEEP_SIZE_PUNCH_HOLE: Final = 3


def is_block(fd: int) -> bool:
    return st.S_ISBLK(os.fstat(fd).st_mode)


def set_readonly(path: str, on: bool) -> None:
    """Make the kernel refuse every write to a block device, also those of other programs, or stop that. A plain file has no such switch and needs
    none."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if is_block(fd):
            fcntl.ioctl(fd, _BLKROSET, struct.pack("i", on))
    finally:
        os.close(fd)


def reread_partitions(path: str) -> None:
    """Make the kernel read the partition table again. Raises EBUSY while one of the partitions is in use. A device without a table is no error."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if is_block(fd):
            fcntl.ioctl(fd, _BLKRRPART)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a loop device that was not set up for partitions
            raise
    finally:
        os.close(fd)


def resize(sysfs: str) -> None:
    """Make the kernel ask a SCSI disk for its size again; other disks report a new size themselves."""
    try:
        fd = os.open(f"{sysfs}/device/rescan", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.write(fd, b"1")
    finally:
        os.close(fd)


def flush(path: str) -> None:
    """Put on the medium what anybody wrote."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def discard(path: str, start: int, length: int) -> None:
    """Tell the medium that nobody needs these bytes any more. Afterwards a read of them may give anything, and gives zeros in a file."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if is_block(fd):
            fcntl.ioctl(fd, _BLKDISCARD, struct.pack("QQ", start, length))
        else:
            _punch(fd, start, length)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise NineError(errno.EOPNOTSUPP, "this disk has no discard") from None
        raise
    finally:
        os.close(fd)


def _punch(fd: int, start: int, length: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    # a C library without the long one has 64 bits in the short one
    fallocate = getattr(libc, "fallocate64", None) or libc.fallocate
    if fallocate(fd, _KEEP_SIZE_PUNCH_HOLE, ctypes.c_int64(start), ctypes.c_int64(length)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
