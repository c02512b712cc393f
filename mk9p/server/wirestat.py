"""Stat as the dialects say it: Plan 9's stat entry (stat(5)), and the wish of a Twstat as a Change."""

import stat as st
from functools import lru_cache
from typing import Final

from mk9p.server.fids import Place, qid
from mk9p.tree import Change, Stat
from mk9p.wire import (
    DMAPPEND,
    DMDEVICE,
    DMDIR,
    DMEXCL,
    DMNAMEDPIPE,
    DMSETGID,
    DMSETUID,
    DMSOCKET,
    DMSYMLINK,
    WireStat,
)

NS: Final = 1_000_000_000
_ALL32: Final = 0xFFFFFFFF
_ALL64: Final = 0xFFFFFFFFFFFFFFFF


@lru_cache(maxsize=1024)
def user_name(uid: int) -> str:
    """Return the name of a user, or the number in decimal if it has none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@lru_cache(maxsize=1024)
def group_name(gid: int) -> str:
    """Return the name of a group, or the number in decimal if it has none."""
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


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
    mode |= DMSETUID if stat.mode & st.S_ISUID else 0
    return mode | (DMSETGID if stat.mode & st.S_ISGID else 0)


def plan9_stat(place: Place, stat: Stat) -> WireStat:
    """Return the stat entry of what is at a place."""
    user, group = stat.user or user_name(stat.uid), stat.group or group_name(stat.gid)
    return WireStat(
        0,
        0,
        qid(place, stat),
        plan9_mode(stat),
        stat.atime // NS & _ALL32,
        stat.mtime // NS & _ALL32,
        0 if stat.is_dir else stat.length,
        place.name,
        user,
        group,
        user,
        "",
        stat.uid,
        stat.gid,
        stat.uid,
    )


def plan9_wish(wish: WireStat) -> tuple[Change | None, str | None]:
    """Return what a Twstat asks for, as a Change (None: nothing) and a new name (None: the old)."""
    mode = None if wish.mode == _ALL32 else wish.mode & 0o777
    change = Change(
        mode=mode,
        uid=None if wish.n_uid == _ALL32 else wish.n_uid,
        gid=None if wish.n_gid == _ALL32 else wish.n_gid,
        length=None if wish.length == _ALL64 else wish.length,
        atime=None if wish.atime == _ALL32 else wish.atime * NS,
        mtime=None if wish.mtime == _ALL32 else wish.mtime * NS,
    )
    return (None if change == Change() else change), (wish.name or None)
