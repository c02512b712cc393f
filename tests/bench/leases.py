"""`python -m tests.bench.leases`: what a lease costs, with the store in a file and on etcd, and what a capability costs."""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import trio

from mk9p.authority.grants import Key, Terms, narrow, new_key
from mk9p.client import connect
from mk9p.compose.resources import beside, find, key_of
from mk9p.composing import namespace
from mk9p.etcd.address import parse
from mk9p.etcd.records import put
from mk9p.lease.files import LeaseTree
from mk9p.lease.gate import Gate
from mk9p.lease.leases import Leases
from mk9p.lease.opening import shared
from mk9p.lease.store import Memory as Nowhere
from mk9p.lease.store import SqliteStore
from mk9p.lease.stores import Local, Store
from mk9p.lease.wish import SECOND, Wish
from mk9p.testing import Memory, child, serving_at, until
from tests.etcd.cluster import Cluster, running

TIMES = 200


async def each(what: str, work: Callable[[], Awaitable[object]], times: int = TIMES) -> None:
    """Print the median and the least time of something."""
    took = []
    for _ in range(times):
        began = perf_counter()
        await work()
        took.append(perf_counter() - began)
    print(f"{what:40} median {statistics.median(took) * 1e3:8.3f} ms   least {min(took) * 1e3:8.3f} ms")


def wish(number: int) -> Wish:
    return Wish(number, "/k", ("k",), "exclusive", "ann", SECOND)


async def alone(name: str, store: Store) -> None:
    async with trio.open_nursery() as nursery:
        leases = Leases(store)
        nursery.start_soon(leases.run)

        async def once() -> None:
            await leases.take(wish(0))
            await leases.give(0)

        await each(f"{name}: take and give", once)
        await leases.take(wish(0))
        began = perf_counter()
        await leases.take(wish(1), 60)
        print(
            f"{name}: from the last renewal of a dead holder, term 1 s, to the next grant {perf_counter() - began:.3f} s"
        )
        nursery.cancel_scope.cancel()


async def many(name: str, store: Store, count: int = 16) -> None:
    """Print how many leases a second are taken and given by some at once, each of a resource of its own."""
    async with trio.open_nursery() as nursery:
        leases = Leases(store)
        nursery.start_soon(leases.run)

        async def one(number: int) -> None:
            mine = Wish(number, f"/k{number}", ("9p", f"k{number}"), "exclusive", "ann", SECOND)
            for _ in range(TIMES // count):
                await leases.take(mine)
                await leases.give(number)

        began = perf_counter()
        async with trio.open_nursery() as asking:
            for number in range(count):
                asking.start_soon(one, number)
        print(
            f"{name}: {TIMES // count * count / (perf_counter() - began):.0f} takes and gives a second, {count} at once"
        )
        nursery.cancel_scope.cancel()


async def on_etcd(folder: Path) -> None:
    with running(Cluster.of(folder)) as etcd:
        async with shared(parse(etcd.where("a"))) as store:
            await alone("etcd", store)
        async with shared(parse(etcd.where("b"))) as store:
            await many("etcd", store)
        async with shared(parse(etcd.where("c"))) as one, shared(parse(etcd.where("d"))) as other:
            heard = trio.Event()
            other.mirror.heard.append(lambda key, record: heard.set())

            async def told() -> None:
                nonlocal heard
                heard = trio.Event()
                await one.client.txn([], [put("/mk9p/x", "1")], [])
                await heard.wait()

            await each("etcd: write, until another composer has heard", told)
            first, second = Leases(one), Leases(other)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first.run)
                nursery.start_soon(second.run)
                took = []
                for _ in range(20):
                    await first.take(wish(0))
                    async with trio.open_nursery() as waiting:
                        waiting.start_soon(second.take, wish(0), 60)
                        await until(lambda: first.book.waiting)
                        began = perf_counter()
                        await first.give(0)
                    took.append(perf_counter() - began)
                    await second.give(0)
                print(f"etcd: from a give to who waits at another composer {statistics.median(took) * 1e3:.1f} ms")
                nursery.cancel_scope.cancel()
        await after_death(etcd)


async def after_death(etcd: Cluster) -> None:
    """Print how long a lease is in the way whose composer is killed."""
    for term, ttl in ((1, 2), (5, 2), (1, 5), (10, 5)):
        async with shared(parse(etcd.where("e", ttl=ttl))) as store, trio.open_nursery() as nursery:
            leases = Leases(store)
            nursery.start_soon(leases.run)
            command = [sys.executable, "-m", "tests.bench.holder", etcd.where("f", ttl=ttl), str(term)]
            with child(command, "holds", stdout=subprocess.PIPE) as holder:
                began = trio.current_time()
                await until(partial(bool, leases.book.leases))
                holder.kill()
                await leases.take(wish(0), 60)
                took = trio.current_time() - began
            await leases.give(0)
            print(
                f"etcd: from a grant of term {term} s, its composer killed at once, ttl {ttl} s, to the next {took:.2f} s"
            )
            nursery.cancel_scope.cancel()


async def served(folder: Path) -> None:
    async with trio.open_nursery() as nursery:
        leases = Leases(Local(SqliteStore(folder / "served")))
        nursery.start_soon(leases.run)
        ns = namespace(nursery, {"lease": LeaseTree(leases, lambda path, who: find(ns, path, who))})
        gate = Gate(leases, key_of, partial(beside, ns))
        async with (
            serving_at(f"unix!{folder}/k1", Memory({"f": "x"})) as host,
            serving_at(f"unix!{folder}/ns", ns.root, gate=gate) as here,
        ):
            ns.mount(host.address, "/k/k1")
            async with connect(here.address) as client, await client.open("lease/clone", "r+") as ctl:

                async def once() -> None:
                    await ctl.pwrite(b"take /k/k1/f\n", 0)
                    await ctl.pwrite(b"give\n", 0)

                await each("by 9P, file: take and give", once)
                await ctl.pwrite(b"take /k/k1/f\n", 0)
                await each("by 9P, file: renew", lambda: ctl.pwrite(b"renew\n", 0))
        nursery.cancel_scope.cancel()


async def capabilities() -> None:
    key = Key.of(new_key())
    text = key.mint(Terms.of("/k/k1/cpu", "rc", to="ops", since=1, until=1 << 34))
    less = narrow(text, Terms.of("/k/k1/cpu/0", "r"))

    async def done(work: Callable[[], object]) -> None:
        work()

    await each("capability: grant", lambda: done(lambda: key.mint(Terms.of("/k/k1/cpu", "rc"))))
    await each("capability: narrow", lambda: done(lambda: narrow(text, Terms(ops="r"))))
    await each(f"capability: verify {len(text)} characters", lambda: done(lambda: key.read(text)))
    await each(f"capability: verify {len(less)}, narrowed once", lambda: done(lambda: key.read(less)))


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="mk9p-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        await alone("memory", Local(Nowhere()))
        await alone("file", Local(SqliteStore(folder / "alone")))
        await many("file", Local(SqliteStore(folder / "many")))
        await served(folder)
        await on_etcd(folder)
    await capabilities()


if __name__ == "__main__":
    trio.run(main)
