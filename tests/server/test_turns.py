"""Who is served when: users take turns, by time, and nobody's requests keep others waiting; what takes long goes in slices."""

from collections import Counter
from collections.abc import Iterator
from types import ModuleType

import attrs
import pytest
import trio
import trio.testing

from mk9p.auth import Principal
from mk9p.dial import TRANSPORTS, Peer
from mk9p.server import Server, answers, blocks, closing, connection, counts, leader, listings, pending, turns
from mk9p.server.turns import LAST, STRIDE, TURN
from mk9p.testing import SOON, until
from mk9p.tree import Block, Dir, Handle, Node, Open, Stat, Text
from mk9p.wire import Dialect, codec, unpack_dirents
from mk9p.wire import messages as m
from tests.server.odd_tree import alone
from tests.server.talk import Talk, connect, serving, talk_to

ANN, BOB = Peer(TRANSPORTS["unix"], "pid 1", uid=1001), Peer(TRANSPORTS["unix"], "pid 2", uid=1002)
FIRST = STRIDE // 23 + 1  # reads before the first look at the clock
SOME = 8  # what is done while a client comes to see its reply
MANY = 100


@attrs.define
class Clock:
    """A clock that stands still unless it is told."""

    now: int = 1 << 40

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (leader, answers, counts, connection, pending, turns, closing, listings, blocks):
        assert isinstance(module, ModuleType)
        monkeypatch.setattr(module, "monotonic_ns", clock)
    return clock


@attrs.define(eq=False, slots=False)
class Dear:
    """A file whose every read takes longer than a turn, and than a share; `who` has asked, in order."""

    clock: Clock
    who: list[int] = attrs.field(factory=list)

    def tree(self) -> Dir:
        return Dir({"dear": Block(self.read, self.write, size=lambda: 1 << 30, mode=0o666), "text": Text("text")})

    def read(self, count: int, offset: int) -> bytes:
        self.who.append(offset)
        self.clock.now += 3 * TURN
        return b"x"

    def write(self, data: memoryview, offset: int) -> int:
        self.who.append(offset)
        self.clock.now += 3 * TURN
        return len(data)


def reads(number: int, count: int = MANY) -> bytes:
    """Return requests for the open file 1, whose offset tells whose they are."""
    return b"".join(codec(Dialect.L, m.Tread.type).pack(tag, 1, number, 1) for tag in range(count))


async def reader(server: Server, peer: Peer) -> Talk:
    talk = await talk_to(server, peer=peer, uname="")
    assert isinstance(await talk.open(1, "dear", mode=2), m.Rlopen)
    return talk


async def replies(talk: Talk, count: int = MANY) -> None:
    for tag in range(count):
        reply = await talk.receive()
        assert isinstance(reply, m.Rread), reply
        assert reply.tag == tag


async def test_another_link_is_served_before_the_first_one_s_requests_are_done(clock: Clock) -> None:
    dear = Dear(clock)
    async with serving(dear.tree()) as server:
        ann, bob = await reader(server, ANN), await reader(server, BOB)
        await ann.raw(reads(1))
        await bob.raw(reads(2, 1))
        with trio.fail_after(SOON):
            await replies(bob, 1)
            assert dear.who.count(1) <= FIRST + SOME
            await replies(ann)
    assert dear.who.count(1) == MANY


async def test_more_connections_give_a_user_no_more_turns(clock: Clock) -> None:
    dear = Dear(clock)
    async with serving(dear.tree()) as server:
        anns, bob = [await reader(server, ANN) for _ in range(8)], await reader(server, BOB)
        for ann in anns:
            await ann.raw(reads(1))
        await bob.raw(reads(2))
        with trio.fail_after(SOON):
            await replies(bob)
            before = dear.who[: max(at for at, who in enumerate(dear.who) if who == 2)].count(1)
            assert before <= MANY + 8 * FIRST
            for ann in anns:
                await replies(ann)


async def test_the_rest_of_the_program_runs_between_turns(clock: Clock) -> None:
    dear, rounds, seen = Dear(clock), 0, Counter[int]()

    async def others() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await trio.lowlevel.checkpoint()

    read = dear.read

    def noted(count: int, offset: int) -> bytes:
        seen[rounds] += 1
        return read(count, offset)

    dear.read = noted  # type: ignore[method-assign]
    async with serving(dear.tree()) as server, trio.open_nursery() as nursery:
        ann = await reader(server, ANN)
        nursery.start_soon(others)
        await ann.raw(reads(1))
        with trio.fail_after(SOON):
            await replies(ann)
        nursery.cancel_scope.cancel()
    # trio does what can run at one moment in any order: so there may be two turns between two rounds, of one read each after the first
    assert max(seen.values()) <= FIRST + 1
    assert len(seen) >= 1 + (MANY - FIRST) // 2


