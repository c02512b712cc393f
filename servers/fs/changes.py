"""A change of status: all of it or nothing, as far as Linux lets, and by the user's own rights.

Linux has a call each for owner, mode, times and length. So what the user may not do is found out before anything is lost: a file is opened for
writing as the user, grown first (which may fail, and is taken back) and shrunk last (which does not fail then).

The client's kernel adds to its user's wish what its own file system would do by itself (notify_change() in fs/attr.c); that takes no right:

* truncating sets mtime to now. ftruncate(2) does the same, so `mtime` is not asked for again: utimensat(2) would want the owner;
* whoever writes to a file takes its setuid and setgid bits away, and Linux 6.12 asks for that before it writes. Who may write the file may do that,
  and no other change of its mode. Nothing else is done by this server's own right, and the kernel has let the user open the file for writing before.
"""

import errno
import os
import stat as st
from typing import TYPE_CHECKING, Final

import attrs

from mk9p.auth import NO_ID, Principal, falls
from mk9p.errors import NineError
from mk9p.servers.fs import kernel, marks
from mk9p.tree import NOW, Change
from mk9p.wire import QTDIR, QTSYMLINK

if TYPE_CHECKING:
    from mk9p.servers.fs.held import Held

_MOST: Final = 1 << 63
_FALLING: Final = st.S_ISUID | st.S_ISGID


def apply(node: "Held", change: Change, who: Principal, fd: int = -1) -> None:
    """Change a file's status as a user; `fd` is it, open for writing, if it is: that was allowed, and stays so. Raises OSError."""
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
        change = attrs.evolve(change, mode=None)
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


def _by_itself(node: "Held", change: Change, who: Principal) -> bool:
    """Tell whether all that is asked of the mode is what writing by somebody else than the owner does."""
    if change.mode is None or change.uid is not None or change.gid is not None or node.qtype == QTDIR:
        return False
    now = node.now()
    return who.uid not in (0, now.uid) and falls(change.mode, now.mode)


def _drop_bits(node: "Held", change: Change, who: Principal) -> None:
    """Take setuid and setgid bits away for one who may write. Raises EACCES for others."""
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


def _truncate(node: "Held", change: Change, who: Principal, fd: int) -> None:
    """Set the length, and the rest."""
    length = change.length
    assert length is not None
    if change.mtime == NOW and change.atime is None:
        change = attrs.evolve(change, mtime=None)
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
    # Which took setuid bits away and set mtime.
    _change(node, attrs.evolve(change, uid=None, gid=None), who)


def _change(node: "Held", change: Change, who: Principal) -> None:
    """Change everything but the length: the owner first, who only root gives away, and since a new one takes setuid bits away."""
    export, at = node.export, node.at()
    name, now = str(at), node.now()
    with export.acting(who, at):
        if change.uid is not None or change.gid is not None:
            uid, gid = change.uid, change.gid
            os.chown(name, -1 if uid is None else uid, -1 if gid is None else gid, dir_fd=export.proc)
        if change.exclusive is not None or change.append is not None:
            marks.change(name, f"/proc/self/fd/{at}", export.proc, now, change)
        elif change.mode is not None:
            os.chmod(name, change.mode | (st.S_ISVTX if now.exclusive or now.append else 0), dir_fd=export.proc)
        if change.atime is not None or change.mtime is not None:
            kernel.set_times(export.proc, name.encode(), change.atime, change.mtime)
