"""What each message of 9P2000 and 9P2000.u does. The messages of Linux are in ops_linux.py.

An op gets its connection and the fields of the message, tag first. It returns a complete reply, or None if it queued one itself, or an awaitable
of either. The most common ones (read, write, clunk, getattr) are `def` and answer in the call when the tree does; only where the tree waits do
they go on in an `async` half of their own. The others are `async def`, which costs little where nothing waits (leader.py).
"""

import errno
from collections import deque
from collections.abc import Awaitable
from itertools import takewhile
from struct import Struct
from time import monotonic_ns
from typing import Any, Final

from mk9p.errors import NineError, translate
from mk9p.scope import CAPABILITY, unnamed
from mk9p.server.accounts import ENTRY
from mk9p.server.closing import close, close_nowait, put
from mk9p.server.connection import JOIN, Connection, Reply
from mk9p.server.crossing import cross
from mk9p.server.exchange import backend_for, hand_over, stays
from mk9p.server.failures import note_refusal
from mk9p.server.fids import Fid, Place, check_name, qid, too_deep
from mk9p.server.limits import SMALL
from mk9p.server.listings import in_slices
from mk9p.server.modes import opening
from mk9p.server.named import find_named
from mk9p.server.ops_auth import check_user, proved
from mk9p.server.permitted import may_remove, start
from mk9p.server.refusals import refuse
from mk9p.server.steps import stat_at, step
from mk9p.server.turns import TURN
from mk9p.server.wirestat import entry_of
from mk9p.tree import Maybe, Node, Stat, settle
from mk9p.tree.paths import NAME
from mk9p.tree.waiting import Waiting
from mk9p.wire import (
    IOHDRSZ,
    NOFID,
    NONUNAME,
    QTDIR,
    Dialect,
    Qid,
    codec,
    is_name,
    pack_stat,
)
from mk9p.wire import messages as m

_rread: Final = Struct("<IBHI").pack  # size[4] type[1] tag[2] count[4], in front of the data
_DOTS: Final = (".", "..")
HOLE: Final = 11  # bytes of that header
_rwalk: Final = codec(Dialect.P9, m.Rwalk.type).pack  # the same in all dialects
_rwalk_none: Final = Struct("<IBHH").pack  # size[4] type[1] tag[2] nwqid[2]
_rwalk_one: Final = Struct("<IBHHBIQ").pack  # size[4] type[1] tag[2] nwqid[2], and one qid
_rwrite: Final = Struct("<IBHI").pack  # size[4] type[1] tag[2] count[4]
_rclunk: Final = Struct("<IBH").pack
_RREAD, _RWRITE, _RWALK, _RCLUNK = m.Rread.type, m.Rwrite.type, m.Rwalk.type, m.Rclunk.type
_BYTES: Final = (bytes, memoryview, bytearray)


async def attach(
    c: Connection, tag: int, fid: int, afid: int, uname: str, aname: str, n_uname: int = NONUNAME
) -> Reply:
    c.frames.limit = c.msize  # what comes behind the attach may be as large as what comes after it
    try:
        check_user(uname, aname)
        tree = proved(c, afid, uname, aname, n_uname)
        reply = await _attach(c, tag, fid, uname, tree, n_uname)
        if afid != NOFID:
            c.capability, c.carried = tree.removeprefix(CAPABILITY).partition("/")[0], False
        return reply
    except OSError as error:
        if not c.attached:
            c.frames.limit = min(c.msize, SMALL)
        if c.common.authority.retold.again(c.link.peer.place, aname, words=c.dialect is not Dialect.L):
            error.told = True  # type: ignore[attr-defined]  # the log has it
            raise
        peer = c.link.peer
        who = c.policy.attach(uname, n_uname, peer)
        if not c.greeted:
            refuse(c, "attach", f"{unnamed(aname) or '/'}: {translate(error)}", user=who.name)
        c.common.authority.refused(who, peer, "attach", unnamed(aname), error)
        raise


async def _attach(c: Connection, tag: int, fid: int, uname: str, aname: str, n_uname: int) -> Reply:
    peer = c.link.peer
    decided = await c.common.authority.attach(c, c.policy.attach(uname, n_uname, peer), peer, c.root, aname)
    who, place = decided.who, Place(decided.root, "/", None)
    for name in decided.path.split("/"):
        if name and name != ".":
            place = await settle(step(place, name, who, c.limits.depth))
    stat = await stat_at(place)
    place = Place(place.node, "/", None) if place.parent is place else _as_root(place)
    if fid in c.relays:
        raise NineError(errno.EEXIST, "fid already in use")
    b = await backend_for(c, place, who)
    f = Fid(place, who)
    c.move(who)
    account = c.account_of(who)
    c.enter(fid, f, account)
    c.greet(account)
    await hand_over(c, fid, f, b)
    c.common.authority.audit.note(who, peer.place, "attach", decided.path)
    return c.reply(m.Rattach, tag, qid(place, stat))


