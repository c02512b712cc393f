"""A 9P service of a program in k1, which nobody but k1 can reach, posted there and mounted through it; and memory of k1, which is not mapped here."""

import errno
import sys

import pytest

from mk9p.client import Client
from mk9p.clients.seg import map_segment, open_segment
from tests.vm.lab_vm import Vm, until


def test_a_service_of_one_kernel_is_used_in_others(vm: Vm, mounted: str) -> None:
    serve = ("run", "k1", "--", sys.executable, "-m", "mk9p", "serve", "-l", "unix!/run/posted", "host")
    with vm.started(*serve):
        until(lambda: "posted" in vm.sh("k1", "ls /run"), "the program's socket in k1")
        vm.write("k/k1/srv/posted", "unix!/run/posted\nkeep")
        try:
            vm.write("ctl", "mount /k/k1/srv/posted /n/posted")
            assert f"release {vm.sh('k1', 'uname -r')}" in vm.cat("n/posted/status")
            assert vm.sh("k2", f"cat {mounted}/n/posted/status | grep ^name") == "name k1\n"
            vm.write("ctl", "unmount /n/posted")
        finally:
            assert vm.sh("k2", f"rm {mounted}/k/k1/srv/posted; ls {mounted}/k/k1/srv") == "ctl\nerror\n"


def test_a_service_goes_with_the_shell_that_posted_it(vm: Vm, mounted: str) -> None:
    there = f"{mounted}/k/k1/srv"
    said = vm.sh("k2", f"exec 3>{there}/mine; echo 'tcp!127.0.0.1!1' >&3; cat {there}/mine; exec 3>&-; ls {there}")
    assert said == "tcp!127.0.0.1!1\nctl\nerror\n"


def test_memory_of_another_kernel(vm: Vm, mounted: str) -> None:
    async def use(ns: Client) -> None:
        with pytest.raises(OSError, match="another kernel's memory") as caught:
            async with map_segment(ns, "k/k1/seg/x"):
                pass
        assert caught.value.errno == errno.EXDEV
        async with open_segment(ns, "k/k1/seg/x") as segment:
            await segment.pwrite(b"hello", 99_990)

    async def here(ns: Client) -> None:
        await ns.mkdir("k/k0/seg/x")
        try:
            await ns.write("k/k0/seg/x/ctl", "size 4096")
            async with map_segment(ns, "k/k0/seg/x") as buffer:
                buffer[:5] = b"hello"
                vm.sh("k2", f"echo there | dd of={mounted}/k/k0/seg/x/data bs=1 seek=100 conv=notrunc 2>/dev/null")
                assert buffer[100:105] == b"there"
        finally:
            await ns.remove("k/k0/seg/x")

    vm.sh("k2", f"mkdir {mounted}/k/k1/seg/x; echo size 100000 > {mounted}/k/k1/seg/x/ctl")
    vm.client(use)
    assert vm.sh("k2", f"tail -c 10 {mounted}/k/k1/seg/x/data | tr '\\0' .; rmdir {mounted}/k/k1/seg/x") == "hello....."
    vm.client(here)
