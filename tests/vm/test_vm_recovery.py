"""A program in k2, on its v9fs mount, writes and reads a disk of k1 with `mount -w`, while k1 is killed in every way there is.

Its daemon is killed by SIGKILL, its kernel panics, its QEMU is killed: every answered and synced byte must be right, and the program sees nothing but
gaps, and a sync that says that something may be lost, after which it writes that again. The gaps are printed: `pytest -s`; MK9P_LONG=1 kills a
hundred times. The lab is one of its own: its guests are killed.
"""

import itertools
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.vm.blocks import BLOCK, BLOCKS, Writer, command, wrong
from tests.vm.lab_vm import PATIENCE, Vm, insmod, lab_up, short_folder, until
from tests.vm.test_vm_killed import machine

SEED = 7
SHORTEST = 1.0  # seconds that a gap has at least: so long a guest waits before it serves again
DISK = "k/k1/dev/block/vda/data"


@pytest.fixture(scope="module")
def lab(guests: None) -> Iterator[Vm]:
    with short_folder() as home:
        disk = home / "disk"
        disk.write_bytes(bytes(BLOCKS * BLOCK))
        words = ["-drive", f"file={disk},if=none,id=d0,format=raw", "-device", "virtio-blk-pci,drive=d0"]
        kernels: dict[str, dict[str, Any]] = {
            "k1": {
                "backend": "qemu",
                "kernel": "6.1",
                "memory": "512M",
                "serve": ["host", "cmd", "dev/block"],
                "device": words,
                # at once, and however often: nothing here is a crash loop
                "restart": "always max 999 in 1",
            },
            "k2": {
                "backend": "uml",
                "kernel": "uml",
                "memory": "256M",
                "serve": ["host", "cmd"],
                "grants": ["/k/k1 rw"],
            },
        }
        with lab_up(home, kernels) as lab:
            yield lab


def kill_daemon(lab: Vm) -> None:
    (pid,) = lab.pids("k1", "mk9p serve")[:1]
    lab.mk9p("run", "k1", "--", "kill", "-9", pid)


def kill_emulator(lab: Vm) -> None:
    pid = machine(int(lab.field("kernels/k1/status", "pid")))
    assert Path(f"/proc/{pid}/comm").read_text().startswith("qemu")
    os.kill(pid, signal.SIGKILL)


def panic(lab: Vm) -> None:
    lab.mk9p("write", "k/k1/ctl", "panic")


def up_again(lab: Vm, ends: int) -> None:
    """Wait for the next life of k1, and give it its disk."""
    until(lambda: int(lab.field("kernels/k1/status", "ends")) > ends, "the end of k1")
    until(lambda: lab.field("kernels/k1/status", "state") == "active", "k1 again", 2 * PATIENCE)
    until(lambda: lab.mk9p("run", "k1", "--", "sh", "-c", insmod("6.1", ("virtio_blk",))).returncode == 0, "its disk")


@pytest.mark.minutes
def test_a_program_goes_on_while_the_kernel_behind_its_file_is_killed(lab: Vm) -> None:
    lab.sh("k1", insmod("6.1", ("virtio_blk",)))
    address = next(line.split()[-2] for line in lab.cat("ns").splitlines() if line.endswith(" /k/k1"))
    lab.write("ctl", f"mount -w 120 {address} /k/k1")
    until(lambda: lab.mk9p("stat", DISK).returncode == 0, "the disk in the namespace")
    lab.mount("k2", "/mnt/w")
    gaps: dict[str, list[float]] = {}
    ways = {"daemon": kill_daemon, "emulator": kill_emulator, "panic": panic}
    with lab.started("run", "k2", "--", *command(f"/mnt/w/{DISK}", SEED)) as process:
        writer = Writer(process)
        writer.wrote()
        for number, what in zip(range(100), itertools.cycle(ways), strict=False):
            writer.caught_up()
            for _ in range(5):
                writer.wrote()
            ends = int(lab.field("kernels/k1/status", "ends"))
            with suppress(AssertionError):  # the answer may never come
                ways[what](lab)
            if what != "daemon":
                up_again(lab, ends)
            gap = writer.gap(SHORTEST)
            gaps.setdefault(what, []).append(gap)
            print(f"{number} {what}: {writer.done} blocks, the longest took {gap:.1f} s")
        done = writer.end()
    # what the disk has is what the program was told
    found = lab.mk9p("cat", DISK)
    assert found.returncode == 0, found.stderr.decode()
    assert wrong(found.stdout, SEED, done) == []
    for what, times in gaps.items():
        times.sort()
        print(f"{what}: {len(times)} times, the gap p50 {times[len(times) // 2]:.1f} s, worst {times[-1]:.1f} s")
