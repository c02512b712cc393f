"""Composers of this process that have one etcd, with a namespace each, and kernels that are mounted at them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from mk9p.client import Client, connect
from mk9p.compose.entering import Entering
from mk9p.compose.far import Far
from mk9p.compose.federation import Federation, far_of
from mk9p.compose.line import FRESH
from mk9p.compose.namespace import Namespace
from mk9p.compose.offers import Offers
from mk9p.compose.resources import find, key_of
from mk9p.composing import namespace
from mk9p.etcd.address import parse
from mk9p.lease.entries import RegistryTree
from mk9p.lease.files import LeaseTree
from mk9p.lease.gate import Gate
from mk9p.lease.leases import Leases
from mk9p.lease.opening import shared
from mk9p.lease.shared import Shared
from mk9p.server import Server
from mk9p.testing import serving, serving_at, until
from mk9p.testing.serving import Host, address_of
from mk9p.tree import Dir, split
from tests.etcd.cluster import Cluster
from tests.lease.test_claims import machine
from tests.servers.trees import names


@attrs.define(eq=False)
class Composer:
    """A composer of this process, and a client of it."""

    store: Shared
    leases: Leases
    ns: Namespace
    far: Far
    server: Server
    client: Client


@asynccontextmanager
async def composer(cluster: Cluster, name: str, ttl: int = 5) -> AsyncIterator[Composer]:
    async with composer_at(cluster.where(name, ttl=ttl)) as made:
        yield made


@asynccontextmanager
async def composer_at(where: str) -> AsyncIterator[Composer]:
    """Run a composer with this store."""
    async with shared(parse(where)) as store, trio.open_nursery() as nursery:
        leases, registry = Leases(store), RegistryTree(store)
        lease = LeaseTree(
            leases, lambda path, who: find(ns, path, who), lambda claims, who: Offers(ns, federation.known)(claims, who)
        )
        far = far_of(store, nursery, FRESH, lambda: ns)
        ns = namespace(nursery, {"lease": lease, "registry": registry}, far=far)
        federation = Federation(store, far, ns, Entering(ns, registry, nursery, came=lease.stir), local=True)
        nursery.start_soon(federation.run)
        nursery.start_soon(leases.run)
        async with (
            serving(ns.root, gate=Gate(leases, key_of)) as server,
            connect(address_of(server), version="9P2000.u") as client,
        ):
            yield Composer(store, leases, ns, far, server, client)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def kernel(folder: Path, name: str, *at: Composer, tree: Dir | None = None, cpus: int = 2) -> AsyncIterator[Host]:
    """Serve a kernel, and mount it at some composers."""
    async with serving_at(f"unix!{folder}/{name}", tree or machine("x86_64", cpus)) as host:
        for one in at:
            one.ns.mount(host.address, f"/k/{name.rpartition('.')[2]}")
        yield host


def state(one: Composer, name: str) -> str:
    lines = [split(line) for line in one.ns.mounts().splitlines()]
    return next((line[2] for line in lines if line[0] == f"/k/{name}"), "")


async def sees(one: Composer, *kernels: str) -> bool:
    return sorted(await names(one.client, "k")) == sorted(kernels)


async def until_sees(one: Composer, *kernels: str) -> None:
    await until(partial(sees, one, *kernels))


async def answers(one: Composer, path: str) -> bool:
    try:
        await one.client.listdir(path)
    except OSError:
        return False
    return True
