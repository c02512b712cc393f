"""A kernel panics: its branch of the namespace fails at once, nothing else does, and when it is back, so is its path, on the same mount."""

import errno
import time
from contextlib import suppress

import attrs
import trio

from mk9p.client import connect
from tests.vm.lab_vm import PATIENCE, Vm, until

ALLOWED = 3.0  # s; it is a fraction of one on an idle machine


@attrs.define
class Seen:
    """What was seen of a panic, in ns of the clock."""

    wrote: int = 0
    panicked: int = 0
    failed: int = 0
    errno: int | None = 0
    others: list[int] = attrs.field(factory=list)
    slowest: int = 0


async def panic(address: str, seen: Seen) -> None:
    """Read three kernels' files on and on, each on a connection of its own, and make k1 panic."""

    async def reader(name: str) -> None:
        async with connect(address) as ns:
            while not (seen.failed and seen.panicked) or not seen.others or seen.others[-1] < seen.failed:
                before = time.time_ns()
                assert await ns.read(f"k/{name}/status")  # an error here is the test's
                seen.others.append(time.time_ns())
                seen.slowest = max(seen.slowest, seen.others[-1] - before)
                await trio.sleep(0.02)

    async def victim(begun: trio.Event) -> None:
        async with connect(address) as ns:
            while True:
                try:
                    await ns.read("k/k1/status")
                except OSError as error:
                    seen.failed, seen.errno = time.time_ns(), error.errno
                    return
                begun.set()
                await trio.sleep(0.02)

    async def events(begun: trio.Event) -> None:
        async with connect(address) as ns:
            begun.set()
            async for line in ns.lines("kernels/events"):
                _, when, what, *args = line.split()
                if what == "panicked" and args == ["k1"]:
                    seen.panicked = int(when)
                    return

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            ready = [trio.Event(), trio.Event()]
            for task, *args in ((victim, ready[0]), (events, ready[1]), (reader, "k0"), (reader, "k2")):
                nursery.start_soon(task, *args)
            for event in ready:
                await event.wait()
            async with connect(address) as ns:
                seen.wrote = time.time_ns()
                with suppress(OSError):  # the answer may never come
                    await ns.write("k/k1/ctl", "panic\n")


def test_a_panic_is_k1s_alone(vm: Vm, mounted: str) -> None:
    loop = f"while cat {mounted}/k/k0/status {mounted}/k/k2/status >/dev/null; do :; done"
    with (
        vm.started("run", "k2", "--", "sh", "-c", loop) as others,
        vm.started("run", "k2", "--", "cat", f"{mounted}/k/k1/dev/kmsg") as stream,
        vm.started("run", "k1", "--", "sleep", "2000") as command,
    ):
        boot = vm.sh("k1", "cat /proc/sys/kernel/random/boot_id")
        until(lambda: vm.pids("k1", "sleep 2000"), "the command in k1")
        assert stream.stdout is not None
        stream.stdout.read(1)
        seen = Seen()
        try:
            trio.run(panic, vm.lab.address, seen)
            print(
                f"panic: the branch failed {(seen.failed - seen.panicked) / 1e9:.3f} s after the event, {(seen.failed - seen.wrote) / 1e9:.3f} s"
                f" after the write; the slowest read of the others took {seen.slowest / 1e9:.3f} s"
            )
            assert (seen.failed - seen.panicked) / 1e9 < ALLOWED
            assert seen.errno == errno.EIO
            # what was waiting for k1 has failed too, in k2 and here
            _, errors = stream.communicate(timeout=PATIENCE)
            assert stream.returncode == 1
            assert b"Input/output error" in errors
            assert command.wait(PATIENCE) == 1
            # in k2, on its mount
            assert "Input/output error" in vm.sh("k2", f"cat {mounted}/k/k1/status 2>&1; :")
            assert "name k2" in vm.sh("k2", f"cat {mounted}/k/k2/status")
            assert others.poll() is None
            assert vm.field("kernels/k1/status", "state") == "failed"
            assert vm.field("kernels/k1/status", "reason") == "panicked"
            assert "sysrq" in vm.cat("kernels/k1/log")
        finally:
            vm.write("kernels/k1/ctl", "start")
            until(lambda: vm.field("kernels/k1/status", "state") == "active", "k1 again")
        # the same path, on the same mount
        until(lambda: "name k1" in vm.sh("k2", f"cat {mounted}/k/k1/status 2>&1; :"), "k1's branch in k2")
        assert vm.sh("k2", f"cat {mounted}/k/k1/cpu/status").splitlines()[1].startswith("1 online")
        assert vm.sh("k1", "cat /proc/sys/kernel/random/boot_id") != boot
        assert others.poll() is None
