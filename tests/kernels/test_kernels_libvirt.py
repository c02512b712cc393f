"""`backend attach` with a domain of Debian's libvirt: what one does to it, the other sees. The libvirtd has namespaces of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mk9p.testing import child
from tests.vm.lab_vm import Pipe, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ME = [sys.executable, "-m", "mk9p"]
SCRIPT = Path(__file__).with_name("libvirt.sh")


@contextmanager
def libvirt(home: Path) -> Iterator[Callable[[str], str]]:
    """Have a libvirtd with a domain; give what runs a command of virsh."""
    if os.geteuid() != 0:
        pytest.skip("a libvirtd of its own needs root, for its namespaces")
    if not shutil.which("libvirtd", path=os.environ["PATH"] + ":/usr/sbin") or not shutil.which("virsh"):
        pytest.skip("no libvirtd: apt-get install libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients")
    process = subprocess.Popen(
        ["unshare", "--mount", "--net", "sh", str(SCRIPT), str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"},
    )
    pipe = Pipe(process.stdout)

    def virsh(words: str) -> str:
        assert process.stdin is not None
        process.stdin.write(f"{words}\n".encode())
        said = pipe.expect(b"done ").decode()
        assert pipe.expect(b"\n") == b"0", said
        return said

    try:
        pipe.expect(b"ready\n")
        yield virsh
    finally:
        process.communicate(timeout=60)  # the end of its input is its end


def test_a_domain_of_libvirt_is_attached_and_both_see_what_the_other_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    address = f"unix!{tmp_path}/served"

    def mk9p(*words: str) -> str:
        done = subprocess.run([*ME, "-a", address, *words], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def is_in(state: str) -> None:
        until(lambda: f"state {state}\n" in mk9p("cat", "kernels/k9/status"), state)

    serve = [*ME, "serve", "-l", address, f"kernels?run={tmp_path}/run"]
    with libvirt(tmp_path) as virsh, child(serve, "listening on"):
        mk9p("write", "kernels/ctl", "create k9")
        for word in ("backend attach", f"qmp {tmp_path}/k9.qmp", "start"):
            mk9p("write", "kernels/k9/ctl", word)
        is_in("active")
        mk9p("write", "kernels/k9/ctl", "freeze")
        assert "paused" in virsh("domstate k9")
        mk9p("write", "kernels/k9/ctl", "thaw")
        assert "running" in virsh("domstate k9")
        virsh("suspend k9")
        is_in("frozen")
        virsh("resume k9")
        is_in("active")
        mk9p("write", "kernels/pool/ctl", f"dev add d1 disk {disk}")
        mk9p("write", "kernels/k9/ctl", "dev add d1")
        assert "d1: /dev/fdset/" in virsh("qemu-monitor-command k9 --hmp info block")
        mk9p("write", "kernels/k9/ctl", "reset")
        virsh("destroy k9")
        is_in("dead")
        assert "dead" in mk9p("cat", "kernels/status")
