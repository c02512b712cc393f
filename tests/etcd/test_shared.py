"""Leases and entries of two composers that have one etcd."""

import errno
from functools import partial

import trio

from mk9p.lease.registry import Entry
from mk9p.lease.wish import Mode
from mk9p.testing import SOON, until
from tests.etcd.cluster import Cluster
from tests.etcd.composers import Composer, composers, queued, refused, suppress_busy


async def test_a_lease_of_one_is_in_the_way_at_the_other_and_its_holder_is_told(etcd: Cluster) -> None:
    async with composers(etcd, "a", "b") as (a, b):
        first = await a.take(0, "9p", "k1", "disk")
        said = await refused(b.take(0, "9p", "k1", "disk", "data", holder="bob"), errno.EBUSY)
        assert said == "ann at a has leased /9p/k1/disk"
        await b.take(1, "9p", "k2", "disk")
        await refused(b.take(2, "9p"), errno.EBUSY)
        await a.leases.renew(0)
        await a.leases.give(0)
        second = await b.take(0, "9p", "k1")
        assert second.token > first.token
        await refused(a.take(1, "9p", "k1", "disk"), errno.EBUSY)


async def test_who_waits_anywhere_is_served_in_order(etcd: Cluster) -> None:
    got: list[str] = []
    async with composers(etcd, "a", "b", "c") as (a, b, c), trio.open_nursery() as nursery:
        await a.take(0, "9p", "k1")

        async def wait(name: str, it: Composer, number: int, mode: Mode) -> None:
            await it.take(number, "9p", "k1", mode=mode, wait=SOON)
            got.append(name)

        order: list[tuple[str, Composer, int, Mode]] = [
            ("b1", b, 1, "shared"),
            ("c1", c, 1, "exclusive"),
            ("b2", b, 2, "shared"),
            ("a2", a, 2, "shared"),
        ]
        for at, (name, it, number, mode) in enumerate(order, 1):
            nursery.start_soon(wait, name, it, number, mode)
            await until(partial(queued, at, a, b, c))
        await a.leases.give(0)
        await until(lambda: got == ["b1"])
        await b.leases.give(1)
        await until(lambda: got == ["b1", "c1"])
        await c.leases.give(1)
        await until(lambda: sorted(got[2:]) == ["a2", "b2"])


async def test_of_many_who_ask_at_once_one_has_it(etcd: Cluster) -> None:
    async with composers(etcd, "a", "b", "c") as them:
        for _ in range(5):
            got: list[tuple[Composer, int]] = []

            async def ask(it: Composer, number: int, got: list[tuple[Composer, int]] = got) -> None:
                with suppress_busy():
                    await it.take(number, "9p", "k1")
                    got.append((it, number))

            async with trio.open_nursery() as nursery:
                for it in them:
                    for number in range(3):
                        nursery.start_soon(ask, it, number)
            ((it, number),) = got
            await it.leases.give(number)


async def test_an_entry_of_one_is_found_at_the_other_and_its_name_is_once(etcd: Cluster) -> None:
    async with composers(etcd, "a", "b") as (a, b):
        entry = await a.registry.enter(Entry.parse(["k1", "arch", "x86_64"], "kernel"), None)
        await until(lambda: b.registry.index() == "k1 arch x86_64\n")
        said = await refused(b.registry.enter(Entry.parse(["k1"], "kernel"), None), errno.EEXIST)
        assert said == "k1 is entered already, by kernel at a"
        await a.registry.enter(Entry.parse(["k1", "cpus", "4"], "kernel"), entry)
        await until(lambda: b.registry.index() == "k1 arch x86_64 cpus 4\n")
        a.registry.forget(a.registry.registry.entries["k1"])
        await until(lambda: b.registry.index() == "")
        kept = await b.registry.enter(Entry.parse(["web", "persist", "1"], "bob"), None)
        await until(lambda: "web" in a.registry.registry.entries)
        told = [line.decode().split()[2:] for line in b.registry.event.lines]
        assert told == [
            ["new", "k1", "arch", "x86_64"],
            ["changed", "k1", "arch", "x86_64", "cpus", "4"],
            ["gone", "k1"],
            ["new", "web"],
        ]
        assert kept.persists
    async with composers(etcd, "c") as (c,):
        assert c.registry.index() == "web\n"
