"""Leases between real kernels: two guests' v9fs clients contend for the disk of a third while clients, kernels and the composer are killed. What is
on the disk tells that there were never two writers.

Who has the lease writes its token into the next free block of the disk, syncs that, and goes on, also after it has lost the lease. A block that
somebody wrote with a lease that had ended would stand behind one of a later lease, or instead of it: tokens only grow. That is read from the disk's
image on the host. It takes ten minutes: MK9P_LONG=1; `pytest -s` prints the counts. Programs contend in the short run (tests/lease, tests/etcd).
"""

import os
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest

from tests.vm.lab_vm import ALL, PATIENCE, Vm, insmod, lab_up, short_folder, until
from tests.vm.test_vm_composer import kill_composer
from tests.vm.test_vm_killed import machine
from tests.vm.test_vm_recovery import kill_daemon, kill_emulator, up_again

MOUNT = "/mnt/w"
CLIENTS = ("k2", "k3")
WAIT = 120
SLOT, SLOTS = 512, 1 << 16
SECONDS = 600
KILLS = (*("client",) * 6, *("composer",) * 3, *("kernel",) * 2, "daemon", "emulator")
"""What is killed, by chance: a client's program, the composer, a client's whole kernel; what serves the disk in k1, and all of k1."""

CONTENDER = f"""
import os, random, sys, time
top, name, seed = sys.argv[1:]
random.seed(int(seed))
SLOT, SLOTS = {SLOT}, {SLOTS}

def free(disk):
    low, high = 0, SLOTS
    while low < high:
        middle = (low + high) // 2
        if os.pread(disk, SLOT, middle * SLOT).strip(bytes(1)):
            low = middle + 1
        else:
            high = middle
    return low

while True:
    fds = []
    try:
        ctl = os.open(top + "/lease/clone", os.O_RDWR); fds.append(ctl)
        n = int(os.pread(ctl, 99, 0))
        os.write(ctl, b"take /k/k1/dev/block/vda for 4 wait 30\\n")
        token = open("%s/lease/%d/status" % (top, n)).read().split()[5]
        disk = os.open(top + "/k/k1/dev/block/vda/data", os.O_RDWR); fds.append(disk)
        at = free(disk)
        for number in range(random.randrange(1, 20)):
            line = "%s %s %s %d" % (token, name, seed, number)
            os.pwrite(disk, line.encode().ljust(SLOT), at * SLOT)
            os.fsync(disk)
            at += 1
            time.sleep(random.random() * 0.4)
        if random.random() < 0.6:
            os.write(ctl, b"give\\n")
    except (OSError, IndexError, ValueError) as error:
        print(time.time(), error, file=sys.stderr, flush=True)
    finally:
        for fd in fds:
            try:
                os.close(fd)
            except OSError as error:
                print(error, file=sys.stderr)
    time.sleep(random.random() * 0.2)
"""


