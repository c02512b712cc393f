"""What a server counts is what went over its links: requests, errors and bytes to the last one, times of what waited apart from all others."""

import errno
import random
import time
from collections import Counter
from pathlib import Path

import attrs
import trio

from mk9p.server import Limits, Server, Tally
from mk9p.server.counts import Counts, Row, Times, name_of, summed
from mk9p.tree import Block, Ctl, Dir, Stream, Text
from mk9p.wire import NOFID, NOTAG, Dialect, codec, decode
from mk9p.wire import messages as m
from tests.server.odd_tree import alone
from tests.server.relaying import ON, a_tree, lab
from tests.server.talk import Talk, connect, serving

BIG = bytes(300_000)
SPIN = 20_000_000  # ns


def spin() -> str:
    """Keep the processor for a while: what comes with it waits too."""
    until = time.monotonic_ns() + SPIN
    while time.monotonic_ns() < until:
        pass
    return "late\n"


@attrs.define(eq=False)
class World:
    """A tree of which some files wait until `gate` opens."""

    gate: trio.Event = attrs.field(factory=trio.Event)

    def tree(self) -> Dir:
        return Dir(
            {
                "text": Text("text\n", lambda text: None, mode=0o666),
                "big": Block(lambda count, offset: BIG[offset : offset + count], mode=0o444),
                "late": Text(self.late),
                "events": Stream(trio.sleep_forever),
                "slow": Text(spin),
                "ctl": Ctl({"add": lambda n: None}),
            }
        )

    async def late(self) -> bytes:
        await self.gate.wait()
        return BIG


@attrs.define(eq=False)
class Wire:
    """A raw client that counts what goes over its link itself."""

    talk: Talk
    sent: Counter[str] = attrs.field(factory=Counter)
    asked: Counter[str] = attrs.field(factory=Counter)
    received: Counter[str] = attrs.field(factory=Counter)
    errors: Counter[str] = attrs.field(factory=Counter)
    tags: dict[int, str] = attrs.field(factory=dict)

    def note(self, frames: list[bytes]) -> bytes:
        """Count frames that are to be sent; returns them side by side."""
        for frame in frames:
            name = name_of(frame[4])
            self.tags[int.from_bytes(frame[5:7], "little")] = name
            self.asked[name] += 1
            self.sent[name] += len(frame)
        return b"".join(frames)

    async def send(self, *frames: bytes) -> None:
        """Send frames in one go."""
        await self.talk.raw(self.note([*frames]))

    async def take(self, count: int) -> list[m.Message]:
        """Receive so many replies."""
        found: list[m.Message] = []
        while len(found) < count:
            frame = await self.talk.frame()
            reply = decode(self.talk.dialect, frame)
            name = self.tags.pop(reply.tag)
            self.received[name] += len(frame)
            self.errors[name] += isinstance(reply, m.Rlerror | m.Rerror)
            found.append(reply)
        return found

    async def rpc(self, *frames: bytes) -> list[m.Message]:
        await self.send(*frames)
        return await self.take(len(frames))

    async def start(self) -> None:
        pack = codec(Dialect.P9, m.Tversion.type).pack
        await self.rpc(pack(NOTAG, 1 << 20, self.talk.dialect.version))
        await self.rpc(self.frame(m.Tattach, 1, 0, NOFID, "root", "", 0))

    async def open(self, fid: int, name: str, mode: int = 0) -> None:
        await self.rpc(self.frame(m.Twalk, 1, 0, fid, (name,)), self.frame(m.Tlopen, 2, fid, mode))

    def frame(self, cls: type[m.Message], tag: int, *fields: object) -> bytes:
        return codec(self.talk.dialect, cls.type).pack(tag, *fields)

    def same(self, rows: dict[int, Row]) -> None:
        """Check that a server has counted the same."""
        assert {name_of(k): row.count for k, row in rows.items()} == +self.asked
        assert {name_of(k): row.received for k, row in rows.items()} == +self.sent
        assert +Counter({name_of(k): row.sent for k, row in rows.items()}) == +self.received
        assert +Counter({name_of(k): row.errors for k, row in rows.items()}) == +self.errors


async def joined(server: Server) -> Wire:
    wire = Wire(connect(server))
    await wire.start()
    return wire


