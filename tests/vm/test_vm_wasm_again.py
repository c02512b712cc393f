"""A program on a real kernel that panics goes on elsewhere from its last checkpoint: its files and its output are those of an undisturbed run."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mk9p.testing import child
from tests.vm.lab_vm import lab_up, short_folder, until

KERNEL: dict[str, Any] = {"backend": "uml", "kernel": "uml", "memory": "768M", "hostroot": "on"}
KERNELS = {"k2": {**KERNEL, "serve": ["host", "cmd", "wasm"]}}
SOURCE = Path(__file__).parent.parent / "wasm" / "programs" / "copy.c"
# seconds for one step: an emulated processor compiles the module, beside all else that this machine does
STEP = 300
WORK = "200000000"  # for each of some 30 pieces: long enough for a checkpoint, and for the panic
PANIC = "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger"


@pytest.mark.minutes
def test_a_program_of_a_kernel_that_panics_goes_on_elsewhere(guests: None) -> None:
    with short_folder() as home:
        given = home / "data"
        (given / "d" / "names").mkdir(parents=True)
        data = b"".join(b"%d " % (n * n) for n in range(3_000))
        (given / "d" / "in").write_bytes(data)
        words = [sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-wasi", "-O2", "-s"]
        subprocess.run([*words, "-o", str(home / "copy.wasm"), str(SOURCE)], check=True, timeout=STEP)
        serving = [sys.executable, "-m", "mk9p", "serve", "-l", f"unix!{home}/fs", f"fs:{given}"]
        with child(serving, "listening"), lab_up(home, KERNELS) as vm:
            assert vm.mk9p("write", "ctl", f"mount unix!{home}/fs /data").returncode == 0
            run = ["wasm", "run", "-n", "-g", "/data/fs/data/d:/d:rw"]
            copy = str(home / "copy.wasm")
            expected = subprocess.run(vm.words(*run, "k0", copy), capture_output=True, timeout=STEP, check=True)
            (given / "d" / "out").unlink()
            more = ["--checkpoint", "1:/data/fs/data/kept", "--restart", "on-failure", "--to", "k0"]
            command = vm.words(*run, *more, "k2", copy, WORK)
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
                out = given / "d" / "out"
                until(lambda: (given / "kept").exists() and out.exists() and out.stat().st_size > 5_000, "half", STEP)
                with vm.started("run", "k2", "--", "sh", "-c", PANIC):
                    output, errors = process.communicate(timeout=2 * STEP)
            print(errors.decode())
            assert (output, process.returncode) == (expected.stdout, 0), errors
            assert errors.endswith(b"it goes on in k/k0 from its last checkpoint\n")
            assert out.read_bytes() == data
