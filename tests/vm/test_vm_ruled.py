"""Rules by path, and letters of OPS, as v9fs of real kernels sees them: what is denied, what somebody is asked. The lab file has the rules."""

import json
import shlex
import sys
from collections.abc import Iterator

import pytest

from mk9p.client import Client
from tests.vm.lab_vm import EMULATED, Vm, in_time, lab_file, lab_of, short_folder, until

HERE = "/mnt/ruled"
GRANTS = ["/k/k0/cpu rw", "/k/k0/mem rwnd"]
KERNELS = {
    "k1": {"backend": "qemu", "kernel": "6.1", "memory": "768M", "grants": GRANTS},
    "k2": {"backend": "uml", "kernel": "uml", "memory": "512M", "grants": GRANTS},
}
RULES = [
    rule
    for kernel in KERNELS
    for rule in (
        f"deny guest:{kernel} rwcnd /k/k0/cpu/topology",
        f"ask guest:{kernel} r /k/k0/cpu/status",
        f"deny guest:{kernel} c /k/k0/cpu/**",
    )
]
TRIES = """
import errno, json, os
here, found = sys.argv[1], {}
def attempt(what, do):
    try:
        found[what] = do() or 0
    except OSError as error:
        found[what] = errno.errorcode[error.errno]
attempt("read denied", lambda: open(f"{here}/cpu/topology").read())
attempt("read by a way with dots", lambda: open(f"{here}/mem/../cpu/topology").read())
attempt("command denied", lambda: os.close(os.open(f"{here}/cpu/ctl", os.O_WRONLY)))
attempt("truncate", lambda: os.truncate(f"{here}/cpu/ctl", 0))
attempt("command without its letter", lambda: os.close(os.open(f"{here}/mem/ctl", os.O_WRONLY)))
attempt("read", lambda: open(f"{here}/mem/status").read() and None)
attempt("not granted", lambda: os.listdir(f"{here}/irq"))
attempt("list", lambda: " ".join(sorted(os.listdir(f"{here}/cpu"))))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def ruled(guests: None, long: bool) -> Iterator[Vm]:
    with short_folder() as home:
        kernels = in_time(KERNELS, long)
        file = lab_file(home / "lab.toml", {"namespace": {"policy": RULES}, **kernels})
        with lab_of(home, file) as vm:
            for kernel in kernels:
                address = vm.field(f"kernels/{kernel}/status", "guest_dial")
                mount = f"{sys.executable} -m mk9p mount --v9fs {shlex.quote(address)} {HERE}"
                vm.sh(kernel, f"mkdir -p {HERE}; cd /; {mount}")
            yield vm


def answered(vm: Vm, word: str) -> bool:
    """Answer whoever waits, whatever their number is; tell whether somebody did."""
    return any(vm.mk9p("write", "auth/confirm", word.replace("N", str(n))).returncode == 0 for n in range(1, 12))


async def log_of(ns: Client) -> str:
    """Return what the log has up to now: who reads on waits."""
    async with await ns.open("auth/log") as file:
        return (await file.pread(1 << 16, 0)).decode()


def test_the_rules_of_a_lab_file_are_those_of_the_namespace(ruled: Vm) -> None:
    assert ruled.cat("auth/policy").splitlines() == RULES


@pytest.mark.parametrize("kernel", [EMULATED, "k2"])
def test_v9fs_tells_what_is_refused_by_the_right_errno(ruled: Vm, kernel: str) -> None:
    said = ruled.sh(kernel, f"{sys.executable} -c {shlex.quote('import sys' + TRIES)} {HERE}/k/k0")
    found = json.loads(said)
    listed = found.pop("list").split()
    assert "status" in listed
    assert "topology" not in listed
    assert found == {
        "read denied": "EACCES",
        "read by a way with dots": "EACCES",
        "command denied": "EACCES",
        "truncate": "EACCES",
        "command without its letter": "EACCES",
        "read": 0,
        "not granted": "ENOENT",
    }
    log = ruled.client(log_of)
    assert f"guest:{kernel} guest:" in log
    assert "/k/k0/cpu/topology EACCES" in log


@pytest.mark.parametrize("kernel", [EMULATED, "k2"])
def test_an_open_of_v9fs_waits_for_the_operator(ruled: Vm, kernel: str) -> None:
    file = f"{HERE}/k/k0/cpu/status"
    with ruled.started("run", kernel, "--", "cat", file) as process:
        until(lambda: answered(ruled, "allow N once"), "somebody who waits")
        out, _ = process.communicate(timeout=60)
        assert b"online" in out
    with ruled.started("run", kernel, "--", "cat", file) as process:
        until(lambda: answered(ruled, "deny N"), "somebody who waits")
        _, said = process.communicate(timeout=60)
        assert b"Permission denied" in said
    # whoever is interrupted asks for nothing any more
    assert ruled.sh(kernel, f"timeout -s INT 2 cat {file}; echo $?") == "124\n"
    assert not answered(ruled, "deny N")
