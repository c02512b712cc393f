"""Composers of this process that have one etcd: their leases and their registry, without a namespace."""

import errno
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import attrs
import pytest
import trio

from mk9p.errors import NineError
from mk9p.etcd.address import parse
from mk9p.lease.book import Lease
from mk9p.lease.entries import RegistryTree
from mk9p.lease.leases import Clock, Leases, Steady
from mk9p.lease.opening import shared
from mk9p.lease.shared import Shared
from mk9p.lease.wish import SECOND, Mode, Wish
from mk9p.testing import SOON
from tests.etcd.cluster import Cluster


@attrs.define(eq=False)
class Composer:
    """What a composer has of leases and entries."""

    store: Shared
    leases: Leases
    registry: RegistryTree

    async def take(
        self,
        number: int,
        *key: str,
        mode: Mode = "exclusive",
        holder: str = "ann",
        term: float = 60,
        wait: float | None = None,
    ) -> Lease:
        wish = Wish(number, "/" + "/".join(key), key, mode, holder, round(term * SECOND))
        return await self.leases.take(wish, wait)


@asynccontextmanager
async def composer(
    cluster: Cluster, name: str, clock: Clock | None = None, **options: object
) -> AsyncIterator[Composer]:
    clock = clock or Steady()
    async with shared(parse(cluster.where(name, **options)), clock) as store:
        leases = Leases(store, clock)
        registry = RegistryTree(store)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leases.run)
            yield Composer(store, leases, registry)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def composers(cluster: Cluster, *names: str, ttl: int = 5) -> AsyncIterator[list[Composer]]:
    with trio.fail_after(2 * SOON):
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(composer(cluster, name, ttl=ttl)) for name in names]


@contextmanager
def suppress_busy() -> Iterator[None]:
    """Let EBUSY pass, and no other error."""
    try:
        yield
    except NineError as error:
        if error.errno != errno.EBUSY:
            raise


def queued(count: int, *them: Composer) -> bool:
    """Tell whether all composers know of so many who wait."""
    return all(len(one.leases.book.waiting) == count for one in them)


async def refused(what: Any, number: int) -> str:
    with pytest.raises(NineError) as caught:
        await what
    assert caught.value.errno == number, caught.value
    return str(caught.value)
