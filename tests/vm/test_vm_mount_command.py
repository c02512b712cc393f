"""`mk9p mount` in a guest: the composed namespace, by the guest's own v9fs."""

import sys

import pytest

from tests.vm.lab_vm import Vm


@pytest.mark.parametrize("kernel", ["k1", "k2"])
def test_mounts_the_namespace_and_unmounts_it(vm: Vm, kernel: str) -> None:
    mk9p = f"cd /; mkdir -p /mnt/m; {sys.executable} -m mk9p"
    address = vm.field(f"kernels/{kernel}/status", "guest_dial")
    vm.sh(kernel, f"{mk9p} mount --v9fs '{address}' /mnt/m")
    try:
        assert vm.sh(kernel, "grep -c ' /mnt/m 9p ' /proc/mounts") == "1\n"
        assert vm.sh(kernel, "ls /mnt/m/k").split()[:3] == ["k0", "k1", "k2"]
        release = vm.sh("k0", "uname -r").strip()
        assert f"release {release}\n" in vm.sh(kernel, "cat /mnt/m/k/k0/status")  # the host's, seen from its guest
    finally:
        vm.sh(kernel, f"{mk9p} umount /mnt/m")
    assert vm.sh(kernel, "grep /mnt/m /proc/mounts; :") == ""
