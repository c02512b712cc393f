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
from mk9p.compose.heeded import Heeded, kept_by
from mk9p.compose.namespace import Namespace
from mk9p.composing import namespace
from mk9p.errors import NineError
from mk9p.kernels import Kernels
from mk9p.testing import SOON, Host, serving_at, until
from mk9p.tree import Ctl, Dir, Log, Stream, Text


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


async def test_kernels_that_another_process_holds_are_there_again_with_the_composer(tmp_path: Path) -> None:
    events, where, guest = Log(history=2), f"unix!{tmp_path}/k1", f"unix!{tmp_path}/line"
    state = "active"
    files = {"status": Text(lambda: f"state {state}\ndial {where}\nlisten {guest}\n"), "config": Text("")}
    kernels = Dir({"events": events, "ctl": Text(""), "k1": Dir(files)})
    for _ in range(3):
        events.emit("set", "k1", "cpus", 1)  # its start is no longer told

    async def life(held: Host) -> None:
        """Be a composer for a while."""
        nonlocal state
        async with trio.open_nursery() as nursery:
            ns = namespace(nursery)
            async with serving_at(f"unix!{tmp_path}/ns", ns.root) as host, connect(host.address) as client:
                tree = kept_by(held.address, nursery, wait=60)
                nursery.start_soon(Kernels(tree, ns, host.server, nursery, wait=60).watch)
                await until(lambda: ns.table.points.get("/k/k1"))
                assert "-w 60" in ns.script()
                assert await client.read("k/k1/name") == "k1\n"
                async with connect(guest) as line:
                    assert await line.listdir("k") is not None
                # what holds the kernels restarts: they have ended
                state = "ready"
                events.lines.clear()
                await held.stop()
                await held.start()
                await until(lambda: any(b"down k1" in line for line in ns.events.lines))
                state = "active"
                events.emit("active", "k1", where)
                assert await client.read("k/k1/name") == "k1\n"
            nursery.cancel_scope.cancel()

    k1 = Dir({"name": Text("k1\n")})
    async with serving_at(where, k1), serving_at(f"unix!{tmp_path}/held", Dir({"kernels": kernels})) as held:
        for _ in range(2):
            await life(held)


async def test_a_grant_holds_when_its_word_is_answered_though_another_process_holds_the_kernels(tmp_path: Path) -> None:
    events, guest, granted = Log(), f"unix!{tmp_path}/line", {"/b": "ro"}

    def grant(path: str, mode: str) -> None:
        granted[path] = mode

    def ungrant(path: str) -> None:
        del granted[path]

    files = {
        "status": Text(lambda: f"state active\ndial\nlisten {guest}\n"),
        "config": Text(
            lambda: (
                "boot 'set -e\ngrant /a rw\n'\n" + "".join(f"grant {path} {mode}\n" for path, mode in granted.items())
            )
        ),
        "ctl": Ctl({"grant": grant, "ungrant": ungrant}),
    }
    held_tree = Dir({"kernels": Dir({"events": events, "k1": Dir(files)})})
    async with trio.open_nursery() as nursery, serving_at(f"unix!{tmp_path}/held", held_tree) as held:
        heard: list[Kernels] = []

        async def heed() -> None:
            await heard[0].heed()

        ns = namespace(
            nursery, {"kernels": Heeded(kept_by(held.address, nursery), heed), "a": Text("A"), "b": Text("B")}
        )
        async with serving_at(f"unix!{tmp_path}/ns", ns.root) as host, connect(host.address) as operator:
            heard.append(Kernels(kept_by(held.address, nursery, wait=60), ns, host.server, nursery))
            nursery.start_soon(heard[0].watch)
            await until(lambda: heard[0].listening)
            async with connect(guest) as line:
                assert [entry.name for entry in await line.listdir("")] == ["auth", "b", "k"]
                await operator.write("kernels/k1/ctl", "grant /a ro")  # and no event tells of it
                assert await line.read("a") == "A"
                await operator.write("kernels/k1/ctl", "ungrant /b")
                events.emit("granted", "k1", "/b", "ro")  # of before, and late
                events.emit("ungranted", "k1", "/c")
                await trio.testing.wait_all_tasks_blocked(0.05)
                with pytest.raises(FileNotFoundError):
                    await line.read("b")
        nursery.cancel_scope.cancel()


async def test_what_others_mounted_for_it_stays(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        one.ns.mount(f"unix!{tmp_path}/k1", "/k/k1")
        one.events.emit("active", "k1", "somewhere")
        one.events.emit("deleted", "k1")
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert await one.outside.read("k/k1/name") == "k1\n"


async def test_a_full_disk_ends_nobody_and_a_kernel_is_mounted_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(commands: list[str]) -> None:
        raise NineError(errno.ENOSPC, "state: No space left on device")

    monkeypatch.setattr("mk9p.kernels.AGAIN", 0.01)
    async with lab(tmp_path) as one:
        one.ns.keep = full
        one.events.emit("active", "k1", "somewhere")
        await until(lambda: "k1 cannot be mounted yet" in caplog.text)
        assert not one.ns.table.points
        one.ns.keep = lambda commands: None
        await one.mounted()
        assert await one.outside.read("k/k1/name") == "k1\n"
