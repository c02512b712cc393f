"""What each message that 9P2000.L adds does. Its client is Linux v9fs; a rule that looks odd has its reason in what that client does
(docs/v9fs.md)."""

import errno
import stat as st
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs

from mk9p.auth import WRITE, Principal, may, require_change
from mk9p.errors import NineError
from mk9p.server.closing import put
from mk9p.server.connection import Connection, Reply
from mk9p.server.fids import UNKNOWN, Fid, check_name, qid, too_deep
from mk9p.server.leased import require_unleased
from mk9p.server.listings import Listing
from mk9p.server.modes import linux_opening
from mk9p.server.named import find_named, note, renamed
from mk9p.server.permitted import change_file, make_and_open, make_file, set_open, start, status
from mk9p.server.steps import stat_at
from mk9p.server.wirestat import NS
from mk9p.tree import NOW, Change, Open, Stat, settle
from mk9p.wire import (
    AT_REMOVEDIR,
    GETATTR_BASIC,
    GETATTR_BTIME,
    GETATTR_DATA_VERSION,
    QTDIR,
    SETATTR_ATIME,
    SETATTR_ATIME_SET,
    SETATTR_CTIME,
    SETATTR_GID,
    SETATTR_MODE,
    SETATTR_MTIME,
    SETATTR_MTIME_SET,
    SETATTR_SIZE,
    SETATTR_UID,
    Dialect,
    Qid,
    codec,
)
from mk9p.wire import messages as m

_rlopen: Final = codec(Dialect.L, m.Rlopen.type).pack
_SELDOM: Final = GETATTR_BTIME | GETATTR_DATA_VERSION
ENCODED: Final = 64  # fids of a connection whose encoded attributes are kept: those that it asks for again and again
_CHANGES: Final = (
    SETATTR_MODE | SETATTR_UID | SETATTR_GID | SETATTR_SIZE | SETATTR_ATIME | SETATTR_MTIME | SETATTR_CTIME
) | (SETATTR_ATIME_SET | SETATTR_MTIME_SET)
HOWS: Final = 32  # flags of opens that are kept for each user: programs use a few
_HEAD: Final = 7  # size[4] type[1] tag[2]
_SIZE: Final = 160
_RGETATTR: Final = m.Rgetattr.type
_kept: Final[Callable[..., bytes]] = struct.Struct(f"<IBH{_SIZE - _HEAD}s").pack


def getattr_(c: Connection, tag: int, fid: int, request_mask: int) -> Reply | Awaitable[Reply]:
    try:
        f = c.session.fids[fid]
    except KeyError:
        f = c.session.fid(fid)
    if request_mask & _SELDOM:
        return _getattr_seldom(c, tag, f, request_mask)
    handle = f.handle
    stat = f.place.node.stat() if handle is None else handle.stat() or f.place.node.stat()
    known, encoded = f.attr
    if stat is known:  # the same object: nothing has changed since its encoded form was kept
        return _kept(_SIZE, _RGETATTR, tag, encoded)
    return _getattr(c, tag, fid, f, stat)


def _getattr(c: Connection, tag: int, fid: int, f: Fid, stat: Any) -> Reply | Awaitable[Reply]:
    if not isinstance(stat, Stat):
        return _getattr_later(c, tag, fid, f, stat)
    reply = _attributes(c, tag, f, stat)
    if f.attr is UNKNOWN:
        _remember(c, fid)
    f.attr = stat, reply[_HEAD:]
    return reply


def _remember(c: Connection, fid: int) -> None:
    """Keep the encoded attributes of a fid. If there are too many, forget those that were kept first."""
    if len(c.encoded) >= ENCODED:
        old = c.session.fids.get(c.encoded.popleft())
        if old is not None:
            old.attr = UNKNOWN
    c.encoded.append(fid)


def _attributes(c: Connection, tag: int, f: Fid, stat: Stat, born: int | None = None, life: int = 0) -> bytes:
    return c.reply(
        m.Rgetattr,
        tag,
        GETATTR_BASIC | (0 if born is None else GETATTR_BTIME) | (GETATTR_DATA_VERSION if life else 0),
        qid(f.place, stat),
        stat.mode,
        stat.uid,
        stat.gid,
        stat.nlink,
        stat.rdev,
        stat.length,
        stat.blksize,
        (stat.length + 511) // 512 if stat.blocks is None else stat.blocks,
        *_time(stat.atime),
        *_time(stat.mtime),
        *_time(stat.ctime),
        *_time(born or 0),
        0,
        life,
    )


def _time(ns: int) -> tuple[int, int]:
    """Return a time as the wire has it. Its seconds are unsigned: before 1970 they wrap, and Linux reads them back so."""
    seconds, rest = divmod(ns, NS)
    return seconds & 0xFFFFFFFFFFFFFFFF, rest


def _ns(seconds: int, rest: int) -> int:
    """Return the time on the wire in ns; raises EINVAL for nanoseconds that are a second or more, as utimensat(2)."""
    if rest >= NS:
        raise NineError(errno.EINVAL, "nanoseconds go to 999999999")
    return (seconds - (seconds >> 63 << 64)) * NS + rest


