"""What the ops of all dialects share: opening, making and changing the file that a fid stands for, if its user may.

The server asks a node that `guards` itself whatever the bits say; for all others the bits decide here. Most of it is done at once, in the call;
what waits, or needs more than a call, goes on in an `async` half.
"""

import errno
from collections.abc import Awaitable
from stat import S_IFDIR
from typing import Any

import attrs
import trio

from mk9p.auth import READ, WRITE, Principal, falls, may, owns, require_change
from mk9p.errors import NineError
from mk9p.scope import is_ctl
from mk9p.server.accounts import FILE
from mk9p.server.closing import claim_exclusive, put, shut
from mk9p.server.connection import Connection
from mk9p.server.fids import UNKNOWN, Fid, Place, check_name, qid, too_deep
from mk9p.server.leased import as_leased, require_unleased
from mk9p.server.steps import stat_at
from mk9p.tree import Handle, Maybe, Node, Open, Stat, settle
from mk9p.wire import Qid


async def status(c: Connection, f: Fid) -> Stat:
    """Return the status of an open file, or of the file that a fid stands for."""
    if f.handle is not None and (open_stat := f.handle.stat()) is not None:
        return await settle(open_stat)
    return await stat_at(f.place)


def start(c: Connection, f: Fid, how: Open) -> Maybe[Stat]:
    """Open the file that a fid stands for; raises what prevents that. Return its status as it was before."""
    if f.how is not None:
        raise NineError(errno.EBADF, "fid is open already")
    place, walked = f.place, c.walked
    node = place.node
    if walked is None:
        stat = node.stat()
    else:
        stat, c.walked = walked[1] if walked[0] is f else node.stat(), None
    if type(stat) is not Stat or how.remove or place.holders or stat.exclusive or stat.mode & 0o170000 == S_IFDIR:
        return _start(c, f, how, stat)
    if not how.only_reads or stat.mode & 0o444 != 0o444:  # all may read the others
        _require(c, f, how, stat)
    account, files = f.account, node.descriptors
    if (
        account is None
        or (used := account.used + FILE) > account.granted
        or (files and account.files.used + files > account.files.granted)
    ):
        f.keep_file()
    else:
        account.used = used
        f.kept += FILE
        if files:
            account.files.used += files
            f.files = files
    try:
        handle = node.open(how)
    except BaseException:
        f.drop_file()
        raise
    if isinstance(handle, Handle):
        if how.write:
            handle = as_leased(c, place, handle, how.who)
            if is_ctl(place.name):
                handle = _watched(c, f, handle)
        f.handle, f.how = handle, how
        if handle.keeps:
            handle.keeper = f
        return stat
    return _opening(c, f, how, stat, handle)


def _watched(c: Connection, f: Fid, handle: Handle) -> Handle:
    """Return an open ctl file whose commands are written down."""
    return c.common.authority.audit.watched(handle, f.who, c.link.peer.place, f.place.way)


def _require(c: Connection, f: Fid, how: Open, stat: Stat) -> None:
    """Raise EACCES for an open that the bits do not allow."""
    if how.write or how.truncate or how.remove:
        require_change(how.who)
    want = (READ if how.read else 0) | (WRITE if how.write or how.truncate else 0) | (1 if how.execute else 0)
    if not f.place.node.guards and not may(how.who, stat.mode, stat.uid, stat.gid, want):
        raise NineError(errno.EACCES)
    if how.write or how.truncate or how.remove:
        require_unleased(c, f.place, how.who)


async def _start(c: Connection, f: Fid, how: Open, now: Maybe[Stat]) -> Stat:
    """Open a file that takes more than a call: a directory, one that only one can have open, one that learns of its use, one that waits."""
    node = f.place.node
    stat = now if isinstance(now, Stat) else await now
    if stat.is_dir:
        if how.write or how.truncate or how.remove:
            require_change(how.who)
        if how.write or how.truncate:
            raise NineError(errno.EISDIR)
        f.keep_file()
        try:
            if node.guards:
                f.directory = await settle(node.open(how))
            elif not may(how.who, stat.mode, stat.uid, stat.gid, READ):
                raise NineError(errno.EACCES)
        except BaseException:
            f.drop_file()
            raise
        f.how = how
        return stat
    _require(c, f, how, stat)
    if how.remove:
        await may_remove(c, f.place, how.who)
    f.keep_file()
    if stat.exclusive:
        try:
            claim_exclusive(node)
        except BaseException:
            f.drop_file()
            raise
        f.exclusive = True
    f.hold()
    return await _opening(c, f, how, stat, None)


