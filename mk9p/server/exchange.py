"""Where the engine and its relays meet: when a fid goes over, and which requests are done here although their fid is another server's.

relay.py has the theory.
"""

import logging
from collections.abc import Callable
from time import monotonic_ns
from typing import Any

import trio

from mk9p.auth import Principal
from mk9p.errors import ProtocolError
from mk9p.scope import ALL
from mk9p.server.accounts import FID, FILE
from mk9p.server.asking import arrive, leave, make
from mk9p.server.blocks import back
from mk9p.server.connection import Connection, Reply
from mk9p.server.fids import Fid, Place
from mk9p.server.hops import Alias, Far, Hop, Own
from mk9p.server.passing import Backend, lost, send, send_to
from mk9p.server.relay import passes
from mk9p.server.reopen import found, reopen
from mk9p.server.tags import require_free
from mk9p.tree import Open, Way, settle
from mk9p.wire import NOFID, QTDIR, Dialect, codec
from mk9p.wire import messages as m
from mk9p.wire.roles import ENDS, LOCAL, OPENS, THERE

log = logging.getLogger("mk9p.server")


async def backend_for(c: Connection, place: Place, who: Principal) -> Far | None:
    """Return this client's connection to the server where a place really is, and make it if necessary; None if requests must go the general way.

    If cancelled, nothing has changed.
    """
    way = place.node.way
    if way is None or who.readonly or place.holders or c.dialect is not Dialect.L or place.node.qtype & ~QTDIR:
        return None
    return await reach(c, way, who)


async def reach(
    c: Connection, way: Way, who: Principal, number: int = NOFID, names: tuple[str, ...] = ()
) -> Far | None:
    """Return this client's connection to a server, and make it if necessary; None if there can be none now. If cancelled, nothing has changed.

    The caller will walk to the fid `number` by `names`.
    """
    key = (way.line, who)
    b = c.backends.get(key)
    if b is None or (b.dead and b.tried.is_set() and trio.current_time() >= b.resting):
        b = c.backends[key] = Backend(c, way, who)
        c.narrow = c.narrow or way.ops != ALL
        try:
            if await make(c, b, number, names):
                if c.dead or c.backends.get(key) is not b:
                    b.close()
                else:
                    c.links.warm.add(b)
                    b.wait(receive=not c.blocked)
        finally:
            b.tried.set()
    if not b.tried.is_set():
        await b.tried.wait()
    return None if b.dead else b


async def hand_over(c: Connection, number: int, f: Fid, b: Far | None) -> None:
    """Hand a fid that has just crossed into another server over to it."""
    way = f.place.node.way
    if b is None or b.dead or number in b.limbo or way is None or way.line != b.way.line:
        return
    if (
        await arrive(c, b, number, way.names, f.place.path if way.whole else None)
        and not b.dead
        and c.session.fids.get(number) is f
    ):
        c.relays[number] = Hop(b, f.place, (), way)
        if way.whole:
            del c.session.fids[number]
            f.release()


def remote_fids(c: Connection, type_: int, args: tuple[Any, ...]) -> list[int]:
    """Return the fids that a request names, without newfids, and that only another server has."""
    numbers = [args[1 + i] for i in THERE[type_]]
    return [number for number in numbers if number in c.relays and number not in c.session.fids]