async def test_requests_that_wait_take_turns_too(clock: Clock) -> None:
    """Each begins to wait, and another task leads; the turn of its link goes on, and ends."""
    begun = 0

    async def never(count: int, offset: int) -> bytes:
        nonlocal begun
        begun += 1
        clock.now += 2 * TURN
        await trio.sleep_forever()
        raise AssertionError

    tree = Dir({"dear": Block(never, size=lambda: 1 << 30, mode=0o666), "text": Text("text")})
    async with serving(tree) as server:
        ann, bob = connect(server, peer=ANN), connect(server, peer=BOB)
        for talk in (ann, bob):
            await talk.start(uname="")
            assert isinstance(await talk.open(1, "dear" if talk is ann else "text"), m.Rlopen)
        await ann.raw(reads(0))
        await bob.raw(reads(0, 1))
        with trio.fail_after(SOON):
            await replies(bob, 1)
        assert begun < MANY
        await trio.testing.wait_all_tasks_blocked()
        assert begun == MANY


async def test_requests_that_may_run_at_once_take_turns_too(clock: Clock) -> None:
    """They waited for a write, which is done now."""
    dear, go = Dear(clock), trio.Event()

    async def write(data: memoryview, offset: int) -> int:
        await go.wait()
        return len(data)

    tree = Dir({"dear": Block(dear.read, write, size=lambda: 1 << 30, mode=0o666)})
    async with serving(tree) as server:
        ann, bob = await reader(server, ANN), await reader(server, BOB)
        await ann.send(m.Twrite, MANY, 1, 0, b"x")
        await ann.raw(reads(1))
        await trio.testing.wait_all_tasks_blocked()
        assert not dear.who
        go.set()
        await bob.raw(reads(2, 1))
        with trio.fail_after(SOON):
            await replies(bob, 1)
            assert dear.who.count(1) <= FIRST + SOME
            assert isinstance(await ann.receive(), m.Rwrite)
            await replies(ann)


async def test_a_client_that_is_gone_is_not_answered_for_long(clock: Clock) -> None:
    dear = Dear(clock)
    async with serving(dear.tree()) as server:
        ann = await reader(server, ANN)
        await ann.raw(reads(1, 2000))
        await ann.stream.aclose()
        with trio.fail_after(SOON):
            await alone(server, 0)
        assert len(dear.who) <= FIRST + LAST


async def test_what_a_client_wrote_before_it_left_is_done(clock: Clock) -> None:
    dear = Dear(clock)
    async with serving(dear.tree()) as server:
        ann = await reader(server, ANN)
        await ann.send(m.Twrite, 1, 1, 77, b"the last word")
        await ann.stream.aclose()
        with trio.fail_after(SOON):
            await alone(server, 0)
        assert dear.who == [77]


async def test_who_only_stops_sending_has_all_answers(clock: Clock) -> None:
    dear = Dear(clock)
    async with serving(dear.tree()) as server:
        ann = await reader(server, ANN)
        await ann.raw(reads(1))
        await ann.stream.send_eof()
        with trio.fail_after(SOON):
            await replies(ann)
            assert await ann.receive() is None


