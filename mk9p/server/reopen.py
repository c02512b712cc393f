"""A fid of another server's that was open when the connection there broke: it becomes ours, and is opened again as it was (recovery/again.py).

It stays ours until it is clunked, and goes the general way, which dials anew. What clients walk to from now on goes the fast way again.
"""

import errno

import attrs
import trio

from mk9p.errors import NineError
from mk9p.recovery import again
from mk9p.server.closing import shut
from mk9p.server.connection import Connection
from mk9p.server.fids import Fid, Place
from mk9p.server.hops import ONCE, Hop
from mk9p.server.modes import linux_opening
from mk9p.server.permitted import start
from mk9p.server.steps import step
from mk9p.tree import Handle, qids, settle
from mk9p.wire import QTDIR

_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})


async def found(c: Connection, hop: Hop) -> Place:
    """Return where the names of a fid lead. Raises what a walk raises, ESTALE if that is another file by now."""
    place, who = hop.place, hop.backend.who
    if hop.lead is not None and hop.names:
        place = await settle(step(place.shows(hop.lead), hop.names[0], who, c.limits.depth))
        place.parent = hop.place
    for name in hop.names[hop.lead is not None :]:
        place = await settle(step(place, name, who, c.limits.depth))
    if hop.names and hop.path is not None and place.path != hop.path:
        raise NineError(errno.ESTALE)
    return place


async def reopen(c: Connection, number: int, hop: Hop, *, goes_on: bool) -> None:
    """Open a fid again, and make it ours. `goes_on`: the request reads a directory from where an earlier answer ended.

    Raises EIO for what can't be opened again, ESTALE for another file, and what opening raises: then the next request tries again.
    """
    while hop.opening is not None:
        await hop.opening.wait()
    if c.relays.get(number) is not hop:
        return
    hop.opening = trio.Event()
    try:
        await _reopen(c, number, hop, goes_on=goes_on)
    finally:
        hop.opening.set()
        hop.opening = None


async def _reopen(c: Connection, number: int, hop: Hop, *, goes_on: bool) -> None:
    flags, who, server = hop.flags, hop.backend.who, hop.backend.way.address
    if flags is None or flags == ONCE:
        raise NineError(errno.EIO)
    if again.begins_conversation(hop.names):
        raise again.ended(server)
    try:
        place = await found(c, hop)
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        raise await _gone(c, hop) from None
    if goes_on and place.node.qtype & QTDIR and hop.backend.root != qids.ROOT:
        raise NineError(errno.EIO, f"{server} came back, and counts the names of a directory in its own way")
    f, account = Fid(place, who), c.account_of(who)
    how = linux_opening(who, again.reopening(flags), c.msize)
    f.account = account
    try:
        await settle(start(c, f, attrs.evolve(how, again=True, unsure=hop.dirty)))
        for lock in hop.locks or ():
            assert isinstance(f.handle, Handle)
            if not await settle(f.handle.lock(lock)):
                raise again.unlocked(server)
        if c.relays.get(number) is not hop:
            raise NineError(errno.EBADF)  # it was clunked meanwhile
        c.enter(number, f, account)
        del c.relays[number]
    except BaseException:
        account.used -= f.kept
        account.files.used -= f.files
        f.account = None
        with trio.CancelScope(shield=True):
            await shut(f)
        raise


async def _gone(c: Connection, hop: Hop) -> NineError:
    """Return why an open file is not there any more."""
    for names in again.clones(hop.names):
        place = hop.place if hop.lead is None else hop.place.shows(hop.lead)
        try:
            for name in names:
                place = await settle(step(place, name, hop.backend.who, c.limits.depth))
        except OSError:
            continue
        return again.ended(hop.backend.way.address)
    return NineError(errno.ESTALE)
