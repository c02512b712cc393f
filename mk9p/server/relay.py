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
* A fid made by a walk that was passed on is theirs alone: all its requests go over. `..` does not: the fid is first made ours again, by its names.
* qid.path is mapped as `tree/qids.foreign` does, in place, in the few replies that have one. Nothing else is changed.
* Order, permissions, exclusive use, flush, and the end of a client's files are kept by the server that has them: it knows this client as itself.
* When the connection breaks, what was asked is answered EIO, files that were open stay dead, and every other fid is made ours again when it is next
  used, by its names: then the general way dials anew.
* A client that does not read is not read for: while our replies to it wait, its servers' are not received; and the other way round.
"""

import errno
import logging
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from mk9p.auth import Principal
from mk9p.dial import Link, dial
from mk9p.errors import NineError, ProtocolError
from mk9p.server.fids import Place
from mk9p.tree import Way
from mk9p.wire import NOFID, NOTAG, Dialect, FrameBuffer, codec
from mk9p.wire import messages as m

if TYPE_CHECKING:
    from mk9p.server.connection import Connection

log = logging.getLogger("mk9p.server")

ROOT: Final = 0xFFFFFFFE  # our fid of the other server's root: the last number that a client would come to
PATIENCE: Final = 5.0  # seconds to make a connection; the general way is there meanwhile
JOIN: Final = 4096

_u16, _u32, _u64 = Struct("<H").unpack_from, Struct("<I").unpack_from, Struct("<Q").unpack_from
_put64 = Struct("<Q").pack_into

# Requests whose first field is a fid, and that name no other: they go over as they are.
_PLAIN: Final = frozenset(
    cls.type
    for cls in (
        m.Tstatfs, m.Tlopen, m.Tlcreate, m.Tsymlink, m.Tmknod, m.Treadlink, m.Tgetattr, m.Tsetattr, m.Txattrcreate, m.Treaddir, m.Tfsync,
        m.Tlock, m.Tgetlock, m.Tmkdir, m.Tunlinkat, m.Tread, m.Twrite,
    )
)  # fmt: skip
_OPENS: Final = frozenset({m.Tlopen.type, m.Tlcreate.type, m.Txattrcreate.type})
_LAST: Final = frozenset({m.Tclunk.type, m.Tremove.type})
# Replies with one qid, and where its path is, from the start of the frame.
_PATH_AT: Final = {cls.type: 12 for cls in (m.Rlopen, m.Rlcreate, m.Rmkdir, m.Rsymlink, m.Rmknod)} | {
    m.Rgetattr.type: 20
}
_WALK, _CLUNK, _RWALK, _RREADDIR, _TFLUSH = m.Twalk.type, m.Tclunk.type, m.Rwalk.type, m.Rreaddir.type, m.Tflush.type
_TRENAMEAT, _TRENAME, _TLINK = m.Trenameat.type, m.Trename.type, m.Tlink.type


class Hop:
    """A fid that is theirs, or the crossing to it: the place where the crossing is, and the names from there."""

    __slots__ = ("backend", "crossing", "names", "opened", "place", "way")

    def __init__(self, backend: "Backend", place: Place, names: tuple[str, ...], way: Way | None = None) -> None:
        self.backend, self.place, self.names = backend, place, names
        self.way, self.crossing = way, way is not None and not way.whole
        self.opened = False


@attrs.define(eq=False)
class _Entry:
    """A walk of our own that was sent: `done` when its answer is known, `good` if it went all the way."""

    wanted: int
    done: trio.Event = attrs.field(factory=trio.Event)
    good: bool = False


class Backend:
    """One client's connection to one other server, as one user."""

    def __init__(self, c: "Connection", way: Way, who: Principal) -> None:
        self.c, self.way, self.who = c, way, who
        self.link: Link | None = None  # None: not made yet, or gone
        self.frames = FrameBuffer(c.msize)
        # tag -> type; of a walk newfid, how many names, and the hop that newfid had
        self.asked: dict[int, tuple[int, int, int, Hop | None]] = {}
        self.entering: dict[int, _Entry] = {}  # tag -> a walk of our own, by which a fid goes over
        self.out: list[bytes | memoryview] = []
        self.run: list[int] = [0, 0]  # frames to pass on that lie side by side in the client's buffer
        self.blocked = False

    @property
    def dead(self) -> bool:
        return self.link is None

    # making it

    async def make(self) -> bool:
        """Dial, agree on the client's dialect and msize, attach; False, and no link, if that is not to be."""
        c = self.c
        try:
            with trio.fail_after(PATIENCE):
                link = await dial(self.way.address)
        except (OSError, trio.TooSlowError) as error:
            log.debug("no fast way to %s: %s", self.way.address, error)
            return False
        try:
            with trio.fail_after(PATIENCE):
                version = await self._rpc(link, m.Tversion, NOTAG, c.msize, Dialect.L.version)
                if not isinstance(version, m.Rversion) or (version.msize, version.version) != (
                    c.msize,
                    Dialect.L.version,
                ):
                    raise NineError(errno.EPROTO, "it speaks otherwise than the client")
                attached = await self._rpc(link, m.Tattach, 1, ROOT, NOFID, self.who.name, self.way.aname, self.who.uid)
                if not isinstance(attached, m.Rattach):
                    raise NineError(errno.EACCES)
        except (OSError, ProtocolError, trio.TooSlowError) as error:
            log.debug("no fast way to %s: %s", self.way.address, error)
            link.close()
            return False
        except BaseException:
            link.close()
            raise
        self.link = link
        return True

    def close(self) -> None:
        """Let go of the link. A second call does nothing."""
        link, self.link = self.link, None
        if link is not None:
            link.close()
        for entry in self.entering.values():
            entry.done.set()
        self.entering.clear()
        self.out.clear()
        self.run[:] = (0, 0)
        self.blocked = False

    async def _rpc(self, link: Link, message: type[m.Message], tag: int, *fields: Any) -> m.Message:
        request = memoryview(codec(Dialect.L, message.type).pack(tag, *fields))
        while request:
            try:
                request = request[link.send(request) :]
            except BlockingIOError:
                await link.wait_writable()
        while (frame := self.frames.next()) is None:
            try:
                count = link.recv_into(self.frames.space())
            except BlockingIOError:
                await link.wait_readable()
                continue
            if not count:
                raise NineError(errno.EIO, "it was closed by the other side")
            self.frames.received(count)
        reply = codec(Dialect.L, self.frames.buf[frame[0] + 4])
        return reply.cls(*reply.unpack(self.frames.view, frame[0] + 5, frame[1]))

    async def enter(self, tag: int, number: int, names: tuple[str, ...]) -> bool:
        """Walk to a fid there by the names from the root, with the tag of the client's request that made it; True if it is there now."""
        entry = self.entering[tag] = _Entry(len(names))
        self.settle(self.c.frames.buf)
        self.out.append(memoryview(codec(Dialect.L, _WALK).pack(tag, ROOT, number, names)))
        self.c.exchange.send(self.c)
        await entry.done.wait()
        return entry.good

    # requests

    def passes(
        self, c: "Connection", hop: Hop, fid: int, type_: int, tag: int, buf: bytearray, start: int, end: int
    ) -> bool:
        """Pass a request on; False if it is to be answered here. Raises EINVAL for a tag in use, EEXIST for a fid in use, EXDEV."""
        before: Hop | None = None
        newfid, count = NOFID, 0
        if type_ == _WALK:
            if end - start < 17:
                return False
            newfid, count = _u32(buf, start + 11)[0], _u16(buf, start + 15)[0]
            at, names = start + 17, []
            for _ in range(count):
                if at + 2 > end:
                    return False  # the codec shall say what is wrong with it
                size = _u16(buf, at)[0]
                names.append(bytes(buf[at + 2 : at + 2 + size]))
                at += 2 + size
            if at != end or any(name in (b"", b".", b"..") or b"/" in name or b"\0" in name for name in names):
                return False
            if hop.crossing and (not names or newfid == fid or hop.place.node.way is not hop.way):
                return False
            if newfid != fid and (newfid in c.relays or newfid in c.session.fids or newfid == ROOT):
                raise NineError(errno.EEXIST, "fid already in use")
            before = c.relays.get(newfid)
            try:
                way = (*hop.names, *(name.decode() for name in names))
            except UnicodeDecodeError:
                return False
            if not (hop.opened and newfid == fid):
                c.relays[newfid] = Hop(self, hop.place, way)
        elif hop.crossing:
            if type_ != _CLUNK:
                return False
            del c.relays[fid]
            ours = c.session.fids.pop(fid, None)
            if ours is not None:
                ours.gone = True  # a directory, so nothing is to be closed
        elif type_ in _LAST:
            del c.relays[fid]
        elif type_ in (_TRENAMEAT, _TRENAME, _TLINK):
            other = c.relays.get(_other(type_, buf, start, end))
            if other is None or other.backend is not self or other.crossing:
                raise NineError(errno.EXDEV)
        elif type_ not in _PLAIN:
            return False
        elif type_ in _OPENS:
            hop.opened = True
        if tag in self.asked:
            raise NineError(errno.EINVAL, "tag already in use")
        self.asked[tag] = (type_, newfid, count, before)
        run = self.run
        if run[1] != start:
            self.settle(buf)
            run[0] = start
        run[1] = end
        return True

    def flush(self, tag: int, frame: bytes) -> None:
        """Pass on a Tflush of something that was passed on."""
        self.settle(self.c.frames.buf)
        self.asked[tag] = (_TFLUSH, NOFID, 0, None)
        self.out.append(frame)

    def settle(self, buf: bytearray) -> None:
        """End the run of frames that lie side by side."""
        start, end = self.run
        if end:
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

    def replies(self) -> None:
        """Pass on all complete replies that were received. Raises ProtocolError for what is none."""
        c, frames, asked = self.c, self.frames, self.asked
        first = last = 0
        while (frame := frames.next()) is not None:
            start, end = frame
            buf = frames.buf
            type_ = buf[start + 4]
            tag = _u16(buf, start + 5)[0]
            known = asked.pop(tag, None)
            if known is None:
                self._entered(tag, buf, start)
                continue
            at = _PATH_AT.get(type_)
            if at is not None:
                _put64(buf, start + at, _u64(buf, start + at)[0] ^ self.way.identity)
            elif known[0] == _WALK:
                self._walked(buf, start, type_, *known[1:])
            elif type_ == _RREADDIR:
                self._listed(buf, start, end)
            if last != start:
                if last:
                    c.queue(bytes(buf[first:last]))
                first = start
            last = end
        if last:
            c.queue(bytes(frames.view[first:last]))

    def _entered(self, tag: int, buf: bytearray, start: int) -> None:
        """Take the answer to a walk of our own; the client is told nothing of it."""
        entry = self.entering.pop(tag, None)
        if entry is None:
            raise ProtocolError(f"{self.way.address} answered what was not asked")
        entry.good = buf[start + 4] == _RWALK and _u16(buf, start + 7)[0] == entry.wanted
        entry.done.set()

    def _walked(self, buf: bytearray, start: int, type_: int, newfid: int, wanted: int, before: Hop | None) -> None:
        """Map the qids of a walk; one that did not go all the way has made no fid."""
        count = 0
        if type_ == _RWALK:
            count = _u16(buf, start + 7)[0]
            for at in range(start + 14, start + 14 + 13 * count, 13):
                _put64(buf, at, _u64(buf, at)[0] ^ self.way.identity)
        if type_ != _RWALK or count < wanted:
            if before is not None:
                self.c.relays[newfid] = before
            else:
                self.c.relays.pop(newfid, None)

    def _listed(self, buf: bytearray, start: int, end: int) -> None:
        at = start + 11
        while at + 24 <= end:
            _put64(buf, at + 5, _u64(buf, at + 5)[0] ^ self.way.identity)
            at += 24 + _u16(buf, at + 22)[0]


def _other(type_: int, buf: bytearray, start: int, end: int) -> int:
    """Return the second fid that a request names, NOFID if it is too short to."""
    at = start + 11
    if type_ == _TRENAMEAT and at + 2 <= end:
        at += 2 + _u16(buf, at)[0]
    return int(_u32(buf, at)[0]) if at + 4 <= end else NOFID
