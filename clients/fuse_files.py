"""How names, flags and a status look to FUSE and to 9P."""

import errno
import os
import stat as st
import time
from typing import Final

from pyfuse3 import EntryAttributes

from mk9p.auth import Principal
from mk9p.compose.remote import Remote
from mk9p.errors import NineError
from mk9p.tree import Change, Open, Stat
from mk9p.wire import QTDIR, QTSYMLINK

NAME_MAX: Final = 255  # bytes of a name: with a longer one, the kernel refuses the whole listing
_NS: Final = 1_000_000_000
_MOST: Final = (1 << 63) - 1  # an off_t, and a time_t
_BLKSIZES: Final = range(512, (1 << 24) + 1)  # programs take as much memory as this says
_JUST: Final = 60_000_000_000  # ns that a request may have been on its way, on a machine that swaps
_KINDS: Final = (st.S_IFREG, st.S_IFDIR, st.S_IFLNK, st.S_IFIFO, st.S_IFSOCK, st.S_IFCHR, st.S_IFBLK)


def text(name: bytes) -> str:
    """Return a name in the form of 9P. Raises EILSEQ for one that is not UTF-8."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise NineError(errno.EILSEQ, "names of 9P are UTF-8") from None


def raw(name: str) -> bytes:
    """Return a name of a listing in the form of the kernel; empty for one that the kernel takes for no name: it would refuse all the others, too."""
    try:
        found = name.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return b""
    odd = len(found) > NAME_MAX or b"/" in found or b"\0" in found or found in (b".", b"..")
    return b"" if odd else found


def kind_of(node: Remote, stat: Stat) -> int:
    """Return the kind of a file (S_IFMT); if the status says an impossible one, that of its qid."""
    kind = st.S_IFMT(stat.mode)
    return (
        kind
        if kind in _KINDS
        else st.S_IFDIR
        if node.qtype & QTDIR
        else st.S_IFLNK
        if node.qtype & QTSYMLINK
        else st.S_IFREG
    )


def how_of(who: Principal, flags: int, *, records: bool = False) -> Open:
    """Return how a user opens a file, from the flags of open(2)."""
    access = flags & os.O_ACCMODE
    return Open(
        who,
        read=access != os.O_WRONLY,
        write=access != os.O_RDONLY,
        truncate=bool(flags & os.O_TRUNC),
        append=bool(flags & os.O_APPEND),
        records=records,
        flags=flags,
    )


def is_now(change: Change) -> bool:
    """Tell whether a change may be what the kernel makes of utimensat(2) without times, which a user who may write may do.

    pyfuse3 does not distinguish the mark for that (FATTR_ATIME_NOW) from a time. Both times are then the same, and very recent.
    """
    if change.atime is None or change.atime != change.mtime or change != Change(atime=change.atime, mtime=change.mtime):
        return False
    return 0 <= time.time_ns() - change.atime < _JUST


def same(one: Stat, other: Stat) -> bool:
    """Tell whether two are the status of one file that nobody has changed meanwhile, except by reading it."""
    return (
        one.mtime == other.mtime
        and one.ctime == other.ctime
        and one.length == other.length
        and one.version == other.version
        and (one.mode, one.uid, one.gid, one.nlink) == (other.mode, other.uid, other.gid, other.nlink)
    )


def contents(stat: Stat) -> tuple[int, int]:
    """Return what stays the same while nobody changes the contents of a file.

    Many servers make qid.version of length and mtime, and those are the same again after `cp -p`, tar(1) or utimensat(2): ctime is not.
    """
    return stat.version, stat.ctime


def attributes(number: int, kind: int, stat: Stat) -> EntryAttributes:
    """Return a status in the form of FUSE, of which the kernel believes nothing.

    A server may send any number, and the kernel shows what it can take: a number that it can't take becomes the nearest that it can.
    """
    entry = EntryAttributes()
    entry.st_ino = number
    entry.entry_timeout = entry.attr_timeout = 0
    entry.st_mode = kind | stat.mode & 0o7777
    entry.st_nlink, entry.st_rdev = min(stat.nlink, 0xFFFFFFFF), stat.rdev & 0xFFFFFFFF
    entry.st_uid, entry.st_gid = stat.uid & 0xFFFFFFFF, stat.gid & 0xFFFFFFFF
    entry.st_size = min(stat.length, _MOST)
    entry.st_blksize = stat.blksize if stat.blksize in _BLKSIZES else 4096
    entry.st_blocks = min((stat.length + 511) // 512 if stat.blocks is None else stat.blocks, _MOST)
    entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns = _time(stat.atime), _time(stat.mtime), _time(stat.ctime)
    return entry


def _time(ns: int) -> int:
    """Return a time that fits a time_t. Before 1970 it is negative."""
    return min(max(ns, -_MOST * _NS), _MOST * _NS)
