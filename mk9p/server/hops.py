"""What the fast way to another server (relay.py) keeps: fids that are there, and requests that were sent."""

from typing import TYPE_CHECKING

import attrs
import trio

from mk9p.server.fids import Place
from mk9p.tree import Way
from mk9p.wire import messages as m

if TYPE_CHECKING:
    from mk9p.server.relay import Backend


class Hop:
    """A fid that is theirs, or the crossing to it: the place where the crossing is, and the names from there."""

    __slots__ = ("backend", "crossing", "names", "opened", "place", "sure", "void", "way")

    def __init__(self, backend: "Backend", place: Place, names: tuple[str, ...], way: Way | None = None) -> None:
        self.backend, self.place, self.names = backend, place, names
        self.way, self.crossing = way, way is not None and not way.whole
        self.opened = False
        self.sure = True  # the answer that made it a fid is there
        self.void = False  # that was that it is none


class Asked:
    """A request that was passed on and whose answer tells something of a fid.

    Of a walk, `hop` is what it makes of the fid `number`, which was `before`, by `count` names from `base`, when that was reached by `names`.
    An open makes `hop` an open file; one that creates, and Trename, let it stand for `names` below it, or below `base`. Of a Tflush, `number` is the
    tag that it flushes. `since`: when it came, on the monotonic clock in ns.
    """

    __slots__ = ("base", "before", "count", "hop", "names", "number", "since", "type")

    def __init__(
        self,
        type_: int,
        number: int,
        hop: Hop | None = None,
        base: Hop | None = None,
        names: tuple[str, ...] = (),
        count: int = 0,
        before: Hop | None = None,
    ) -> None:
        self.type, self.number, self.hop, self.base, self.names = type_, number, hop, base, names
        self.count, self.before = count, before
        self.since = 0


@attrs.define(eq=False)
class Own:
    """A request of our own: `done` when its answer is known, `good` if it is a walk that went all the way."""

    wanted: int
    done: trio.Event = attrs.field(factory=trio.Event)
    good: bool = False

    def answered(self, type_: int, buf: bytearray, start: int) -> None:
        self.good = type_ == m.Rwalk.type and int.from_bytes(buf[start + 7 : start + 9], "little") == self.wanted
        self.done.set()
