"""What the FUSE adapter (fuse.py) keeps of open files and listings, and how names, flags and a status look to FUSE and to 9P."""

import errno
import os
import stat as st
import time
from typing import Final

import attrs
import trio
from pyfuse3 import EntryAttributes

from mk9p.auth import Principal
from mk9p.clients.fuse_inodes import Inode
from mk9p.compose.remote import Remote
from mk9p.errors import NineError
from mk9p.tree import Change, Handle, Open, Stat
from mk9p.wire import QTDIR, QTSYMLINK

AT_ONCE: Final = 16  # files of a listing that are asked about at once
NAME_MAX: Final = 255  # bytes of a name: with one that is longer, the kernel refuses the whole listing
_NS: Final = 1_000_000_000
_MOST: Final = (1 << 63) - 1  # an off_t, and a time_t
_BLKSIZES: Final = range(512, (1 << 24) + 1)  # programs take as much memory as that says
_JUST: Final = 60_000_000_000  # ns that a request may have been on its way, on a machine that swaps
_KINDS: Final = (st.S_IFREG, st.S_IFDIR, st.S_IFLNK, st.S_IFIFO, st.S_IFSOCK, st.S_IFCHR, st.S_IFBLK)


@attrs.define(eq=False)
class Opened:
    """An open file; `opener` is the thread that opened it."""

    handle: Handle
    inode: int
    opener: int
    direct: bool
    iounit: int  # the most that one answer of the server can hold


@attrs.define(eq=False)
class Listing:
    """An open directory: what it held when it was read from the start."""

    inode: Inode
    who: Principal
    entries: list[tuple[str, Remote]]
    stats: dict[int, Stat | None] = attrs.field(factory=dict)  # by place in `entries`; None: it has gone


def text(name: bytes) -> str:
    """Return a name as 9P has it. Raises EILSEQ for one that is not UTF-8."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise NineError(errno.EILSEQ, "names of 9P are UTF-8") from None


def raw(name: str) -> bytes:
    """Return a name of a listing as the kernel has it; empty for what it takes for no name: it would refuse all the others, too."""
    try:
        found = name.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return b""
    odd = len(found) > NAME_MAX or b"/" in found or b"\0" in found or found in (b".", b"..")
    return b"" if odd else found


def kind_of(node: Remote, stat: Stat) -> int:
    """Return what a file is (S_IFMT); where the status says what there is not, as its qid does."""
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


def how_of(who: Principal, flags: int) -> Open:
    """Return how a user opens a file, of the flags of open(2)."""
    access = flags & os.O_ACCMODE
    return Open(
        who,
        read=access != os.O_WRONLY,
        write=access != os.O_RDONLY,
        truncate=bool(flags & os.O_TRUNC),
        append=bool(flags & os.O_APPEND),
        flags=flags,
    )


def is_now(change: Change) -> bool:
    """Tell whether a change may be what the kernel makes of utimensat(2) without times, which who may write may do.

    pyfuse3 does not tell the mark for that (FATTR_ATIME_NOW) from a time. Both times are then the same, and have just been.
    """
    if change.atime is None or change.atime != change.mtime or change != Change(atime=change.atime, mtime=change.mtime):
        return False
    return 0 <= time.time_ns() - change.atime < _JUST


def attributes(number: int, kind: int, stat: Stat, seconds: float = 0) -> EntryAttributes:
    """Return a status as FUSE has it, which the kernel may believe for so many seconds; the name is to be looked up again each time.

    A server may say any number, and the kernel shows what it can take: what it can not becomes the nearest that it can.
    """
    entry = EntryAttributes()
    entry.st_ino = number
    entry.entry_timeout, entry.attr_timeout = 0, seconds
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


async def entries_of(node: Remote, who: Principal) -> list[tuple[str, Remote]]:
    """Return what a directory holds, as a user sees it."""
    return [(name, child) for name, child in await node.entries(who) if raw(name)]


async def stat_some(listing: Listing, start: int) -> None:
    """Ask for the status of the next entries of a directory, all at once."""

    async def ask(at: int) -> None:
        _, node = listing.entries[at]
        try:
            listing.stats[at] = await node.stat()
        except (FileNotFoundError, ProcessLookupError):
            listing.stats[at] = None
        except OSError:  # it is there, and that is all that can be told
            listing.stats[at] = Stat(kind_of(node, Stat(0)))

    async with trio.open_nursery() as nursery:
        for at in range(start, min(start + AT_ONCE, len(listing.entries))):
            nursery.start_soon(ask, at)
