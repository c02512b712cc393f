"""Every resource server's tree with all kinds of files in it: on a made-up machine where this one need not have them, and with what users make."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from mk9p.auth import ROOT, Principal
from mk9p.authority.book import Book
from mk9p.authority.capabilities import Capabilities
from mk9p.authority.deciding import Authority
from mk9p.authority.files import Auth
from mk9p.authority.ledger import Ledger
from mk9p.authority.policy import Rules
from mk9p.client import Client
from mk9p.composing import namespace
from mk9p.lease.entries import RegistryTree
from mk9p.lease.files import LeaseTree
from mk9p.lease.leases import Leases
from mk9p.lease.store import Memory as Store
from mk9p.lease.stores import Local
from mk9p.lease.wish import Resource
from mk9p.loading import available
from mk9p.server import Tally, stats_tree
from mk9p.testing import mounted, serving_at
from mk9p.tree import Dir, Node, Text, settle
from tests.servers.every_tree import make
from tests.servers.trees import plant

# what stands in capitals in their pages, so that a new file is not taken for one of those
PLACES = {
    "dev/block": {"NAME": "sda", "PART": "p1"},
    "dev/tty": {"NAME": "ttyS0"},
    "srv": {"NAME": "mine"},
    "chan": {"NAME": "[0-9]+|made"},
    "seg": {"NAME": "made"},
    "kernels": {"NAME": "k0|made"},
    "compose": {"NAME": "k0"},
    "registry": {"NAME": "web"},
}


def block(root: Path) -> None:
    plant(root, {"sys/block/sda/size": "64", "sys/block/sda/sda1/partition": "1", "dev/sda": ""})
    plant(root, {"sys/block/sda/sda1/start": "8", "sys/block/sda/sda1/size": "8"})
    (root / "dev/sda").write_bytes(bytes(64 * 512))


def tty(root: Path) -> None:
    plant(root, {"sys/class/tty/ttyS0/dev": "4:64", "dev/ttyS0": ""})


def mem(root: Path) -> None:
    plant(root, {f"sys/devices/system/memory/{name}": "8000000" for name in ("block_size_bytes", "memory0/state")})
    plant(root, {"sys/devices/system/node/node0/meminfo": "Node 0 MemTotal: 1024 kB", "proc/meminfo": "MemTotal: 1 kB"})


def pci(root: Path) -> None:
    plant(root, {"sys/bus/pci/devices/0000:00:03.0/vendor": "0x8086", "sys/bus/pci/rescan": ""})


def usb(root: Path) -> None:
    plant(root, {"sys/bus/usb/devices/1-2/idVendor": "46f4", "sys/bus/usb/devices/1-2/descriptors": ""})


MACHINES: dict[str, Callable[[Path], None]] = {
    "dev/block": block,
    "dev/tty": tty,
    "dev/pci": pci,
    "dev/usb": usb,
    "mem": mem,
}


async def users(name: str, client: Client, stack: AsyncExitStack) -> None:
    """Do what users do before there are files: make directories, post services."""
    if name in ("chan", "seg", "kernels"):
        await client.mkdir("made")
    if name == "kernels":
        await client.write("pool/ctl", "cpu add 4\n")  # a transaction
    if name == "srv":
        file = await stack.enter_async_context(await client.create("mine"))
        await file.write(b"unix!/nowhere\n")


@asynccontextmanager
async def whole(name: str, folder: Path) -> AsyncIterator[Client]:
    """Give a client of a server's tree, as it hangs at its name."""
    machine = MACHINES.get(name)
    function: Callable[..., Any] = make(name, folder)
    if machine is not None:
        machine(folder)
        function = available()[name].load()
    async with AsyncExitStack() as stack:
        made: Any = function(root=str(folder)) if machine else function()
        tree: Node = made if isinstance(made, Node) else await stack.enter_async_context(made)
        if name == "proc":
            tree = Dir({"1": await settle(tree.walk(str(os.getpid()), ROOT))})
        if name == "fs":
            tree = Dir({"given": tree})
        client = await stack.enter_async_context(mounted(tree))
        await users(name, client, stack)
        yield client


@asynccontextmanager
async def composed(folder: Path) -> AsyncIterator[Client]:
    """Give a client of a composed namespace with one kernel that has one part."""
    async with trio.open_nursery() as nursery:
        some = Dir({"status": Text("")})
        ns = namespace(nursery, {"kernels": some, "lease": some, "registry": some, "tf": some})
        async with serving_at(f"unix!{folder}/k0", Dir({"cpu": Dir({"0": Dir({"status": Text("")})})})) as host:
            ns.mount(host.address, "/k/k0")
            async with mounted(ns.root) as client:
                yield client
        nursery.cancel_scope.cancel()


def authority(folder: Path) -> Node:
    """Return `auth` of a server that takes capabilities and has rules."""
    auth = Auth(Authority(book=Book(Rules())))
    Capabilities(auth.authority, Ledger(folder / "grants")).add_to(auth)
    return auth.tree()


async def _found(path: str, who: Principal) -> Resource:
    return Resource(path, (path,))


def registry() -> Node:
    """Return a registry with an entry."""
    store = Store()
    store.enter("web", "ann", "web addr x")
    return RegistryTree(Local(store))


# what has a page and is no resource server, by the name of the page
BESIDE: dict[str, Callable[[Path], AbstractAsyncContextManager[Client]]] = {
    "auth": lambda folder: mounted(authority(folder)),
    "compose": composed,
    "lease": lambda folder: mounted(LeaseTree(Leases(Local(Store())), _found)),
    "registry": lambda folder: mounted(registry()),
    "stats": lambda folder: mounted(stats_tree(Tally())),
}
