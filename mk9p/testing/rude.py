"""A client without manners, and the frames that it sends; the same for the same seed.

Most frames are those that a client might send: fids, names and tags from a few, so they often meet. Some are changed in one byte or more. Some are
hostile: wrong sizes, types that do not exist, numbers at the end of their range, frames cut off. Tags are used again while they wait, a tenth of
all frames is Tflush, and now and then Tversion starts everything anew.

It asks of a server what the manual asks: every reply can be understood in the agreed dialect, is no longer than msize, and answers a request that
was sent and not answered yet. The test, which knows the server, must check that nothing is left behind.
"""

import struct
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any, Final

import attrs
import trio

from mk9p.dial import SocketLink, dial
from mk9p.server import Server
from mk9p.testing.serving import joined
from mk9p.wire import MESSAGES, NOFID, NOTAG, TABLE, Dialect, Qid, WireStat
from mk9p.wire import messages as m

_REQUESTS: Final = {d: [cls for cls in MESSAGES if cls.__name__[0] == "T" and d in cls.dialects] for d in Dialect}
_OFTEN: Final = (m.Twalk, m.Twalk, m.Twalk, m.Tread, m.Tread, m.Twrite, m.Tclunk, m.Tflush, m.Tflush)
_EDGES: Final = (0, 1, 2, 7, 255, 4096, 65535, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1)
_BAD_NAMES: Final = ("", ".", "..", "/", "a/b", "x" * 300, "\ufffd", " ")
_VERSIONS: Final = ("9P2000.L", "9P2000.L", "9P2000.u", "9P2000", "9P1999", "unknown", "")
_MODES: Final = (0, 0, 0, 1, 2, 3, 16, 17, 64, 0o100, 0o1000, 0o2000, 0xFFFFFFFF)


def _packed(dialect: Dialect, cls: type[m.Message], fields: Sequence[Any]) -> bytes:
    codec = TABLE[dialect][cls.type]
    assert codec is not None
    return codec.pack(*fields)


def mutated(r: Random, frame: bytes) -> bytes:
    """Return a frame with other bytes behind its size, or one that is shorter or longer than its fields."""
    changed = bytearray(frame)
    for _ in range(r.choice((1, 1, 2, 8))):
        changed[r.randrange(4, len(changed))] = r.choice((0, 1, 127, 128, 255, r.randrange(256)))
    if r.random() < 0.3:
        changed = changed[: r.randrange(7, len(changed) + 1)] if r.random() < 0.5 else changed + r.randbytes(9)
    changed[:4] = len(changed).to_bytes(4, "little")
    return bytes(changed)


