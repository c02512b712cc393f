"""A change of status: all of it or nothing, as far as Linux allows, and by the user's own rights.

Linux has separate calls for owner, mode, times and length. So this module finds out what the user may not do before anything is lost: it opens a
file for writing as the user, grows it first (which may fail, and is undone) and shrinks it last (which does not fail then).

The client's kernel adds to its user's request what its own file system would do by itself (notify_change() in fs/attr.c); that needs no right:

* truncating sets mtime to now. ftruncate(2) does the same, so `mtime` is not set again: utimensat(2) would require the owner;
* writing to a file clears its setuid and setgid bits, and Linux 6.12 asks for that before it writes. A user who may write the file may do that,
  and no other change of its mode. This server does nothing else by its own right, and before that the kernel has let the user open the file for
  writing.
"""

import errno
import os
import stat as st
from typing import Final, Protocol

from mk9p.auth import NO_ID, Principal, falls
from mk9p.errors import NineError
from mk9p.servers.fs import kernel, marks
from mk9p.servers.fs.export import Export
from mk9p.tree import NOW, Change, Stat
from mk9p.wire import QTDIR, QTSYMLINK

_MOST: Final = 1 << 63
_FALLING: Final = st.S_ISUID | st.S_ISGID


class File(Protocol):
    """A file of the host that is held (held.py)."""

    export: Export
    qtype: int

    def at(self) -> int:
        """Return its descriptor."""

    def now(self) -> Stat:
        """Return its status."""

    def forget(self) -> None:
        """Stop keeping the status."""

    def require_regular(self) -> None:
        """Raise the error of a file that is not opened through here."""


def apply(node: File, change: Change, who: Principal, fd: int = -1) -> None:
    """Change a file's status as a user; `fd` is the file, open for writing, if it is open: that was allowed, and stays allowed. Raises OSError."""
    node.export.require(who)
    if NO_ID in (change.uid, change.gid):
        raise NineError(errno.EINVAL, "no file can have that owner or group")
    if change.mode is not None and node.qtype == QTSYMLINK:
        raise NineError(errno.EOPNOTSUPP, "a symbolic link has no mode of its own")
    if change.length is not None:
        if change.length >= _MOST:
            raise NineError(errno.EINVAL)
        if node.qtype == QTDIR:
            raise NineError(errno.EISDIR)
        node.require_regular()
        now = node.now()
        if now.append and change.length < now.length:
            raise NineError(errno.EPERM, "the file is append-only")
    if _by_itself(node, change, who):
        if change.length is None:
            _drop_bits(node, change, who)
        change = change._replace(mode=None)
    if change.length is None:
        _change(node, change, who)
    elif fd >= 0:
        _truncate(node, change, who, fd)
    else:
        at = node.at()
        with node.export.acting(who, at):
            fd = node.export.reopen(at, os.O_WRONLY)
        try:
            _truncate(node, change, who, fd)
        finally:
            os.close(fd)


def _by_itself(node: File, change: Change, who: Principal) -> bool:
    """Tell whether the requested mode is only what writing by somebody other than the owner does."""
    if change.mode is None or change.uid is not None or change.gid is not None or node.qtype == QTDIR:
        return False
    now = node.now()
    return who.uid not in (0, now.uid) and falls(change.mode, now.mode)


def _drop_bits(node: File, change: Change, who: Principal) -> None:
    """Clear setuid and setgid bits for a user who may write. Raises EACCES for others."""
    node.require_regular()
    at = node.at()
    with node.export.acting(who, at):
        fd = node.export.reopen(at, os.O_WRONLY)
    try:
        assert change.mode is not None
        now = st.S_IMODE(os.fstat(fd).st_mode)
        os.fchmod(fd, now & (change.mode | ~_FALLING))
    finally:
        os.close(fd)


def _truncate(node: File, change: Change, who: Principal, fd: int) -> None:
    """Set the length, and the rest."""
    length = change.length
    assert length is not None
    if change.mtime == NOW and change.atime is None:
        change = change._replace(mtime=None)
    before = os.fstat(fd).st_size
    acting = node.export.acting(who, fd)
    if length > before:
        with acting:
            os.ftruncate(fd, length)
        try:
            _change(node, change, who)
        except OSError:
            with acting:
                os.ftruncate(fd, before)
            raise
        return
    _change(node, change, who)
    with acting:
        os.ftruncate(fd, length)
    # That cleared setuid bits and set mtime.
    _change(node, change._replace(uid=None, gid=None), who)


def _change(node: File, change: Change, who: Principal) -> None:
    """Change everything except the length: the owner first, which only root may change, and because a new owner clears setuid bits."""
    export, at = node.export, node.at()
    name = str(at)
    marked = change.exclusive is not None or change.append is not None
    # It looks only if it must: after a look Linux notes the time of the next change exactly, and that costs more than the change itself.
    now = node.now() if marked or change.mode is not None else None
    with export.acting(who, at):
        if change.uid is not None or change.gid is not None:
            uid, gid = change.uid, change.gid
            os.chown(name, -1 if uid is None else uid, -1 if gid is None else gid, dir_fd=export.proc)
        if now is not None and marked:
            marks.change(name, f"/proc/self/fd/{at}", export.proc, now, change)
        elif now is not None and change.mode is not None:
            os.chmod(name, change.mode | (st.S_ISVTX if now.exclusive or now.append else 0), dir_fd=export.proc)
        if change.atime is not None or change.mtime is not None:
            kernel.set_times(export.proc, name.encode(), change.atime, change.mtime)
