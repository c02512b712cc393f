"""What the fast way to another server (relay.py) keeps: the link there, fids that are there, and requests that were sent."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import attrs
import trio

from mk9p.auth import Principal
from mk9p.errors import ProtocolError
from mk9p.server.fids import Place
from mk9p.server.links import IN, OUT, Links
from mk9p.server.turns import Party, User
from mk9p.tree import Node, Way
from mk9p.tree.later import Later
from mk9p.wire import FrameBuffer
from mk9p.wire import messages as m

if TYPE_CHECKING:
    from mk9p.dial import Link
    from mk9p.session import Request
    from mk9p.status import Lock

ONCE: Final = -1  # the flags of an open file that cannot be opened again
ROOT: Final = 0xFFFFFFFE  # this server's fid of the other server's root: the last number that a client would reach

# A request whose answer matters to nobody here is a number: its type, the server that got it (`Far.mark`), how many bytes it asks for, and when it
# came (blocks.py).
WHOSE: Final = 0xFFFFFFFF  # the type, and the server that got it
COUNT: Final = 32  # where the bytes begin
WHEN: Final = 64  # where the time begins, in ns


class Far(Party):
    """A client's connection to one other server, as one user; `asked` is what was passed on for the client, to any server.

    `mark` distinguishes it from the client's others, in the numbers of blocks.py.
    """

    def __init__(self, way: Way, who: Principal, user: User, links: Links, asked: "dict[int, Known]") -> None:
        super().__init__(user, 0)  # turns.py counts in blocks here
        self.way, self.who, self.links = way, who, links
        self.link: Link | None = None  # None: not made yet, or gone
        self.tried = trio.Event()  # making it has succeeded, or failed
        self.resting = 0.0  # no new attempt before this time
        self.frames: FrameBuffer
        self.asked = asked  # by tag; a number if the answer matters to nobody here (blocks.py)
        self.mark = 0
        self.out: list[bytes | bytearray | memoryview] = []
        self.run: list[int] = [0, 0]  # neighbouring frames in the client's buffer that are to be passed on
        self.blocked = False
        self.root = 0  # the qid.path of its root, there
        self.odd = False  # it was told of that it lists what no file can be called
        self.first: tuple[int, Own] | None = None  # the walk that went out when it was made, and was not taken yet
        self.dots: bool | None = None  # whether `..` of that is the root; None if nobody knows yet
        self.limbo: set[int] = set()  # numbers of fids that may yet be made there (owed.py)

    @property
    def dead(self) -> bool:
        return self.link is None

    def wait(self, *, receive: bool) -> None:
        """Wait for what the link can do now: send what is left, and receive if there is room for it."""
        if self.link is None:
            return
        if self.more and receive:
            self.links.call(self)
        wanted = (OUT if self.blocked else 0) | (IN if receive else 0)
        if wanted:
            self.links.wait_for(self.link.rfd, self, wanted)
        else:
            # epoll(7) would report a hang-up again and again, and what came before it must still be received
            self.links.forget(self.link.rfd)

    def goes(self, buf: bytearray, start: int, end: int) -> None:
        """Pass on what is in a buffer, from one frame's start to another's end."""
        run = self.run
        if run[1] != start:
            self.end_run(buf)
            run[0] = start
        run[1] = end

    def end_run(self, buf: bytearray) -> None:
        """End the run of neighbouring frames in a buffer."""
        start, end = self.run
        if start < end:
            self.out.append(memoryview(buf)[start:end])
            self.run[:] = (0, 0)

    def send(self, buf: bytearray) -> None:
        """Send what is to be passed on; what the kernel does not take is copied and waits, and `blocked` says so. Raises OSError."""
        self.end_run(buf)
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

    def cool(self) -> bool:
        """Leave the receive buffer to others, if nothing is in it; return whether it has none now (warm.py)."""
        if not self.frames.pending:
            self.frames.shrink()
            self.frames.put_away()
        return not self.frames.buf

    def close(self) -> None:
        """Let go of the link. A second call does nothing."""
        link, self.link = self.link, None
        if link is not None:
            self.links.warm.forget(self)
            self.links.forget(link.rfd)
            link.close()
        self.out.clear()
        self.run[:] = (0, 0)
        self.blocked = False
        for known in self.asked.values():
            if isinstance(known, Own) and known.backend is self:
                known.done.settle()

    def mine(self, known: "int | Asked | Own") -> bool:
        """Tell whether a request was passed on to this server, or is this server's own request to it."""
        return (known & WHOSE & ~0xFF) == self.mark if isinstance(known, int) else known.backend is self

    def garbage(self, type_: int) -> ProtocolError:
        return ProtocolError(f"{self.way.address} sent a message of type {type_} that answers nothing")

    def too_much(self, type_: int, count: int) -> ProtocolError:
        return ProtocolError(f"{self.way.address} answers with {count} bytes that were not asked for (type {type_})")


