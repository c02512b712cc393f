"""A file system that does not answer: FUSE, whose program never reads what it is asked."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_libc: Final = ctypes.CDLL(None, use_errno=True)
_DETACH: Final = 2  # MNT_DETACH


@contextmanager
def mounted(where: Path) -> Iterator[None]:
    """Mount it on a directory. At the end it is taken away, and whoever waits for it gets ENOTCONN. Raises OSError where one cannot mount."""
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
        if _libc.mount(b"silent", bytes(where), b"fuse", 0, options) < 0:
            raise OSError(ctypes.get_errno(), "mount")
        try:
            yield
        finally:
            _libc.umount2(bytes(where), _DETACH)
    finally:
        os.close(fd)  # which ends the connection
