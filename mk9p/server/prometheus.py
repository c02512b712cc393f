"""What a server has counted, in Prometheus's text format 0.0.4.

A family is its HELP and TYPE lines, then its samples. Buckets are cumulative, with their bounds `le` in seconds: the powers of two ns from about a
microsecond to about a minute, the same for all, so sums over servers mean something. Counters go back to 0 at a `reset`, as at a restart: rate()
knows that.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from mk9p.server.counts import Row, Times, name_of, overall
from mk9p.server.refusals import place
from mk9p.server.tally import Tally

if TYPE_CHECKING:
    from mk9p.server.connection import Connection

LOWEST: Final = 10  # the first bucket shown is for times below 2**10 ns, with all before ...
HIGHEST: Final = 36  # ... the last for times below 2**36; those after are only in +Inf
NS: Final = 1_000_000_000

Labels = dict[str, object]
Sample = tuple[Labels, float]


def exposition(tally: Tally, *, clients: bool) -> str:
    """Return the whole text; `clients`: with what is known of each."""
    return "".join(_families(tally, clients))


def _families(tally: Tally, clients: bool) -> Iterator[str]:
    rows: list[tuple[Labels, Row]] = [({"message": name_of(type_)}, row) for type_, row in tally.rows().items()]
    connections = sorted(tally.connections, key=lambda c: c.number)
    yield from _rows("mk9p", "", rows)
    ways = [(labels | {"way": way}, times) for labels, row in rows for way, times in row.ways()]
    yield _histogram("mk9p_request_duration_seconds", "Time from receiving requests to sending their replies.", ways)
    yield _single("mk9p_connections", "gauge", "Connections that are open.", len(connections))
    yield _single("mk9p_accepted_connections_total", "counter", "Connections that were made.", tally.accepted)
    refused: list[Sample] = [({"why": why}, count) for why, count in tally.refused.items()]
    yield _family("mk9p_refused_connections_total", "counter", "Connections that were refused.", refused)
    yield _single("mk9p_fids", "gauge", "Fids in use.", sum(c.open_fids for c in connections))
    yield _single("mk9p_in_flight", "gauge", "Requests that wait.", sum(c.in_flight for c in connections))
    yield _single("mk9p_since_seconds", "gauge", "Unix time since when is counted.", tally.since / NS)
    if clients:
        yield from _clients(connections)


def _clients(connections: Iterable["Connection"]) -> Iterator[str]:
    """Give what is known of each connection: only of open ones."""
    rows = [(_labels(c), overall(row for row in c.counts.rows if row is not None)) for c in connections]
    yield from _rows("mk9p_client", " of a client", rows)
    yield _histogram(
        "mk9p_client_request_duration_seconds",
        "Time from receiving requests of a client to sending their replies.",
        [(labels | {"way": way}, times) for labels, row in rows for way, times in row.ways()],
    )
    yield _family("mk9p_client_fids", "gauge", "Fids of a client.", [(_labels(c), c.open_fids) for c in connections])
    kept: list[Sample] = [
        (_labels(c), sum(account.used for account in {c.account, *c.accounts.values()})) for c in connections
    ]
    yield _family("mk9p_client_held_bytes", "gauge", "Bytes that are kept for a client.", kept)
    waiting: list[Sample] = [(_labels(c), c.in_flight) for c in connections]
    yield _family("mk9p_client_in_flight", "gauge", "Requests of a client that wait.", waiting)


def _labels(c: "Connection") -> Labels:
    return {"client": c.number, "address": place(c.link.peer), "user": ",".join(c.users)}


def _rows(prefix: str, whose: str, rows: Sequence[tuple[Labels, Row]]) -> Iterator[str]:
    """Give the counters of rows."""
    for name, field, what in (
        ("requests", "count", "Requests that were received"),
        ("errors", "errors", "Requests that were answered with an error"),
        ("received_bytes", "received", "Bytes of requests"),
        ("sent_bytes", "sent", "Bytes of replies"),
    ):
        samples: list[Sample] = [(labels, getattr(row, field)) for labels, row in rows]
        yield _family(f"{prefix}_{name}_total", "counter", f"{what}{whose}.", samples)


def _single(name: str, kind: str, what: str, value: float) -> str:
    return _family(name, kind, what, [({}, value)])


def _family(name: str, kind: str, what: str, samples: Iterable[Sample]) -> str:
    return _head(name, kind, what) + "".join(_sample(name, labels, value) for labels, value in samples)


def _histogram(name: str, what: str, times: Iterable[tuple[Labels, Times]]) -> str:
    lines = [_head(name, "histogram", what)]
    for labels, some in times:
        seen = sum(some.buckets[:LOWEST])
        for k in range(LOWEST, HIGHEST + 1):
            seen += some.buckets[k]
            lines.append(_sample(f"{name}_bucket", labels | {"le": (1 << k) / NS}, seen))
        lines += (
            _sample(f"{name}_bucket", labels | {"le": "+Inf"}, some.count),
            _sample(f"{name}_sum", labels, some.ns / NS),
            _sample(f"{name}_count", labels, some.count),
        )
    return "".join(lines)


def _head(name: str, kind: str, what: str) -> str:
    return f"# HELP {name} {what}\n# TYPE {name} {kind}\n"


def _sample(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(str(text))}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value}\n" if labels else f"{name} {value}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
