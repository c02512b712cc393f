"""A USB stick in a kernel of its own, by the five commands of docs/security.md, as they are written there."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mk9p.itself import itself
from tests.vm.lab_vm import PATIENCE, Vm, lab_up, short_folder, until

PAGE = Path(__file__).parents[2] / "docs/security.md"
CONTENT = b"what is on the stick".ljust(512, b".")
BLOCK = "k/usb/dev/block/sda/data"


def commands() -> list[str]:
    """Return the commands of the page."""
    shown = re.search(r"in five commands\n.*?```\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert shown is not None
    return shown[1].splitlines()


@pytest.fixture(scope="module")
def lab(guests: None) -> Iterator[tuple[Vm, Path]]:
    with short_folder() as home:
        stick = home / "stick.img"
        stick.write_bytes(CONTENT * 8192)
        stick.chmod(0o600)
        kernel = {"backend": "uml", "kernel": "uml", "memory": "512M", "serve": ["host", "cmd"]}
        with lab_up(home, {"k1": kernel}) as vm:
            yield vm, stick


def test_a_stick_is_put_away_in_five_commands(lab: tuple[Vm, Path]) -> None:
    vm, stick = lab
    assert len(commands()) == 5
    this = f'mk9p() {{ {shlex.join(itself())} "$@"; }}'
    for command in commands():
        done = subprocess.run(
            ["bash", "-c", f"{this}; {command}"],
            env={**os.environ, "MK9P": vm.lab.address, "STICK": str(stick)},
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    until(lambda: "sda" in vm.mk9p("ls", "k/usb/dev/block").stdout.decode(), "the stick")
    line = vm.field("kernels/k1/status", "guest_dial")
    me = f"{sys.executable} -m mk9p -a '{line}'"
    assert vm.sh("k1", f"{me} cat {BLOCK} | head -c 20").encode() == CONTENT[:20]
    assert "Read-only" in vm.sh("k1", f"{me} write {BLOCK} x 2>&1; :")
    for path in ("k/usb/dev/block/sda/ctl", "k/usb/status"):
        assert "No such file" in vm.sh("k1", f"{me} cat {path} 2>&1; :")
    assert "no kernel k0" in vm.sh("k1", f"{me} cat k/k0/status 2>&1; :")
    assert vm.field("kernels/usb/status", "grants") == ""
    vm.write("kernels/k1/ctl", f"ungrant /{BLOCK}")
    assert "no kernel usb" in vm.sh("k1", f"{me} cat {BLOCK} 2>&1; :")
    vm.write("kernels/usb/ctl", "kill")
    assert stick.read_bytes()[:512] == CONTENT