async def run_locally(
    c: Connection, type_: int, op: Callable[..., Any], args: tuple[Any, ...], numbers: list[int]
) -> Reply:
    """Run a request in this server although other servers have its fids: because it can't be passed on, or their server is gone."""
    hop = c.relays[numbers[0]]
    if type_ == m.Tclunk.type and hop.backend.dead:
        del c.relays[numbers[0]]
        return c.reply(m.Rclunk, args[0])
    lent: dict[int, Fid] = {}
    try:
        for number in numbers:
            if (f := await _bring(c, number, goes_on=type_ == m.Treaddir.type and args[2] > 0)) is not None:
                lent[number] = f
        reply: Reply = await settle(op(c, *args))
        if type_ in OPENS and numbers[0] in lent and c.relays.get(numbers[0]) is hop:
            _keep(c, numbers[0], lent.pop(numbers[0]), FILE)
        elif type_ == m.Txattrcreate.type and numbers[0] in lent and c.relays.get(numbers[0]) is hop:
            _keep(c, numbers[0], lent.pop(numbers[0]), FILE + args[3])
        return reply
    finally:
        for number, f in lent.items():
            if number in c.relays and c.session.fids.get(number) is f:
                del c.session.fids[number]
        if type_ in ENDS and numbers[0] in c.relays:
            stays(c, numbers[0])  # remove(5): it is clunked, whatever happens


def _keep(c: Connection, number: int, f: Fid, kept: int) -> None:
    """Keep a fid that was only lent: it was opened here, and keeps so many bytes."""
    account = f.account = c.account_of(f.who)
    account.used += FID + f.place.hold() + kept  # whatever the limits are: the file is open
    f.kept = kept
    stays(c, number)


async def _bring(c: Connection, number: int, *, goes_on: bool) -> Fid | None:
    """Make a fid ours by its names: for good if its server is gone, and then it is opened again if it was open; otherwise for one request, and
    returns what is lent.

    Raises ESTALE if the names lead to another file by now, and what opening it again raises.
    """
    hop = c.relays.get(number)
    if hop is None or number in c.session.fids:
        return None
    if hop.opened and hop.backend.dead:
        await reopen(c, number, hop, goes_on=goes_on)
        return None
    place = await found(c, hop)
    if c.relays.get(number) is not hop or number in c.session.fids:
        return None  # another request was quicker
    f = Fid(place, hop.backend.who)
    if hop.backend.dead:
        c.enter(number, f, c.account_of(f.who))
        del c.relays[number]
        return None
    c.session.fids[number] = f
    f.how = Open(f.who) if hop.opened else None
    return f


def turn(c: Connection, b: Far) -> None:
    """Do what a link to another server is ready for."""
    try:
        if b.blocked:
            send_to(c, b)
        count = full = 0
        while b.link is not None and not c.blocked:
            if b.more:  # received when its last turn was over
                b.more = False
            else:
                cold = not b.frames.buf
                space = b.frames.space()
                if cold:
                    c.links.warm.add(b)
                    c.count()
                count, full = b.link.recv_into(space), len(space)
                if not count:
                    lost(c, b, "it was closed by the other side")
                    break
                b.frames.received(count)
            back(c, b)
            if b.more or count < full:
                break
            if monotonic_ns() > c.links.turns.until:
                b.more = True
                break
    except BlockingIOError:
        return
    except (OSError, ProtocolError) as error:
        lost(c, b, str(error))
    except Exception as error:
        log.exception("internal error: the fast way to %s ends", b.way.address)
        lost(c, b, str(error))


def require_untaken(c: Connection, tag: int) -> None:
    """Raise EINVAL if the tag of a passed-on request is used again; tags of this server's own requests are not the client's, and never meet one."""
    known = c.asked.get(tag)
    if not isinstance(known, Own | Alias):
        require_free(known)


def stays(c: Connection, number: int) -> None:
    """Keep a fid here alone from now on."""
    b = c.relays.pop(number).backend
    if not b.dead:
        leave(c, b, number)


def late(c: Connection, type_: int, tag: int, args: tuple[Any, ...]) -> bool:
    """Pass on a request that had to wait for its fid to go over; return False if it must be answered here. Raises as `passes`."""
    hop = c.relays.get(args[1])
    if hop is None or hop.backend.dead or type_ in LOCAL:
        return False
    frame = bytearray(codec(c.dialect, type_).pack(*args))
    b = hop.backend
    b.end_run(c.frames.buf)
    if not passes(c, hop, args[1], type_, tag, frame, 0, len(frame)):
        return False
    b.end_run(frame)
    send(c)
    return True
