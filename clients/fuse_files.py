"""What the FUSE adapter (fuse.py) keeps of files: inodes that the kernel knows, open files, listings; and how a status looks to FUSE."""

import stat as st
from typing import Final

import attrs
import trio
from pyfuse3 import EntryAttributes

from mk9p.auth import Principal
from mk9p.compose.remote import Remote
from mk9p.tree import Handle, Stat
from mk9p.wire import QTDIR, QTSYMLINK

AT_ONCE: Final = 16  # files of a listing that are asked about at once
_KINDS: Final = {QTDIR: st.S_IFDIR, QTSYMLINK: st.S_IFLNK}


@attrs.define(eq=False)
class Inode:
    """A file that the kernel knows, how often it was told of it, and the inode of its directory."""

    number: int
    node: Remote
    parent: int
    known: int = 0


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
    """Return a name as the client has it (PEP 383)."""
    return name.decode(errors="surrogateescape")


def attributes(number: int, stat: Stat) -> EntryAttributes:
    """Return a status as FUSE has it, valid at this moment only."""
    entry = EntryAttributes()
    entry.st_ino = number
    entry.entry_timeout = entry.attr_timeout = 0
    entry.st_mode, entry.st_nlink, entry.st_rdev = stat.mode, stat.nlink, stat.rdev
    entry.st_uid, entry.st_gid = stat.uid, stat.gid
    entry.st_size, entry.st_blksize, entry.st_blocks = stat.length, stat.blksize, (stat.length + 511) // 512
    entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns = stat.atime, stat.mtime, stat.ctime
    return entry


async def entries_of(node: Remote, who: Principal) -> list[tuple[str, Remote]]:
    """Return what a directory holds, as a user sees it."""
    return [(name, child) for name, child in await node.entries(who) if isinstance(child, Remote)]


async def stat_some(listing: Listing, start: int) -> None:
    """Ask for the status of the next entries of a directory, all at once."""

    async def ask(at: int) -> None:
        _, node = listing.entries[at]
        try:
            listing.stats[at] = await node.stat()
        except (FileNotFoundError, ProcessLookupError):
            listing.stats[at] = None
        except OSError:  # it is there, and that is all that can be told
            listing.stats[at] = Stat(_KINDS.get(node.qtype & (QTDIR | QTSYMLINK), st.S_IFREG))

    async with trio.open_nursery() as nursery:
        for at in range(start, min(start + AT_ONCE, len(listing.entries))):
            nursery.start_soon(ask, at)
