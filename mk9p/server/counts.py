"""What a server counts of its requests: how many, how many failed, bytes, and how long they took; by kind of message and by client.

Theory
* Each connection has tables of its own, a `Row` for each kind of message that it has sent. The server's are their sum, made when somebody looks,
  with what clients left that are gone. So nothing is counted twice, and rare questions cost nothing in between.
* The fast path knows *runs*: neighbouring requests of one kind in what was received. A request costs it a comparison and an increment of a local.
  A run costs a tuple. A batch costs one reading of the clock and one call, when its replies are sent. Bytes are differences of places in buffers.
* So the time of a request is that of its batch: from the wake-up that brought it (or the end of the batch before, if a link was read again at
  once) until its reply, and those of all that came with it, were given to the kernel. That is what its client waits for here, no less, because no
  reply leaves earlier. It does not include time in the kernel's queues, and in the client's.
* There are three *ways*, each with its own times; otherwise one reader of an events file would hide what everybody else gets: `direct`, answered
  in the batch that brought it; `waited`, for an event, a thread, another server or its turn, from when it was received; `relayed`, passed on
  unchanged to another server, whose waiting nobody here knows of. A flush that waits for the request that it flushes, and a flushed request, have
  no time.
* A request that is answered at once is counted with its batch. A request that waits or is passed on is counted when that begins, whatever happens
  to it; the bytes of its reply, and whether that is an error, when there is one. Bytes are those of whole messages, size[4] included: everything
  that goes over a link, except what a peer sends that is no message.
* Times are counted in buckets by the number of their binary digits in ns: bucket k is for times below 2**k ns, and of at least half of that. One
  histogram then goes from ns to centuries, needs no chosen bounds, and is never wrong by more than a factor of two.
"""

from collections.abc import Iterable, Iterator
from time import monotonic_ns
from typing import Final

from mk9p.wire import messages as m

BUCKETS: Final = 65  # a time of 64 binary digits is 585 years
WAYS: Final = ("direct", "waited", "relayed")

OTHER: Final = 0  # for all numbers that are no request's: so nobody can make us keep more rows than there are messages
_NAMES: Final = {
    value.type: name[1:]
    for name, value in vars(m).items()
    if name[0] == "T" and isinstance(value, type) and hasattr(value, "type")
}


def name_of(type_: int) -> str:
    """Return the name of a kind of request: `getattr` for Tgetattr, `other` for a number without a request."""
    return _NAMES.get(type_, "other")


class Times:
    """How often something took how long: `buckets[k]` counts times below 2**k ns, `ns` is the sum of all."""

    __slots__ = ("buckets", "ns")

    def __init__(self) -> None:
        self.buckets = [0] * BUCKETS
        self.ns = 0

    def note(self, took: int, n: int = 1) -> None:
        """Count `n` times of `took` ns."""
        self.buckets[took.bit_length()] += n
        self.ns += n * took

    def add(self, other: "Times") -> None:
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]
        self.ns += other.ns

    @property
    def count(self) -> int:
        return sum(self.buckets)

    def quantile(self, part: float) -> int:
        """Return the ns that a part (0 to 1) of the times stayed below, a power of two; 0 if there are none."""
        wanted, seen = part * self.count, 0
        for k, n in enumerate(self.buckets):
            seen += n
            if n and seen >= wanted:
                return 1 << k
        return 0


class Row:
    """The counts of one kind of message: requests, errors, bytes received and sent, and the times of each way."""

    __slots__ = ("count", "direct", "errors", "received", "relayed", "sent", "waited")

    def __init__(self) -> None:
        self.count = self.errors = self.received = self.sent = 0
        self.direct = Times()
        self.waited: Times | None = None
        self.relayed: Times | None = None

    def add(self, other: "Row") -> None:
        self.count += other.count
        self.errors += other.errors
        self.received += other.received
        self.sent += other.sent
        for way, times in other.ways():
            self.times(way).add(times)

    def times(self, way: str) -> Times:
        """Return the times of a way."""
        times: Times | None = getattr(self, way)
        if times is None:
            times = Times()
            setattr(self, way, times)
        return times

    def ways(self) -> Iterator[tuple[str, Times]]:
        """Give the ways that some requests took, and their times."""
        for way in WAYS:
            times = getattr(self, way)
            if times is not None and times.count:
                yield way, times

    def at_work(self) -> Times:
        """Return the times of all requests that did not wait here."""
        total = Times()
        total.add(self.direct)
        if self.relayed is not None:
            total.add(self.relayed)
        return total


class Counts:
    """The tables of one connection. `since`: when the requests that are now being answered were received, on the monotonic clock in ns."""

    __slots__ = ("made", "rows", "runs", "since")

    def __init__(self) -> None:
        self.forget()
        self.since = monotonic_ns()
        # answered, and not yet sent: type, count, bytes received, bytes of the replies
        self.runs: list[tuple[int, int, int, int]] = []

    def forget(self) -> None:
        """Begin anew with nothing counted."""
        self.rows: list[Row | None] = [None] * 256
        self.made: list[Row] = []  # the existing rows

    def row(self, type_: int) -> Row:
        """Return the row of a kind of message."""
        kind = type_ if type_ in _NAMES else OTHER
        row = self.rows[kind]
        if row is None:
            row = self.rows[kind] = Row()
            self.made.append(row)
        return row

    # the engine's own requests

    def batch(self) -> None:
        """Note that everything that was answered is sent."""
        now = monotonic_ns()
        took = now - self.since
        self.since = now
        bucket, rows = took.bit_length(), self.rows
        for type_, count, received, sent in self.runs:
            row = rows[type_] or self.row(type_)
            row.count += count
            row.received += received
            row.sent += sent
            times = row.direct
            times.buckets[bucket] += count
            times.ns += count * took
        self.runs.clear()

    def failed(self, type_: int) -> None:
        """Count an error, which is the reply to a request of this kind."""
        self.row(type_).errors += 1

    def answered(self, type_: int, sent: int, since: int) -> None:
        """Count the reply to a request that had waited since it was received, on the monotonic clock."""
        row = self.row(type_)
        row.sent += sent
        row.times("waited").note(monotonic_ns() - since)

    def flushed(self, sent: int) -> None:
        """Count the bytes of replies to flushes that had to wait for the requests that they flush."""
        self.row(m.Tflush.type).sent += sent

    # requests that are passed on (relay.py), or wait

    def passed(self, type_: int, count: int, received: int) -> None:
        """Count requests of one kind, of `received` bytes, that are not answered in the batch that brought them."""
        row = self.rows[type_] or self.row(type_)
        row.count += count
        row.received += received

    def returned(self, type_: int, count: int, errors: int, sent: int, took: int) -> None:
        """Count replies of another server to requests of one kind, `errors` among them, of `sent` bytes, each of which took `took` ns."""
        row = self.rows[type_] or self.row(type_)
        row.errors += errors
        row.sent += sent
        times = row.relayed or row.times("relayed")
        times.buckets[took.bit_length()] += count
        times.ns += count * took


def summed(tables: Iterable[Iterable[Row | None]]) -> dict[int, Row]:
    """Return the sum of rows by kind of message, in the order of their numbers."""
    total: dict[int, Row] = {}
    for rows in tables:
        for type_, row in enumerate(rows):
            if row is not None:
                total.setdefault(type_, Row()).add(row)
    return dict(sorted(total.items()))


def overall(rows: Iterable[Row]) -> Row:
    """Return the sum of rows of all kinds."""
    total = Row()
    for row in rows:
        total.add(row)
    return total
