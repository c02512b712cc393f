"""`stats`: what a server has counted (counts.py), as files. They are those of docs/files/stats.md.

Everybody may read the numbers of all clients together; only root may read who the clients are, and what each does.
"""

from typing import TYPE_CHECKING, Final

from mk9p.server.counts import Row, Times, name_of, overall
from mk9p.server.prometheus import exposition
from mk9p.server.refusals import place
from mk9p.server.tally import Tally
from mk9p.tree import Ctl, Dir, File, Handle, Maybe, Open, Text, fields, join

if TYPE_CHECKING:
    from mk9p.server.accounts import Holder
    from mk9p.server.connection import Connection

    Users = dict[Holder, list[int]]

PARTS: Final = (0.5, 0.99, 1)  # the median, what one of a hundred exceeds, and the most


def stats_tree(tally: Tally) -> Dir:
    """Return the directory that shows what a server counts; make the server with the same tally."""
    return Dir(
        {
            "ctl": Ctl({"reset": tally.reset}),
            "status": Text(lambda: status(tally)),
            "messages": Text(lambda: messages(tally)),
            "latency": Text(lambda: latency(tally)),
            "clients": Text(lambda: clients(tally), mode=0o400),
            "prometheus": Exposition(tally),
        }
    )


def status(tally: Tally) -> str:
    """Return `key value` lines of all clients together."""
    total = tally.total()
    values = {
        "began": tally.began,
        "since": tally.since,
        "connections": len(tally.connections),
        "accepted": tally.accepted,
        "refused": sum(tally.refused.values()),
        "fids": sum(c.open_fids for c in tally.connections),
        "in_flight": sum(c.in_flight for c in tally.connections),
        "held_bytes": sum(kept(c) for c in tally.connections),
        "ops": total.count,
        "errors": total.errors,
        "in_bytes": total.received,
        "out_bytes": total.sent,
    }
    return fields(values)


def messages(tally: Tally) -> str:
    """Return a line for each kind of message: NAME count errors in_bytes out_bytes p50_ns p99_ns max_ns."""
    return "".join(join([name_of(type_), *figures(row)]) + "\n" for type_, row in tally.rows().items())


def figures(row: Row) -> list[object]:
    """Return the fields of a row's line: counts, and upper bounds of the times of requests that did not wait here."""
    times = row.at_work()
    return [row.count, row.errors, row.received, row.sent, *(times.quantile(part) for part in PARTS)]


def latency(tally: Tally) -> str:
    """Return a line for each kind of message and way: NAME WAY count sum_ns UPPER:COUNT..."""
    return "".join(
        join([name_of(type_), way, times.count, times.ns, *buckets(times)]) + "\n"
        for type_, row in tally.rows().items()
        for way, times in row.ways()
    )


def buckets(times: Times) -> list[str]:
    """Return the buckets that are not empty: how many ns their times are below, and how many they are."""
    return [f"{1 << k}:{n}" for k, n in enumerate(times.buckets) if n]


def clients(tally: Tally) -> str:
    """Return a line for each connection, in the order in which they came."""
    known: Users = {}
    return "".join(join(client(c, known)) + "\n" for c in sorted(tally.connections, key=lambda c: c.number))


def client(c: "Connection", known: "Users") -> list[object]:
    """Return the fields of a connection's line; `known`: what was found of users before."""
    total = overall(row for row in c.counts.rows if row is not None)
    dialect = c.dialect.version if c.versioned else "-"
    users = "".join(char if char.isprintable() else "_" for char in ",".join(c.users)) or "-"
    return [
        *(c.number, place(c.link.peer), users, dialect, c.msize, c.came, c.open_fids, c.in_flight),
        *figures(total),
        *held(c, known),
    ]


def held(c: "Connection", known: "Users") -> list[int]:
    """Return what is kept for a connection, and for its user by all connections: bytes, and files that take a descriptor; fids of the user."""
    holder = c.account.holder
    if holder not in known:  # a sum over all their connections, which may be many
        known[holder] = [pool.used for pool in (holder.bytes, holder.files, holder.fids)]
    return [kept(c), sum(account.files.used for account in {c.account, *c.accounts.values()}), *known[holder]]


def kept(c: "Connection") -> int:
    """Return how many bytes are kept for a connection."""
    return sum(account.used for account in {c.account, *c.accounts.values()})


class Exposition(File):
    """`prometheus`: rendered at open for the user who opens it, because only root may read about each client."""

    def __init__(self, tally: Tally) -> None:
        super().__init__(0o444)
        self.tally = tally

    def open(self, how: Open) -> Maybe[Handle]:
        return Text(lambda: exposition(self.tally, clients=how.who.uid == 0)).open(how)