class Frames:
    """Makes frames of requests, one after the other; `paths` are those of files that may exist.

    `broken`: in how many of a thousand frames the framing itself is broken, which ends a conversation.
    """

    def __init__(
        self, seed: int, paths: Sequence[str] = (), *, dialect: Dialect = Dialect.L, broken: float = 1
    ) -> None:
        self.random, self.dialect, self.broken = Random(seed), dialect, broken / 1000
        self.paths = [tuple(path.split("/")) for path in paths] or [(name,) for name in _BAD_NAMES]
        self.names = (*(name for path in self.paths for name in path), *_BAD_NAMES)
        self.story: list[bytes] = []  # frames that make sense one after the other, still to come

    def next(self) -> bytes:
        """Return one more frame, or something that is no frame."""
        chance = self.random.random()
        if chance < self.broken:
            return self.hostile()
        frame = self.valid()
        return mutated(self.random, frame) if chance > 0.8 else frame

    def valid(self) -> bytes:
        """Return a frame that a client might send now."""
        r = self.random
        if self.story and r.random() < 0.7:
            return self.story.pop()
        if r.random() < 0.2:
            self._tell()
        cls = r.choice(_OFTEN) if r.random() < 0.4 else r.choice(_REQUESTS[self.dialect])
        if cls is m.Tversion:
            if r.random() < 0.8:
                cls = m.Twalk
            else:  # after that only an attach makes sense
                self.story = [self.attach()]
        fields = [self._field(field.name, field.kind.name) for field in cls.fields if self.dialect in field.dialects]
        if cls is m.Tattach and r.random() < 0.7:
            return self.attach()
        if cls is m.Twalk and r.random() < 0.6:
            fields[1] = 0
        if cls in (m.Tclunk, m.Tremove) and fields[1] == 0 and r.random() < 0.9:
            fields[1] = 1  # not the root: little works without it
        return _packed(self.dialect, cls, fields)

    def attach(self) -> bytes:
        """Return the frame that makes fid 0 the root."""
        fields = (self.random.randrange(24), 0, NOFID, "root", "", NOFID)
        return _packed(self.dialect, m.Tattach, fields[: 5 + (self.dialect is not Dialect.P9)])

    def _tell(self) -> None:
        """Begin a story: a fid walks somewhere, is opened, read, written, and clunked."""
        r, fid, linux = self.random, self.random.randrange(1, 8), self.dialect is Dialect.L
        how = r.choice((0, 0, 1, 2, 2))
        steps: list[tuple[type[m.Message], tuple[Any, ...]]] = [
            (m.Tclunk, (fid,)),
            (m.Twalk, (0, fid, r.choice(self.paths))),
            (m.Tlopen if linux else m.Topen, (fid, how)),
        ]
        for _ in range(r.randrange(4)):
            steps.append((m.Tread, (fid, r.choice((0, 0, 3, 100)), r.choice((1, 100, 8000, 1 << 20)))))
            steps.append(
                (m.Twrite, (fid, 0, r.choice((b"word 1\n", b"slow\nword 2\n", b"nothing such\n", b"x" * 3000))))
            )
        if r.random() < 0.5:
            steps.append((m.Tclunk, (fid,)))
        self.story = [_packed(self.dialect, cls, (r.randrange(48), *fields)) for cls, fields in reversed(steps)]

    def hostile(self) -> bytes:
        """Return a frame whose size is impossible or wrong, or no frame at all."""
        r, frame = self.random, bytearray(self.valid())
        kind = r.randrange(4)
        if kind == 0:
            frame[:4] = r.choice((0, 1, 6, (1 << 24) + 1, (1 << 32) - 1)).to_bytes(4, "little")
        elif kind == 1:
            frame[:4] = (len(frame) + r.randrange(1, 50)).to_bytes(4, "little")
        elif kind == 2:
            return r.randbytes(r.randrange(1, 100))
        else:
            return struct.pack("<IBH", 7, r.randrange(256), r.randrange(1 << 16)) * r.randrange(1, 5)
        return bytes(frame)

    def _field(self, name: str, kind: str) -> Any:
        r = self.random
        if name in ("tag", "oldtag"):
            return r.randrange(48) if r.random() < 0.95 else r.choice((NOTAG, r.randrange(1 << 16)))
        if name == "msize":
            return r.choice((8192, 8192, 8192, 65536, 65536, 1 << 20, 256, 100, 0, (1 << 32) - 1))
        if name == "version":
            return self.dialect.version if r.random() < 0.7 else r.choice(_VERSIONS)
        if name == "uname":
            return r.choice(("root", "none", "", "nobody", "no such user"))
        if name.endswith("fid"):
            return r.randrange(8) if r.random() < 0.95 else r.choice((NOFID, r.randrange(1 << 32)))
        if name in ("mode", "flags") and r.random() < 0.8:
            return r.choice(_MODES) & (0xFF if kind == "u8" else 0xFFFFFFFF)
        if name == "offset" and r.random() < 0.8:
            return r.choice((0, 0, 0, 1, 5, 100))
        match kind:
            case "string":
                return r.choice(self.names)
            case "names":
                return tuple(r.choice(self.names) for _ in range(r.choice((0, 1, 1, 1, 2, 2, 3, 16))))
            case "data":
                return r.randbytes(r.choice((0, 1, 8, 8, 100, 2000))) if r.random() < 0.5 else b"word 1\n"
            case "wstat":
                return self._wish()
        return r.choice(_EDGES) % (1 << int(kind[1:]))

    def _wish(self) -> WireStat:
        r = self.random
        one, two, four, eight = (r.choice((0, 0o644, (1 << bits) - 1, (1 << bits) - 1)) for bits in (8, 16, 32, 64))
        four &= 0xFFFFFFFF
        name = r.choice(("", "", r.choice(self.names)))
        return WireStat(two & 0xFFFF, four, Qid(one & 255, four, eight), four, four, four, eight, name, "", "", "")


@attrs.define
class Rudeness:
    """What a rude client has done and seen: counts."""

    frames: int = 0
    bytes: int = 0
    replies: int = 0
    errors: int = 0
    connections: int = 0
    hung_up: int = 0  # by the server