async def _getattr_seldom(c: Connection, tag: int, f: Fid, request_mask: int) -> Reply:
    """Answer with what few clients ask for."""
    node = f.place.node
    born = await settle(node.born()) if request_mask & GETATTR_BTIME else None
    # no version of the data, which a server would have to count, but the number by which a client knows that none is lost (docs/protocol.md)
    life = await settle(node.life()) if request_mask & GETATTR_DATA_VERSION else 0
    return _attributes(c, tag, f, await status(c, f), born, life)


async def _getattr_later(c: Connection, tag: int, fid: int, f: Fid, stat: Awaitable[Stat]) -> Reply:
    reply = _getattr(c, tag, fid, f, await stat)
    assert isinstance(reply, bytes)
    return reply


async def setattr_(
    c: Connection,
    tag: int,
    fid: int,
    valid: int,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    atime_sec: int,
    atime_nsec: int,
    mtime_sec: int,
    mtime_nsec: int,
) -> Reply:
    f = c.session.fid(fid)
    if odd := valid & ~_CHANGES:
        raise NineError(errno.EINVAL, f"setattr: {odd:#x} means nothing")
    if valid & SETATTR_MODE and not _of_its_kind(mode, f):
        raise NineError(errno.EINVAL, "setattr: a file stays of its kind")
    times = [
        None if not valid & bit else _ns(sec, nsec) if valid & bit_set else NOW
        for bit, bit_set, sec, nsec in (
            (SETATTR_ATIME, SETATTR_ATIME_SET, atime_sec, atime_nsec),
            (SETATTR_MTIME, SETATTR_MTIME_SET, mtime_sec, mtime_nsec),
        )
    ]
    change = Change(
        mode=mode & 0o7777 if valid & SETATTR_MODE else None,
        uid=uid if valid & SETATTR_UID else None,
        gid=gid if valid & SETATTR_GID else None,
        length=size if valid & SETATTR_SIZE else None,
        atime=times[0],
        mtime=times[1],
    )
    if change != Change():
        await change_file(c, f, change)
    return c.reply(m.Rsetattr, tag)


def _of_its_kind(mode: int, f: Fid) -> bool:
    """Tell whether a mode names no other kind of file: Linux sends the kind with the bits."""
    return not mode >> 16 and (not st.S_IFMT(mode) or st.S_ISDIR(mode) == bool(f.place.node.qtype & QTDIR))


def _how(c: Connection, f: Fid, flags: int) -> Open:
    """Return the Open of a user for these flags: the same object for the same flags."""
    hows = (f.account or c.account_of(f.who)).hows
    how = hows.get(flags)
    if how is None:
        if len(hows) >= HOWS:
            hows.clear()
        how = hows[flags] = linux_opening(f.who, flags, c.msize)
    return how


def lopen(c: Connection, tag: int, fid: int, flags: int) -> Reply | Awaitable[Reply]:
    # O_CREAT of an existing file is how Linux opens for `>`; O_TRUNC it does by Tsetattr
    f = c.session.fids.get(fid) or c.session.fid(fid)
    stat = start(c, f, _how(c, f, flags))
    return _opened(c, tag, f, stat) if type(stat) is Stat else _lopen(c, tag, f, stat)  # type: ignore[arg-type]


async def _lopen(c: Connection, tag: int, f: Fid, stat: Awaitable[Stat]) -> Reply:
    return _opened(c, tag, f, await stat)


def _opened(c: Connection, tag: int, f: Fid, stat: Stat) -> Reply:
    # iounit 0: no limit below msize; with any other v9fs splits every request
    return _rlopen(tag, qid(f.place, stat), 0)


def _with(who: Principal, gid: int) -> Principal:
    """Return a user with the group that their new files get: Linux chooses it, and knows of setgid directories."""
    return who if gid == who.gid else attrs.evolve(who, gid=gid)


async def lcreate(c: Connection, tag: int, fid: int, name: str, flags: int, mode: int, gid: int) -> Reply:
    f = c.session.fid(fid)
    who, how = _with(f.who, gid), _how(c, f, flags)
    if who is not f.who:
        how = attrs.evolve(how, who=who)
    node, handle = await make_and_open(c, f, name, f.place.node.create, mode & 0o7777, how)
    return c.reply(m.Rlcreate, tag, await set_open(c, f, name, node, handle, how), 0)


async def _entry(c: Connection, f: Fid, name: str, node: Any) -> Qid:
    place = f.place.child(name, node)
    return qid(place, await stat_at(place))


async def mkdir(c: Connection, tag: int, dfid: int, name: str, mode: int, gid: int) -> Reply:
    f = c.session.fid(dfid)
    node = await make_file(c, f, name, f.place.node.mkdir, mode & 0o7777, _with(f.who, gid))
    return c.reply(m.Rmkdir, tag, await _entry(c, f, name, node))


