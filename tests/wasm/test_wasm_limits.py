"""What a program's process may take of its machine: a control group holds it, where there is one."""

# ruff: noqa: ASYNC240 - what blocks here is memory (/proc, /sys)

import os
from pathlib import Path

import pytest

from mk9p import cgroups
from mk9p.servers.wasm.confine import RUNTIME
from mk9p.servers.wasm.process import group
from tests.wasm.conftest import Compiled
from tests.wasm.programs_of import Kernel

ROOM = 32 << 20


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes control groups")
async def test_a_program_is_held_by_a_group_that_goes_with_it(kernel: Kernel, program: Compiled) -> None:
    wanted = group(3 * ROOM + RUNTIME)
    places = list(cgroups.places(cgroups.MOUNTS.read_text(), cgroups.GROUPS.read_text()))
    assert places, "this machine has no control group to try that"
    async with kernel.program(f"limit memory {ROOM}", "arg greedy spin", "start", module=program("greedy")) as p:
        pids = set()
        for what, parent, version in places:
            (folder,) = parent.glob(f"mk9p-{os.getpid()}-wasm-*")
            pids.add((folder / "cgroup.procs").read_text().strip())
            for file, text in wanted[what][version - 1].items():
                assert (folder / file).read_text().strip() == text
        (pid,) = pids
        assert f"-{pid}-" in folder.name
        assert Path("/proc", pid, "oom_score_adj").read_text() == "500\n"
        await p.order("kill")
        assert await p.ending() == "signal SIGKILL"
        assert not any(list(parent.glob(f"mk9p-{os.getpid()}-wasm-*")) for _, parent, _ in places)