def row(tally: Tally, cls: type[m.Message]) -> Row:
    return tally.rows()[cls.type]


async def test_what_was_asked_is_counted_to_the_last_byte() -> None:
    async with serving(World().tree()) as server:
        wire = await joined(server)
        await wire.open(1, "text")
        for n in (1, 7, 100):
            await wire.rpc(*(wire.frame(m.Tgetattr, tag, 1, 0x7FF) for tag in range(n)))
        found = row(server.tally, m.Tgetattr)
        assert (found.count, found.errors, found.received, found.sent) == (108, 0, 108 * 19, 108 * 160)
        assert found.direct.count == 108
        wire.same(server.tally.rows())


async def test_kinds_in_any_order_and_pieces() -> None:
    """Frames of all kinds, right and wrong ones, some refused, some large, as they come and cut anywhere."""
    chance = random.Random(9)
    async with serving(World().tree()) as server:
        wire = await joined(server)
        await wire.open(1, "text", 2)
        await wire.open(2, "big")
        await wire.open(3, "ctl", 1)
        for _ in range(60):
            frames = []
            for tag in range(chance.randrange(1, 40)):
                some = (
                    wire.frame(m.Tgetattr, tag, 1, 0x7FF),
                    wire.frame(m.Tread, tag, 1, 0, 100),
                    wire.frame(m.Tread, tag, 2, chance.randrange(400_000), chance.randrange(200_000)),
                    wire.frame(m.Twrite, tag, 3, 0, bytes(chance.choice((b"add 1\n", b"no\n")))),
                    wire.frame(m.Twalk, tag, 0, 77, ("none",)),
                    wire.frame(m.Tclunk, tag, 99),
                    wire.frame(m.Tflush, tag, 500),
                    b"\x0b\0\0\0\xc8" + tag.to_bytes(2, "little") + b"what",  # of no kind
                    b"\x09\0\0\0\x18" + tag.to_bytes(2, "little") + b"\0\0",  # Tgetattr cut short
                )
                frames.append(chance.choice(some))
            whole = wire.note(frames)
            cut = chance.randrange(len(whole))
            await wire.talk.raw(whole[:cut])
            await wire.talk.raw(whole[cut:])
            await wire.take(len(frames))
        wire.same(server.tally.rows())
        assert {"other", "getattr", "write", "flush"} <= set(wire.asked)
        assert all(row.count == row.direct.count for row in server.tally.rows().values())


async def test_replies_that_leave_in_the_middle_of_a_batch() -> None:
    async with serving(World().tree(), Limits(out=5000)) as server:
        wire = await joined(server)
        await wire.open(1, "big")
        await wire.rpc(*(wire.frame(m.Tread, tag, 1, 0, 1000 + tag) for tag in range(20)), wire.frame(m.Tclunk, 20, 1))
        found = row(server.tally, m.Tread)
        assert (found.count, found.direct.count, found.sent) == (20, 20, sum(1011 + tag for tag in range(20)))
        wire.same(server.tally.rows())


async def test_an_error_is_one_and_has_its_bytes() -> None:
    async with serving(World().tree()) as server:
        wire = await joined(server)
        (reply,) = await wire.rpc(wire.frame(m.Twalk, 5, 0, 1, ("nothing",)))
        assert isinstance(reply, m.Rlerror)
        assert reply.ecode == errno.ENOENT
        found = row(server.tally, m.Twalk)
        assert (found.count, found.errors, found.sent) == (1, 1, 11)


async def test_what_waits_has_times_of_its_own() -> None:
    world = World()
    async with serving(world.tree()) as server:
        wire = await joined(server)
        await wire.open(1, "late")
        await wire.open(2, "text")
        before = time.monotonic_ns()
        await wire.send(wire.frame(m.Tread, 10, 1, 0, len(BIG)))
        await wire.rpc(wire.frame(m.Tread, 11, 2, 0, 100))
        here = time.monotonic_ns()  # the first read waits by now
        found = row(server.tally, m.Tread)
        assert (found.count, found.direct.count, found.waited) == (2, 1, None)
        spin()
        waited = time.monotonic_ns() - here
        world.gate.set()
        await wire.take(1)
        after = time.monotonic_ns()
        found = row(server.tally, m.Tread)
        assert found.waited is not None
        assert (found.direct.count, found.waited.count) == (1, 1)
        assert waited <= found.waited.ns <= after - before
        assert found.direct.ns <= after - before - waited
        assert found.at_work().quantile(1) < SPIN
        wire.same(server.tally.rows())


