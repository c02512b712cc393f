"""The fast way to another server: frames are passed on unchanged.

A composed namespace hands out nodes of other 9P servers. Such a node says in `way` where its file really is, and then nothing needs to be taken
apart here: a client's request for it is the request that the other server wants. So after a walk has crossed into one server, the engine keeps a
connection there for this client alone, with the client's own tags and fids, and passes on blocks of frames, both ways, as they came.

Rules
* Only 9P2000.L, the same msize on both sides, and servers that can be dialled any number of times. Everything else goes the general way, through
  the Node; so does everything if the connection can't be made.
* A fid goes over when its walk has ended on such a node: it is walked to there too, under the same number. At a mount point (a way that is not
  `whole`) this server has it as well, and only walks from it go over: the mount table decides its qid, and where clients may create files, and
  each walk asks the table whether the way is still open.
* A fid that a passed-on walk made is theirs alone: all its requests go over. A request that cannot go over (`..` out of the mounted tree, a
  request that also names a fid of ours) is done here, with a fid of ours for that time, made by its names.
* Names may lead to another file by the time they are used: a file's qid.path must be the same then, on the way over and on the way back.
* What an answer tells of a fid is noted when the answer is there: requests that came after it may have been passed on long before.
* The server's `tree/qids.Foreign` maps qid.path, in place, in the few replies that have one. Nothing else changes.
* A tag belongs to one request, wherever that is answered: one table has what was passed on to all of a client's servers.
* The server with the files keeps order, permissions, exclusive use, flush, and the end of a client's files: it knows this client as itself.
* When the connection breaks, unanswered requests get EIO, open files stay dead, and every other fid is made ours again by its names when it is
  next used: then the general way dials anew. A clunk always succeeds.
* Whoever may do only some things there (`Way.ops`) has a connection for that alone, and each request that takes OPS is looked at here (narrow.py).
* If a client does not read, nothing is read for it: while our replies to it wait, its servers' are not received; and the other way round.
"""

from struct import Struct

from mk9p.server.across import Across
from mk9p.server.connection import Connection
from mk9p.server.foreseen import of_other, of_walk
from mk9p.server.hops import COUNT, WHEN, Asked, Far, Hop
from mk9p.server.leased import ALTERS, must_stay
from mk9p.server.narrow import goes_unseen
from mk9p.server.owed import unanswered
from mk9p.server.tags import enter, require_free, under
from mk9p.wire import messages as m
from mk9p.wire.roles import COUNTED, ENDS, PLAIN

_WALK, _WRITE, _CLUNK, _TFLUSH = m.Twalk.type, m.Twrite.type, m.Tclunk.type, m.Tflush.type
_u32 = Struct("<I").unpack_from


def passes(c: Connection, hop: Hop, fid: int, type_: int, tag: int, buf: bytearray, start: int, end: int) -> bool:
    """Pass a request on; return False if it must be answered here. Raises EINVAL for a tag in use, EEXIST for a fid in use, EXDEV."""
    require_free(c.asked.get(tag))
    since, b = c.counts.since, hop.backend
    gate = c.common.gate
    if gate is not None and type_ in ALTERS and gate.active and must_stay(gate, hop, type_, buf, start, end):
        return False
    if c.narrow and not goes_unseen(hop, type_, buf, start, end):
        return False
    known: int | Asked = since << WHEN | b.mark | type_
    if end - start >= (counted := COUNTED.get(type_, end - start + 1)):
        known |= _u32(buf, start + counted - 4)[0] << COUNT
    if type_ == _WRITE:
        hop.dirty = True
    if hop.crossing and type_ != _WALK:
        if type_ != _CLUNK:
            return False
        del c.relays[fid]
        ours = c.session.fids.pop(fid, None)
        if ours is not None:
            ours.gone = True  # a directory, so there is nothing to close
            ours.release()
    elif type_ in ENDS:
        del c.relays[fid]
    elif type_ not in PLAIN:
        noted = of_walk if type_ == _WALK else of_other
        if (some := noted(c, hop, fid, type_, buf, start, end)) is None:
            return False
        if isinstance(some, Asked):
            some.since = since
            known = some
    enter(c, tag, known, buf, start)
    b.goes(buf, start, end)
    return True


def flush(c: Connection, tag: int, oldtag: int, frame: bytes) -> bool:
    """Pass on a Tflush of a passed-on request; return False if it was not passed on. Raises EINVAL for a tag in use."""
    return any(_flush(c, b, tag, oldtag, frame) for b in c.backends.values())


def _flush(c: Connection, b: Far, tag: int, oldtag: int, frame: bytes) -> bool:
    require_free(c.asked.get(tag))
    number, old = under(b, oldtag)
    if old is None:
        return False
    if isinstance(old, Across):
        old.flushed = True
    b.end_run(c.frames.buf)
    asked = Asked(b, _TFLUSH, number, old=old)
    asked.since = c.counts.since
    request = bytearray(frame)
    request[7:9] = number.to_bytes(2, "little")
    asked.count = enter(c, tag, asked, request, 0)
    b.out.append(bytes(request))
    c.common.patience.begin(asked, lambda: unanswered(c, asked))
    return True
