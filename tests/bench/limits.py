"""`python -m tests.bench.limits`: how much of leases there can be. Takes a second, with the store in a file and on etcd; a thousand holders that
renew; from a holder's death to the next grant; how late a watcher hears; and keep-alives of composers, as many as three members can answer.

Everything runs on this machine, so beside each rate stands what it costs the members and this process: that is the same on a busy machine.
"""

import itertools
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import attrs
import trio

from mk9p.etcd.address import parse
from mk9p.etcd.records import put
from mk9p.lease.leases import Leases
from mk9p.lease.opening import shared
from mk9p.lease.store import SqliteStore
from mk9p.lease.stores import Local, Store
from mk9p.lease.wish import SECOND, Wish
from mk9p.testing import until
from tests.bench.federation import Simulated, cpu_of, own_cpu, shown
from tests.bench.leases import after_death
from tests.etcd.cluster import Cluster, running

SECONDS = 5.0
HOLDERS = 1000
WATCHERS = 10


@attrs.define
class Cost:
    """What passes between its making and `line`: time, and the CPU of this process and of others."""

    pids: list[int]
    began: float = attrs.field(factory=perf_counter)
    own: float = attrs.field(factory=own_cpu)
    theirs: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.theirs = sum(map(cpu_of, self.pids))

    def line(self, count: int) -> str:
        """Return the rate of so many of something, and what each has cost."""
        took = perf_counter() - self.began
        each = [(own_cpu() - self.own) / count * 1e3, (sum(map(cpu_of, self.pids)) - self.theirs) / count * 1e3]
        members = f", {each[1]:.2f} ms of CPU in the members" if self.pids else ""
        return f"{count / took:7.0f} a second   each {each[0]:.2f} ms of CPU here{members}"


async def for_a_while(workers: int, work: Callable[[int], Awaitable[object]]) -> int:
    """Let some workers do something again and again for some seconds; return how often it was done."""
    done, end = 0, perf_counter() + SECONDS

    async def one(worker: int) -> None:
        nonlocal done
        while perf_counter() < end:
            await work(worker)
            done += 1

    async with trio.open_nursery() as nursery:
        for worker in range(workers):
            nursery.start_soon(one, worker)
    return done


def wish(number: int, term: float = 60) -> Wish:
    return Wish(number, f"/k{number}", ("9p", f"k{number}"), "exclusive", "ann", round(term * SECOND))


async def takes(name: str, store: Store, pids: list[int]) -> None:
    """Print takes with their ends a second, and renewals of a thousand holders."""
    leases = Leases(store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leases.run)

        async def once(worker: int) -> None:
            await leases.take(wish(worker))
            await leases.give(worker)

        for workers in (1, 16):
            cost = Cost(pids)
            print(
                f"{name}: takes with their ends, {workers:2} at once    {cost.line(await for_a_while(workers, once))}"
            )
        cost = Cost(pids)
        for number in range(HOLDERS):
            await leases.take(wish(number, 600))
        print(f"{name}: takes, one after the other, {HOLDERS} held {cost.line(HOLDERS)}")
        numbers = itertools.cycle(range(HOLDERS))
        cost = Cost(pids)
        done = await for_a_while(16, lambda _: leases.renew(next(numbers)))
        print(f"{name}: renewals of {HOLDERS} holders           {cost.line(done)}", flush=True)
        nursery.cancel_scope.cancel()


async def watches(etcd: Cluster) -> None:
    """Print how late watchers hear of a write."""
    heard: dict[bytes, list[float]] = {}
    them = [Simulated(n, etcd.members[n % len(etcd.members)].address, heard) for n in range(WATCHERS)]
    late: list[float] = []
    async with shared(parse(etcd.where("w"))) as store, trio.open_nursery() as nursery:
        for one in them:
            await nursery.start(one.watch)
        for number in range(200):
            change = put("/mk9p/x", f"{number:032}")
            value = change["request_put"]["value"].encode()
            heard[value] = []
            began = perf_counter()
            await store.client.txn([], [change], [])
            with suppress(trio.TooSlowError):  # how many have heard is told below
                await until(lambda: len(heard[value]) == WATCHERS, 2)  # noqa: B023
            late += [when - began for when in heard[value]]
        print(
            f"etcd: a write, until {WATCHERS} watchers have heard   {shown(late)}   {len(late)} of {200 * WATCHERS} heard"
        )
        nursery.cancel_scope.cancel()


async def keep_alives(etcd: Cluster, members: int, what: str) -> None:
    """Print how many keep-alives of a thousand composers are answered, as fast as can be, by some of the members, the leader first."""
    leader = etcd.leader()
    those = sorted(etcd.members, key=lambda one: one is not leader)[:members]
    them = [Simulated(n, those[n % members].address, {}) for n in range(30)]
    took: list[float] = []
    streams = [await trio.open_tcp_stream(one.host, one.port) for one in them]
    held: list[list[str]] = [[] for _ in them]
    for number in range(HOLDERS):
        at = number % len(them)
        held[at].append(await them[at].granted(streams[at], 60))
    turn = [itertools.cycle(leases) for leases in held]

    async def keep(worker: int) -> None:
        began = perf_counter()
        await them[worker].call(streams[worker], "/v3/lease/keepalive", {"ID": next(turn[worker])})
        took.append(perf_counter() - began)

    cost = Cost([member.pid for member in etcd.members])
    print(f"etcd: keep-alives of {HOLDERS} composers, {what:14} {cost.line(await for_a_while(len(them), keep))}")
    print(f"    each {shown(took)}", flush=True)
    for stream in streams:
        await stream.aclose()


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="mk9p-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        await takes("file", Local(SqliteStore(folder / "leases")), [])
        with running(Cluster.of(folder)) as etcd:
            pids = [member.pid for member in etcd.members]
            async with shared(parse(etcd.where("a"))) as store:
                await takes("etcd", store, pids)
            etcd.wipe()
            await watches(etcd)
            await keep_alives(etcd, 3, "by all members")
            await keep_alives(etcd, 1, "by the leader")
            await after_death(etcd)


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1 << 16), hard))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the members end with it
    print(f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} CPUs, Python {sys.version.split()[0]}")
    trio.run(main)
