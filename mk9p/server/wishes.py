"""What a Twstat asks to change, after stat(5): read and checked before anything is done.

All ones, and empty strings, are "as it is"; so is the present value. Of the rest, a client can change name, length, mode, mtime and gid, with
Linux's clients also atime, and in 9P2000.u the owner by number; every other difference is an error. A bit of `mode` without a meaning in the
dialect stays as it is, if the client does not ask for it.
"""

import errno
import stat as st
import time
from typing import Final

from mk9p.auth import Principal, owns
from mk9p.errors import NineError
from mk9p.server.modes import KINDS, illegal, known, linux_mode
from mk9p.server.wirestat import NS, plan9_mode
from mk9p.tree import NOW, Change, Stat
from mk9p.wire import DMAPPEND, DMDIR, DMEXCL, Dialect, Qid, WireStat

_ALL16: Final = 0xFFFF
_ALL32: Final = 0xFFFFFFFF
_ALL64: Final = 0xFFFFFFFFFFFFFFFF
_MOST: Final = 1 << 63
_SKEW: Final = 300  # s: Kerberos too lets the clocks of two machines differ by this

UNTOUCHED: Final = WireStat(
    _ALL16,
    _ALL32,
    Qid(0xFF, _ALL32, _ALL64),
    _ALL32,
    _ALL32,
    _ALL32,
    _ALL64,
    "",
    "",
    "",
    "",
    "",
    _ALL32,
    _ALL32,
    _ALL32,
)
# 9P2000 does not have the last two, and they are untouched there.
_FIXED: Final = ("type", "dev", "qid", "uid", "extension", "n_muid")


def wish_of(
    dialect: Dialect, wire: WireStat, shown: WireStat, stat: Stat, who: Principal, *, marks: bool
) -> tuple[Change, str | None]:
    """Return what to change of a file, and its new name if it gets one.

    `shown` is what Tstat says of the file now, `stat` the same in Linux's terms; `marks`: exclusive use and append-only can change. Raises EPERM
    for what no wstat changes, EINVAL for a bad value, EISDIR for the length of a directory.
    """
    for field in _FIXED:
        value = getattr(wire, field)
        if value not in (getattr(UNTOUCHED, field), getattr(shown, field)):
            raise _prohibited(f"{field} is not changed by it")
    # Linux sends the user of its mount with every new name
    if wire.muid not in ("", shown.muid) and not wire.name:
        raise _prohibited("muid is not changed by it")
    change = Change(
        uid=None if wire.n_uid in (_ALL32, stat.uid) else wire.n_uid,
        gid=_group(wire, shown, stat, who),
        length=_length(wire, stat, marks=marks),
        atime=None if wire.atime in (_ALL32, shown.atime) else wire.atime * NS,
        mtime=None if wire.mtime in (_ALL32, shown.mtime) else wire.mtime * NS,
    )
    if wire.mode != _ALL32:
        change = _mode(change, dialect, wire.mode, stat, who, marks=marks)
    name = wire.name if wire.name not in ("", shown.name) else None
    return (change if owns(who, stat.uid) else _touched(change)), name


def _prohibited(why: str) -> NineError:
    return NineError(errno.EPERM, f"wstat prohibited: {why}")


def _length(wire: WireStat, stat: Stat, *, marks: bool) -> int | None:
    length = wire.length
    if length == _ALL64 or (stat.is_dir and not length):
        return None
    if stat.is_dir:
        raise NineError(errno.EISDIR)
    if length >= _MOST:
        raise NineError(errno.EINVAL, "a length is below 2**63")
    if stat.append and marks and length < stat.length:
        raise NineError(errno.EPERM, "the file is append-only")
    return length


def _group(wire: WireStat, shown: WireStat, stat: Stat, who: Principal) -> int | None:
    """Return the number of the requested group. The client may send its name and, in 9P2000.u, its number."""
    number = None if wire.n_gid == _ALL32 else wire.n_gid
    if wire.gid not in ("", shown.gid):
        named = _group_number(wire.gid)
        if number not in (None, named):
            raise NineError(errno.EINVAL, "gid and n_gid are two groups")
        number = named
    if number is None or number == stat.gid:
        return None
    if who.uid != 0 and number not in who.groups:
        raise NineError(errno.EPERM, "not a member of proposed group")
    return number


def _group_number(name: str) -> int:
    import grp

    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        pass
    if name.isascii() and name.isdecimal() and len(name) <= 10 and int(name) < _ALL32:
        return int(name)  # a group without a name is shown so
    raise NineError(errno.EINVAL, "unknown group")


def _mode(change: Change, dialect: Dialect, wanted: int, stat: Stat, who: Principal, *, marks: bool) -> Change:
    present = plan9_mode(stat)
    meant = known(dialect)
    if odd := wanted & ~(meant | present):
        raise illegal(odd, dialect)
    if wanted & KINDS & ~present or (wanted ^ present) & DMDIR:
        raise _prohibited("a file stays of its kind")
    wanted |= present & ~meant
    mode, before = linux_mode(wanted), stat.mode & 0o7777
    if mode & ~before & 0o2000 and who.uid != 0:
        gid = stat.gid if change.gid is None else change.gid
        if gid not in who.groups:
            raise NineError(errno.EPERM, "setgid is for members of the group")
    marked = {
        name: bool(wanted & bit)
        for name, bit in (("exclusive", DMEXCL), ("append", DMAPPEND))
        if (wanted ^ present) & bit
    }
    if marked and not (marks and st.S_ISREG(stat.mode)):
        raise _prohibited("exclusive use and append-only are not changed here")
    return change._replace(mode=None if mode == before else mode, **marked)


def _touched(change: Change) -> Change:
    """Take for "now" what a client's kernel means by that, for a user who may write the file and does not own it.

    Linux has no word for now in these dialects: it sends its own clock with touch(1), and with each truncation, which itself sets the time.
    """
    now = time.time_ns()
    times = change.atime, change.mtime
    if any(t is not None and abs(t - now) > _SKEW * NS for t in times):
        return change
    if change.length is not None:
        return change._replace(atime=None, mtime=None)
    return change if None in times else change._replace(atime=NOW, mtime=NOW)
