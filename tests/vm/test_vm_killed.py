"""What is killed without a word: a guest's relay in the middle of a frame, and whole kernels. The lab is one of its own: its guests are killed.

The line of a guest under QEMU does not hang up when the program that had it open in the guest is gone, so half a frame stays on it; the one who
mounts next is heard all the same, and what was half said is not done. A kernel that is killed hangs up its links itself, or its emulator does.
"""

import errno
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from mk9p.client import Client, connect
from tests.vm.lab_vm import PATIENCE, Vm, lab_up, short_folder, until

SIZE = 32  # MiB that are written at most before the relay is killed
ROUNDS = 8  # a relay is killed that often at most: it is nearly always in the middle of a frame
ALLOWED = 3.0  # s for a killed kernel's branch to fail; it is a fraction of one on an idle machine
HALF = "half a frame"


@pytest.fixture(scope="module")
def lab(guests: None) -> Iterator[Vm]:
    kernels: dict[str, dict[str, Any]] = {
        "k1": {
            "backend": "qemu",
            "kernel": "6.1",
            "memory": "512M",
            "serve": ["host", "cmd"],
            "grants": ["/k/k0 rw"],
        },
        "k2": {"backend": "uml", "kernel": "uml", "memory": "256M", "serve": ["host", "cmd"]},
    }
    with short_folder() as home, lab_up(home, kernels) as lab:
        yield lab


@pytest.mark.minutes
def test_a_relay_killed_in_the_middle_of_a_frame(lab: Vm) -> None:
    mk9p = f"cd /; {sys.executable} -m mk9p"
    half, note = "k/k0/seg/half", "k/k0/seg/note"
    for segment in (half, note):
        lab.client(lambda ns, path=segment: ns.mkdir(path))  # type: ignore[misc]
    lab.write(f"{note}/ctl", "size 4096")
    script = (
        "mkdir -p /mnt/h; head -c 1M /dev/urandom > /tmp/one; for n in $(seq $SIZE); do cat /tmp/one; done > /tmp/all"
    )
    lab.sh("k1", f"SIZE={SIZE}; {script}")
    pattern = lab.mk9p("run", "k1", "--", "cat", "/tmp/one").stdout * SIZE
    assert len(pattern) == SIZE << 20
    for number in range(ROUNDS):
        lab.write(f"{half}/ctl", "size 0")
        lab.write(f"{half}/ctl", f"size {SIZE << 20}")
        lab.mount("k1", "/mnt/h")
        (relay,) = lab.pids("k1", "mk9p mount")
        with lab.started("run", "k1", "--", "dd", "if=/tmp/all", f"of=/mnt/h/{half}/data", "bs=1M", "conv=notrunc"):
            until(lambda: lab.client(lambda ns: first(ns, f"{half}/data")).strip(b"\0"), "what k1 writes")
            lab.sh("k1", f"kill -9 {relay}")
        lab.sh("k1", f"{mk9p} umount -l /mnt/h")
        # the same line again, and right data both ways
        before = time.monotonic()
        lab.mount("k1", "/mnt/h")
        took = time.monotonic() - before
        lab.sh("k1", f"echo round {number} | dd of=/mnt/h/{note}/data conv=notrunc 2>/dev/null")
        assert lab.client(lambda ns: first(ns, f"{note}/data")).startswith(f"round {number}\n".encode())
        release = lab.sh("k0", "uname -r").strip()
        assert f"release {release}\n" in lab.sh("k1", "cat /mnt/h/k/k0/status")
        lab.sh("k1", f"{mk9p} umount /mnt/h")
        # and of what was half said nothing was done
        data = lab.mk9p("cat", f"{half}/data").stdout
        done = data.rstrip(b"\0")
        assert len(data) == len(pattern)
        assert pattern.startswith(done)
        found = lab.lab.log.read_text().count(HALF)
        print(f"relay: killed after {len(done)} bytes, mounted again in {took:.2f} s, half frames so far: {found}")
        if found:
            return
    pytest.fail(f"{ROUNDS} relays were killed, and none in the middle of a frame: {lab.lab.log.read_text()}")


async def first(ns: Client, path: str) -> bytes:
    """Return how a file begins."""
    async with await ns.open(path) as file:
        return await file.pread(16, 0)


@attrs.define
class Seen:
    """When the branch of a kernel failed, in ns, with what; how often the others were read, and how long that took at most."""

    failed: int = 0
    errno: int | None = 0
    blocked: int = 0
    others: int = 0
    slowest: int = 0


async def kill(address: str, name: str, others: list[str], pid: int, seen: Seen) -> int:
    """Kill a kernel's process while its files are read, one in a read that waits, and return when that was."""

    async def reader(other: str) -> None:
        async with connect(address) as ns:
            while not (seen.failed and seen.blocked):
                before = time.monotonic_ns()
                assert await ns.read(f"k/{other}/status")  # an error here is the test's
                seen.slowest = max(seen.slowest, time.monotonic_ns() - before)
                seen.others += 1
                await trio.sleep(0.02)

    async def victim(begun: trio.Event) -> None:
        async with connect(address) as ns:
            while True:
                try:
                    await ns.read(f"k/{name}/status")
                except OSError as error:
                    seen.failed, seen.errno = time.monotonic_ns(), error.errno
                    return
                begun.set()

    async def waiting(begun: trio.Event) -> None:
        async with connect(address) as ns, await ns.open(f"k/{name}/cmd/clone", "r+") as ctl:
            number = (await ctl.pread(32, 0)).decode().strip()
            async with await ns.open(f"k/{name}/cmd/{number}/wait") as wait:
                await ctl.pwrite(b"exec sleep 5000", 0)
                begun.set()
                with pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
                    await wait.pread(4096, 0)
                seen.blocked = time.monotonic_ns()
                assert caught.value.errno == errno.EIO

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            ready = [trio.Event(), trio.Event()]
            nursery.start_soon(victim, ready[0])
            nursery.start_soon(waiting, ready[1])
            for other in others:
                nursery.start_soon(reader, other)
            for event in ready:
                await event.wait()
            killed = time.monotonic_ns()
            os.kill(pid, signal.SIGKILL)
    return killed


def machine(pid: int) -> int:
    """Return the process that is the kernel, or its emulator: the innermost one, for a user-mode Linux is in a PID namespace."""
    while Path(f"/proc/{pid}/comm").read_text().strip() in ("unshare", "sh"):
        pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    return pid


@pytest.mark.parametrize(("name", "other"), [("k1", "k2"), ("k2", "k0")])
def test_a_killed_kernel_fails_at_once(lab: Vm, name: str, other: str) -> None:
    """The last tests here: the kernels are killed, k1 first."""
    seen = Seen()
    pid = machine(int(lab.field(f"kernels/{name}/status", "pid")))
    assert Path(f"/proc/{pid}/comm").read_text().startswith({"k1": "qemu", "k2": "linux"}[name])
    killed = trio.run(kill, lab.lab.address, name, ["k0", other], pid, seen)
    print(
        f"{name} killed: its branch failed after {(seen.failed - killed) / 1e9:.3f} s, what waited there after {(seen.blocked - killed) / 1e9:.3f} s;"
        f" the slowest of {seen.others} reads of the others took {seen.slowest / 1e9:.3f} s"
    )
    assert (seen.failed - killed) / 1e9 < ALLOWED
    assert (seen.blocked - killed) / 1e9 < ALLOWED
    assert seen.errno == errno.EIO
    until(lambda: lab.field(f"kernels/{name}/status", "state") == "dead", f"the end of {name}")
    assert f"release {os.uname().release}\n" in lab.cat("k/k0/status")
