"""CPUs, memory and devices move between real kernels, as these kernels themselves see it."""

import errno
import hashlib
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from mk9p.client import Client
from mk9p.servers.kernels.bare import family
from tests.vm.lab_vm import PATIENCE, Vm, lab_up, short_folder, until

MB = 1 << 20
LONG = bool(os.environ.get("MK9P_LONG"))
MOVES = 1000 if LONG else 12
# what can give and take; a third emulated kernel costs half a minute
MOVERS = ("k1", "k2", "k4") if LONG else ("k1", "k2")
LOAD = (
    "(while [ -e /run/load ]; do dd if=/dev/urandom of=/run/loaded bs=64k count=64 2>/dev/null; done) >/dev/null 2>&1 &"
)


@attrs.frozen
class Two:
    """MOVERS, which can give and take, and k3, a user-mode Linux, which cannot."""

    vm: Vm
    stick: Path
    took: dict[str, list[float]] = attrs.Factory(dict)

    def say(self, words: str, file: str = "kernels/ctl") -> tuple[int, str]:
        """Write words; return the error's number and words, (0, "") if there is none."""

        async def write(ns: Client) -> tuple[int, str]:
            try:
                await ns.write(file, f"{words}\n")
            except OSError as error:
                return error.errno or 0, str(error)
            return 0, ""

        return self.vm.client(write)

    def move(self, kind: str, what: str, source: str, target: str) -> tuple[int, str]:
        told = self.say(f"move {kind} {what} {source} {target}")
        if told == (0, ""):
            last = max(int(name.rstrip("/")) for name in self.vm.mk9p("ls", "kernels/tx").stdout.decode().split())
            self.took.setdefault(kind, []).append(int(self.vm.field(f"kernels/tx/{last}/status", "took")) / 1e9)
        return told

    def online(self, kernel: str) -> set[int]:
        """Return the CPUs that a kernel says are online."""
        found: set[int] = set()
        for part in self.vm.sh(kernel, "cat /sys/devices/system/cpu/online").strip().split(","):
            first, _, last = part.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
        return found

    def total(self, kernel: str) -> int:
        """Return the bytes that a kernel says it has."""
        return (
            int(self.vm.sh(kernel, "while read k v u; do [ $k = MemTotal: ] && echo $v; done </proc/meminfo; :")) << 10
        )

    def disks(self, kernel: str) -> set[str]:
        return set(self.vm.sh(kernel, "ls /sys/block").split())

    def digest(self, kernel: str, disk: str) -> str:
        """Return the hash of a disk, which the kernel reads anew."""
        script = f"echo 3 >/proc/sys/vm/drop_caches; sha256sum /dev/{disk}"
        return self.vm.sh(kernel, script).split()[0]

    def panics(self, kernel: str) -> str:
        return self.vm.sh(kernel, "dmesg | grep -E 'BUG|Oops|Kernel panic|Call Trace|Out of memory' || :")


