"""`stats`: the files, against what went over the link and what an independent parser makes of the Prometheus text; and who may read what."""

import errno

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from mk9p.auth import Policy, Principal
from mk9p.dial import TRANSPORTS, Peer
from mk9p.server import Tally, stats_tree
from mk9p.server.prometheus import exposition
from mk9p.testing import check_tree, mounted
from mk9p.tree import Dir, Node, Stream, Text, split
from mk9p.wire import Dialect
from mk9p.wire import messages as m
from tests.server.odd_tree import alone
from tests.server.talk import Talk, connect, serving, talk_to
from tests.servers.trees import read

NOBODY = Principal("none", 65534)


async def lines(tree: Node, path: str) -> list[list[str]]:
    return [split(line) for line in (await read(tree, path)).splitlines()]


def tree() -> Dir:
    return Dir({"text": Text("text\n"), "events": Stream(trio.sleep_forever)})


async def ask(talk: Talk, count: int) -> None:
    for _ in range(count):
        assert isinstance(await talk.rpc(m.Tgetattr, 5, 0, 0x7FF), m.Rgetattr)
    assert isinstance(await talk.rpc(m.Tgetattr, 5, 9, 0x7FF), m.Rlerror)


async def test_the_files_say_what_was_done() -> None:
    async with serving(tree()) as server:
        stats = stats_tree(server.tally)
        talk = connect(server, peer=Peer(TRANSPORTS["tcp"], "10.0.0.7!5"), policy=Policy(trust=True))
        other = connect(server, Dialect.U)
        await talk.start(uname="gl enda")
        await ask(talk, 7)
        await talk.open(1, "events")
        await talk.send(m.Tread, 6, 1, 0, 10)
        await ask(talk, 1)

        status = dict(await lines(stats, "status"))
        version, attach, walk, lopen = 21, 21 + len("gl enda") + 2, 17 + 2 + len("events"), 15
        expected = {
            "connections": "2",
            "accepted": "2",
            "refused": "0",
            "fids": "2",
            "in_flight": "1",
            "ops": "15",
            "errors": "2",
            "in_bytes": str(version + attach + walk + lopen + 23 + 10 * 19),
            "out_bytes": str(21 + 20 + 9 + 13 + 24 + 8 * 160 + 2 * 11),
        }
        assert {key: status[key] for key in expected} == expected
        assert int(status["began"]) <= int(status["since"])

        messages = {line[0]: line[1:] for line in await lines(stats, "messages")}
        assert list(messages) == ["lopen", "getattr", "version", "attach", "walk", "read"]
        assert messages["getattr"][:4] == ["10", "2", str(10 * 19), str(8 * 160 + 2 * 11)]
        p50, p99, most = map(int, messages["getattr"][4:])
        assert 0 < p50 <= p99 <= most
        assert messages["read"] == ["1", "0", "23", "0", "0", "0", "0"]  # it waits

        latency = {tuple(line[:2]): line[2:] for line in await lines(stats, "latency")}
        assert ("read", "direct") not in latency
        count, ns, *buckets = latency["getattr", "direct"]
        pairs = [tuple(map(int, pair.split(":"))) for pair in buckets]
        assert int(count) == sum(n for _, n in pairs) == 10
        assert sum(n * bound // 2 for bound, n in pairs) <= int(ns) < sum(n * bound for bound, n in pairs)
        assert pairs[-1][0] == most

        first, second = await lines(stats, "clients")
        assert first[:5] == ["1", "tcp!10.0.0.7!5", "gl enda", "9P2000.L", "65536"]
        assert int(status["began"]) <= int(first[5])
        assert first[6:12] == ["2", "1", "15", "2", expected["in_bytes"], expected["out_bytes"]]
        assert second[:5] == ["2", "fd!test", "-", "-", str(server.limits.msize)]
        await other.start()
        assert (await lines(stats, "clients"))[1][2:4] == ["root", "9P2000.u"]


async def test_reset_is_a_word() -> None:
    tally = Tally()
    async with serving(Dir({"stats": stats_tree(tally), "text": Text("x")}), tally=tally) as server:
        talk = await talk_to(server)
        await ask(talk, 3)
        await talk.open(1, "stats", "ctl", mode=1)
        assert isinstance(await talk.rpc(m.Twrite, 1, 1, 0, b"reset\n"), m.Rwrite)
        assert isinstance(await talk.rpc(m.Tgetattr, 1, 0, 1), m.Rgetattr)
        assert [line[:2] for line in await lines(stats_tree(tally), "messages")] == [["getattr", "1"], ["write", "1"]]
        assert dict(await lines(stats_tree(tally), "status"))["accepted"] == "0"
        await talk.stream.aclose()
        await alone(server)


async def test_clients_are_roots_to_see() -> None:
    tally = Tally()
    tree = Dir({"stats": stats_tree(tally)})
    async with mounted(tree) as root, mounted(tree, uname="none") as nobody:
        await root.read("stats/clients")
        for path in ("status", "messages", "latency", "prometheus"):
            await nobody.read(f"stats/{path}")
        with pytest.raises(PermissionError):
            await nobody.read("stats/clients")
        with pytest.raises(PermissionError) as refused:
            await nobody.write("stats/ctl", "reset")
        assert refused.value.errno == errno.EACCES


async def test_an_independent_parser_reads_the_prometheus_text() -> None:
    async with serving(tree()) as server:
        talk = await talk_to(
            server, peer=Peer(TRANSPORTS["tcp"], '10.0.0.7!5"\\'), policy=Policy(trust=True), uname='a"b\\c\nd'
        )
        await ask(talk, 100)
        stats = stats_tree(server.tally)
        found = {family.name: family for family in text_string_to_metric_families(await read(stats, "prometheus"))}
        samples = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in found.values()
            for sample in family.samples
        }
        getattr_ = ("message", "getattr")
        assert samples["mk9p_requests_total", getattr_] == 101
        assert samples["mk9p_errors_total", getattr_] == 1
        assert samples["mk9p_received_bytes_total", getattr_] == 101 * 19
        assert samples["mk9p_sent_bytes_total", getattr_] == 100 * 160 + 11
        assert samples["mk9p_connections",] == 1
        assert found["mk9p_requests"].type == "counter"
        assert all(family.documentation for family in found.values())

        histogram = found["mk9p_request_duration_seconds"]
        assert histogram.type == "histogram"
        mine = [sample for sample in histogram.samples if sample.labels["message"] == "getattr"]
        bounds = [(float(s.labels["le"]), s.value) for s in mine if s.name.endswith("_bucket")]
        assert bounds == sorted(bounds)
        assert bounds[-1] == (float("inf"), 101)
        assert [count for _, count in bounds] == sorted(count for _, count in bounds)
        (total,) = (s.value for s in mine if s.name.endswith("_sum"))
        assert total == server.tally.rows()[m.Tgetattr.type].direct.ns / 1e9
        assert sum(s.value for s in mine if s.name.endswith("_count")) == 101

        assert [line[2] for line in await lines(stats, "clients")] == ['a"b\\c_d']
        (client,) = found["mk9p_client_requests"].samples
        assert client.labels == {"client": "1", "address": 'tcp!10.0.0.7!5"\\', "user": 'a"b\\c\nd'}
        assert client.value == sum(row.count for row in server.tally.rows().values())

        public = await read(stats, "prometheus", NOBODY)
        assert "mk9p_requests_total" in public
        assert "client" not in public
        assert "10.0.0.7" not in public


def test_nothing_counted_is_said_as_such() -> None:
    families = list(text_string_to_metric_families(exposition(Tally(), clients=True)))
    assert {family.name: [s.value for s in family.samples] for family in families}["mk9p_connections"] == [0]


async def test_it_is_a_tree_as_every_tree() -> None:
    await check_tree(lambda: stats_tree(Tally()))