def _as_root(place: Place) -> Place:
    """Return a place as the root of an attach: `..` stays in it, and its path is what it is in the whole tree."""
    root = Place(place.node, "/", None)
    root.path, root.holders, root.depth, root.top = place.path, place.holders, place.depth, place.full
    return root


def walk(c: Connection, tag: int, fid: int, newfid: int, names: tuple[str, ...]) -> Reply | Awaitable[Reply]:
    session = c.session
    old = session.fids.get(fid) or session.fid(fid)
    if newfid != fid and (newfid in session.fids or newfid in c.relays):
        raise NineError(errno.EEXIST, "fid already in use")
    if names and old.how is not None and newfid == fid:
        raise NineError(errno.EBADF, "walk of an open fid to itself")
    if not names and newfid != fid:
        c.enter(newfid, Fid(old.place, old.who), old.account or c.account_of(old.who))
        reply: bytes = _rwalk_none(9, _RWALK, tag, 0)
        return reply
    if old.place.node.route is not None and newfid != fid:
        crossed = cross(c, tag, old, newfid, names, _by_name)
        if crossed is not NotImplemented:
            return crossed  # type: ignore[no-any-return]
    return _by_name(c, tag, old, newfid, names, fid)


def _by_name(
    c: Connection, tag: int, old: Fid, newfid: int, names: tuple[str, ...], fid: int = NOFID
) -> Reply | Awaitable[Reply]:
    """Walk name by name from `old`, which is the fid `fid` if that may move."""
    place, who = old.place, old.who
    qids: list[Qid] = []
    try:
        for name in names:
            if not 0 < len(name) <= NAME or "/" in name or "\0" in name:
                check_name(name)
            if place.node.ahead is not None and name not in _DOTS:
                return _walk(c, tag, old, newfid, names, fid, place, qids, None)
            onward = step(place, name, who, c.limits.depth)
            if type(onward) is not Place:
                return _walk(c, tag, old, newfid, names, fid, place, qids, onward)
            stat = onward.node.stat()
            if type(stat) is not Stat:
                return _walk(c, tag, old, newfid, names, fid, place, qids, onward, stat)
            place = onward
            qids.append(qid(place, stat))
    except OSError:
        if not qids:
            raise
        return _rwalk(tag, qids)  # walk(5): as far as it went, and newfid is not made
    if newfid != fid:
        f = Fid(place, who)
        c.enter(newfid, f, old.account or c.account_of(who))
        if names:
            c.walked = f, stat  # type: ignore[assignment]  # with any other the loop was left
    else:
        _move(c, fid, old, place)
    if len(qids) == 1:  # the usual one
        type_, version, path = qids[0]
        reply: bytes = _rwalk_one(22, _RWALK, tag, 1, type_, version, path)
        return reply
    return _rwalk(tag, qids)


async def _walk(
    c: Connection,
    tag: int,
    old: Fid,
    newfid: int,
    names: tuple[str, ...],
    fid: int,
    place: Place,
    qids: list[Qid],
    onward: Any,
    stat: Maybe[Stat] | None = None,
) -> Reply:
    """Go on with a walk from where the tree began to wait: in the middle of a step, or of the `stat` after it."""
    try:
        while True:
            if onward is not None:
                place = await settle(onward)
                qids.append(qid(place, await (stat_at(place) if stat is None else settle(stat))))
                stat = None
            if len(qids) == len(names):
                break
            name = names[len(qids)]
            if name != "..":
                check_name(name)
            if place.node.ahead is None or name in _DOTS:
                onward = step(place, name, old.who, c.limits.depth)
                continue
            rest = tuple(takewhile(is_name, names[len(qids) :]))
            if place.depth + len(rest) > c.limits.depth:
                raise too_deep(c.limits.depth)
            onward, found = None, await place.node.ahead(rest, old.who, False)
            for name, (node, there) in zip(rest, found, strict=False):
                place = place.child(name, node)
                qids.append(Qid(there.type, there.version, place.path))
            if len(found) < len(rest):
                return _rwalk(tag, qids)
    except OSError:
        if not qids:
            raise
        return _rwalk(tag, qids)
    b = await backend_for(c, place, old.who) if place.node.way is not None else None
    if newfid != fid:
        c.enter(newfid, Fid(place, old.who), old.account or c.account_of(old.who))
    else:
        _move(c, fid, old, place)
    if b is not None:
        await hand_over(c, newfid, c.session.fid(newfid), b)
    return _rwalk(tag, qids)


def _move(c: Connection, fid: int, old: Fid, place: Place) -> None:
    if old.how is None:
        moved = place is not old.place
        old.move(place)
        if moved and fid in c.relays:
            stays(c, fid)  # at the other server it is still where it was


async def open_(c: Connection, tag: int, fid: int, mode: int) -> Reply:
    f = c.session.fid(fid)
    stat = await settle(start(c, f, opening(c, f.who, mode)))
    return c.reply(m.Ropen, tag, qid(f.place, stat), 0)


