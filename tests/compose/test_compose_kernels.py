"""What the composer does for the kernels of `kernels/`: a made-up one, whose server is this process, comes, ends, and comes again."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from mk9p.client import Client, connect
from mk9p.compose.namespace import Namespace
from mk9p.composing import Kernels, namespace
from mk9p.errors import NineError
from mk9p.testing import SOON, serving_at, until
from mk9p.tree import Dir, Log, Stream, Text


@attrs.define(eq=False)
class Lab:
    """A namespace with its `kernels/`, of which one is k1: alive as long as anything says so."""

    ns: Namespace
    events: Log
    outside: Client

    async def mounted(self) -> None:
        await until(lambda: self.ns.table.points.get("/k/k1"))


@asynccontextmanager
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    events, where = Log(), f"unix!{tmp_path}/k1"
    status = Text(lambda: f"state active\ndial {where}\nlisten\n")
    kernels = Dir({"events": events, "k1": Dir({"status": status})})
    wait = Stream(trio.sleep_forever)
    k1 = Dir({"name": Text("k1\n"), "wait": wait, "d": Dir({"wait": wait})})
    async with trio.open_nursery() as nursery, serving_at(where, k1):
        ns = namespace(nursery, {"kernels": kernels})
        async with serving_at(f"unix!{tmp_path}/ns", ns.root) as host:
            nursery.start_soon(Kernels(kernels, ns, host.server, nursery).watch)
            async with connect(f"unix!{tmp_path}/ns") as outside:
                yield Lab(ns, events, outside)
            nursery.cancel_scope.cancel()


async def gone(client: Client, path: str) -> None:
    with pytest.raises(NineError) as caught:
        await client.read(path)
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("how", ["dead", "panicked", "killed"])
async def test_a_kernel_that_ended_is_hung_up_on_though_its_line_says_nothing(tmp_path: Path, how: str) -> None:
    async with lab(tmp_path) as one:
        for _ in range(2):
            one.events.emit("active", "k1", "somewhere")
            await one.mounted()
            assert await one.outside.read("k/k1/name") == "k1\n"
            with trio.fail_after(SOON):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(gone, one.outside, "k/k1/wait")  # passed on
                    nursery.start_soon(gone, one.outside, "all/d/k1.wait")  # asked for by the composer itself
                    await trio.testing.wait_all_tasks_blocked(0.05)
                    one.events.emit(how, "k1", "of something")


async def test_an_ordinary_event_ends_nothing(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        one.events.emit("active", "k1", "somewhere")
        await one.mounted()
        async with await one.outside.open("k/k1/name") as name:
            one.events.emit("set", "k1", "cpus", 2)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert await name.read() == b"k1\n"


@pytest.mark.parametrize("unmounted", [False, True])
async def test_a_kernel_that_is_forgotten_has_no_branch(tmp_path: Path, unmounted: bool) -> None:
    async with lab(tmp_path) as one:
        for _ in range(2):
            one.events.emit("active", "k1", "somewhere")
            await one.mounted()
            if unmounted:
                one.ns.unmount("/k/k1")
            one.events.emit("dead", "k1")
            one.events.emit("deleted", "k1")
            await until(lambda: not one.ns.table.points.get("/k/k1"))
            await trio.testing.wait_all_tasks_blocked(0.01)
            with pytest.raises(FileNotFoundError):
                await one.outside.read("k/k1/name")


async def test_what_others_mounted_for_it_stays(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        one.ns.mount(f"unix!{tmp_path}/k1", "/k/k1")
        one.events.emit("active", "k1", "somewhere")
        one.events.emit("deleted", "k1")
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert await one.outside.read("k/k1/name") == "k1\n"
