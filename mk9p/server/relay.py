"""The fast way to another server: frames passed on as they are.

A composed namespace hands out nodes of other 9P servers. Such a node says in `way` where its file really is, and then nothing needs to be taken apart
here: a client's request for it is the request that the other server wants. So once a walk has crossed into one server, the engine keeps a connection
there for this client alone, with the client's own tags and fids, and passes on blocks of frames, both ways, as they came.

Rules
* Only 9P2000.L, the same msize on both sides, and servers that can be dialled as often as one likes. Everything else goes the general way,
  through the Node; so does everything when the connection can't be made.
* A fid goes over when its walk has ended on such a node: it is walked to there too, under the same number. At a mount point (a way that is not
  `whole`) it is ours as well, and only walks from it go over: its qid, and where files may be created, are said by the mount table, and each walk
  asks the table whether the way is still open.
* A fid made by a walk that was passed on is theirs alone: all its requests go over. What cannot go over (`..` out of what was mounted, a request that
  names a fid of ours beside it) is done here, with a fid of ours for as long as that takes, made by its names.
* Names may lead to another file by the time that they are used: a file's qid.path must be the same then, on the way over and on the way back.
* What an answer tells of a fid is noted when it is there: requests that came after it may have been passed on long before.
* qid.path is mapped by the server's `tree/qids.Foreign`, in place, in the few replies that have one. Nothing else is changed.
* A tag is one request's, wherever that is answered: what was passed on is in one table for all of a client's servers.
* Order, permissions, exclusive use, flush, and the end of a client's files are kept by the server that has them: it knows this client as itself.
* When the connection breaks, what was asked is answered EIO, files that were open stay dead, and every other fid is made ours again when it is next
  used, by its names: then the general way dials anew. A clunk always succeeds.
* A client that does not read is not read for: while our replies to it wait, its servers' are not received; and the other way round.
"""

import errno
import logging
from itertools import count
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

import trio

from mk9p.auth import Principal
from mk9p.dial import Link, dial
from mk9p.errors import NineError, ProtocolError
from mk9p.server.across import AGAIN, Across, mended
from mk9p.server.asking import rpc
from mk9p.server.foreseen import of_other, of_walk
from mk9p.server.hops import COUNT, ROOT, WHEN, WHOSE, Alias, Asked, Hop, Known, Late, Own
from mk9p.server.owed import enter, forget, require_free, under
from mk9p.tree import Way
from mk9p.wire import NOFID, NOTAG, Dialect, FrameBuffer, codec
from mk9p.wire import messages as m
from mk9p.wire.roles import COUNTED, ENDS, MADE, MOVES, PLAIN

if TYPE_CHECKING:
    from mk9p.server.connection import Connection
    from mk9p.server.turns import User

log = logging.getLogger("mk9p.server")

TAG: Final = 0xFFFE  # of our own requests, and the free ones below: the last that a client would come to
PATIENCE: Final = 5.0  # seconds to make a connection; the general way is there meanwhile
REST: Final = 30.0  # seconds after that failed, in which it is not tried again

_u16, _u32, _u64 = Struct("<H").unpack_from, Struct("<I").unpack_from, Struct("<Q").unpack_from
_put64 = Struct("<Q").pack_into

_WALK, _CLUNK, _RWALK, _TFLUSH = m.Twalk.type, m.Tclunk.type, m.Rwalk.type, m.Tflush.type
_RLERROR = m.Rlerror.type


