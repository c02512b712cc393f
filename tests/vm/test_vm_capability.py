"""A capability shown by real kernels' v9fs: by `mk9p mount`, which logs in before, and by a plain mount, in its aname."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mk9p.authority.grants import Terms, narrow
from tests.vm.lab_vm import EMULATED, Vm, until

HERE = "/mnt/cap"


def grant(vm: Vm, path: str, ops: str) -> str:
    done = vm.mk9p("grant", path, ops, "--for", "1h")
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def revoke(vm: Vm, text: str) -> None:
    done = vm.mk9p("revoke", "--cap", "-", stdin=text.encode())
    assert done.returncode == 0, done.stderr


@contextmanager
def mounted(vm: Vm, kernel: str, script: str) -> Iterator[None]:
    vm.sh(kernel, f"mkdir -p {HERE}; {script}")
    try:
        yield
    finally:
        vm.sh(kernel, f"umount -l {HERE}")


def gives_what_was_granted(vm: Vm, kernel: str) -> None:
    """Hold that /k/k0/cpu is there to read, and nothing else, and no change."""
    assert vm.sh(kernel, f"ls {HERE}").split()[-3:] == ["events", "status", "topology"]
    assert "online" in vm.sh(kernel, f"cat {HERE}/status")
    said = vm.sh(kernel, f"(echo offline 1 > {HERE}/ctl) 2>&1; :")
    assert "denied" in said or "Read-only" in said
    assert "auth" not in vm.sh(kernel, f"ls {HERE}/.. {HERE}/../..")


def ends(vm: Vm, kernel: str, text: str) -> None:
    """Hold that it ends when it is revoked."""
    revoke(vm, text)
    until(lambda: "online" not in vm.sh(kernel, f"cat {HERE}/status 2>/dev/null; :"), "the end of the mount")


@pytest.mark.parametrize("kernel", [EMULATED, "k2"])
def test_mk9p_mount_logs_in_before_v9fs_and_tells_nobody(vm: Vm, kernel: str) -> None:
    text = grant(vm, "/k/k0/cpu", "r")
    address = vm.field(f"kernels/{kernel}/status", "guest_dial")
    if kernel == "k1":  # its only line has the lab's own mount when other tests ran: a relay is the same as the line
        assert address.startswith("char!")
    file = "/tmp/mk9p-cap"
    script = (
        f"(umask 077; echo {shlex.quote(text)} > {file}); cd /; "
        f"{sys.executable} -m mk9p mount --v9fs -o cap={file} {shlex.quote(address)} {HERE}; rm {file}"
    )
    with mounted(vm, kernel, script):
        gives_what_was_granted(vm, kernel)
        mounts = vm.sh(kernel, "cat /proc/mounts")
        assert f" {HERE} 9p " in mounts
        assert "aname=cap!," in mounts
        assert text[:40] not in mounts
        ends(vm, kernel, text)


def test_a_plain_mount_shows_it_in_its_aname_to_the_server_and_to_everybody_on_the_machine(vm: Vm) -> None:
    text = narrow(grant(vm, "/k/k0", "rw"), Terms.of("/k/k0/cpu", "r"))
    options = f"trans=tcp,port=564,privport,version=9p2000.L,msize=65536,uname=root,access=any,aname=cap!{text}"
    with mounted(vm, "k2", f"mount -t 9p -o {shlex.quote(options)} 10.0.2.2 {HERE}"):
        gives_what_was_granted(vm, "k2")
        assert f"aname=cap!{text}" in vm.sh("k2", "cat /proc/mounts"), "as the manual says"
        ends(vm, "k2", text)


def test_the_longest_that_is_made_fits_into_the_options_of_v9fs(vm: Vm) -> None:
    text = grant(vm, "/k/k0/cpu", "r")
    while len(text) < 3840 - 400:
        text = narrow(text, Terms.of("/k/k0/cpu", "r", since=1, until=(1 << 36)))
    options = f"trans=tcp,port=564,privport,version=9p2000.L,uname=root,access=any,aname=cap!{text}"
    with mounted(vm, "k2", f"mount -t 9p -o {shlex.quote(options)} 10.0.2.2 {HERE}"):
        gives_what_was_granted(vm, "k2")


@pytest.mark.parametrize("wrong", ["altered", "ended", "none"])
def test_what_is_refused_is_permission_denied_to_v9fs(vm: Vm, wrong: str) -> None:
    text = grant(vm, "/k/k0/cpu", "r")
    if wrong == "altered":
        text = text[:-5] + ("A" if text[-5] != "A" else "B") + text[-4:]
    elif wrong == "ended":
        text = narrow(text, Terms(until=1_000_000_000))
    else:
        text = ""
    options = f"trans=tcp,port=564,privport,version=9p2000.L,uname=root,access=any,aname=cap!{text}"
    # mount(8) has words of its own for this
    script = f"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
os.makedirs({HERE!r}, exist_ok=True)
done = libc.mount(b"10.0.2.2", {HERE.encode()!r}, b"9p", 0, {options.encode()!r})
print(done, os.strerror(ctypes.get_errno()))
"""
    assert vm.sh("k2", f"{sys.executable} -c {shlex.quote(script)}") == "-1 Permission denied\n"
