"""Kernels in the registry: as long as they are up, with what they have, under a name that nobody else has."""

from functools import partial
from pathlib import Path

import pytest
import trio

from mk9p.client import Client, connect
from mk9p.compose.entering import Entering
from mk9p.composing import namespace
from mk9p.lease.entries import RegistryTree
from mk9p.lease.store import Memory
from mk9p.lease.stores import Local
from mk9p.testing import SOON, serving, serving_at, until
from mk9p.testing.serving import address_of
from mk9p.tree import Dir, Text


async def test_a_kernel_is_there_while_it_is_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    status = Text("name k1\narch x86_64\nrelease 6.1\nuptime 5\n")
    tree = Dir({"status": status, "cpu": Dir({"0": Dir({}), "1": Dir({}), "ctl": Text("")}), "usb": Dir({})})
    registry = RegistryTree(Local(Memory()))
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            ns = namespace(nursery, {"registry": registry})
            Entering(ns, registry, nursery)
            async with (
                serving(ns.root) as server,
                connect(address_of(server)) as client,
                serving_at(f"unix!{tmp_path}/k1", tree) as host,
            ):
                ns.mount(host.address, "/k/k1")
                ns.mount(host.address, "/n/else")
                assert await client.read("registry/index") == "", "nobody has used it yet"
                await client.listdir("k/k1")
                await client.listdir("n/else")
                await until(registry.index)
                line = "k1 has ' cpu status usb ' arch x86_64 release 6.1 cpus 2\n"
                assert await client.read("registry/index") == line
                async with await client.open("registry/find", "r+") as find:
                    await find.pwrite(b"has '* usb *' cpus 2", 0)
                    assert await find.pread(99, 0) == b"k1\n"
                await host.stop()
                await until(lambda: registry.index() == "")
                async with await client.open("registry/new", "r+") as new:
                    await new.write(b"k1 mine yes")
                    await host.start()
                    await until(partial(_listed, client))
                    await client.listdir("k/k1")
                    await until(lambda: "k1 is entered already, by root" in caplog.text)
                    assert registry.index() == "k1 mine yes\n"
            nursery.cancel_scope.cancel()


async def _listed(client: Client) -> bool:
    try:
        await client.listdir("k/k1")
    except OSError:  # the composer does not dial again at once
        return False
    return True