def read(c: Connection, tag: int, fid: int, offset: int, count: int) -> Reply | Awaitable[Reply]:
    f = c.session.fids.get(fid) or c.session.fid(fid)
    handle = f.handle
    if handle is None:
        if f.how is not None and f.place.node.qtype & QTDIR:
            if c.dialect is Dialect.L:
                raise NineError(errno.EISDIR)  # Treaddir is for that
            return _read_dir(c, tag, f, offset, c.limit(count))
        raise NineError(errno.EBADF, "fid not open")
    how = f.how
    if how is None or not how.read:
        raise NineError(errno.EBADF, "fid not open for reading")
    room = c.msize - IOHDRSZ
    data = handle.read(offset, count if count < room else room)
    if isinstance(data, _BYTES):
        return _data(c, tag, data)
    return _read(c, tag, f, data)


def _data(c: Connection, tag: int, data: Any) -> Reply:
    count = len(data)
    head: bytes = _rread(HOLE + count, _RREAD, tag, count)
    if count < JOIN:
        joined: bytes = head + data
        return joined
    c.queue(head)
    c.queue(data)
    return None


async def _read(c: Connection, tag: int, f: Fid, data: Awaitable[Any]) -> Reply:
    f.uses += 1
    try:
        return _data(c, tag, await (data.by_hand() if data.__class__ is Waiting else data))
    finally:
        await put(f)


async def _read_dir(c: Connection, tag: int, f: Fid, offset: int, count: int) -> Reply:
    """Answer a directory read of 9P2000: whole stat entries, from the start or from where the last answer ended (read(5))."""
    if offset == 0:
        f.drop_listing()
        found: deque[tuple[str, Node]] = deque()

        def take(some: list[tuple[str, Node]]) -> None:
            f.keep_more(sum(ENTRY + 2 * len(name) + node.weight * 3 // 2 for name, node in some))
            found.extend(some)

        f.keep_listing([0, found], 0)
        try:
            await in_slices(await settle(f.place.node.entries(f.who)), take, c.slices, c.user)
        except BaseException:
            f.drop_listing()
            raise
    if f.listing is None or f.listing[0][0] != offset:
        raise NineError(errno.EINVAL, "bad offset in directory read")
    listing = f.listing[0]
    entries = listing[1]
    out: list[bytes] = []
    size, until = 0, monotonic_ns() + TURN
    while entries and not (out and monotonic_ns() > until):  # it may have fewer than there is room for
        name, node = entries[0]
        try:
            stat = await settle(node.stat())
            wire = await entry_of(c.dialect, f.place.child(name, node), stat)
        except OSError:
            entries.popleft()  # it went after it was listed, or is on a server that is down: the rest is still there
            continue
        entry = pack_stat(c.dialect, wire)
        if size + len(entry) > count:
            if not out:
                raise NineError(errno.EINVAL, "count is too small for the next directory entry")
            break
        out.append(entry)
        size += len(entry)
        entries.popleft()
    listing[0] = offset + size
    if not entries:
        f.drop_listing(instead=listing)
    return _data(c, tag, b"".join(out))


def write(c: Connection, tag: int, fid: int, offset: int, data: memoryview) -> Reply | Awaitable[Reply]:
    f = c.session.fids.get(fid) or c.session.fid(fid)
    handle, how = f.handle, f.how
    if handle is None or how is None or not how.write:
        raise NineError(errno.EBADF, "fid not open for writing")
    count = handle.write(offset, data)
    if isinstance(count, int):
        reply: bytes = _rwrite(11, _RWRITE, tag, count)
        return reply
    return _write(c, tag, f, count)


async def _write(c: Connection, tag: int, f: Fid, count: Awaitable[int]) -> Reply:
    f.uses += 1
    try:
        return c.reply(m.Rwrite, tag, await count)
    finally:
        await put(f)


def clunk(c: Connection, tag: int, fid: int) -> Reply | Awaitable[Reply]:
    fids = c.session.fids
    f = fids.get(fid) or c.session.fid(fid)
    del fids[fid]
    if c.relays:
        c.relays.pop(fid, None)
    more = f.more
    if more is not None and more.get("uses"):
        f.gone = True
    elif f.how is None:
        f.release()
    elif not close_nowait(f):
        return _clunk(c, tag, f)
    reply: bytes = _rclunk(7, _RCLUNK, tag)
    return reply


async def _clunk(c: Connection, tag: int, f: Fid) -> Reply:
    await close(f)
    return c.reply(m.Rclunk, tag)


async def remove(c: Connection, tag: int, fid: int) -> Reply:
    """remove(5): the fid is clunked, whatever happens."""
    f = c.session.fid(fid)
    del c.session.fids[fid]
    if fid in c.relays:
        stays(c, fid)  # a mount point: the other server has it too
    f.gone = True
    try:
        if f.place.parent is f.place:
            raise NineError(errno.EBUSY, "cannot remove the root")
        await may_remove(c, f.place, f.who)
        await find_named(c.moves, f)
        await settle(f.place.parent.node.remove(f.place.name, f.who))
    except OSError as error:
        note_refusal(c, error, f, "remove")  # now, because nobody knows the fid any more
        raise
    finally:
        if not f.uses:
            await close(f)
    return c.reply(m.Rremove, tag)
