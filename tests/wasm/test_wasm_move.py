"""`mk9p wasm move` when a kernel is killed at one of its steps: what was frozen is not lost, and the program goes on somewhere, once."""

import errno
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from mk9p.client import Client, File
from mk9p.clients.common import say_to
from mk9p.clients.wasm import moving
from mk9p.composing import namespace
from mk9p.errors import NineError
from mk9p.servers.wasm import tree as programs
from mk9p.testing import SOON, mounted, serving_at, until
from mk9p.testing.serving import Host
from mk9p.tree import Dir, split
from tests.wasm.conftest import Compiled
from tests.wasm.programs_of import Kernel, Program

K1, K2 = "k/k1", "k/k2"


@attrs.frozen
class Lab:
    """A namespace of two kernels; `dies` has for each step whose kernel is killed before it."""

    ns: Client
    hosts: dict[str, Host]
    dies: dict[str, str]

    async def programs(self, kernel: str) -> list[str]:
        """Return the states of a kernel's programs, none where it is gone."""
        try:
            text = await self.ns.read(f"{kernel}/wasm/status")
        except OSError:
            return ["gone"]
        return [split(line)[1] for line in text.splitlines()]

    async def again(self, name: str) -> None:
        """Let a kernel that was killed come back."""
        await self.hosts[name].start()
        await until(lambda: self._back(name))

    async def _back(self, name: str) -> bool:
        return await self.programs(f"k/{name}") == []

    @asynccontextmanager
    async def running(self, module: bytes) -> AsyncIterator[Program]:
        """Give a program of k1 that waits for its input, and has said a line."""
        async with (
            Kernel(self.ns, f"{K1}/wasm/").program("arg filter", "start", module=module) as p,
            await self.ns.open(f"{p.path}/stdin", "w") as stdin,
        ):
            await stdin.write(b"one\n")
            async with await self.ns.open(f"{p.path}/stdout") as stdout:
                assert await stdout.pread(99, 0) == b"0 ONE\n"
            yield p


@pytest.fixture
async def lab(tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lab]:
    monkeypatch.chdir(tmp_path)
    hosts: dict[str, Host] = {}
    dies: dict[str, str] = {}

    async def dying(ns: Client, ctl: File, path: str, line: str) -> str:
        if (kernel := dies.pop(line.split()[0], None)) is not None:
            await hosts[kernel].stop()
        return await say_to(ns, ctl, path, line)

    monkeypatch.setattr(moving, "say_to", dying)
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        ns: Any = namespace(nursery)
        for name in ("k1", "k2"):
            tree = Dir({"wasm": await stack.enter_async_context(programs(cache=cache))})
            hosts[name] = await stack.enter_async_context(serving_at(f"unix!{tmp_path}/{name}", tree))
            ns.mount(hosts[name].address, f"/k/{name}")
        yield Lab(await stack.enter_async_context(mounted(ns.root)), hosts, dies)
        await stack.aclose()
        nursery.cancel_scope.cancel()


STEPS = ("freeze", "going", "start", "keep", "moved")


async def test_a_kernel_that_dies_before_it_has_the_program_leaves_it_running_where_it_was(
    lab: Lab, program: Compiled, long: bool
) -> None:
    for step in STEPS[:-1] if long else ("keep",):
        async with lab.running(program("filter")) as p:
            lab.dies[step] = "k2"
            with trio.fail_after(SOON), pytest.raises(NineError) as caught:
                await moving.move(lab.ns, p.path, K2)
            assert "\n" not in caught.value.ename
            assert await p.state() == "running"
            assert await lab.programs(K2) == ["gone"]
            await p.write("stdin", b"end\n")
            assert await p.read("stdout") == "1 END\n"
        await lab.again("k2")


async def test_a_kernel_that_dies_after_it_was_frozen_loses_nothing(lab: Lab, program: Compiled, long: bool) -> None:
    for step in STEPS[1:] if long else ("going",):
        async with lab.running(program("filter")) as p:
            lab.dies[step] = "k1"
            with trio.fail_after(SOON):
                there = await moving.move(lab.ns, p.path, K2)
            assert await lab.programs(K1) == ["gone"]
            assert await lab.programs(K2) == ["running"]
            await lab.ns.write(f"{there}/stdin", b"end\n")
            assert (await lab.ns.read_bytes(f"{there}/stdout")) == b"1 END\n"
            async with await lab.ns.open(f"{there}/ctl", "w") as ctl:
                await ctl.pwrite(b"unkeep", 0)
        await lab.again("k1")


async def test_when_both_die_its_state_is_in_a_file_here(
    lab: Lab, program: Compiled, tmp_path: Path, kernel: Kernel
) -> None:
    async with lab.running(program("filter")) as p:
        lab.dies.update(going="k1", start="k2")
        with trio.fail_after(SOON), pytest.raises(NineError, match=r"is gone; its state is in k1-0\.state") as caught:
            await moving.move(lab.ns, p.path, K2)
        assert "\n" not in caught.value.ename
    async with kernel.program("start", state=(tmp_path / "k1-0.state").read_bytes()) as here:
        await here.write("stdin", b"end\n")
        assert await here.read("stdout") == "1 END\n"


async def test_a_kernel_that_dies_with_the_program_says_so_in_one_line(lab: Lab, program: Compiled) -> None:
    async with lab.running(program("filter")) as p:
        lab.dies["freeze"] = "k1"
        with trio.fail_after(SOON), pytest.raises(NineError) as caught:
            await moving.move(lab.ns, p.path, K2)
        assert "\n" not in caught.value.ename
        assert await lab.programs(K2) == []


async def test_where_there_is_no_wasm_is_one_line_and_the_program_is_not_stopped(lab: Lab, program: Compiled) -> None:
    async with lab.running(program("filter")) as p:
        with pytest.raises(NineError) as caught:
            await moving.move(lab.ns, p.path, "k/k2/wasm")
        assert caught.value.errno == errno.ENOENT
        assert caught.value.ename == (
            "k/k2/wasm has no wasm: it is not served there, or wasmtime is not installed there"
        )
        assert await p.state() == "running"
