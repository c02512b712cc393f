"""As whom a program runs: as who began it, with no means to get more; and how many one user may have."""

import errno
import os
from collections import Counter
from pathlib import Path

import pytest
import trio
import trio.testing
import wasmtime

from mk9p.auth import NO_ID, Principal
from mk9p.errors import NineError
from mk9p.servers.wasm import looking, tree
from mk9p.servers.wasm.process import identity
from mk9p.testing import SOON, mounted
from mk9p.tree import Open, settle, split
from tests.servers.talks import talk
from tests.wasm.conftest import Compiled
from tests.wasm.programs_of import Kernel


def field(pid: int, name: str) -> list[str]:
    lines = Path(f"/proc/{pid}/status").read_text().split("\n")
    return next(line for line in lines if line.startswith(f"{name}:")).split()[1:]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_a_program_runs_as_who_began_it_and_gets_no_more_rights(program: Compiled) -> None:
    somebody = Principal("somebody", 65534, frozenset({65533, 65534}), gid=65533)
    async with tree(cache="off") as made, talk(made, who=somebody) as t:
        module = await t.open("module", "w")
        await module.write(program("greedy"))
        with trio.fail_after(SOON):
            for line in ("load", "arg greedy spin", "start"):
                await t.ctl.write(line)
        status = await t.read("status")
        assert split(status)[1] == "running"
        (pid,) = [int(each) for each in os.listdir("/proc") if each.isdigit() and _is_ours(int(each))]
        assert field(pid, "Uid") == ["65534"] * 4
        assert field(pid, "Gid") == ["65533"] * 4
        assert set(field(pid, "Groups")) == {"65533", "65534"}
        assert field(pid, "CapEff") == ["0" * 16]
        assert field(pid, "NoNewPrivs") == ["1"]


def _is_ours(pid: int) -> bool:
    try:
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        return int(parent) == os.getpid() and b"wasm.runner" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_who_has_no_number_here_runs_nothing() -> None:
    nobody = Principal("none", NO_ID, proof="none")
    async with tree(cache="off") as made:
        with pytest.raises(NineError) as caught:
            await settle(made.walk("clone", nobody).open(Open(nobody)))  # type: ignore[union-attr]
        assert caught.value.errno == errno.EACCES
    with pytest.raises(NineError, match="has no number here"):  # setresuid(2) would take it for root's own
        identity(nobody)


async def test_what_a_guest_runs_does_not_count_as_root_s(cache: str) -> None:
    spins = bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1) (func (export "_start") (loop br 0)))'))
    guest = Principal("guest:k1", 0, proof="guest")
    async with tree(cache=cache, programs="1") as made, talk(made, who=guest) as theirs, talk(made) as mine:
        for t in (theirs, mine):
            await (await t.open("module", "w")).write(spins)
            with trio.fail_after(SOON):
                await t.ctl.write("load")
                await t.ctl.write("start")
            assert split(await t.read("status"))[1] == "running"


async def test_modules_of_one_user_are_looked_at_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, most = Counter[str](), Counter[str]()

    async def looked_at(module: int, out: int, cache: str, who: Principal, *, plain: bool = False) -> str:
        now[who.name] += 1
        most[who.name] = max(most[who.name], now[who.name])
        await trio.testing.wait_all_tasks_blocked()
        now[who.name] -= 1
        return ""

    monkeypatch.setattr(looking, "_looked_at", looked_at)
    async with trio.open_nursery() as nursery:
        for _ in range(looking.AT_ONCE + 5):
            for name in ("guest:k1", "guest:k2"):
                nursery.start_soon(looking.looked_at, -1, -1, "", Principal(name, 0, proof="guest"))
    assert most == {"guest:k1": looking.AT_ONCE, "guest:k2": looking.AT_ONCE}


async def test_a_user_has_so_many_programs_and_no_more(program: Compiled, cache: str) -> None:
    async with tree(cache=cache, programs="1") as made, mounted(made) as ns:
        kernel = Kernel(ns)
        greedy = program("greedy")
        async with (
            kernel.program("arg greedy spin", "start", module=greedy) as first,
            kernel.program("arg greedy", module=greedy) as second,
        ):
            with pytest.raises(NineError, match="run already") as caught:
                await second.order("start")
            assert caught.value.errno == errno.EAGAIN
            await first.order("kill")
            assert await first.ending() == "signal SIGKILL"
            await second.order("start")
            assert await second.read("stdout") == "enough\n"
