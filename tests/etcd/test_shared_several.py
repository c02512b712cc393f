"""Leases of several resources, of several composers that have one etcd: together or not at all, whoever else wants a part."""

import errno
from random import Random

import trio

from mk9p.lease.book import Lease
from mk9p.lease.wish import SECOND, Key, Resource, Wish
from mk9p.lease.written import MARKS
from mk9p.testing import until
from tests.etcd.cluster import Cluster
from tests.etcd.composers import Composer, composers, refused, suppress_busy
from tests.lease.compared import overlap


async def take(it: Composer, number: int, *names: str, term: float = 60) -> Lease:
    first, *more = [Resource(f"/{name}", ("9p", *name.split("/"))) for name in names]
    return await it.leases.take(Wish(number, *first, "exclusive", "ann", round(term * SECOND), more=tuple(more)))


async def test_each_part_is_in_the_way_at_another_composer(etcd: Cluster) -> None:
    async with composers(etcd, "a", "b") as (a, b):
        first = await take(a, 0, "k1/cpu/0", "k2/cpu/0", "k3")
        for name, held in (("k1/cpu/0", "k1/cpu/0"), ("k2", "k2/cpu/0"), ("k3/disk", "k3")):
            assert await refused(take(b, 0, "k9", name), errno.EBUSY) == f"ann at a has leased /{held}"
        await take(b, 0, "k9", "k2/cpu/1")
        await a.leases.give(0)
        second = await take(b, 1, "k3", "k1")
        assert second.token > first.token
        too_many = [f"k{n}" for n in range(100, 102 + MARKS)]
        await refused(take(a, 0, *too_many), errno.ENOSPC)


async def test_who_decides_at_once_never_has_a_part_that_another_has(etcd: Cluster) -> None:
    """Each wants some of the same few; the first of one is the second of another, so that they meet at no common place."""
    names = ["k1/cpu/0", "k2/cpu/0", "k3/cpu/0", "k4"]
    granted: list[tuple[int, str]] = []
    held: list[list[Key]] = []
    async with composers(etcd, "a", "b", "c") as them:

        async def some(it: Composer, seed: int) -> None:
            random = Random(seed)
            for number in range(seed * 100, seed * 100 + 25):
                wanted = random.sample(names, 2)
                with suppress_busy():
                    lease = await take(it, number, *wanted)
                    keys = [key for _, key in lease.wish.resources]
                    assert not any(overlap(mine, its) for mine in keys for other in held for its in other)
                    held.append(keys)
                    granted.append((lease.token, it.store.session.name))
                    await trio.sleep(random.random() / 50)
                    held.remove(keys)
                    await it.leases.give(number)

        async with trio.open_nursery() as nursery:
            for seed, it in enumerate(them):
                nursery.start_soon(some, it, seed)
        await until(lambda: not any(one.leases.book.leases for one in them))
    assert len({token for token, _ in granted}) == len(granted) > 5
    assert len({name for _, name in granted}) > 1
