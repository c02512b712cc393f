"""A walk that crosses into another server: what goes over for it, and what its answer becomes.

Theory
* The first names of such a walk are the mount table's: a route (tree/node.py) tells what stands
  there. The last of them is the mount point. From there on the names are another server's, and go
  over as one Twalk from its root, with what follows behind it.
* The client is owed a qid for each name. Those of the first are known here, but the version of the
  mount point's is the other server's to say. So the walk there begins with as many names as the
  route has: `..` of the root is the root (walk(5)), and the names of what was bound come after.
  Then the answer is as long as the client's, the qids of the first names are written over those of
  the `..`, and nothing is asked twice.
* A root with another qid after `..` is no root: what was walked to is let go, and that server is
  not walked so again. A server that knows no `..` there, or where something is missing, or
  forbidden, before the first of its names was walked, is not the one to say the answer: the walk is
  done again here, name by name.
"""

from collections.abc import Callable
from struct import Struct
from typing import Final

from mk9p.server.asking import leave
from mk9p.server.connection import Connection
from mk9p.server.fids import Fid
from mk9p.server.hops import Asked, Far, Hop
from mk9p.server.jobs import do_later
from mk9p.server.plans import Lead
from mk9p.server.told import counted, failed
from mk9p.tree import Maybe
from mk9p.wire import NOFID
from mk9p.wire import messages as m

_WALK, _RWALK, _RLERROR = m.Twalk.type, m.Rwalk.type, m.Rlerror.type
_u16, _u64 = Struct("<H").unpack_from, Struct("<Q").unpack_from
_put64, _header = Struct("<Q").pack_into, Struct("<IBHH").pack_into
HEAD: Final = 9  # size[4] type[1] tag[2] nwqid[2]
QID: Final = 13
_PATH: Final = 5  # in a qid

AGAIN: Final = -1  # the walk is to be done again, name by name

General = Callable[[Connection, int, Fid, int, tuple[str, ...]], Maybe[bytes | None]]
"""Walks name by name, given the tag, what it is walked from, the new fid, and the names; returns the reply."""


class Across(Asked):
    """A walk that was passed on: by which lead, and the qids of its first names but the last.

    `names` are the client's. `again`: how the walk is done here, and from where.
    """

    __slots__ = ("again", "head", "lead")

    def __init__(
        self,
        backend: Far,
        newfid: int,
        hop: Hop,
        before: Hop | None,
        lead: Lead,
        head: bytes,
        names: tuple[str, ...],
        again: tuple[General, Fid],
    ) -> None:
        self.backend, self.type, self.number, self.hop, self.before = backend, _WALK, newfid, hop, before
        self.lead, self.head, self.names, self.again = lead, head, names, again
        self.count = lead.cut + len(names)
        self.base = self.old = None


def mended(b: Far, lead: Lead, head: bytes, own: bytes | None, buf: bytearray, start: int, end: int) -> int:
    """Make the answer to a walk that was passed on the client's, in place; return where it begins.

    `own`: the qid of the mount point, if another server has said it. That the answer is an Rwalk,
    and no longer than it may be, was looked at before. AGAIN: it is none for the client.
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
            buf[here - len(head) : here] = head
    elif count == top:
        return AGAIN  # nothing that the client asked for: only an error can tell that
    if lead.cut:
        tag, start = _u16(buf, start + 5)[0], start + QID * lead.cut
        _header(buf, start, end - start, _RWALK, tag, count - lead.cut)
    return start


def crossed(c: Connection, b: Far, known: Across, type_: int, buf: bytearray, start: int, end: int) -> int:
    """Note what the answer to a walk that crossed tells, and make it the client's; returns where it begins then, or AGAIN."""
    if known.backend is not b or type_ not in (_RWALK, _RLERROR):
        raise b.garbage(type_)
    hop, lead = known.hop, known.lead
    assert hop is not None
    hop.sure = True
    whole = False
    if type_ == _RWALK:
        whole = counted(b, known, buf, start, end) == known.count
        begins = mended(b, lead, known.head, None, buf, start, end)
    else:
        begins = AGAIN if lead.top else start
    if whole and begins >= 0:
        hop.path = _u64(buf, end - 8)[0]
        return begins
    failed(c, known)
    if whole:
        leave(c, b, known.number)
    return begins


def again(c: Connection, tag: int, known: Across) -> None:
    """Do a walk here, name by name, that another server would not do as it was passed on."""
    walk, old = known.again

    def op(c: Connection, tag: int, fid: int, newfid: int, names: tuple[str, ...]) -> Maybe[bytes | None]:
        return walk(c, tag, old, newfid, names)

    do_later(c, known.type, op, (tag, NOFID, known.number, known.names), known.since)