async def test_what_waits_among_others_of_its_kind() -> None:
    """One read of five in one go waits, and what comes behind it in the same go does not."""
    world = World()
    async with serving(world.tree()) as server:
        wire = await joined(server)
        await wire.open(1, "late")
        await wire.open(2, "text")
        here = [wire.frame(m.Tread, tag, 2, 0, 99) for tag in range(1, 5)]
        there = wire.frame(m.Tread, 10, 1, 0, len(BIG))
        await wire.send(*here[:2], there, *here[2:])
        await wire.take(4)
        await wire.rpc(wire.frame(m.Tgetattr, 1, 0, 1))
        found = row(server.tally, m.Tread)
        assert (found.count, found.direct.count, found.waited) == (5, 4, None)
        world.gate.set()
        await wire.take(1)
        found = row(server.tally, m.Tread)
        assert (found.count, found.direct.count, found.times("waited").count) == (5, 4, 1)
        wire.same(server.tally.rows())


async def test_a_request_that_waits_for_its_turn_waited() -> None:
    """A clunk waits for the open before it, and both for a file that is opened slowly."""
    world = World()

    class Slow(Text):
        async def open(self, how: object) -> object:  # type: ignore[override]
            await world.gate.wait()
            return super().open(how)  # type: ignore[arg-type]

    async with serving(Dir({"slow": Slow("x")})) as server:
        wire = await joined(server)
        await wire.rpc(wire.frame(m.Twalk, 1, 0, 1, ("slow",)))
        await wire.send(wire.frame(m.Tlopen, 2, 1, 0), wire.frame(m.Tread, 3, 1, 0, 9), wire.frame(m.Tclunk, 4, 1))
        await wire.rpc(wire.frame(m.Tgetattr, 5, 0, 1))
        (c,) = server.connections
        assert (c.in_flight, c.open_fids) == (3, 2)
        world.gate.set()
        await wire.take(3)
        for cls in (m.Tlopen, m.Tread, m.Tclunk):
            found = row(server.tally, cls)
            assert (found.count, found.direct.count, found.times("waited").count) == (1, 0, 1), cls
        assert (c.in_flight, c.open_fids) == (0, 1)
        wire.same(server.tally.rows())


async def test_what_was_flushed_was_asked_and_has_no_time() -> None:
    async with serving(World().tree()) as server:
        wire = await joined(server)
        await wire.open(1, "events")
        await wire.send(wire.frame(m.Tread, 10, 1, 0, 100))
        await wire.rpc(wire.frame(m.Tflush, 11, 10))
        await wire.rpc(wire.frame(m.Tflush, 12, 10))
        found, flush = row(server.tally, m.Tread), row(server.tally, m.Tflush)
        assert (found.count, found.direct.count, found.waited, found.sent) == (1, 0, None, 0)
        assert (flush.count, flush.direct.count, flush.sent) == (2, 1, 14)
        wire.same(server.tally.rows())


async def test_the_time_of_a_batch_is_that_of_all_in_it() -> None:
    async with serving(World().tree()) as server:
        wire = await joined(server)
        await wire.open(1, "slow")
        server.tally.reset()
        spin()  # when nothing is asked no time is counted
        before = time.monotonic_ns()
        await wire.rpc(wire.frame(m.Tgetattr, 1, 1, 1), wire.frame(m.Tread, 2, 1, 0, 100))
        after = time.monotonic_ns()
        getattr_, read = row(server.tally, m.Tgetattr), row(server.tally, m.Tread)
        assert getattr_.direct.ns == read.direct.ns
        assert SPIN <= read.direct.ns <= after - before
        assert SPIN < read.direct.quantile(0.5) == read.direct.quantile(1) <= 2 * (after - before)