async def _opening(c: Connection, f: Fid, how: Open, stat: Stat, opening: Awaitable[Handle] | None) -> Stat:
    f.uses += 1
    f.how = how
    try:
        handle = await (settle(f.place.node.open(how)) if opening is None else opening)
        f.handle = await _leased(c, f.place, handle, how.who) if how.write else handle
    finally:
        if f.handle is None:
            await _unstart(f)
        else:
            if how.write and is_ctl(f.place.name):
                f.handle = _watched(c, f, f.handle)
            if f.handle.keeps:
                f.handle.keeper = f
            if f.gone:
                await put(f)
            else:
                f.uses -= 1
    return stat


async def _leased(c: Connection, place: Place, handle: Handle, who: Principal) -> Handle:
    """Return a file that was opened for writing as its fid has it. Raises EBUSY if somebody else has leased it meanwhile; then it is closed."""
    try:
        return as_leased(c, place, handle, who)
    except NineError:
        with trio.CancelScope(shield=True):
            await settle(handle.close())
        raise


async def _unstart(f: Fid) -> None:
    """Undo what `start` did when opening failed or was flushed: nothing was open, so closing removes nothing."""
    f.uses -= 1
    if f.how is not None and f.how.remove:
        f.how = attrs.evolve(f.how, remove=False)
    await shut(f)
    f.exclusive = False
    f.drop_file()
    if f.gone:
        f.release()


async def may_remove(c: Connection, place: Place, who: Principal) -> None:
    """Raise EACCES unless `who` may write the directory that a place is in."""
    require_change(who)
    require_unleased(c, place, who, above=True)
    if place.parent.node.guards:
        return
    stat = await stat_at(place.parent)
    if not may(who, stat.mode, stat.uid, stat.gid, WRITE):
        raise NineError(errno.EACCES)


async def make_file(c: Connection, f: Fid, name: str, make: Any, *args: Any) -> Any:
    """Make a file in the directory that a fid stands for; raises EEXIST, EACCES, ENOTDIR, or what the directory says."""
    check_name(name)
    require_change(f.who)
    stat = await stat_at(f.place)
    if not stat.is_dir:
        raise NineError(errno.ENOTDIR)
    if f.how is not None and make == f.place.node.create:
        raise NineError(errno.EBADF, "create in an open fid")
    if name in (".", ".."):
        raise NineError(errno.EINVAL, "illegal name")
    if f.place.depth >= c.limits.depth:
        raise too_deep(c.limits.depth)
    if not f.place.node.guards and not may(f.who, stat.mode, stat.uid, stat.gid, WRITE | 1):
        raise NineError(errno.EACCES)
    require_unleased(c, f.place, f.who, name)
    return await settle(make(name, *args))


async def make_and_open(c: Connection, f: Fid, name: str, make: Any, *args: Any) -> Any:
    """Make, as `make_file` does, a file that the fid is open for afterwards; also raises EMFILE."""
    f.keep_file()
    try:
        return await make_file(c, f, name, make, *args)
    except BaseException:
        f.drop_file()
        raise


async def set_open(c: Connection, f: Fid, name: str, node: Node, handle: Handle | None, how: Open) -> Qid:
    """Let a fid stand for the new file in its directory, open as the client asked; return its qid.

    The file exists: what its place costs is charged whatever the limits are. Raises EBUSY if it existed, is for one at a time, and somebody has it
    open, and if somebody has leased it meanwhile; then the handle is closed.
    """
    place = f.place.child(name, node)
    stat = await stat_at(place)
    if handle is not None and how.write:
        try:
            handle = await _leased(c, place, handle, how.who)
        except NineError:
            f.drop_file()
            raise
    if stat.exclusive and handle is not None:
        try:
            claim_exclusive(node)
        except NineError:
            await settle(handle.close())
            f.drop_file()
            raise
        f.exclusive = True
    f.move(place, force=True)
    f.hold()
    f.handle, f.how = handle, how
    if handle is not None and handle.keeps:
        handle.keeper = f
    return qid(place, stat)


async def change_file(c: Connection, f: Fid, change: Any) -> None:
    """Change the file that a fid stands for, if its user may: contents need write permission, only the owner may change the rest.

    Writing also clears setuid and setgid: Linux's clients ask for that before they write, in the name of a user who may.
    """
    require_change(f.who)
    require_unleased(c, f.place, f.who)
    f.attr = UNKNOWN
    handle = f.handle
    if change.length is not None and handle is not None and handle.truncates and f.how is not None and f.how.write:
        await settle(handle.change(change))
        return
    if f.place.node.guards:
        await settle(f.place.node.change(change, f.who))
        return
    stat = await stat_at(f.place)
    if not owns(f.who, stat.uid):
        only_contents = (
            change.uid is None and change.gid is None and (change.mode is None or falls(change.mode, stat.mode))
        )
        if not only_contents or not may(f.who, stat.mode, stat.uid, stat.gid, WRITE):
            raise NineError(errno.EPERM)
    await settle(f.place.node.change(change, f.who))
