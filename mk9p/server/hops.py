"""What the fast way to another server (relay.py) keeps: fids that are there, and requests that were sent."""

from typing import TYPE_CHECKING, Final

import attrs
import trio

from mk9p.server.fids import Place
from mk9p.tree import Node, Way
from mk9p.wire import messages as m

if TYPE_CHECKING:
    from mk9p.server.relay import Backend

ROOT: Final = 0xFFFFFFFE  # our fid of the other server's root: the last number that a client would come to

# A request whose answer tells nothing is a number: its type, whom it was passed on to (`Backend.mark`), how many bytes it asks for, and when it came
# (blocks.py).
WHOSE: Final = 0xFFFFFFFF  # the type, and whom it was passed on to
COUNT: Final = 32  # where the bytes begin
WHEN: Final = 64  # where the time begins, in ns


class Hop:
    """A fid that is theirs, or the crossing to it: the place where the crossing is, the names from there, and the qid.path that they led to.

    `lead`: the node that the first of the names is in, where the place's own may have become
    another server's since.
    """

    __slots__ = ("backend", "crossing", "lead", "names", "opened", "path", "place", "sure", "void", "way")

    def __init__(
        self,
        backend: "Backend",
        place: Place,
        names: tuple[str, ...],
        way: Way | None = None,
        lead: Node | None = None,
    ) -> None:
        self.backend, self.place, self.names, self.lead = backend, place, names, lead
        self.way, self.crossing = way, way is not None and not way.whole
        self.path: int | None = None
        self.opened = False
        self.sure = True  # the answer that made it a fid is there
        self.void = False  # that was that it is none


class Asked:
    """A request that was passed on to `backend` and whose answer tells something of a fid.

    Of a walk, `hop` is what it makes of the fid `number`, which was `before`, by `count` names from `base`, when that was reached by `names`.
    An open makes `hop` an open file; one that creates, and Trename, let it stand for `names` below it, or below `base`. Of a Tflush, `number` is the
    tag that it flushes, `count` its own, as they went over, and `old` what was flushed. `since`: when it came, on the monotonic clock in ns.
    """

    __slots__ = ("backend", "base", "before", "count", "hop", "names", "number", "old", "since", "type")

    def __init__(
        self,
        backend: "Backend",
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
        self.since = 0


@attrs.define(eq=False)
class Own:
    """A request of our own: `done` when its answer, the frame `said`, is known, or will never come.

    `fits`: it is an Rwalk of as many qids as it says, and no more than there may be. `good`: the
    walk went all the way; its last qid.path there is `path` then. `orphan`: the fid that it makes,
    and that nobody wants any more.
    """

    backend: "Backend"
    wanted: int
    done: trio.Event = attrs.field(factory=trio.Event)
    fits: bool = False
    good: bool = False
    path: int | None = None
    said: bytearray | None = None
    orphan: int | None = None

    def answered(self, type_: int, buf: bytearray, start: int, size: int) -> None:
        count = int.from_bytes(buf[start + 7 : start + 9], "little")
        self.fits = type_ == m.Rwalk.type and size == 9 + 13 * count and count <= self.wanted
        self.good = self.fits and count == self.wanted
        if self.good and self.wanted:
            self.path = int.from_bytes(buf[start + size - 8 : start + size], "little")
        self.said = buf[start : start + size]
        if self.orphan is not None:
            self.backend.limbo.discard(self.orphan)
            if self.good:
                self.backend.leave(self.orphan)
        self.done.set()

    async def wait(self, number: int) -> None:
        """Wait for the answer to a walk to a fid. Cancelled, the fid is clunked when it is there."""
        try:
            await self.done.wait()
        except trio.Cancelled:
            if not self.done.is_set():
                self.orphan = number
                self.backend.limbo.add(number)
            elif self.good and not self.backend.dead:
                self.backend.leave(number)
            raise


class Alias:
    """A request that was passed on by another tag than the client's, `tag`, to which an old answer may still come (owed.py)."""

    __slots__ = ("known", "tag")

    def __init__(self, tag: int, known: int | Asked) -> None:
        self.tag, self.known = tag, known


class Late:
    """A tag of requests that were given up and may still be answered: `owed` tells by whom, and what they were.

    The client may use it again: that request goes over by the tag `alias` then.
    """

    __slots__ = ("alias", "owed")

    def __init__(self) -> None:
        self.owed: dict[Backend, int | Asked] = {}
        self.alias: int | None = None


Known = int | Asked | Own | Alias | Late
