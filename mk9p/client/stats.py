"""What servers say of a file, as a `Stat`: Rgetattr of 9P2000.L, and the stat entry of the others (stat(5)).

A 9P2000 server gives its owners by name alone. The number is then one that nobody has, so that no bits for an owner are given to anybody by mistake.
"""

import errno
import stat as st
from typing import Any, Final

from mk9p.errors import NineError
from mk9p.ktext import split_words
from mk9p.tree import Stat
from mk9p.wire import (
    DMAPPEND,
    DMDEVICE,
    DMDIR,
    DMEXCL,
    DMNAMEDPIPE,
    DMSETGID,
    DMSETUID,
    DMSETVTX,
    DMSOCKET,
    DMSYMLINK,
    NONUNAME,
    QTAPPEND,
    QTEXCL,
    Dialect,
    Qid,
    WireStat,
)

NS: Final = 1_000_000_000
UNKNOWN: Final = 0xFFFFFFFE  # v9fs's own for such owners, V9FS_DEFUID
_KINDS: Final = (
    (DMDIR, st.S_IFDIR),
    (DMSYMLINK, st.S_IFLNK),
    (DMNAMEDPIPE, st.S_IFIFO),
    (DMSOCKET, st.S_IFSOCK),
    (DMDEVICE, st.S_IFCHR),
)
_EXTRA: Final = ((DMSETUID, st.S_ISUID), (DMSETGID, st.S_ISGID), (DMSETVTX, st.S_ISVTX))


def of_getattr(fields: tuple[Any, ...], name: str) -> Stat:
    """Return what an Rgetattr says; its seconds are signed."""
    _, qid, mode, uid, gid, nlink, rdev, size, blksize, blocks, a_sec, a_ns, m_sec, m_ns, c_sec, c_ns, *_ = fields
    return Stat(
        mode,
        uid,
        gid,
        size,
        (m_sec - (m_sec >> 63 << 64)) * NS + m_ns,
        (a_sec - (a_sec >> 63 << 64)) * NS + a_ns,
        (c_sec - (c_sec >> 63 << 64)) * NS + c_ns,
        qid.version,
        nlink,
        rdev,
        blksize,
        blocks,
        exclusive=bool(qid.type & QTEXCL),
        append=bool(qid.type & QTAPPEND),
        name=name,
        qid=qid,
    )


def of_wire(wire: WireStat, name: str) -> Stat:
    """Return what a stat entry says; the name is its own unless one is given."""
    kind = next((kind for bit, kind in _KINDS if wire.mode & bit), st.S_IFREG)
    rdev = 0
    if kind == st.S_IFCHR and (words := split_words(wire.extension))[:1] in (["b"], ["c"]) and len(words) == 3:
        import os

        kind = st.S_IFBLK if words[0] == "b" else kind
        rdev = os.makedev(int(words[1]), int(words[2]))
    mode = kind | wire.mode & 0o777
    for bit, extra in _EXTRA:
        if wire.mode & bit:
            mode |= extra
    return Stat(
        mode,
        UNKNOWN if wire.n_uid == NONUNAME else wire.n_uid,
        UNKNOWN if wire.n_gid == NONUNAME else wire.n_gid,
        wire.length,
        wire.mtime * NS,
        wire.atime * NS,
        wire.mtime * NS,
        wire.qid.version,
        2 if wire.mode & DMDIR else 1,
        rdev,
        exclusive=bool(wire.mode & DMEXCL),
        append=bool(wire.mode & DMAPPEND),
        user=wire.uid,
        group=wire.gid,
        name=name or wire.name,
        qid=wire.qid,
    )


def perm_of_mode(dialect: Dialect, mode: int) -> int:
    """Return the permission bits of a Linux mode as Plan 9 has them; raises EPERM for those that 9P2000 has not: setuid, setgid, sticky."""
    perm = mode & 0o777
    if mode & 0o7000:
        if dialect is Dialect.P9:
            raise NineError(errno.EPERM, "9P2000 has no setuid, setgid and sticky bits")
        for bit, extra in _EXTRA:
            perm |= bit if mode & extra else 0
    return perm


_ALL16: Final = 0xFFFF
_ALL32: Final = 0xFFFFFFFF
_ALL64: Final = 0xFFFFFFFFFFFFFFFF


def untouched(
    *,
    name: str = "",
    mode: int | None = None,
    length: int | None = None,
    atime: int | None = None,
    mtime: int | None = None,
    n_uid: int | None = None,
    n_gid: int | None = None,
) -> WireStat:
    """Return the entry of a Twstat that changes only what is given: all ones, and empty strings, say to leave it (stat(5))."""
    return WireStat(
        _ALL16,
        _ALL32,
        Qid(0xFF, _ALL32, _ALL64),
        _ALL32 if mode is None else mode,
        _ALL32 if atime is None else atime,
        _ALL32 if mtime is None else mtime,
        _ALL64 if length is None else length,
        name,
        "",
        "",
        "",
        "",
        _ALL32 if n_uid is None else n_uid,
        _ALL32 if n_gid is None else n_gid,
        _ALL32,
    )