class Slow(Node):
    """A file whose handles take long to close."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.closed = clock, 0

    def stat(self) -> Stat:
        return Stat(0o100666)

    def open(self, how: Open) -> Handle:
        return SlowHandle(self)


class SlowHandle(Handle):
    prompt = True

    def __init__(self, node: Slow) -> None:
        self.node = node

    def close(self) -> None:
        self.node.closed += 1
        self.node.clock.now += TURN


@pytest.mark.parametrize("end", ["leave", "version"])
async def test_the_end_of_many_fids_keeps_nobody_waiting(clock: Clock, end: str) -> None:
    slow = Slow(clock)
    async with serving(Dir({"slow": slow, "text": Text("text")})) as server:
        ann, bob = await talk_to(server, peer=ANN, uname=""), await talk_to(server, peer=BOB, uname="")
        for fid in range(1, MANY + 1):
            assert isinstance(await ann.open(fid, "slow"), m.Rlopen)
        if end == "leave":
            await ann.stream.aclose()
        else:
            await ann.send(m.Tversion, 0xFFFF, 65536, "9P2000.L")
        seen = set[int]()
        with trio.fail_after(SOON):
            while slow.closed < MANY:
                assert isinstance(await bob.rpc(m.Tgetattr, 1, 0, 0x7FF), m.Rgetattr)
                seen.add(slow.closed)
            if end == "version":
                assert isinstance(await ann.receive(), m.Rversion)
        assert len(seen) > 3


async def test_requests_of_a_client_that_leaves_are_cancelled_a_few_at_a_time() -> None:
    ended = 0

    async def never(count: int, offset: int) -> bytes:
        nonlocal ended
        try:
            await trio.sleep_forever()
        finally:
            ended += 1
        raise AssertionError

    tree = Dir({"dear": Block(never, lambda data, at: len(data), size=lambda: 1 << 30, mode=0o666)})
    async with serving(tree) as server:
        ann = await reader(server, ANN)
        await ann.raw(reads(0, 500))
        await trio.testing.wait_all_tasks_blocked()
        await ann.stream.aclose()
        seen = set[int]()
        with trio.fail_after(SOON):
            while ended < 500:
                seen.add(ended)
                await trio.lowlevel.checkpoint()
        assert len(seen) > 5


# Listings


class Large(Dir):
    """A directory of many names, that counts how often it is listed, and may take its time for it."""

    def __init__(self, clock: Clock, names: list[str]) -> None:
        super().__init__({})
        self.clock, self.names, self.listed, self.given = clock, names, 0, 0

    def entries(self, who: Principal) -> Iterator[tuple[str, Node]]:
        self.listed += 1
        return self.found()

    def found(self) -> Iterator[tuple[str, Node]]:
        for name in list(self.names):
            self.given += 1
            self.clock.now += TURN // 20
            yield name, Text(name)


def listed(reply: object) -> list[str]:
    assert isinstance(reply, m.Rreaddir), reply
    return [name for _, _, _, name in unpack_dirents(reply.data)][2:]


async def directories(talk: Talk, count: int) -> None:
    for fid in range(1, count + 1):
        assert isinstance(await talk.open(fid, "large"), m.Rlopen)


def asked(count: int) -> bytes:
    return b"".join(codec(Dialect.L, m.Treaddir.type).pack(fid, fid, 0, 60_000) for fid in range(1, count + 1))


async def test_a_listing_is_made_once_for_all_who_ask_meanwhile(clock: Clock) -> None:
    large = Large(clock, [f"file{number}" for number in range(1000)])
    async with serving(Dir({"large": large, "text": Text("text")})) as server:
        ann, bob = await talk_to(server, peer=ANN, uname=""), await talk_to(server, peer=BOB, uname="")
        await directories(ann, 30)
        await ann.raw(asked(30))
        with trio.fail_after(SOON):
            while large.given < 500:
                before = large.given
                assert isinstance(await bob.rpc(m.Tgetattr, 1, 0, 0x7FF), m.Rgetattr)
                assert large.given - before <= 400  # it is answered in the middle of it
            for _ in range(30):
                assert listed(await ann.receive()) == large.names
        assert large.listed < 5  # a few came when the second had begun


async def test_a_listing_has_what_was_made_before_it_was_asked_for(clock: Clock) -> None:
    large = Large(clock, [f"file{number}" for number in range(1000)])
    async with serving(Dir({"large": large})) as server:
        ann = await talk_to(server, peer=ANN, uname="")
        await directories(ann, 3)
        await ann.raw(asked(1))
        with trio.fail_after(SOON):
            await until(lambda: large.given >= 500)
            large.names.append("new")
            await ann.raw(asked(3)[27 - 4 :])
            got = {}
            for _ in range(3):
                reply = await ann.receive()
                assert reply is not None
                got[reply.tag] = listed(reply)
        assert ("new" in got[2], "new" in got[3]) == (True, True)
        assert large.listed == 2


@pytest.mark.parametrize("dialect", [Dialect.P9, Dialect.U])
async def test_plain_listings_go_in_slices_too(clock: Clock, dialect: Dialect) -> None:
    large = Large(clock, [f"file{number}" for number in range(1000)])
    async with serving(Dir({"large": large})) as server:
        ann, bob = await talk_to(server, dialect, peer=ANN, uname=""), await talk_to(server, peer=BOB, uname="")
        await ann.open(1, "large")
        await ann.send(m.Tread, 1, 1, 0, 60_000)
        with trio.fail_after(SOON):
            while large.given < 500:
                before = large.given
                assert isinstance(await bob.rpc(m.Tgetattr, 1, 0, 0x7FF), m.Rgetattr)
                assert large.given - before <= 400
            reply = await ann.receive()
        assert isinstance(reply, m.Rread)


async def test_whoever_makes_a_listing_may_be_flushed_and_the_others_have_theirs(clock: Clock) -> None:
    gate = trio.Event()

    class Gated(Large):
        async def entries(self, who: Principal) -> list[tuple[str, Node]]:  # type: ignore[override]
            self.listed += 1
            if self.listed < 3:
                await gate.wait()
            return list(self.found())

    large = Gated(clock, ["a", "b"])
    async with serving(Dir({"large": large})) as server:
        ann = await talk_to(server, peer=ANN, uname="")
        await directories(ann, 5)
        await ann.raw(asked(5))
        await trio.testing.wait_all_tasks_blocked()
        assert large.listed == 1
        with trio.fail_after(SOON):
            for tag in (2, 1):  # who would make the next, and who makes this one
                assert isinstance(await ann.rpc(m.Tflush, 100, tag), m.Rflush)
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
            for _ in range(3):
                assert listed(await ann.receive()) == ["a", "b"]
        assert not server.common.listings._rounds
