"""The connections of a server, and the sum of what is counted of them (counts.py)."""

import itertools
import time
from collections.abc import Iterator

import attrs

from mk9p.server.connection import Connection
from mk9p.server.counts import Counts, Row, summed


@attrs.define(eq=False)
class Tally:
    """What a server has counted: its `connections`, and what those left that are gone. `began` and `since` (the last reset): ns since 1970."""

    connections: set[Connection] = attrs.field(factory=set)
    accepted: int = 0
    refused: dict[str, int] = attrs.field(factory=dict)  # by reason
    began: int = attrs.field(factory=time.time_ns)
    since: int = attrs.field(factory=time.time_ns)
    _gone: Counts = attrs.field(factory=Counts)
    _numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))

    def enter(self, c: Connection) -> int:
        """Take in a new connection; returns its number."""
        self.accepted += 1
        self.connections.add(c)
        return next(self._numbers)

    def rows(self) -> dict[int, Row]:
        """Return the counts by kind of message, of all clients there ever were."""
        return summed([self._gone.rows, *(c.counts.rows for c in self.connections)])

    def total(self) -> Row:
        """Return the sum of all rows, without the times: with a thousand connections those take long to add."""
        total = Row()
        for counts in (self._gone, *(c.counts for c in self.connections)):
            for row in counts.made:
                total.count += row.count
                total.errors += row.errors
                total.received += row.received
                total.sent += row.sent
        return total

    def leave(self, c: Connection) -> None:
        """Take a connection out, and keep what was counted of it."""
        c.counts.batch()  # what could no longer be sent
        self.connections.discard(c)
        for type_, row in enumerate(c.counts.rows):
            if row is not None:
                self._gone.row(type_).add(row)

    def refuse(self, reason: str) -> None:
        """Count a connection that was refused."""
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def reset(self) -> None:
        """Begin anew with nothing counted."""
        self.accepted, self.refused, self.since = 0, {}, time.time_ns()
        for counts in (self._gone, *(c.counts for c in self.connections)):
            counts.forget()
