"""Tstat and Twstat. stat(5): all of a wstat happens or nothing does; a wstat that changes nothing puts the file where it survives."""

import errno
import logging
from collections.abc import Callable
from typing import Any

import trio

from mk9p.auth import ROOT, require_change
from mk9p.errors import NineError
from mk9p.server.closing import GRACE
from mk9p.server.connection import Connection, Reply
from mk9p.server.fids import Fid, check_name
from mk9p.server.named import renamed, require_named
from mk9p.server.permitted import change_file, may_remove, status
from mk9p.server.wirestat import entry_of
from mk9p.server.wishes import UNTOUCHED, wish_of
from mk9p.tree import Change, Stat, settle
from mk9p.wire import WireStat
from mk9p.wire import messages as m

log = logging.getLogger("mk9p.server")


async def stat_(c: Connection, tag: int, fid: int) -> Reply:
    f = c.session.fid(fid)
    return c.reply(m.Rstat, tag, await entry_of(c.dialect, f.place, await status(c, f)))


async def wstat(c: Connection, tag: int, fid: int, wish: WireStat) -> Reply:
    f = c.session.fid(fid)
    if wish == UNTOUCHED:
        await _sync(f)
        return c.reply(m.Rwstat, tag)
    require_change(f.who)
    stat = await status(c, f)
    shown = await entry_of(c.dialect, f.place, stat)
    change, name = wish_of(c.dialect, wish, shown, stat, f.who, marks=f.place.node.marks)
    if name is not None:
        await _check_rename(c, f, name)
    undo: list[Callable[[], Any]] = []
    try:
        await _change(c, f, change, name, stat, undo)
    except BaseException:
        await _undo(f, undo)
        raise
    if name is not None:
        await renamed(c.session.fids, f.place, f.place.parent, name)
    return c.reply(m.Rwstat, tag)


async def _sync(f: Fid) -> None:
    handle = f.handle or f.directory
    if handle is None:
        await settle(f.place.node.sync(f.who))
        return
    await settle(handle.sync())


async def _check_rename(c: Connection, f: Fid, name: str) -> None:
    check_name(name)
    if name in (".", ".."):
        raise NineError(errno.EINVAL, "illegal name")
    if f.place.parent is f.place:
        raise NineError(errno.EBUSY, "the root has no name")
    await may_remove(c, f.place, f.who)
    await require_named(f.place, f.who)
    try:
        await settle(f.place.parent.node.walk(name, f.who))
    except FileNotFoundError:
        return
    raise NineError(errno.EEXIST)


async def _change(
    c: Connection, f: Fid, change: Change, name: str | None, before: Stat, undo: list[Callable[[], Any]]
) -> None:
    """Make the changes, first the name, which can be undone. The rest is one change to the file, which cuts off bytes last."""
    old, parent = f.place.name, f.place.parent.node
    if name is not None:
        await settle(parent.rename(old, parent, name, f.who, replace=False))
        undo.append(lambda: parent.rename(name, parent, old, ROOT, replace=False))
    if change != Change():
        undo.append(lambda: _restore(f, change, before))
        await change_file(c, f, change)


async def _restore(f: Fid, change: Change, before: Stat) -> None:
    """Undo what a change that failed in the middle may have changed."""
    node = f.place.node
    if await settle(node.stat()) == before:
        return
    back = Change(
        mode=before.mode & 0o7777,
        uid=None if change.uid is None else before.uid,
        gid=None if change.gid is None else before.gid,
        atime=None if change.atime is None else before.atime,
        mtime=None if change.mtime is None else before.mtime,
        exclusive=None if change.exclusive is None else before.exclusive,
        append=None if change.append is None else before.append,
    )
    await settle(node.change(back, ROOT))


async def _undo(f: Fid, undo: list[Callable[[], Any]]) -> None:
    with trio.CancelScope(shield=True, deadline=trio.current_time() + GRACE):
        for step in reversed(undo):
            try:
                await settle(step())
            except OSError as error:  # not our bug: a file system, or another server, fails now
                log.warning("a wstat of %s is half undone: %s", f.place.way, error)