async def rude(
    where: Server | str,
    seed: int,
    *,
    frames: int = 1000,
    paths: Sequence[str] = (),
    dialect: Dialect = Dialect.L,
    broken: float = 1,
) -> Rudeness:
    """Send a number of frames to a running server of this process, or to a dial string, as `Frames` makes them; return what happened.

    It makes a new connection whenever one has ended: after a broken frame, after some hundred frames, or in the middle of one. One in five never
    reads. Raises AssertionError for a reply that no server may give.
    """
    made = Frames(seed, paths, dialect=dialect, broken=broken)
    count = Rudeness()
    while count.frames < frames:
        if isinstance(where, Server):
            sock = joined(where)
        else:
            link = await dial(where)
            assert isinstance(link, SocketLink), "a dial string of sockets"
            sock = link.sock
        async with trio.SocketStream(trio.socket.from_stdlib_socket(sock)) as stream:
            await _Talk(stream, made, count).run(min(made.random.choice((1, 50, 300, 1000)), frames - count.frames))
    return count


class _Talk:
    """One connection of a rude client."""

    def __init__(self, stream: trio.SocketStream, made: Frames, count: Rudeness) -> None:
        self.stream, self.made, self.count = stream, made, count
        self.dialect, self.msize = made.dialect, 0
        self.asked: Counter[int] = Counter()
        self.over = False

    async def run(self, frames: int) -> None:
        r, count = self.made.random, self.count
        count.connections += 1
        start = [_packed(self.dialect, m.Tversion, (NOTAG, r.choice((8192, 65536)), self.dialect.version))]
        start.append(self.made.attach())
        todo = [*start, *(self.made.next() for _ in range(frames))]
        count.frames += frames
        ends_within, reads = r.random() < 0.2, r.random() < 0.8
        pieces = self._pieces(todo, ends_within)
        async with trio.open_nursery() as nursery:
            if reads:
                nursery.start_soon(self._receive)
            try:
                with trio.CancelScope() as scope:
                    if not reads:
                        scope.deadline = trio.current_time() + 0.05  # then the server takes no more, as it should
                    for piece in pieces:
                        await self.stream.send_all(piece)
                        count.bytes += len(piece)
                if reads and not ends_within:
                    await self.stream.send_eof()
            except trio.BrokenResourceError:
                count.hung_up += 1
            if ends_within:
                nursery.cancel_scope.cancel()

    def _pieces(self, frames: list[bytes], ends_within: bool) -> list[bytes]:
        """Note the requests, and cut the stream where no frame ends; the last frame may be cut off."""
        r, whole = self.made.random, b"".join(frames)
        for frame in frames:
            self.over = self.over or int.from_bytes(frame[:4], "little") != len(frame)
            self.asked[int.from_bytes(frame[5:7], "little")] += 1
        if ends_within:
            whole = whole[: -r.randrange(1, len(frames[-1]) + 1)]
        pieces, at = [], 0
        while at < len(whole):
            size = r.choice((1, 5, 100, 4096, 65536, 65536))
            pieces.append(whole[at : at + size])
            at += size
        return pieces

    async def _receive(self) -> None:
        buffer = bytearray()
        while True:
            try:
                data = await self.stream.receive_some()
            except trio.BrokenResourceError:
                return
            if not data:
                return
            buffer += data
            at = 0
            while len(buffer) - at >= 7 and len(buffer) - at >= (size := int.from_bytes(buffer[at : at + 4], "little")):
                assert size >= 7, f"a reply of {size} bytes"
                self._reply(bytes(buffer[at : at + size]))
                at += size
            del buffer[:at]

    def _reply(self, frame: bytes) -> None:
        """Check one reply. After a broken frame, nobody knows any more what was asked."""
        type_, tag = frame[4], int.from_bytes(frame[5:7], "little")
        self.count.replies += 1
        self.count.errors += type_ in (m.Rlerror.type, m.Rerror.type)
        codec = TABLE[self.dialect][type_]
        assert codec is not None, f"a reply of type {type_} in {self.dialect.version}"
        assert codec.name[0] == "R", f"{codec.name} is no reply"
        fields = codec.unpack(frame, 5, len(frame))
        if type_ == m.Rversion.type:
            agreed = Dialect.of(fields[2])
            if agreed is not None:
                self.dialect, self.msize = agreed, fields[1]
        else:
            assert len(frame) <= (self.msize or len(frame)), f"{codec.name} of {len(frame)} bytes, msize {self.msize}"
        if not self.over:
            self.asked[tag] -= 1
            assert self.asked[tag] >= 0, f"{codec.name} with tag {tag}, which nothing was asked with"