@pytest.fixture(scope="module")
def two(guests: None) -> Iterator[Two]:
    with short_folder() as home:
        stick = home / "stick.img"
        stick.write_bytes(random.Random(1).randbytes(8 * MB))
        parts = ["host", "cpu", "mem", "proc", "cmd", "dev/block"]
        ours: dict[str, Any] = {"backend": "qemu", "kernel": "6.1", "cpus": 2, "memory": "768M", "serve": parts}
        kernels = {
            **dict.fromkeys(MOVERS, ours),
            "k3": {"backend": "uml", "kernel": "uml", "memory": "256M", "serve": ["cpu", "mem", "cmd"]},
        }
        with lab_up(home, kernels) as vm:
            found = Two(vm, stick)
            found.vm.write(
                "kernels/pool/ctl", f"cpu add 6-7\nmem add 1G\ndev add usb0 usb {stick}\ndev add net0 net closed"
            )
            yield found
            for kind, times in sorted(found.took.items()):
                times.sort()
                middle, worst = times[len(times) // 2], times[-1]
                print(f"\nmove {kind}: {len(times)} times, p50 {middle:.2f} s, worst {worst:.2f} s", end="")


def test_a_cpu_moves(two: Two) -> None:
    assert (two.online("k1"), two.online("k2")) == ({0, 1}, {0, 1})
    assert two.move("cpu", "1", "k1", "k2") == (0, "")
    assert (two.online("k1"), two.online("k2")) == ({0}, {0, 1, 2})
    number, words = two.move("cpu", "0", "k1", "k2")
    assert (number, two.online("k1")) == (errno.EPERM, {0})  # the kernel's own error
    assert words.startswith("k1: ")
    assert two.move("cpu", "2", "k2", "k1") == (0, "")
    assert (two.online("k1"), two.online("k2")) == ({0, 2}, {0, 1})
    assert two.move("cpu", "6-7", "pool", "k1") == (0, "")
    assert two.online("k1") == {0, 2, 6, 7}
    assert two.move("cpu", "6-7", "k1", "pool") == (0, "")
    assert two.vm.cat("kernels/pool/cpus") == "6\n7\n"


def test_memory_moves_under_load_in_both(two: Two) -> None:
    before = {name: two.total(name) for name in ("k1", "k2")}
    for name in before:
        two.vm.sh(name, f"touch /run/load; {LOAD}")
    try:
        two.vm.write("kernels/k1/ctl", "mem add 512M")
        assert two.total("k1") == before["k1"] + 512 * MB
        assert two.move("mem", "256M", "k1", "k2") == (0, "")
        assert two.total("k1") == before["k1"] + 256 * MB
        assert two.total("k2") == before["k2"] + 256 * MB
    finally:
        for name in before:
            two.vm.sh(name, "rm -f /run/load")
    number, words = two.move("mem", "512M", "k2", "k1")
    assert number == errno.ENOMEM
    two.vm.sh(
        "k1",
        "mkdir -p /run/full; mount -t tmpfs -o size=2g full /run/full; dd if=/dev/zero of=/run/full/x bs=1M count=460",
    )
    number, words = two.move("mem", "256M", "k1", "k2")
    assert number == errno.EBUSY
    assert "k1 cannot spare 268435456 bytes" in words
    two.vm.sh("k1", "umount /run/full")
    assert two.move("mem", "256M", "k1", "k2") == (0, "")
    assert two.total("k1") == before["k1"]
    assert two.move("mem", "512M", "k2", "pool") == (0, "")
    assert {name: two.total(name) for name in before} == before


def test_a_stick_moves_with_its_bytes(two: Two) -> None:
    assert two.move("dev", "usb0", "pool", "k1") == (0, "")
    assert two.disks("k1") == {"sda"}
    assert two.digest("k1", "sda") == hashlib.sha256(two.stick.read_bytes()).hexdigest()
    two.vm.sh("k1", "echo written by k1 | dd of=/dev/sda conv=notrunc,fsync 2>/dev/null")
    assert two.move("dev", "usb0", "k1", "k2") == (0, "")
    assert (two.disks("k1"), two.disks("k2")) == (set(), {"sda"})
    assert two.vm.sh("k2", "head -c 13 /dev/sda") == "written by k1"
    assert two.digest("k2", "sda") == hashlib.sha256(two.stick.read_bytes()).hexdigest()
    # one file in two kernels, under another name
    two.vm.write("kernels/pool/ctl", f"dev add copy disk {two.stick}")
    number, words = two.move("dev", "copy", "pool", "k1")
    assert number == errno.EBUSY
    assert "is in use: " in words
    assert two.disks("k1") == set()
    two.vm.write("kernels/pool/ctl", "dev del copy")


def test_a_disk_in_use_stays(two: Two) -> None:
    disk = two.stick.with_name("disk.img")
    with disk.open("wb") as file:
        file.truncate(16 * MB)
    two.vm.write("kernels/pool/ctl", f"dev add disk0 disk {disk}")
    assert two.move("dev", "disk0", "pool", "k1") == (0, "")
    assert two.disks("k1") == {"vda"}
    two.vm.sh("k1", "mkswap /dev/vda >/dev/null && swapon /dev/vda")
    number, words = two.move("dev", "disk0", "k1", "pool")
    assert (number, two.disks("k1")) == (errno.EBUSY, {"vda"})
    assert words.startswith("k1: ")
    two.vm.sh("k1", "swapoff /dev/vda")
    assert two.move("dev", "disk0", "k1", "pool") == (0, "")
    assert two.disks("k1") == set()


def test_a_network_card_moves(two: Two) -> None:
    assert two.move("dev", "net0", "pool", "k1") == (0, "")
    until(lambda: "eth0" in two.vm.sh("k1", "ls /sys/class/net"), "the card in k1")
    address = two.vm.sh("k1", "cat /sys/class/net/eth0/address")
    assert two.move("dev", "net0", "k1", "k2") == (0, "")
    until(lambda: "eth0" in two.vm.sh("k2", "ls /sys/class/net"), "the card in k2")
    assert "eth0" not in two.vm.sh("k1", "ls /sys/class/net")
    assert two.vm.sh("k2", "cat /sys/class/net/eth0/address") == address
    assert two.move("dev", "net0", "k2", "pool") == (0, "")


def test_a_second_half_that_fails_leaves_the_first_undone(two: Two) -> None:
    two.vm.write("kernels/k1/ctl", "mem add 256M")
    before = two.total("k1")
    number, words = two.move("mem", "128M", "k1", "k3")
    assert number in (errno.EOPNOTSUPP, errno.ENODEV)  # in the words of k3 itself
    assert words.startswith("k3: ")
    assert two.total("k1") == before
    online = two.online("k1")
    number, words = two.move("cpu", "2", "k1", "k3")
    assert number in (errno.ENOSPC, errno.EOPNOTSUPP)
    assert two.online("k1") == online
    two.vm.write("kernels/k1/ctl", "mem del 256M")


def test_it_has_what_it_had_when_it_starts_again(two: Two) -> None:
    two.vm.write("kernels/k2/ctl", "cpu add 6\nmem add 128M")
    before = two.total("k2")
    assert two.vm.field("kernels/k2/status", "devices") == "usb0"
    two.vm.write("kernels/k2/ctl", "kill\nstart")
    until(lambda: two.vm.field("kernels/k2/status", "state") == "active", "k2", 2 * PATIENCE)
    until(lambda: abs(two.total("k2") - before) < 4 * MB and two.disks("k2") == {"sda"}, "what k2 had")
    assert two.online("k2") == {0, 1, 2}
    two.vm.write("kernels/k2/ctl", "mem del 128M\ncpu del 2")
    assert two.move("dev", "usb0", "k2", "pool") == (0, "")


def test_random_moves_lose_and_double_nothing(two: Two) -> None:
    chance = random.Random(7)
    two.vm.write("kernels/k1/ctl", "mem add 256M")
    places = [*MOVERS, "pool"]
    base = {name: two.total(name) for name in MOVERS}
    digest = hashlib.sha256(two.stick.read_bytes()).hexdigest()

    def everything() -> tuple[int, int, int]:
        pool = dict(line.partition(" ")[::2] for line in two.vm.cat("kernels/pool/status").splitlines())
        cpus = sum(len(two.online(name)) for name in base) + len(two.vm.cat("kernels/pool/cpus").split())
        memory = sum(two.total(name) for name in base) + int(pool["memory"])
        sticks = sum(len(two.disks(name) & {"sda", "sdb"}) for name in base) + pool["devices"].count("usb0")
        return cpus, memory, sticks

    before = everything()
    applied = 0
    for n in range(MOVES):
        source, target = chance.sample(places, 2)
        kind = ("cpu", "mem", "dev")[n % 3]
        what = {"cpu": str(chance.randrange(8)), "mem": f"{chance.choice([64, 128])}M", "dev": "usb0"}[kind]
        number, words = two.move(kind, what, source, target)
        # EPERM: no kernel gives its first CPU
        assert number in (0, errno.EPERM, errno.EBUSY, errno.ENODEV, errno.ENOMEM, errno.ENOSPC), words
        applied += not number
        if n % 10 == 9 or n == MOVES - 1:
            assert everything() == before
    assert applied
    print(f"\n{MOVES} random moves between {', '.join(places)}: {applied} done, the others refused")
    for name in base:
        assert two.panics(name) == ""
        if found := two.disks(name) & {"sda", "sdb"}:
            assert two.digest(name, found.pop()) == digest


LAB = """
[k1]
cpus = 3
isolated = "1"

[k2]
extra_memory = "128M"
devices = ["usb0"]
"""


def test_a_lab_file_is_applied_and_what_drifts_is_put_right(two: Two) -> None:
    # back to what the random moves began with; the CPUs are free for k1
    for name in MOVERS:
        if name != "k1" and (more := two.online(name) - {0}):
            two.vm.write(f"kernels/{name}/ctl", f"cpu del {','.join(map(str, sorted(more)))}")
        if extra := int(two.vm.field(f"kernels/{name}/status", "extra_memory")):
            two.vm.write(f"kernels/{name}/ctl", f"mem del {extra}")
        if "usb0" in two.vm.field(f"kernels/{name}/status", "devices"):
            two.vm.write(f"kernels/{name}/ctl", "dev del usb0")
    file = two.stick.with_name("desired.toml")
    file.write_text(LAB)
    done = two.vm.mk9p("apply", str(file))
    assert done.returncode == 0, done.stderr.decode()
    assert (len(two.online("k1")), two.disks("k2")) == (3, {"sda"})
    assert two.vm.field("kernels/k2/status", "extra_memory") == str(128 * MB)
    assert "1 isolated" in two.vm.cat("k/k1/cpu/status")
    assert two.vm.mk9p("apply", str(file)).stdout == b""
    assert two.vm.mk9p("diff", str(file)).returncode == 0
    two.vm.sh("k1", "echo 0 >/sys/devices/system/cpu/cpu$(tail -c 2 /sys/devices/system/cpu/online)/online")
    until(lambda: len(two.online("k1")) == 3, "the CPU that somebody took offline")
    two.vm.write("kernels/k2/ctl", "kill")  # its restart is `never`
    until(lambda: two.vm.field("kernels/k2/status", "state") == "active", "k2", 2 * PATIENCE)
    until(lambda: two.vm.cat("kernels/diff") == "" and two.disks("k2") == {"sda"}, "what k2 had")
    assert any(" righted kernels/k2/ctl start" in line for line in events(two, "kernels/events"))
    two.vm.write("kernels/desired", "")


def events(two: Two, path: str) -> list[str]:
    """Return the lines of an events file that are kept."""

    async def read(ns: Client) -> list[str]:
        async with await ns.open(path) as file:
            return (await file.read(1 << 16)).decode().split("\n")

    return two.vm.client(read)


def test_a_guest_that_does_not_answer_is_told_and_started_again(two: Two) -> None:
    """Its emulator stands still, and nothing has ended: only asking shows it."""
    two.vm.write("kernels/k2/ctl", "restart on-failure\nwatch 5 restart")
    pid = int(two.vm.field("kernels/k2/status", "pid"))
    ends = int(two.vm.field("kernels/k2/status", "ends"))
    for one in family(pid)[1:]:  # the eldest waits for the others, and must see them end
        os.kill(one, signal.SIGSTOP)
    until(lambda: int(two.vm.field("kernels/k2/status", "ends")) > ends, "its end")
    until(lambda: two.vm.field("kernels/k2/status", "state") == "active", "k2", 2 * PATIENCE)
    assert any(" silent " in line and "no answer in 5 s" in line for line in events(two, "kernels/k2/events"))
    two.vm.write("kernels/k2/ctl", "watch 0 tell\nrestart never")


def test_a_frozen_guest_holds_a_reader_and_a_thawed_one_answers(two: Two) -> None:
    two.vm.write("kernels/k1/ctl", "freeze")
    with two.vm.started("cat", "k/k1/status") as reader:
        with pytest.raises(subprocess.TimeoutExpired):
            reader.wait(2)
        two.vm.write("kernels/k1/ctl", "thaw")
        assert reader.stdout is not None
        assert b"name k1" in reader.stdout.read()