@attrs.define
class Contention:
    """The lab, the image of k1's disk, and how often the program was started."""

    vm: Vm
    image: Path
    starts: int = 0

    def records(self) -> list[list[str]]:
        """Return what is on the disk: of each block that is written, the token, whose, of which start, and its number there."""
        data = self.image.read_bytes()
        blocks = (data[at : at + SLOT].decode() for at in range(0, len(data), SLOT))
        found = [block.split() if block.strip("\0") else [] for block in blocks]
        written = max((at for at, one in enumerate(found) if one), default=-1) + 1
        assert all(len(one) == 4 for one in found[:written]), "a block is missing, or half"
        return found[:written]

    def start(self, kernel: str) -> None:
        """Start the program in a kernel."""
        self.starts += 1
        words = f"{sys.executable} /tmp/contender.py {MOUNT} {kernel} {self.starts}"
        self.vm.sh(kernel, f"cd /; setsid {words} > /tmp/said 2>&1 < /dev/null & echo $! > /tmp/contender.pid")

    def prepare(self, kernel: str) -> None:
        """Mount the namespace in a kernel that has just started, and start the program."""
        dial = self.vm.field(f"kernels/{kernel}/status", "guest_dial")
        self.vm.sh(kernel, f"cd /; mkdir -p {MOUNT}; {sys.executable} -m mk9p mount -w {WAIT} '{dial}' {MOUNT}")
        self.vm.sh(kernel, f"printf %s {shlex.quote(CONTENDER)} > /tmp/contender.py")
        self.start(kernel)

    def kill(self, what: str, kernel: str) -> None:
        """Kill something, and see that it is there again."""
        vm = self.vm
        if what == "client":
            vm.sh(kernel, "kill -9 $(cat /tmp/contender.pid)")
            self.start(kernel)
        elif what == "composer":
            kill_composer(vm)
            until(lambda: vm.mk9p("stat", "k/k1/status").returncode == 0, "the namespace")
        elif what == "daemon":
            kill_daemon(vm)
        elif what == "emulator":
            ends = int(vm.field("kernels/k1/status", "ends"))
            kill_emulator(vm)
            up_again(vm, ends)
        else:
            ends = int(vm.field(f"kernels/{kernel}/status", "ends"))
            os.kill(machine(int(vm.field(f"kernels/{kernel}/status", "pid"))), signal.SIGKILL)
            until(lambda: int(vm.field(f"kernels/{kernel}/status", "ends")) > ends, f"the end of {kernel}")
            until(lambda: vm.field(f"kernels/{kernel}/status", "state") == "active", f"{kernel} again", 2 * PATIENCE)
            until(lambda: vm.mk9p("run", kernel, "--", "true").returncode == 0, f"{kernel} serves")
            self.prepare(kernel)

    def grown(self, leases: int) -> None:
        """Wait until there are so many leases more on the disk."""
        before = len({one[0] for one in self.records()})
        try:
            until(lambda: len({one[0] for one in self.records()}) >= before + leases, "more leases", 2 * PATIENCE)
        except AssertionError as error:
            said = {kernel: self.vm.mk9p("run", kernel, "--", "tail", "-5", "/tmp/said").stdout for kernel in CLIENTS}
            raise AssertionError(said, self.vm.cat("lease/status"), self.vm.cat("mounts")) from error

    def check(self) -> str:
        """Raise AssertionError if somebody wrote with a lease that had ended; return what was looked at."""
        records = self.records()
        tokens = [int(token) for token, *_ in records]
        wrong = [at for at in range(1, len(tokens)) if tokens[at] < tokens[at - 1]]
        assert not wrong, f"two writers at {wrong}: {records[wrong[0] - 3 : wrong[0] + 3]}"
        holders = {(token, kernel, start) for token, kernel, start, _ in records}
        assert len(holders) == len(set(tokens)), "two had one token"
        of = Counter(kernel for _, kernel, _ in holders)
        return f"{len(records)} blocks on the disk, of {len(holders)} leases: {dict(of)}"


@pytest.fixture(scope="module")
def contention(guests: None) -> Iterator[Contention]:
    with short_folder() as home:
        image = home / "disk"
        image.write_bytes(bytes(SLOT * SLOTS))
        words = ["-drive", f"file={image},if=none,id=d0,format=raw", "-device", "virtio-blk-pci,drive=d0"]
        all_: dict[str, Any] = {"restart": "always", "wait": WAIT, **ALL}
        uml = {"backend": "uml", "kernel": "uml", "memory": "256M", "serve": ["host", "cmd"], **all_}
        serve = {"serve": ["host", "cmd", "dev/block"], "device": words}
        qemu = {"backend": "qemu", "kernel": "6.1", "memory": "512M", **serve, **all_}
        with lab_up(home, {"k1": qemu, **dict.fromkeys(CLIENTS, uml)}) as vm:
            vm.sh("k1", insmod("6.1", ("virtio_blk",)))
            until(lambda: vm.mk9p("stat", "k/k1/dev/block/vda/data").returncode == 0, "the disk in the namespace")
            yield Contention(vm, image)


def contend(it: Contention, seconds: float) -> None:
    """Let both contend for so long, and kill."""
    for kernel in CLIENTS:
        it.prepare(kernel)
    it.grown(3)
    random, killed = Random(3), Counter[str]()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(random.random() * 4)
        what = random.choice(KILLS)
        it.kill(what, random.choice(CLIENTS))
        killed[what] += 1
        if what != "client":
            it.grown(1)
    it.grown(3)
    for kernel in CLIENTS:
        it.vm.sh(kernel, "kill -9 $(cat /tmp/contender.pid)")
    print(f"{it.check()}; killed {dict(killed)} in {seconds:.0f} s")


@pytest.mark.minutes
def test_two_kernels_are_never_two_writers_on_the_disk_of_a_third(contention: Contention) -> None:
    contend(contention, SECONDS)
