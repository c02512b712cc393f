"""Listings of directories, in the form that is sent. Each is made once, in slices, for all who ask while the one before is in the making.

Theory
* A listing begins after the request for it, never before: otherwise a client that has just made a file would not find it. So a client that asks
  while one is in the making waits for the next, which is for all of them. For each user at most one listing of a directory is in the making.
* A listing of many names is made in slices (turns.py): requests for the names of a hundred large directories at once hold up only those who sent
  them.
* The server keeps the packed entries of Treaddir, and where each ends. An entry's offset is its number.
"""

import errno
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import islice
from time import monotonic_ns
from typing import Final

import attrs
import trio

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.server.fids import Place
from mk9p.server.turns import SLICE, Slices, User
from mk9p.tree import Node, settle
from mk9p.wire import QTDIR, QTSYMLINK, Qid, pack_dirents

SOME: Final = 64  # names between two looks at the clock


class Listing:
    """The entries of a directory, in their order."""

    __slots__ = ("_data", "_ends")

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = array("I")  # the end of each entry, in the data

    def extend(self, entries: list[tuple[Qid, int, str]]) -> None:
        """Put entries at the end: the qid, the type of readdir(3), and the name of each."""
        for qid, dtype, name in entries:
            self._data += pack_dirents(((qid, len(self._ends) + 1, dtype, name),))
            self._ends.append(len(self._data))

    def __len__(self) -> int:
        """Return how many entries there are."""
        return len(self._ends)

    @property
    def size(self) -> int:
        """How many bytes it takes."""
        return len(self._data) + 4 * len(self._ends)

    def entries(self, offset: int, room: int) -> bytes:
        """Return whole entries from an offset on, at most `room` bytes. Raises EINVAL if not even one fits."""
        ends = self._ends
        if offset >= len(ends):
            return b""
        start = ends[offset - 1] if offset else 0
        last = bisect_right(ends, start + room, offset)
        if last == offset:
            raise NineError(errno.EINVAL, "count is too small for the next directory entry")
        return bytes(self._data[start : ends[last - 1]])


@attrs.define(eq=False)
class _Round:
    """One making of a listing: when it is done, its result, and the round after it, if somebody waits for that."""

    done: trio.Event = attrs.field(factory=trio.Event)
    listing: Listing | None = None
    error: OSError | None = None
    next: "_Round | None" = None


class Listings:
    """The listings of a server's directories that are in the making."""

    def __init__(self, slices: Slices) -> None:
        self._slices = slices
        self._rounds: dict[object, _Round] = {}

    async def of(self, place: Place, who: Principal, user: User) -> Listing:
        """Return a listing that begins now or later. Raises what the directory says."""
        key = place.node.__class__, place.path, place.parent.path, who
        while (present := self._rounds.get(key)) is not None:
            if present.next is None:
                mine = present.next = _Round()
                try:
                    await present.done.wait()
                except BaseException:
                    self._over(key, mine, present)
                    raise
                return await self._make(key, mine, place, who, user)
            after = present.next
            await after.done.wait()
            if after.error is not None:
                raise after.error
            if after.listing is not None:
                return after.listing
        return await self._make(key, _Round(), place, who, user)

    async def _make(self, key: object, this: _Round, place: Place, who: Principal, user: User) -> Listing:
        self._rounds[key] = this
        try:
            listing = Listing()
            listing.extend([(Qid(QTDIR, 0, place.path), 4, "."), (Qid(QTDIR, 0, place.parent.path), 4, "..")])
            names = await settle(place.node.entries(who))

            def take(some: list[tuple[str, Node]]) -> None:
                listing.extend(
                    [
                        (Qid(node.qtype, 0, place.entry_path(name, node)), node.dtype or _d_type(node.qtype), name)
                        for name, node in some
                    ]
                )

            await in_slices(names, take, self._slices, user)
            this.listing = listing
        except OSError as error:
            this.error = error
            raise
        finally:
            self._over(key, this)
        return listing

    def _over(self, key: object, this: _Round, before: _Round | None = None) -> None:
        """Start the next round, if somebody waits for it; `before`: the one that this one still waited for."""
        if before is not None and before.next is this and self._rounds.get(key) is before:
            before.next = None
        elif this.next is not None:
            self._rounds[key] = this.next
        else:
            self._rounds.pop(key, None)
        this.done.set()


async def in_slices(
    items: Iterable[tuple[str, Node]], take: Callable[[list[tuple[str, Node]]], None], slices: Slices, user: User
) -> None:
    """Take names and nodes in pieces, as long as a slice lasts, then in the next; `items` may find them on the way."""
    ends, rest = monotonic_ns() + SLICE // 4, iter(items)
    while some := list(islice(rest, SOME)):
        take(some)
        if monotonic_ns() > ends:
            ends = await slices.next(user)


def _d_type(qtype: int) -> int:
    return 4 if qtype & QTDIR else 10 if qtype & QTSYMLINK else 8  # DT_DIR, DT_LNK, DT_REG of readdir(3)