class Hop:
    """A fid that another server has, or the crossing to it: the place of the crossing, the names from there, and the qid.path that they led to.

    `lead`: the node that the first of the names is in, if the place's own may have become another server's since. `flags` are those of an open file,
    ONCE for one that can't be opened again. `dirty`: it was written, and not synced; `locks` are its locks.
    """

    __slots__ = (
        "backend",
        "crossing",
        "dirty",
        "flags",
        "lead",
        "locks",
        "maybe",
        "named",
        "names",
        "opening",
        "path",
        "place",
        "sure",
        "void",
        "way",
    )

    def __init__(
        self,
        backend: Far,
        place: Place,
        names: tuple[str, ...],
        way: Way | None = None,
        lead: Node | None = None,
    ) -> None:
        self.backend, self.place, self.names, self.lead = backend, place, names, lead
        self.way, self.crossing = way, way is not None and not way.whole
        self.path: int | None = None
        self.flags: int | None = None
        self.dirty = False
        self.locks: list[Lock] | None = None
        self.opening: trio.Event | None = None  # it is being opened again
        self.sure = True  # the answer that made it a fid is there
        self.named: bool | None = (
            True  # if it is a fid, it is that of its names; None: it may become that of a new file
        )
        self.void = False  # the answer was that there is no fid
        self.maybe = False

    @property
    def opened(self) -> bool:
        return self.flags is not None


class Asked:
    """A request that was passed on to `backend` and whose answer tells something of a fid.

    For a walk, `hop` is what it makes of the fid `number`, which was `before`, by `count` names from `base`, when that was reached by `names`. An
    open makes `hop` an open file; one that creates, and Trename, let it stand for `names` below it, or below `base`. For a Tflush, `number` is the
    tag that it flushes, `count` its own, as they went over, and `old` the flushed request. `since`: when it came, on the monotonic clock in ns.
    `flags`: of an open file. `wish`: the lock that it asks for; or for a sync, whether something was written before.
    """

    __slots__ = (
        "backend",
        "base",
        "before",
        "count",
        "flags",
        "hop",
        "names",
        "number",
        "old",
        "request",
        "since",
        "type",
        "wish",
    )

    def __init__(
        self,
        backend: "Far",
        type_: int,
        number: int,
        hop: Hop | None = None,
        base: Hop | None = None,
        names: tuple[str, ...] = (),
        count: int = 0,
        before: Hop | None = None,
        old: "int | Asked | None" = None,
    ) -> None:
        self.backend, self.old = backend, old
        self.type, self.number, self.hop, self.base, self.names = type_, number, hop, base, names
        self.count, self.before = count, before
        self.request: Request | None = None
        self.since = 0
        self.flags = ONCE
        self.wish: Lock | bool | None = None


@attrs.define(eq=False)
class Own:
    """A request of this server's own: `done` is set when its answer, the frame `said`, is known, or will never come.

    `fits`: it is an Rwalk of as many qids as it says, and no more than there may be. `good`: the walk went all the way; then its last qid.path
    there is `path`. `orphan`: the fid that it makes, and that nobody wants any more.
    """

    backend: Far
    wanted: int
    done: Later = attrs.field(factory=Later)
    fits: bool = False
    good: bool = False
    path: int | None = None
    said: bytearray | None = None
    orphan: int | None = None

    def answered(self, type_: int, buf: bytearray, start: int, size: int) -> None:
        """Take the answer."""
        count = int.from_bytes(buf[start + 7 : start + 9], "little")
        self.fits = type_ == m.Rwalk.type and size == 9 + 13 * count and count <= self.wanted
        self.good = self.fits and count == self.wanted
        if self.good and self.wanted:
            self.path = int.from_bytes(buf[start + size - 8 : start + size], "little")
        self.said = buf[start : start + size]
        self.done.settle()


class Alias:
    """A request that was passed on with another tag than the client's, `tag`, to which an old answer may still come (owed.py)."""

    __slots__ = ("known", "tag")

    def __init__(self, tag: int, known: int | Asked) -> None:
        self.tag, self.known = tag, known


class Late:
    """A tag of requests that were given up and may still be answered: `owed` says by which servers, and what they were.

    The client may use it again: then that request goes over with the tag `alias`.
    """

    __slots__ = ("alias", "owed")

    def __init__(self) -> None:
        self.owed: dict[Far, int | Asked] = {}
        self.alias: int | None = None


Known = int | Asked | Own | Alias | Late


class Patience:
    """What to do if something takes too long: in the order in which it began, because all have the same time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._given: dict[object, tuple[float, Callable[[], None]]] = {}
        self._some = trio.Event()

    def begin(self, what: object, give_up: Callable[[], None]) -> None:
        """Wait for something, but not for ever."""
        self._given[what] = trio.current_time() + self.seconds, give_up
        self._some.set()

    def end(self, what: object) -> None:
        """Stop waiting for it."""
        self._given.pop(what, None)

    async def watch(self) -> None:
        """Give up what takes too long."""
        while True:
            await self._some.wait()
            self._some = trio.Event()
            while self._given:
                what, (until, give_up) = next(iter(self._given.items()))
                await trio.sleep_until(until)
                if self._given.pop(what, None) is not None:
                    give_up()