class Backend:
    """One client's connection to one other server, as one user. `mark` tells it from the client's others, in the numbers of blocks.py."""

    def __init__(self, c: "Connection", way: Way, who: Principal) -> None:
        self.c, self.way, self.who = c, way, who
        self.link: Link | None = None  # None: not made yet, or gone
        self.tried = trio.Event()  # making it has succeeded, or not
        self.resting = 0.0  # until when not to try again
        self.frames = FrameBuffer(c.msize)
        self.asked = c.asked  # by tag; a number where the answer tells us nothing (blocks.py)
        marks = {b.mark for b in c.backends.values()}
        self.mark: int = next(mark for mark in count(0, 256) if mark not in marks)
        self.out: list[bytes | bytearray | memoryview] = []
        self.run: list[int] = [0, 0]  # frames to pass on that lie side by side in the client's buffer
        self.blocked = False
        self.queued = self.more = False  # it waits for a turn; replies were received that are not passed on yet
        self.root = 0  # the qid.path of its root, there
        self.dots: bool | None = None  # whether `..` of that is the root; None if nobody knows yet
        self.limbo: set[int] = set()  # numbers of fids that may yet come to be there (owed.py)
        self.stride = 0  # turns.py counts in blocks here

    @property
    def dead(self) -> bool:
        return self.link is None

    @property
    def user(self) -> "User":  # whose turn it is when replies come
        return self.c.user

    # making it

    async def make(self) -> bool:
        """Dial, agree on the client's dialect and msize, attach; False, and no link, if that is not to be."""
        c = self.c
        link = None
        try:
            with trio.fail_after(PATIENCE):
                link = await dial(self.way.address)
                version = await rpc(link, self.frames, m.Tversion, NOTAG, c.msize, Dialect.L.version)
                wanted = c.msize, Dialect.L.version
                if not isinstance(version, m.Rversion) or (version.msize, version.version) != wanted:
                    raise NineError(errno.EPROTO, "it speaks otherwise than the client")
                who = self.way.who or self.who
                attached = await rpc(link, self.frames, m.Tattach, 1, ROOT, NOFID, who.name, self.way.aname, who.uid)
                if not isinstance(attached, m.Rattach):
                    raise NineError(errno.EACCES)
                self.root = attached.qid.path
        except (OSError, ProtocolError, trio.TooSlowError) as error:
            log.debug("no fast way to %s: %s", self.way.address, error)
            self.resting = trio.current_time() + REST
            if link is not None:
                link.close()
            return False
        except BaseException:
            if link is not None:
                link.close()
            raise
        self.link = link
        return True

    def close(self) -> None:
        """Let go of the link. A second call does nothing."""
        link, self.link = self.link, None
        if link is not None:
            link.close()
        self.out.clear()
        self.run[:] = (0, 0)
        self.blocked = False
        for known in self.asked.values():
            if isinstance(known, Own) and known.backend is self:
                known.done.set()

    # requests of our own

    async def enter(self, number: int, names: tuple[str, ...], path: int | None) -> bool:
        """Walk to a fid there by the names from the root; True if it is there now, and its path in our space is `path`, if that is to be looked at.

        Not cancelled: the answer comes, or the link ends.
        """
        own = self.walk(number, names)
        with trio.CancelScope(shield=True):
            await own.done.wait()
        if own.good and path is not None and own.path is not None and self.way.paths[own.path] != path:
            # the names lead to another file by now
            if not self.dead:
                self.leave(number)
            return False
        return own.good

    def walk(self, number: int, names: tuple[str, ...]) -> Own:
        """Walk to a fid there by names from the root."""
        own = self._ask(m.Twalk, len(names), ROOT, number, names)
        self.c.exchange.send(self.c)
        return own

    def leave(self, number: int) -> None:
        """Clunk a fid there that was made ours. Its answer is not waited for: what is asked later comes later."""
        self._ask(m.Tclunk, 0, number)
        self.c.exchange.send(self.c)

    def _ask(self, message: type[m.Message], wanted: int, *fields: Any) -> Own:
        tag = self.free_tag()
        own = self.asked[tag] = Own(self, wanted)
        self.settle(self.c.frames.buf)
        self.out.append(codec(Dialect.L, message.type).pack(tag, *fields))
        return own

    def free_tag(self) -> int:
        """Return a tag that nobody uses, and that no client would come to."""
        tag = TAG
        while tag in self.asked or tag in self.c.session.tags:
            tag -= 1
        return tag

    # requests

    def passes(
        self, c: "Connection", hop: Hop, fid: int, type_: int, tag: int, buf: bytearray, start: int, end: int
    ) -> bool:
        """Pass a request on; False if it is to be answered here. Raises EINVAL for a tag in use, EEXIST for a fid in use, EXDEV."""
        require_free(self.asked.get(tag))
        since = c.counts.since
        known: int | Asked = since << WHEN | self.mark | type_
        if end - start >= (counted := COUNTED.get(type_, end - start + 1)):
            known |= _u32(buf, start + counted - 4)[0] << COUNT
        if hop.crossing and type_ != _WALK:
            if type_ != _CLUNK:
                return False
            del c.relays[fid]
            ours = c.session.fids.pop(fid, None)
            if ours is not None:
                ours.gone = True  # a directory, so nothing is to be closed
                ours.release()
        elif type_ in ENDS:
            del c.relays[fid]
        elif type_ not in PLAIN:
            noted = of_walk if type_ == _WALK else of_other
            if (some := noted(self, hop, fid, type_, buf, start, end)) is None:
                return False
            if isinstance(some, Asked):
                some.since = since
                known = some
        enter(self, tag, known, buf, start)
        self.goes(buf, start, end)
        return True

    def goes(self, buf: bytearray, start: int, end: int) -> None:
        """Pass on what lies in a buffer, from one frame's start to another's end."""
        run = self.run
        if run[1] != start:
            self.settle(buf)
            run[0] = start
        run[1] = end

    def flush(self, tag: int, oldtag: int, frame: bytes) -> bool:
        """Pass on a Tflush of something that was passed on here; False if it was not. Raises EINVAL for a tag in use."""
        require_free(self.asked.get(tag))
        number, old = under(self, oldtag)
        if old is None:
            return False
        self.settle(self.c.frames.buf)
        flush = Asked(self, _TFLUSH, number, old=old)
        flush.since = self.c.counts.since
        request = bytearray(frame)
        request[7:9] = number.to_bytes(2, "little")
        flush.count = enter(self, tag, flush, request, 0)
        self.out.append(bytes(request))
        self.c.exchange.flushing(flush)
        return True

    def settle(self, buf: bytearray) -> None:
        """End the run of frames that lie side by side in a buffer."""
        start, end = self.run
        if start < end:
            self.out.append(memoryview(buf)[start:end])
            self.run[:] = (0, 0)

    def send(self) -> None:
        """Send what is to be passed on; what the kernel does not take is copied and waits, and `blocked` says so. Raises OSError."""
        self.settle(self.c.frames.buf)
        out, link = self.out, self.link
        if not out or link is None:
            out.clear()
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        try:
            count = link.send(data)
        except BlockingIOError:
            count = 0
        if count < len(data):
            out.append(bytes(data[count:]))
        self.blocked = bool(out)

    # replies

    def garbage(self, type_: int) -> ProtocolError:
        return ProtocolError(f"{self.way.address} sent a message of type {type_} that answers nothing")

    def too_much(self, type_: int, count: int) -> ProtocolError:
        return ProtocolError(f"{self.way.address} answers with {count} bytes that were not asked for (type {type_})")

    def mine(self, known: int | Asked | Own) -> bool:
        """Tell whether a request was passed on to this server, or is our own to it."""
        return (known & WHOSE & ~0xFF) == self.mark if isinstance(known, int) else known.backend is self

    def learned(self, known: Known | None, type_: int, buf: bytearray, start: int, end: int) -> None:
        """Note what an answer tells of a fid; map the qids of a walk. One that did not go all the way has made no fid."""
        if not isinstance(known, Asked) or known.backend is not self or type_ not in (known.type + 1, _RLERROR):
            raise self.garbage(type_)
        hop, base = known.hop, known.base
        if known.type == _TFLUSH:
            old, known.old = known.old, None  # or flushes of flushes would be kept, one by the other
            self.c.exchange.flushed(known)
            here = self.asked.get(known.number)
            if old is not None and old in (
                here,
                here.known if isinstance(here, Alias) else None,
            ):  # it is not answered any more
                forget(self, known.number)
                if isinstance(old, Asked):
                    self.failed(old)
            return
        count = path = 0
        if type_ == _RWALK:
            count = self._counted(known, buf, start, end)
            for at in range(start + 14, end, 13):
                _put64(buf, at, path := self.way.paths[_u64(buf, at)[0]])
        if hop is not None:
            hop.sure = True
        if type_ == _RLERROR or count < known.count:
            self.failed(known)
        elif hop is None:
            pass
        elif base is None:
            hop.opened = True
            if known.names and end - start >= 20:  # else it is refused for its length
                hop.names, hop.path = hop.names + known.names, self.way.paths[_u64(buf, start + 12)[0]]
        elif known.type in MOVES:
            hop.place, hop.names, hop.lead = base.place, base.names + known.names, base.lead
        else:
            hop.path = path if count else base.path
            if known.before is base:
                hop.opened = hop.opened or base.opened
            if base.names is not known.names:  # what it was walked from was not where it seemed to be
                hop.names = base.names + hop.names[len(known.names) :]

    def _counted(self, known: Asked, buf: bytearray, start: int, end: int) -> int:
        """Return how many qids an Rwalk has."""
        count: int = 0
        if end - start < 9 or end - start != 9 + 13 * (count := _u16(buf, start + 7)[0]):
            raise self.garbage(_RWALK)
        if count > known.count:
            raise ProtocolError(f"{self.way.address} answers a walk of {known.count} names with {count} qids")
        return count

    def crossed(self, known: Across, type_: int, buf: bytearray, start: int, end: int) -> int:
        """Note what the answer to a walk that crossed tells, and make it the client's; returns where it begins then, or AGAIN (across.py)."""
        if known.backend is not self or type_ not in (_RWALK, _RLERROR):
            raise self.garbage(type_)
        hop, lead = known.hop, known.lead
        assert hop is not None
        hop.sure = True
        whole = False
        if type_ == _RWALK:
            whole = self._counted(known, buf, start, end) == known.count
            begins = mended(self, lead, known.head, None, buf, start, end)
        else:
            begins = AGAIN if lead.top else start
        if whole and begins >= 0:
            hop.path = _u64(buf, end - 8)[0]
            return begins
        self.failed(known)
        if whole:
            self.leave(known.number)
        return begins

    def failed(self, known: Asked) -> None:
        """Take back what a request would have made of a fid. Its number may be another fid's by now."""
        hop, before = known.hop, known.before
        if known.type not in MADE or hop is None:
            return
        if before is not None and not before.void:
            hop.place, hop.names, hop.path, hop.lead = before.place, before.names, before.path, before.lead
            hop.opened = hop.opened or before.opened
            return
        hop.void = True
        if self.c.relays.get(known.number) is hop:
            del self.c.relays[known.number]

    def forsake(self) -> list[tuple[int, int, int]]:
        """Take all that was asked here as failed; returns the tags and types of what the client is to be told of, and when it came."""
        told = []
        for number, known in list(self.asked.items()):
            if isinstance(known, Late):
                known.owed.pop(self, None)
                if not known.owed and known.alias is None:
                    del self.asked[number]
                continue
            if isinstance(known, Alias):
                known = known.known
            if not self.mine(known):
                continue
            tag = forget(self, number)
            if isinstance(known, int):
                told.append((tag, known & 0xFF, known >> WHEN))
            elif isinstance(known, Asked):
                self.failed(known)
                told.append((tag, known.type, known.since))
        return told

    def listed(self, buf: bytearray, start: int, end: int, count: int) -> None:
        """Map the qids of a directory's entries, in a frame of `count` bytes of data. Raises ProtocolError if it is not, or the last one is none."""
        at, paths = start + 11, self.way.paths
        while at + 24 <= end:
            _put64(buf, at + 5, paths[_u64(buf, at + 5)[0]])
            at += 24 + _u16(buf, at + 22)[0]
        if at != end or end - start != 11 + count:
            raise self.garbage(m.Rreaddir.type)
