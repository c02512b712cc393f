"""A kernel's CPUs and interrupts, steered from the host: what the kernel itself says afterwards."""

import errno

import pytest

from mk9p.client import Client
from tests.vm.lab_vm import Vm


def processors(vm: Vm) -> list[int]:
    """Return the CPUs that k1's own /proc/cpuinfo lists."""
    text = vm.sh("k1", "cat /proc/cpuinfo")
    return [int(line.split(":")[1]) for line in text.splitlines() if line.startswith("processor")]


def test_a_cpu_is_taken_away_and_brought_back(vm: Vm) -> None:
    assert processors(vm) == [0, 1]
    vm.write("k/k1/cpu/ctl", "offline 1")
    try:
        assert processors(vm) == [0]
        assert vm.sh("k1", "cat /sys/devices/system/cpu/online") == "0\n"
        assert "1 offline" in vm.cat("k/k1/cpu/status")
    finally:
        vm.write("k/k1/cpu/ctl", "online 1")
    assert processors(vm) == [0, 1]
    assert "1 online" in vm.cat("k/k1/cpu/status")


@pytest.mark.parametrize(
    ("words", "number", "said"),
    [
        ("offline 0", errno.EPERM, "CPU 0 cannot be taken offline"),
        ("offline 9", errno.ENODEV, "9"),
        ("offline", errno.EINVAL, "usage: offline N"),
        ("melt 1", errno.EINVAL, "melt"),
    ],
)
def test_a_refusal_has_words_and_an_errno(vm: Vm, words: str, number: int, said: str) -> None:
    async def refused(ns: Client) -> tuple[OSError, str]:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - what it must say is asserted below
            await ns.write("k/k1/cpu/ctl", f"{words}\n")
        return caught.value, await ns.read("k/k1/cpu/error")

    error, kept = vm.client(refused)
    assert error.errno == number, error
    assert said in str(error)
    assert said in kept
    assert processors(vm) == [0, 1]


def affinity(vm: Vm, irq: str) -> str:
    """Return where k1 itself says that an interrupt may go."""
    return vm.sh("k1", f"cat /proc/irq/{irq}/smp_affinity_list").strip()


def test_an_interrupt_is_moved_and_moved_back(vm: Vm) -> None:
    lines = vm.sh("k1", "cat /proc/interrupts").splitlines()
    irq = next(line.split(":")[0].strip() for line in lines if line.endswith(("ttyS0", "i8042")))
    before = affinity(vm, irq)
    assert before == "0-1"
    for cpu in ("0", "1"):
        vm.write(f"k/k1/irq/{irq}/ctl", f"affinity {cpu}")
        assert affinity(vm, irq) == cpu
        assert vm.field(f"k/k1/irq/{irq}/status", "affinity") == cpu
    vm.write(f"k/k1/irq/{irq}/ctl", f"affinity {before}")
    assert affinity(vm, irq) == before


def test_the_timer_interrupt_stays(vm: Vm) -> None:
    before = affinity(vm, "0")
    done = vm.mk9p("write", "k/k1/irq/0/ctl", "affinity 1")
    assert done.returncode == 1
    assert b"interrupt 0 cannot be moved" in done.stderr
    assert affinity(vm, "0") == before


@pytest.mark.parametrize(
    "words",
    [
        ("run", "k9", "--", "true"),
        ("cat", "k/k9/status"),
        ("write", "k/k9/cpu/ctl", "offline 1"),
        ("write", "kernels/ctl", "delete k9"),
        ("write", "kernels/ctl", "create k1"),
        ("write", "kernels/ctl", "delete k1"),
        ("console", "k9"),
        ("ps", "k9"),
        ("run", "k1", "--", "no-such-command"),
    ],
)
def test_a_mistake_is_one_line(vm: Vm, words: tuple[str, ...]) -> None:
    done = vm.mk9p(*words)
    lines = done.stderr.decode().splitlines()
    assert done.returncode in (1, 127)
    assert len(lines) == 1, lines
    assert lines[0].startswith("mk9p"), lines
    assert words[-1].split()[-1] in lines[0] or any(word in lines[0] for word in words[1:]), lines
    assert "Traceback" not in lines[0]


def test_a_deleted_kernel_is_gone(vm: Vm) -> None:
    vm.write("kernels/ctl", "create k7")
    assert vm.field("kernels/k7/status", "state") == "empty"
    done = vm.mk9p("write", "kernels/k7/ctl", "start")
    assert done.stderr.decode().count("\n") == 1
    assert b"load" in done.stderr
    vm.write("kernels/ctl", "delete k7")
    done = vm.mk9p("cat", "kernels/k7/status")
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
