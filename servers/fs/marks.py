"""Exclusive use and append-only (DMEXCL and DMAPPEND of stat(5)) of the host's files, for which Linux has no mode bits.

They are kept with the file, in the attribute `user.mk9p.mode`, so they survive a restart and go wherever the file does: a lock that lasts only
until the server restarts would be none. Asking every file for an attribute would make each walk slower, so a file with one also has the sticky
bit, which means nothing on a plain file (inode(7)), and only such files are asked. Clients do not see the bit, and it stays when they change the
mode. Removing the bit or the attribute on the host removes both marks.
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
# the last: a server that is not root, and may not read the file either
_NONE: Final = (errno.ENODATA, errno.EOPNOTSUPP, errno.EACCES)


def read(path: str) -> tuple[bool, bool] | None:
    """Return whether a file is for exclusive use and append-only; None if it has no such attribute."""
    try:
        bits = int(os.getxattr(path, NAME), 16)
    except ValueError:
        return None  # another program's attribute
    except OSError as error:
        if error.errno not in _NONE:
            raise
        return None
    return (bool(bits & DMEXCL), bool(bits & DMAPPEND)) if bits & (DMEXCL | DMAPPEND) else None


def change(name: str, path: str, directory: int, now: Stat, change: Change) -> None:
    """Change the marks of a file, and its mode with them, as the user of this thread. Raises EPERM where nothing can be kept.

    `name` in `directory` and `path` are two ways to it. Only its owner may, as with chmod(2), and nothing changes if it fails.
    """
    exclusive = now.exclusive if change.exclusive is None else change.exclusive
    append = now.append if change.append is None else change.append
    bits = (DMEXCL if exclusive else 0) | (DMAPPEND if append else 0)
    before = now.mode & 0o7777 | (st.S_ISVTX if now.exclusive or now.append else 0)
    mode = now.mode & 0o7777 if change.mode is None else change.mode
    os.chmod(name, before | st.S_IWUSR, dir_fd=directory)  # a user who may write may set an attribute
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
