"""What is passed on to another server is counted as what is answered here."""

from pathlib import Path
from typing import Any

from mk9p.server.counts import Row
from mk9p.wire import messages as m
from tests.server.relaying import ON, a_tree, opened, pack, replies, with_client

READ, GETATTR, WALK, LOPEN, CLUNK = (cls.type for cls in (m.Tread, m.Tgetattr, m.Twalk, m.Tlopen, m.Tclunk))


def relayed(row: Row) -> int:
    return row.relayed.count if row.relayed else 0


async def test_requests_errors_and_bytes_that_are_passed_on(tmp_path: Path) -> None:
    async with with_client(tmp_path, a_tree()) as (found, talk):
        await opened(talk, 5, "d", "f")
        (c,) = found.front.connections
        before = {type_: row.count for type_, row in enumerate(c.counts.rows) if row is not None}
        reads = b"".join(pack(m.Tread, tag, 5, tag, 4) for tag in range(10))
        stats = b"".join(pack(m.Tgetattr, 20 + tag, 5, 0x7FF) for tag in range(3))
        wrong = pack(m.Twrite, 30, 5, 0, b"it is not open for that")
        again = pack(m.Twalk, 31, 5, 6, ()) + pack(m.Tclunk, 32, 6)
        await talk.raw(reads + stats + wrong + again)
        got = await replies(talk, 16)
        rows: list[Any] = c.counts.rows
        row = rows[READ]
        assert (row.count, row.errors, relayed(row)) == (10, 0, 10)
        assert (row.received, row.sent) == (len(reads), sum(11 + len(got[tag].data) for tag in range(10)))
        row = rows[GETATTR]
        assert (row.count - before.get(GETATTR, 0), row.errors, relayed(row)) == (3, 0, 3)
        assert row.sent == 3 * 160
        row = rows[m.Twrite.type]
        assert (row.count, row.errors, row.sent, relayed(row)) == (1, 1, 11, 1)
        assert rows[WALK].count - before[WALK] == 1
        assert rows[CLUNK].count - before.get(CLUNK, 0) == 1
        assert relayed(rows[WALK]) >= 1
        assert relayed(rows[LOPEN]) == 1
        assert rows[READ].relayed.ns > 0


async def test_what_a_server_that_died_left_unanswered_is_an_error(tmp_path: Path) -> None:
    async with with_client(tmp_path, a_tree()) as (found, talk):
        await opened(talk, 5, "d", "f")
        (c,) = found.front.connections
        await found.hosts[0].stop()
        await talk.raw(pack(m.Tread, 1, 5, 0, 4) + pack(m.Tread, 2, 5, 0, 4))
        got = await replies(talk, 2)
        assert all(isinstance(reply, m.Rlerror) for reply in got.values())
        row: Any = c.counts.rows[READ]
        assert (row.count, row.errors, row.sent) == (2, 2, 22)
        assert ON in c.relays or ON in c.session.fids
