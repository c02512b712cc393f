"""`hostroot on`: a guest that was given all of this machine's / to read has it, and changes nothing of it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vm.lab_vm import EMULATED, Vm, in_time, lab_up, short_folder

KERNELS: dict[str, dict[str, Any]] = {
    "k1": {"backend": "qemu", "kernel": "6.1", "memory": "768M", "serve": ["host", "cmd"], "hostroot": "on"},
    "k2": {"backend": "uml", "kernel": "uml", "memory": "512M", "serve": ["host", "cmd"], "hostroot": "on"},
}


@pytest.fixture(scope="module")
def shown(guests: None, long: bool) -> Iterator[tuple[Vm, Path]]:
    with short_folder() as home, lab_up(home, in_time(KERNELS, long)) as vm:
        secret = Path(f"/root/.mk9p-hostroot-{os.getpid()}")
        secret.write_text("for root alone\n")
        secret.chmod(0o600)
        try:
            yield vm, secret
        finally:
            secret.unlink()


@pytest.mark.parametrize("kernel", [EMULATED, "k2"])
def test_a_guest_that_was_given_all_reads_what_root_reads_and_changes_nothing(
    shown: tuple[Vm, Path], kernel: str
) -> None:
    vm, secret = shown
    assert vm.sh(kernel, f"cat {secret}") == "for root alone\n"
    assert vm.sh(kernel, "md5sum </etc/passwd") == vm.sh(kernel, "md5sum </run/root/low/etc/passwd")
    # what the guest writes vanishes with it: it lies in its memory, over what it was given
    vm.sh(kernel, f"echo changed >{secret}")
    assert secret.read_text() == "for root alone\n"
    assert "Read-only" in vm.sh(kernel, f"echo changed 2>&1 >/run/root/low{secret} || echo Read-only")
    assert secret.read_text() == "for root alone\n"
