"""Changes of files and directories: names are made, removed and moved, and the status is set. Otherwise as requests.py."""

import errno
import os
import stat as st
import time
from typing import Final

from mk9p.client.conversation import Conversation
from mk9p.client.requests import walk
from mk9p.client.stats import perm_of_mode, untouched
from mk9p.errors import NineError
from mk9p.status import NOW, Change
from mk9p.wire import (
    AT_REMOVEDIR,
    DMDEVICE,
    DMDIR,
    DMLINK,
    DMNAMEDPIPE,
    DMSETGID,
    DMSETUID,
    DMSETVTX,
    DMSOCKET,
    DMSYMLINK,
    OREAD,
    SETATTR_ATIME,
    SETATTR_ATIME_SET,
    SETATTR_GID,
    SETATTR_MODE,
    SETATTR_MTIME,
    SETATTR_MTIME_SET,
    SETATTR_SIZE,
    SETATTR_UID,
    Dialect,
    Qid,
)
from mk9p.wire import messages as m

_NS: Final = 1_000_000_000
_REFUSED: Final = (errno.EOPNOTSUPP, errno.ENOSYS)  # these say that a server has no such message
_SPECIAL: Final = {
    st.S_IFBLK: DMDEVICE,
    st.S_IFCHR: DMDEVICE,
    st.S_IFIFO: DMNAMEDPIPE,
    st.S_IFSOCK: DMSOCKET,
}
_MODES: Final = DMSETUID | DMSETGID | DMSETVTX


async def mkdir(c: Conversation, fid: int, name: str, perm: int, *, gid: int = 0) -> Qid:
    """Make a directory in the one that a fid stands for."""
    if c.dialect is Dialect.L:
        (qid,) = await c.rpc(m.Tmkdir, fid, name, perm & 0o7777, gid)
        return qid  # type: ignore[no-any-return]
    return await _make(c, fid, name, DMDIR | perm_of_mode(c.dialect, perm), "")


async def symlink(c: Conversation, fid: int, name: str, target: str, *, gid: int = 0) -> Qid:
    """Make a symbolic link; 9P2000 has none: EPERM."""
    if c.dialect is Dialect.L:
        (qid,) = await c.rpc(m.Tsymlink, fid, name, target, gid)
        return qid  # type: ignore[no-any-return]
    if c.dialect is Dialect.P9:
        raise NineError(errno.EPERM)
    return await _make(c, fid, name, DMSYMLINK | 0o777, target)


async def _make(c: Conversation, fid: int, name: str, perm: int, extension: str) -> Qid:
    new, _ = await walk(c, fid, ())
    try:
        qid, _ = await c.rpc(m.Tcreate, new, name, perm, OREAD, extension)
        return qid  # type: ignore[no-any-return]
    finally:
        c.clunk_nowait(new)


async def link(c: Conversation, dfid: int, fid: int, name: str) -> None:
    """Make a second name of a file; 9P2000 has none: EPERM."""
    if c.dialect is Dialect.L:
        await c.rpc(m.Tlink, dfid, fid, name)
        return
    if c.dialect is Dialect.P9:
        raise NineError(errno.EPERM)
    await _make(c, dfid, name, DMLINK, str(fid))


async def mknod(c: Conversation, fid: int, name: str, mode: int, rdev: int, *, gid: int = 0) -> Qid:
    """Make a file of any kind, as mknod(2); 9P2000 has only plain ones: EPERM for others."""
    if c.dialect is Dialect.L:
        (qid,) = await c.rpc(m.Tmknod, fid, name, mode, os.major(rdev), os.minor(rdev), gid)
        return qid  # type: ignore[no-any-return]
    kind, extension = _SPECIAL.get(st.S_IFMT(mode), 0), ""
    if kind and c.dialect is Dialect.P9:
        raise NineError(errno.EPERM)
    if kind == DMDEVICE:
        extension = f"{'b' if st.S_ISBLK(mode) else 'c'} {os.major(rdev)} {os.minor(rdev)}"
    return await _make(c, fid, name, kind | perm_of_mode(c.dialect, mode), extension)


