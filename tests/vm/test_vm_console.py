"""Consoles: what a kernel prints, and its keyboard."""

import os
import subprocess
import termios

import pytest

from tests.vm.lab_vm import PATIENCE, Pipe, Vm


@pytest.mark.parametrize("kernel", ["k1", "k2"])
def test_the_console_is_read_and_typed_on(vm: Vm, kernel: str) -> None:
    assert f"mk9p: {kernel} has booted" in vm.cat(f"kernels/{kernel}/log")
    with vm.started("cat", f"kernels/{kernel}/console") as process:
        said = Pipe(process.stdout)
        said.expect(f"mk9p: {kernel} has booted".encode())  # its history
        vm.write(f"kernels/{kernel}/console", "echo typed $((6 * 7)) >/dev/kmsg; echo it is $((6 * 7))")
        said.expect(b"it is 42")  # and what comes
    assert vm.sh(kernel, "dmesg | grep -c 'typed 42'") == "1\n"  # the shell was this kernel's


def test_mk9p_console_on_a_terminal(vm: Vm) -> None:
    ours, theirs = os.openpty()
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(vm.words("console", "k1"), stdin=theirs, stdout=theirs, stderr=theirs)
    try:
        said = Pipe(ours)
        said.expect(b"Ctrl-] detaches")
        said.expect(b"mk9p: k1 has booted")
        os.write(ours, b"echo it is $((7 * 9))\r")
        said.expect(b"it is 63")
        os.write(ours, b"\x1d")
        assert process.wait(PATIENCE) == 0
        assert termios.tcgetattr(theirs) == before  # the terminal is as it was
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
    assert vm.field("kernels/k1/status", "state") == "active"
