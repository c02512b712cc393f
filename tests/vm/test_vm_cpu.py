"""`mk9p cpu`: a command in another kernel has the caller's namespace, or the caller's files, by that kernel's own v9fs."""

import hashlib
import os
from pathlib import Path

import pytest

from tests.vm.lab_vm import EMULATED, Vm


@pytest.mark.parametrize("kernel", [EMULATED, "k2"])
def test_the_caller_s_namespace_is_there_for_the_command_alone(vm: Vm, kernel: str) -> None:
    script = "grep -c ' /mnt/term 9p ' /proc/mounts; head -1 /mnt/term/auth/whoami; cat /mnt/term/k/k0/status; exit 6"
    done = vm.mk9p("cpu", kernel, "--", "sh", "-c", script)
    assert done.stdout.startswith(b"1\nprincipal root\n"), (done.stdout, done.stderr)
    release = vm.sh("k0", "uname -r").strip()
    assert f"\nrelease {release}\n" in done.stdout.decode()  # the caller's kernel, seen from the other
    assert (done.stderr, done.returncode) == (b"", 6)
    assert vm.sh(kernel, "grep /mnt/term /proc/mounts; :") == ""


@pytest.mark.parametrize("kernel", [EMULATED, "k2"])
def test_a_directory_of_the_caller_s_is_where_the_command_runs(vm: Vm, kernel: str, tmp_path: Path) -> None:
    data = os.urandom(1 << 20)
    (tmp_path / "data").write_bytes(data)
    script = "uname -r; sha256sum data; tail -c 1000 data > end"
    done = vm.mk9p("cpu", "-x", str(tmp_path), kernel, "--", "sh", "-c", script)
    release, summed, *_ = done.stdout.decode().split("\n")
    assert (release, done.stderr) == (vm.sh(kernel, "uname -r").strip(), b"")
    assert summed.startswith(hashlib.sha256(data).hexdigest())
    assert (tmp_path / "end").read_bytes() == data[-1000:]