async def remove(c: Conversation, dfid: int, name: str, *, directory: bool | None = None) -> None:
    """Remove a name from the directory that a fid stands for. `directory` says whether it must be one: raises ENOTDIR or EISDIR if it is not as it
    must be."""
    if c.dialect is Dialect.L and directory is not None:
        try:
            await c.rpc(m.Tunlinkat, dfid, name, AT_REMOVEDIR if directory else 0)
        except NineError as error:
            if error.errno not in _REFUSED:
                raise
        else:
            return
    fid, qids = await walk(c, dfid, (name,))
    is_dir = bool(qids[-1].type & DMDIR >> 24)
    if directory is not None and directory != is_dir:
        c.clunk_nowait(fid)
        raise NineError(errno.ENOTDIR if directory else errno.EISDIR)
    await c.rpc(m.Tremove, fid)


async def rename(c: Conversation, dfid: int, name: str, to: int, newname: str, *, same: bool) -> None:
    """Move a name of one directory to another name of another; `same` says that the two fids stand for one. Raises EXDEV where 9P2000 cannot do
    that."""
    if c.dialect is Dialect.L:
        try:
            await c.rpc(m.Trenameat, dfid, name, to, newname)
        except NineError as error:
            if error.errno not in _REFUSED:
                raise
        else:
            return
    elif not same:
        raise NineError(errno.EXDEV)
    fid, _ = await walk(c, dfid, (name,))
    try:
        if c.dialect is Dialect.L:
            await c.rpc(m.Trename, fid, to, newname)
        else:
            await c.rpc(m.Twstat, fid, untouched(name=newname))
    finally:
        c.clunk_nowait(fid)


async def change(c: Conversation, fid: int, wish: Change) -> None:
    """Change the status of the file that a fid stands for."""
    if c.dialect is not Dialect.L:
        await c.rpc(
            m.Twstat,
            fid,
            untouched(
                mode=None if wish.mode is None else perm_of_mode(c.dialect, wish.mode) | await _kind(c, fid),
                length=wish.length,
                atime=_seconds(wish.atime),
                mtime=_seconds(wish.mtime),
                n_uid=wish.uid,
                n_gid=wish.gid,
            ),
        )
        return
    valid = (
        (SETATTR_MODE if wish.mode is not None else 0)
        | (SETATTR_UID if wish.uid is not None else 0)
        | (SETATTR_GID if wish.gid is not None else 0)
        | (SETATTR_SIZE if wish.length is not None else 0)
        | (0 if wish.atime is None else SETATTR_ATIME if wish.atime == NOW else SETATTR_ATIME | SETATTR_ATIME_SET)
        | (0 if wish.mtime is None else SETATTR_MTIME if wish.mtime == NOW else SETATTR_MTIME | SETATTR_MTIME_SET)
    )
    await c.rpc(
        m.Tsetattr,
        fid,
        valid,
        wish.mode or 0,
        wish.uid or 0,
        wish.gid or 0,
        wish.length or 0,
        *_timespec(wish.atime),
        *_timespec(wish.mtime),
    )


def _timespec(ns: int | None) -> tuple[int, int]:
    """Return a time as in 9P2000.L: its seconds are signed, in 64 bits."""
    seconds, rest = divmod(0 if ns is None or ns == NOW else ns, _NS)
    return seconds & 0xFFFF_FFFF_FFFF_FFFF, rest


def _seconds(ns: int | None) -> int | None:
    """Return a time as in a stat entry; raises EOVERFLOW for one that does not fit its unsigned 32 bits (all ones is no time)."""
    if ns is None:
        return None
    seconds = int(time.time()) if ns == NOW else ns // _NS
    if not 0 <= seconds < 0xFFFF_FFFF:
        raise NineError(errno.EOVERFLOW, "this dialect has no times before 1970 or after 2106")
    return seconds


async def _kind(c: Conversation, fid: int) -> int:
    """Return the bits of a Plan 9 mode that say the kind of a file: a wstat must repeat them (stat(5))."""
    (wire,) = await c.rpc(m.Tstat, fid)
    return int(wire.mode) & ~0o777 & (-1 if c.dialect is Dialect.P9 else ~_MODES)
