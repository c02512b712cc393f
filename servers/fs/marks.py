"""Exclusive use and append-only (DMEXCL and DMAPPEND of stat(5)) of the host's files, for which Linux has no mode bits.

They are kept with the file, in the attribute `user.mk9p.mode`, so that they survive a restart and go wherever the file does: a lock that
is one only until the server is started again would be none. Asking every file for an attribute would make each walk slower, so a file with
one has the sticky bit too, which means nothing on a plain file (inode(7)), and only such files are asked. The bit is not shown to clients, and
stays when they change the mode. Whoever takes the bit or the attribute away on the host takes both marks away.
"""

import errno
import os
import stat as st
from typing import Final

from mk9p.errors import NineError
from mk9p.tree import Change, Stat
from mk9p.wire import DMAPPEND, DMEXCL

NAME: Final = "user.mk9p.mode"
HINT: Final = 0o170000 | st.S_ISVTX
HINTED: Final = st.S_IFREG | st.S_ISVTX
_NONE: Final = (
    errno.ENODATA,
    errno.EOPNOTSUPP,
    errno.EACCES,
)  # the last: a server that is not root, and may not read the file either


def read(path: str) -> tuple[bool, bool] | None:
    """Return whether a file is for exclusive use and append-only; None if nothing is kept with it."""
    try:
        bits = int(os.getxattr(path, NAME), 16)
    except ValueError:
        return None  # somebody else's
    except OSError as error:
        if error.errno not in _NONE:
            raise
        return None
    return (bool(bits & DMEXCL), bool(bits & DMAPPEND)) if bits & (DMEXCL | DMAPPEND) else None


def change(name: str, path: str, directory: int, now: Stat, change: Change) -> None:
    """Change the marks of a file, and its mode with them, acting as whoever does it. Raises EPERM where nothing can be kept.

    `name` in `directory` and `path` are two ways to it. Its owner alone may, as with chmod(2), and nothing is changed if it fails.
    """
    exclusive = now.exclusive if change.exclusive is None else change.exclusive
    append = now.append if change.append is None else change.append
    bits = (DMEXCL if exclusive else 0) | (DMAPPEND if append else 0)
    before = now.mode & 0o7777 | (st.S_ISVTX if now.exclusive or now.append else 0)
    mode = now.mode & 0o7777 if change.mode is None else change.mode
    os.chmod(name, before | st.S_IWUSR, dir_fd=directory)  # an attribute is set by whoever may write
    try:
        if bits:
            os.setxattr(path, NAME, f"{bits:#x}".encode())
        elif now.exclusive or now.append:
            os.removexattr(path, NAME)
        os.chmod(name, mode | (st.S_ISVTX if bits else 0), dir_fd=directory)
    except OSError as error:
        os.chmod(name, before, dir_fd=directory)
        if error.errno == errno.EOPNOTSUPP:
            raise NineError(
                errno.EPERM, "this file system keeps no attributes, and so no exclusive use or append-only"
            ) from None
        raise