async def symlink(c: Connection, tag: int, fid: int, name: str, symtgt: str, gid: int) -> Reply:
    f = c.session.fid(fid)
    node = await make_file(c, f, name, f.place.node.symlink, symtgt, _with(f.who, gid))
    return c.reply(m.Rsymlink, tag, await _entry(c, f, name, node))


async def mknod(c: Connection, tag: int, dfid: int, name: str, mode: int, major: int, minor: int, gid: int) -> Reply:
    import os

    f = c.session.fid(dfid)
    node = await make_file(c, f, name, f.place.node.mknod, mode, os.makedev(major, minor), _with(f.who, gid))
    return c.reply(m.Rmknod, tag, await _entry(c, f, name, node))


async def link(c: Connection, tag: int, dfid: int, fid: int, name: str) -> Reply:
    d, f = c.session.fid(dfid), c.session.fid(fid)
    await make_file(c, d, name, d.place.node.link, f.place.node, d.who)
    return c.reply(m.Rlink, tag)


async def rename(c: Connection, tag: int, fid: int, dfid: int, name: str) -> Reply:
    f, d = c.session.fid(fid), c.session.fid(dfid)
    old = f.place
    if old.parent is old:
        raise NineError(errno.EBUSY, "the root has no name")
    await find_named(c.moves, f)
    old = f.place
    await _move(c, old.parent, old.name, d, name, f)
    note(c.moves, old.parent, old.name, d.place, name)
    await renamed(c.session.fids, old, d.place, name)
    return c.reply(m.Rrename, tag)


async def renameat(c: Connection, tag: int, olddirfid: int, oldname: str, newdirfid: int, newname: str) -> Reply:
    old, new = c.session.fid(olddirfid), c.session.fid(newdirfid)
    check_name(oldname)
    await _move(c, old.place, oldname, new, newname, old)
    note(c.moves, old.place, oldname, new.place, newname)
    return c.reply(m.Rrenameat, tag)


async def _move(c: Connection, parent: Any, name: str, to: Fid, newname: str, asker: Fid) -> None:
    check_name(newname)
    if to.place.depth >= c.limits.depth:
        raise too_deep(c.limits.depth)
    for place, old in ((parent, name), (to.place, newname)):
        await _may_change(c, place, asker)
        require_unleased(c, place, asker.who, old, above=True)
    await settle(parent.node.rename(name, to.place.node, newname, asker.who))


async def _may_change(c: Connection, directory: Any, asker: Fid) -> None:
    require_change(asker.who)
    stat = await stat_at(directory)
    if not stat.is_dir:
        raise NineError(errno.ENOTDIR)
    if not directory.node.guards and not may(asker.who, stat.mode, stat.uid, stat.gid, WRITE | 1):
        raise NineError(errno.EACCES)


async def unlinkat(c: Connection, tag: int, dirfid: int, name: str, flags: int) -> Reply:
    f = c.session.fid(dirfid)
    check_name(name)
    await _may_change(c, f.place, f)
    require_unleased(c, f.place, f.who, name, above=True)
    await settle(f.place.node.remove(name, f.who, directory=bool(flags & AT_REMOVEDIR)))
    return c.reply(m.Runlinkat, tag)


async def readlink(c: Connection, tag: int, fid: int) -> Reply:
    f = c.session.fid(fid)
    return c.reply(m.Rreadlink, tag, await settle(f.place.node.readlink()))


async def statfs(c: Connection, tag: int, fid: int) -> Reply:
    s = await settle(c.session.fid(fid).place.node.statfs())
    return c.reply(m.Rstatfs, tag, s.type, s.bsize, s.blocks, s.bfree, s.bavail, s.files, s.ffree, s.fsid, s.namelen)


async def readdir(c: Connection, tag: int, fid: int, offset: int, count: int) -> Reply:
    """Answer with whole entries; an entry's offset is its number in a snapshot that is taken at offset 0."""
    f = c.session.fid(fid)
    place = f.place
    if f.how is None or place.node.qtype & QTDIR == 0:
        raise NineError(errno.EBADF, "not an open directory")
    known = f.listing[0] if f.listing is not None and offset else None
    if isinstance(known, int) and offset >= known:
        return c.reply(m.Rreaddir, tag, b"")  # it was read to its end, and is no longer kept
    if isinstance(known, Listing):
        listing = known
    else:
        f.drop_listing()
        listing = await c.listings.of(place, f.who, c.user)
        f.keep_listing(listing, listing.size)
    data = listing.entries(offset, c.limit(count))
    if not data:
        f.drop_listing(instead=len(listing))
    return c.reply(m.Rreaddir, tag, data)


async def fsync(c: Connection, tag: int, fid: int, datasync: int) -> Reply:
    f = c.session.fid(fid)
    handle = f.handle or f.directory
    if handle is None:
        if f.how is None:
            raise NineError(errno.EBADF, "fid not open")
        await settle(f.place.node.sync(f.who, data=bool(datasync)))
        return c.reply(m.Rfsync, tag)
    f.uses += 1
    try:
        await settle(handle.sync(data=bool(datasync)))
    finally:
        await put(f)
    return c.reply(m.Rfsync, tag)
