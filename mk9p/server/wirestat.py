"""Stat as in 9P2000 and 9P2000.u: the stat entry (stat(5)). wishes.py reads what a Twstat asks for."""

import os
import stat as st
from typing import Final

from mk9p.server.fids import Place, qid
from mk9p.status import group_name, user_name
from mk9p.tree import Stat, settle
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
    Dialect,
    WireStat,
)

NS: Final = 1_000_000_000
_ALL32: Final = 0xFFFFFFFF
SPECIAL: Final = ((DMSETUID, st.S_ISUID), (DMSETGID, st.S_ISGID), (DMSETVTX, st.S_ISVTX))


def plan9_mode(stat: Stat) -> int:
    """Return the mode of a stat entry: permission bits, and Plan 9's and 9P2000.u's marks for the rest."""
    kind = st.S_IFMT(stat.mode)
    mode = stat.mode & 0o777
    mode |= {
        st.S_IFDIR: DMDIR,
        st.S_IFLNK: DMSYMLINK,
        st.S_IFBLK: DMDEVICE,
        st.S_IFCHR: DMDEVICE,
        st.S_IFIFO: DMNAMEDPIPE,
    }.get(kind, 0)
    mode |= DMSOCKET if kind == st.S_IFSOCK else 0
    mode |= DMEXCL if stat.exclusive else 0
    mode |= DMAPPEND if stat.append else 0
    for bit, special in SPECIAL:
        mode |= bit if stat.mode & special else 0
    return mode


def _seconds(ns: int) -> int:
    """Return a time in the unsigned 32 bits of a stat entry: a time before or after these is the first or last (all ones is no time)."""
    return min(max(ns // NS, 0), _ALL32 - 1)


async def entry_of(dialect: Dialect, place: Place, stat: Stat) -> WireStat:
    """Return the stat entry of the node at a place, as a dialect has it."""
    return plan9_stat(place, stat, "" if dialect is Dialect.P9 else await _extension(place, stat))


async def _extension(place: Place, stat: Stat) -> str:
    """Return what 9P2000.u adds: a link's target, a device's number, and as in Linux and QEMU, how many names a file has."""
    kind = st.S_IFMT(stat.mode)
    if kind == st.S_IFLNK:
        return await settle(place.node.readlink())
    if kind in (st.S_IFBLK, st.S_IFCHR):
        return f"{'b' if kind == st.S_IFBLK else 'c'} {os.major(stat.rdev)} {os.minor(stat.rdev)}"
    return f"HARDLINKCOUNT {stat.nlink}" if kind == st.S_IFREG and stat.nlink > 1 else ""


def plan9_stat(place: Place, stat: Stat, extension: str = "") -> WireStat:
    """Return the stat entry of the node at a place, with 9P2000.u's `extension`."""
    user, group = stat.user or user_name(stat.uid), stat.group or group_name(stat.gid)
    return WireStat(
        0,
        0,
        qid(place, stat),
        plan9_mode(stat),
        _seconds(stat.atime),
        _seconds(stat.mtime),
        0 if stat.is_dir else stat.length,
        place.name,
        user,
        group,
        user,
        extension,
        stat.uid,
        stat.gid,
        stat.uid,
    )
