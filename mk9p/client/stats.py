"""What servers say of a file, as a `Stat`: Rgetattr of 9P2000.L, and the stat entry of the others (stat(5)).

A 9P2000 server gives only the names of owners. The number is then one that nobody has, so nobody gets an owner's bits by mistake.

Every number about a file comes through here. A server may send any. A Stat has only numbers that all its users can take: lengths fit an off_t, a
time is a date of the Gregorian calendar, ns are less than a second. A number that is out of range becomes the nearest that is in it: the file is
still there.
"""

import errno
import re
import stat as st
from typing import Any, Final

from mk9p.errors import NineError
from mk9p.status import Stat
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
    GETATTR_BTIME,
    GETATTR_DATA_VERSION,
    NONUNAME,
    QTAPPEND,
    QTDIR,
    QTEXCL,
    QTSYMLINK,
    Dialect,
    Qid,
    WireStat,
)

NS: Final = 1_000_000_000
UNKNOWN: Final = 0xFFFFFFFE  # v9fs's own for such owners, V9FS_DEFUID
_MOST: Final = (1 << 63) - 1  # an off_t
_BLOCK: Final = 1 << 24  # a blksize is a length of buffers: programs that copy files allocate as much
# The second day of the year 1, and the last but one of 9999, whatever the time zone: Python's datetime and strftime(3) know no others.
_FIRST: Final = -62_135_510_400
_LAST: Final = 253_402_214_400
_DEVICE: Final = re.compile(r"([bc]) ([0-9]{1,9}) ([0-9]{1,9})")
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
        mode if st.S_IFMT(mode) else st.S_IFMT(kind_of(qid)) | mode,
        _owner(uid),
        _owner(gid),
        min(size, _MOST),
        _time(m_sec, m_ns),
        _time(a_sec, a_ns),
        _time(c_sec, c_ns),
        qid.version,
        nlink,
        rdev,
        blksize if 0 < blksize <= _BLOCK else 4096,
        min(blocks, _MOST),
        exclusive=bool(qid.type & QTEXCL),
        append=bool(qid.type & QTAPPEND),
        name=name,
        qid=qid,
    )


def born_of(fields: tuple[Any, ...]) -> int | None:
    """Return when the file was made, as an Rgetattr says it, in ns; None if it does not."""
    return _time(fields[16], fields[17]) if fields[0] & GETATTR_BTIME else None


def life_of(fields: tuple[Any, ...]) -> int:
    """Return the number by which a client knows that nothing is lost, as an Rgetattr says it; 0 if it does not."""
    return int(fields[19]) if fields[0] & GETATTR_DATA_VERSION else 0


def of_wire(wire: WireStat, name: str) -> Stat:
    """Return what a stat entry says; the name is its own unless one is given."""
    kind = next((kind for bit, kind in _KINDS if wire.mode & bit), st.S_IFREG)
    rdev = 0
    if kind == st.S_IFCHR and (device := _DEVICE.fullmatch(wire.extension)):
        import os

        kind = st.S_IFBLK if device[1] == "b" else kind
        rdev = os.makedev(int(device[2]), int(device[3]))
    mode = kind | wire.mode & 0o777
    for bit, extra in _EXTRA:
        if wire.mode & bit:
            mode |= extra
    return Stat(
        mode,
        _owner(wire.n_uid),
        _owner(wire.n_gid),
        min(wire.length, _MOST),
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
    """Return the permission bits of a Linux mode as Plan 9 has them; raises EPERM for those that 9P2000 does not have: setuid, setgid, sticky."""
    perm = mode & 0o777
    if mode & 0o7000:
        if dialect is Dialect.P9:
            raise NineError(errno.EPERM, "9P2000 has no setuid, setgid and sticky bits")
        for bit, extra in _EXTRA:
            perm |= bit if mode & extra else 0
    return perm


def kind_of(qid: Qid) -> int:
    """Return the kind of a file, as in a mode, where a server tells only its qid."""
    return st.S_IFDIR if qid.type & QTDIR else st.S_IFLNK if qid.type & QTSYMLINK else st.S_IFREG


def _owner(number: int) -> int:
    """Return a uid or gid. All ones is no owner but a mark: "not told" here, "leave it" in chown(2)."""
    return UNKNOWN if number == NONUNAME else number


def _time(seconds: int, rest: int) -> int:
    """Return a time of the wire in ns. Its seconds are Linux's time64_t, sent as they are in memory: times before 1970 look like very large
    numbers."""
    if seconds >> 63:
        seconds -= 1 << 64
    return min(max(seconds, _FIRST), _LAST) * NS + min(rest, NS - 1)


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
    """Return the entry of a Twstat that changes only what is given: all ones, and empty strings, leave a field as it is (stat(5))."""
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
