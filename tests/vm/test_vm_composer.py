"""The composer of a lab is killed: no guest ends, no mount is made again, and programs in both kinds of guest see nothing but a pause.

k1 (QEMU) writes to a file of k2 (user-mode Linux), and k2 to one of k1, each by its own v9fs and `mk9p mount -w`. The composer is killed by SIGKILL,
and in between the daemons of the kernels that have the files: every answered and synced byte must be right. The gaps are printed: `pytest -s`;
MK9P_LONG=1 kills a hundred times.
"""

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.vm.blocks import BLOCK, BLOCKS, command, wrong
from tests.vm.lab_vm import PATIENCE, Vm, lab_up, short_folder, until

FILE = "tmp/blocks"
OTHER = {"k1": "k2", "k2": "k1"}  # whose file a kernel writes
SAID = "/tmp/said"
WAIT = 120
MORE = 3  # blocks that are written before and after each kill


@pytest.fixture(scope="module")
def lab(guests: None) -> Iterator[Vm]:
    both: dict[str, Any] = {"serve": ["host", "cmd", "fs:/tmp"], "wait": WAIT}
    kernels: dict[str, dict[str, Any]] = {
        "k1": {"backend": "qemu", "kernel": "6.1", "memory": "512M", "grants": ["/k/k2/fs rw"], **both},
        "k2": {"backend": "uml", "kernel": "uml", "memory": "256M", "grants": ["/k/k1/fs rw"], **both},
    }
    with short_folder() as home, lab_up(home, kernels) as lab:
        yield lab


def lives(lab: Vm) -> dict[str, tuple[str, ...]]:
    """Return what is another one in each life of a kernel, of its emulator, and of its mount."""
    return {
        name: (
            lab.field(f"k/{name}/status", "boot"),
            lab.field(f"kernels/{name}/status", "pid"),
            lab.sh(name, "grep ' /mnt/w ' /proc/self/mountinfo"),
        )
        for name in OTHER
    }


def composer(lab: Vm) -> int:
    """Return the composer's process, 0 while the warden is just writing which."""
    return int((lab.lab.run / "composer").read_text() or 0)


def kill_composer(lab: Vm) -> None:
    pid = until(lambda: composer(lab), "a composer")
    os.kill(pid, signal.SIGKILL)
    until(lambda: composer(lab) not in (0, pid), "another composer")


def kill_daemon(lab: Vm, name: str) -> None:
    (pid,) = lab.pids(name, "mk9p serve")[:1]
    lab.mk9p("run", name, "--", "kill", "-9", pid)


def start(lab: Vm, name: str, seed: int) -> None:
    """Mount the namespace in a guest, and start the program there; what it says is in a file of the guest, for `mk9p run` ends with the composer."""
    dial = lab.field(f"kernels/{name}/status", "guest_dial")
    lab.sh(name, f"cd /; mkdir -p /mnt/w; {sys.executable} -m mk9p mount -w {WAIT} '{dial}' /mnt/w")
    words = shlex.join(command(f"/mnt/w/k/{OTHER[name]}/fs/{FILE}", seed))
    lab.sh(name, f"cd /; setsid {words} </dev/null >{SAID} 2>&1 & echo $! >{SAID}.pid")


def said(lab: Vm, name: str, command: str) -> list[list[str]]:
    """Return what the program has said, a line a block, as a command shows it; it must have said nothing else."""
    done = lab.mk9p("run", name, "--", "sh", "-c", f"{command} {SAID}")
    if done.returncode:  # the composer has just been killed
        return []
    *lines, _ = [line.split() for line in done.stdout.decode().split("\n")]  # the last may be half of one
    assert all(line[:1] == ["wrote"] for line in lines), done.stdout[-2000:].decode()
    return lines


def blocks(lab: Vm, name: str) -> int:
    """Return how many blocks the program has written, 0 if nobody can say."""
    lines = said(lab, name, "tail -n 4")
    return int(lines[-1][1]) + 1 if lines else 0


@pytest.mark.minutes
def test_nobody_ends_with_the_composer(lab: Vm) -> None:
    for name in OTHER:
        lab.sh(name, f"head -c {BLOCKS * BLOCK} /dev/zero >/{FILE}")
    for seed, name in enumerate(OTHER, 1):
        start(lab, name, seed)
    before, table = lives(lab), lab.cat("ns")
    kills = 100

    def go_on(name: str, before: int) -> None:
        until(lambda: blocks(lab, name) >= before + MORE, f"what {name} writes", 2 * PATIENCE)

    counts = dict.fromkeys(OTHER, 0)
    for number in range(kills):
        for name, count in counts.items():
            go_on(name, count)
        counts = {name: until(lambda: blocks(lab, name), name) for name in OTHER}  # noqa: B023  # it is over then
        if number % 4 == 1:
            kill_daemon(lab, list(OTHER)[number // 4 % 2])
        else:
            kill_composer(lab)
    for name, count in counts.items():
        go_on(name, count)
    assert lives(lab) == before
    assert lab.cat("ns") == table
    for seed, (name, other) in enumerate(OTHER.items(), 1):
        lab.sh(name, f"kill $(cat {SAID}.pid)")
        lines = said(lab, name, "cat")
        data = lab.mk9p("cat", f"k/{other}/fs/{FILE}").stdout
        assert wrong(data, seed, int(lines[-1][1])) == []
        times = sorted(float(line[3]) for line in lines)
        longest = times[-kills:]
        print(
            f"{name}: {len(lines)} blocks, p50 {times[len(times) // 2]:.3f} s; after {kills} kills p50 {longest[len(longest) // 2]:.2f} s,"
            f" worst {longest[-1]:.2f} s; {lines[-1][2]} syncs were not sure"
        )
