"""A walk that crosses into another server: what goes over for it, and what happens to its answer.

Theory
* The first names of such a walk belong to the mount table: a route (tree/node.py) says what is there. The last of them is the mount point. From
  there on the names belong to another server, and go over as one Twalk from its root, with the requests that follow it.
* The client must get a qid for each name. The server here knows those of the first names, but only the other server can say the version of the
  mount point's. So the walk there begins with as many names as the route has: `..` of the root is the root (walk(5)), and the names of the bound
  directory come after. Then the answer has the length that the client expects, the qids of the first names overwrite those of the `..`, and
  nothing is asked twice.
* If the root has another qid after `..`, it is no root: the server lets go what was walked to, and sends no more such walks to that server. A
  server that does not know `..` there, or that lacks something, or forbids something, before the first of its names was walked, cannot give the
  answer: this server does the walk again, name by name.
"""

import errno
from collections.abc import Callable
from struct import Struct
from typing import Final

from mk9p.server.asking import leave
from mk9p.server.connection import Connection
from mk9p.server.fids import Fid
from mk9p.server.hops import Alias, Asked, Far, Hop
from mk9p.server.jobs import do_later
from mk9p.server.plans import Lead, Plan
from mk9p.server.told import counted, failed, release
from mk9p.session import Request
from mk9p.tree import Maybe
from mk9p.wire import NOFID
from mk9p.wire import messages as m

_WALK, _RWALK, _RLERROR = m.Twalk.type, m.Rwalk.type, m.Rlerror.type
_u16, _u64 = Struct("<H").unpack_from, Struct("<Q").unpack_from
_put64, _header = Struct("<Q").pack_into, Struct("<IBHH").pack_into
HEAD: Final = 9  # size[4] type[1] tag[2] nwqid[2]
QID: Final = 13
_PATH: Final = 5  # in a qid

AGAIN: Final = -1  # do the walk again, name by name
MISSING: Final = -2  # the first name is missing there: it may be on the next server

General = Callable[[Connection, int, Fid, int, tuple[str, ...]], Maybe[bytes | None]]
"""Walks name by name. It gets the tag, the start, the new fid, and the names, and returns the reply."""


class Across(Asked):
    """A walk from `old` that was passed on as planned; `lead` says where to, and `head` has the qids of its first names except the last.

    `own`: the qid of the mount point, if its first name was missing. `flushed`: a flush of it was passed on, so it is not done again.
    """

    __slots__ = ("flushed", "head", "lead", "own", "plan", "start")

    def __init__(self, backend: Far, newfid: int, hop: Hop, before: Hop | None, plan: Plan, start: Fid) -> None:
        lead = plan.leads[0]
        self.backend, self.type, self.number, self.hop, self.before = backend, _WALK, newfid, hop, before
        self.plan, self.lead, self.head, self.start = plan, lead, plan.head, start
        self.count, self.names = len(lead.names), plan.names
        self.base = self.old = self.request = None
        self.own: bytes | None = None
        self.flushed = False


def mended(b: Far, lead: Lead, head: bytes, own: bytes | None, buf: bytearray, start: int, end: int) -> int:
    """Turn, in place, the answer to a walk that was passed on into the client's answer; return where it begins.

    `own`: the qid of the mount point, if another server has given it. The caller has checked that the answer is an Rwalk, and not too long. AGAIN:
    it is no answer for the client.
    """
    count, at, top = _u16(buf, start + 7)[0], start + HEAD, lead.top
    if lead.dots:
        if count < lead.dots:
            return AGAIN
        b.dots = _u64(buf, at + QID * (lead.dots - 1) + _PATH)[0] == b.root
        if not b.dots:
            return AGAIN
    if count < top:
        return AGAIN
    paths = b.way.paths
    for here in range(at + QID * top + _PATH, end, QID):
        _put64(buf, here, paths[_u64(buf, here)[0]])
    if lead.known:
        here = at + QID * (top - 1)
        if own is not None:
            buf[here : here + QID] = own
        _put64(buf, here + _PATH, lead.path)
        if head:
            first = at + QID * lead.cut
            buf[first : first + len(head)] = head
    elif count == top:
        return AGAIN  # nothing that the client asked for: only an error can say that
    if lead.cut:
        tag, start = _u16(buf, start + 5)[0], start + QID * lead.cut
        _header(buf, start, end - start, _RWALK, tag, count - lead.cut)
    return start


def crossed(c: Connection, b: Far, known: Across, type_: int, buf: bytearray, start: int, end: int) -> int:
    """Note what the answer to a walk that crossed tells, and turn it into the client's; return where it then begins, or AGAIN."""
    if known.backend is not b or type_ not in (_RWALK, _RLERROR):
        raise b.garbage(type_)
    hop, lead = known.hop, known.lead
    assert hop is not None
    count, last = -1, len(known.plan.leads) == 1
    if type_ == _RWALK:
        count = counted(b, known, buf, start, end)
        begins = mended(b, lead, known.head, None, buf, start, end)
        if count == lead.top and not last:
            known.own = bytes(buf[end - QID : end]) if lead.known else None
            begins = MISSING
    elif not lead.top and not last and int.from_bytes(buf[start + 7 : start + 11], "little") == errno.ENOENT:
        begins = MISSING
    else:
        begins = AGAIN if lead.top else start
    hop.sure, hop.named, hop.maybe = True, True, False
    if count == known.count and begins >= 0:
        hop.path = _u64(buf, end - 8)[0]
        release(c, known)
        return begins
    request = known.request
    if begins < 0:
        known.request = None
    failed(c, known)
    known.request = request
    if count == known.count:
        leave(c, b, known.number)
    return begins


def again(c: Connection, tag: int, known: Across, begins: int) -> None:
    """Go on with a walk that is not answered as it was passed on: at the next server, or here, name by name.

    A flushed one ends here: the answer to its flush may already be on its way, and then nothing may follow it (flush(5)).
    """
    if known.flushed:
        release(c, known)
        return

    def op(c: Connection, tag: int, fid: int, newfid: int, names: tuple[str, ...]) -> Maybe[bytes | None]:
        plan = known.plan
        walked: Maybe[bytes | None] = plan.again(c, tag, known.start, newfid, plan, begins == MISSING, known.own)
        return walked

    do_later(c, known.type, op, (tag, NOFID, known.number, known.names), known.since, known.request)


def keep_back(c: Connection, hop: Hop) -> None:
    """Make requests that name a fid wait until it is known where that is."""
    for tag, known in c.asked.items():
        if isinstance(known, Alias):
            tag, known = known.tag, known.known
        if isinstance(known, Across) and known.hop is hop and known.request is None:
            known.request = Request(tag, known.type, None)
            c.session.enter(known.request, (NOFID, known.number, known.names))
            return
