"""chan through the composer: kernels' trees on unix sockets, composed, and used by clients of the namespace.

`MK9P_LONG=1` sends a hundred thousand messages instead of ten thousand. The times are printed: `pytest -s`.
"""

import os
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from mk9p.client import Client, connect
from mk9p.clients.chan import bell, channel
from mk9p.servers import chan
from mk9p.testing import SOON
from mk9p.tree import Dir
from tests.server.composed import composed

LONG = bool(os.environ.get("MK9P_LONG"))
COUNT = 100_000 if LONG else 10_000
TURNS = 2000


@asynccontextmanager
async def clients(tmp_path: Path, count: int, *, version: str = "9P2000.L") -> AsyncIterator[list[Client]]:
    """Compose two kernels, both with `chan`, and give clients of the namespace, each with a connection of its own."""
    with trio.fail_after(10 * SOON if LONG else 4 * SOON):
        async with (
            composed(tmp_path, {name: Dir({"chan": chan.tree()}) for name in ("k0", "k1")}) as address,
            AsyncExitStack() as stack,
        ):
            yield [await stack.enter_async_context(connect(address, version=version)) for _ in range(count)]


async def test_no_message_is_lost_or_doubled_and_writers_keep_their_order(tmp_path: Path) -> None:
    got: list[list[tuple[int, int]]] = [[], []]
    async with clients(tmp_path, 4) as all_:
        await all_[0].mkdir("k/k0/chan/c")
        start = time.perf_counter()

        async def write(ns: Client, writer: int) -> None:
            async with channel(ns, "k/k0/chan/c", "w") as out:
                for number in range(COUNT // 2):
                    await out.send(b"%d %d" % (writer, number))

        async def read(ns: Client, mine: list[tuple[int, int]], scope: trio.CancelScope) -> None:
            async with channel(ns, "k/k0/chan/c", "r") as into:
                while True:
                    writer, number = (await into.receive()).split()
                    mine.append((int(writer), int(number)))
                    if sum(map(len, got)) == COUNT:
                        scope.cancel()

        async with trio.open_nursery() as nursery:
            for number in (0, 1):
                nursery.start_soon(write, all_[number], number)
                nursery.start_soon(read, all_[2 + number], got[number], nursery.cancel_scope)
        took = time.perf_counter() - start
    print(f"\n{COUNT} messages, two writers, two readers, one process: {took:.2f} s, {COUNT / took:.0f}/s")
    assert sorted(got[0] + got[1]) == [(writer, number) for writer in (0, 1) for number in range(COUNT // 2)]
    for mine in got:
        assert mine
        for writer in (0, 1):
            numbers = [number for who, number in mine if who == writer]
            assert numbers == sorted(numbers)


Ends = tuple[Callable[[], Awaitable[None]], Callable[[], Awaitable[object]]]  # what gives, and what takes
Way = Callable[[Client, str, str], AbstractAsyncContextManager[Ends]]


@asynccontextmanager
async def messages(ns: Client, there: str, back: str) -> AsyncIterator[Ends]:
    async with channel(ns, there, "w") as out, channel(ns, back, "r") as into:
        yield partial(out.send, b"ping"), into.receive


@asynccontextmanager
async def bells(ns: Client, there: str, back: str) -> AsyncIterator[Ends]:
    async with bell(ns, there, "w") as out, bell(ns, back, "r") as into:
        yield out.ring, into.wait


async def test_the_times_of_a_round_trip_and_of_a_bell(tmp_path: Path) -> None:
    """Two clients, two channels: there and back. Each way is a write and a read that waits for it, through the composer."""
    times: list[float] = []
    async with clients(tmp_path, 2) as (a, b):
        for name in ("there", "back"):
            await a.mkdir(f"k/k1/chan/{name}")

        for way in (messages, bells):
            times.clear()

            async def answer(way: Way = way) -> None:
                async with way(b, "k/k1/chan/back", "k/k1/chan/there") as (give, take):
                    while True:
                        await take()
                        await give()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer)
                async with way(a, "k/k1/chan/there", "k/k1/chan/back") as (give, take):
                    for _ in range(TURNS):
                        start = time.perf_counter()
                        await give()
                        assert await take() in (b"ping", 1)
                        times.append(time.perf_counter() - start)
                nursery.cancel_scope.cancel()
            print(f"\n{way.__name__}: there and back {statistics.median(times) * 1e6:.0f} us (median of {TURNS})")
            assert len(times) == TURNS


@pytest.mark.parametrize("version", ["9P2000.L", "9P2000.u", "9P2000"])
async def test_cancelled_reads_lose_nothing_through_the_composer(tmp_path: Path, version: str) -> None:
    async with clients(tmp_path, 3, version=version) as (a, b, c):
        await a.mkdir("k/k0/chan/c")
        ends = set()
        async with channel(a, "k/k0/chan/c", "w") as out, channel(c, "k/k0/chan/c", "r") as other:
            for steps in range(0, 120, 2):
                got: list[bytes] = []

                opened = trio.Event()

                async def receive(got: list[bytes] = got, opened: trio.Event = opened) -> None:
                    async with channel(b, "k/k0/chan/c", "r") as into:
                        opened.set()
                        got.append(await into.receive())

                async with trio.open_nursery() as nursery, trio.open_nursery() as reading:
                    reading.start_soon(receive)
                    await opened.wait()
                    for _ in range(50):
                        await trio.lowlevel.checkpoint()
                    nursery.start_soon(out.send, b"%d" % steps)
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    reading.cancel_scope.cancel()
                ends.add(len(got))
                assert got or await other.receive() == b"%d" % steps
        assert 0 in ends