async def test_what_came_before_garbage_counts() -> None:
    async with serving(World().tree()) as server:
        wire = await joined(server)
        await wire.send(*(wire.frame(m.Tgetattr, tag, 0, 1) for tag in range(5)), b"\xff\xff\xff\xff\0\0\0")
        await wire.take(5)
        await alone(server)
        found = row(server.tally, m.Tgetattr)
        assert (found.count, found.received, found.sent) == (5, 5 * 19, 5 * 160)
        assert server.tally.refused == {"protocol": 1}


async def test_who_is_gone_is_still_counted_until_a_reset() -> None:
    async with serving(World().tree()) as server:
        one, two = await joined(server), await joined(server)
        for wire in (one, two):
            await wire.rpc(wire.frame(m.Tgetattr, 1, 0, 1), wire.frame(m.Tgetattr, 2, 9, 1))
        first, second = sorted(server.connections, key=lambda c: c.number)
        assert (first.number, second.number) == (1, 2)
        await one.talk.stream.aclose()
        await alone(server, 1)
        found = row(server.tally, m.Tgetattr)
        assert (found.count, found.errors, found.direct.count) == (4, 2, 4)
        assert summed([second.counts.rows])[m.Tgetattr.type].count == 2
        assert server.tally.accepted == 2
        since = server.tally.since
        server.tally.reset()
        assert server.tally.rows() == {}
        assert server.tally.since > since >= server.tally.began
        await two.rpc(two.frame(m.Tgetattr, 1, 0, 1))
        assert row(server.tally, m.Tgetattr).count == 1


async def test_a_server_counts_into_the_tally_that_it_was_given() -> None:
    tally = Tally()
    async with serving(World().tree(), tally=tally) as server:
        wire = Wire(connect(server))
        await wire.start()
        assert row(tally, m.Tattach).count == 1
        assert [list(c.users) for c in tally.connections] == [["root"]]
        await wire.talk.stream.aclose()


async def test_what_is_passed_on_is_counted_to_the_last_byte(tmp_path: Path) -> None:
    async with lab(tmp_path, a_tree()) as found:
        wire = Wire(await found.client())
        await wire.rpc(wire.frame(m.Twalk, 1, ON, 5, ("d", "f")), wire.frame(m.Tlopen, 2, 5, 0))
        tally = found.front.tally
        tally.reset()
        for each in (wire.asked, wire.sent, wire.received):
            each.clear()
        random.seed(7)
        for _ in range(50):
            frames = []
            for tag in range(1, 30):
                fid = random.choice((0, ON, 5))
                frames.append(
                    random.choice(
                        (
                            wire.frame(m.Tgetattr, tag, fid, 0x7FF),
                            wire.frame(m.Tread, tag, 5, 0, 99),
                            wire.frame(m.Twalk, tag, fid, 1000 + tag, ()),
                            wire.frame(m.Twalk, tag, fid, 1000 + tag, ("nothing",)),
                            wire.frame(m.Tstatfs, tag, fid),
                        )
                    )
                )
            replies = await wire.rpc(*frames)
            made = [n for n, frame in enumerate(frames, 1) if frame[4] == m.Twalk.type and frame[15:17] == b"\0\0"]
            assert len(replies) == len(frames)
            if made:
                await wire.rpc(*(wire.frame(m.Tclunk, n, 1000 + n) for n in made))
        wire.same(tally.rows())


def test_relayed_requests_are_a_way_of_their_own() -> None:
    counts = Counts()
    counts.passed(m.Tread.type, 3, 69)
    counts.returned(m.Tread.type, 2, 1, 100, 1000)
    counts.returned(m.Tread.type, 1, 0, 11, 5000)
    found = counts.row(m.Tread.type)
    assert (found.count, found.errors, found.received, found.sent, found.direct.count) == (3, 1, 69, 111, 0)
    assert [(way, times.count, times.ns) for way, times in found.ways()] == [("relayed", 3, 7000)]
    assert (found.at_work().quantile(0.5), found.at_work().quantile(1)) == (1024, 8192)


def test_quantiles_are_bounds() -> None:
    times = Times()
    assert times.quantile(0.5) == 0
    for took, n in ((0, 1), (700, 98), (1 << 63, 1)):
        times.note(took, n)
    assert [times.quantile(part) for part in (0, 0.01, 0.5, 0.99, 1)] == [1, 1, 1024, 1024, 1 << 64]
    assert times.count == 100
    assert times.ns == 98 * 700 + (1 << 63)
