"""The process of a FUSE mount: found by who unmounts, whatever others do with abstract sockets, and gone without a trace however it ends."""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from mk9p.clients.fuse_alive import Serving
from mk9p.clients.mounts import mounted_at
from mk9p.testing import SOON, until_true
from tests.clients.mount_tree import NOBODY
from tests.clients.mounting import Place, mk9p

SQUAT = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
kept = []
for name in sys.argv[1:]:
    kept.append(socket.socket(socket.AF_UNIX))
    try:
        kept[-1].bind("\\0" + name)
    except OSError:
        continue  # somebody else on this machine has it
    kept[-1].listen(int("full" not in name) * 100)
    if "full" in name:
        for _ in range(3):
            kept.append(socket.socket(socket.AF_UNIX))
            kept[-1].setblocking(False)
            kept[-1].connect_ex("\\0" + name)
print(flush=True)
sys.stdin.read()
"""


def squat(stack: ExitStack, *names: str) -> None:
    """Let another user have abstract sockets of these names while a stack is open."""
    child = stack.enter_context(
        subprocess.Popen([sys.executable, "-c", SQUAT, *names], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    )
    stack.callback(child.kill)
    assert child.stdout is not None
    assert child.stdout.readline() == b"\n"


def names() -> list[str]:
    return [line.rpartition(" ")[2] for line in Path("/proc/net/unix").read_text().split("\n") if "@mk9p/fuse" in line]


def test_names_that_others_have_first_harm_nothing(fresh: Place) -> None:
    with ExitStack() as stack:
        devices = [f"0:{minor}" for minor in range(20, 400)]
        squat(stack, *(f"mk9p/fuse/{device}{end}" for device in devices for end in ("", "/", "/0" * 16)))
        fresh.mount()
        assert fresh.out("cat name") == "k1\n"
        there = mounted_at(str(fresh.dir))
        assert there is not None
        squat(stack, *(f"mk9p/fuse/{there.device}/{end}" for end in ("00000", "full", "zzz", " x", "")[:-1]))
        assert len([name for name in names() if f"/{there.device}/" in name]) >= 5
        assert mk9p("umount", str(fresh.dir)).returncode == 0
        assert fresh.processes() == []
        fresh.mount()
        assert mk9p("umount", "--lazy", str(fresh.dir)).returncode == 0
        assert fresh.processes() == []


def test_no_process_of_another_user_is_taken_for_that_of_a_mount() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with ExitStack() as stack:
        squat(stack, "mk9p/fuse/0:77777/0", "mk9p/fuse/0:77777/full")
        for user, found in ((0, False), (NOBODY, True)):
            with Serving("0:77777", user) as process:
                assert bool(process) == found
        with Serving("0:77777", NOBODY) as process:
            process.terminate()
            process.wait()
        with Serving("0:77777", NOBODY) as process:
            assert not process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_process_that_is_ended_leaves_nothing(fresh: Place, number: signal.Signals) -> None:
    fresh.mount()
    there = mounted_at(str(fresh.dir))
    assert there is not None
    with fresh.started("sleep", "100"):
        file = os.open(fresh.dir / "name", os.O_RDONLY)
        assert os.read(file, 10) == b"k1\n"
        mine = [name for name in names() if f"/{there.device}/" in name]
        (process,) = fresh.processes()
        os.kill(process, number)
        until_true(lambda: not fresh.processes())
        until_true(lambda: mounted_at(str(fresh.dir)) is None)
        with suppress(OSError):
            os.close(file)
    # Linux lets go of a process's arguments before its sockets; and others may have the device's number by now
    until_true(lambda: not {*mine} & {*names()})
    fresh.mount()
    assert mk9p("umount", str(fresh.dir)).returncode == 0


@pytest.mark.parametrize("command", [("fusermount3", "-u"), ("fusermount3", "-uz"), ("umount",), ("umount", "-l")])
def test_whoever_unmounts_ends_the_process(fresh: Place, command: tuple[str, ...]) -> None:
    fresh.mount()
    subprocess.run([*command, fresh.dir], check=True, timeout=SOON)
    until_true(lambda: not fresh.processes())
    assert os.listdir(fresh.dir) == []


def test_a_mount_that_another_namespace_has_too_is_served_until_that_has_ended(fresh: Place) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    fresh.mount()
    script = f"cat {fresh.dir}/name; echo; read _; exec cat {fresh.dir}/name"
    with subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert [other.stdout.readline(), other.stdout.readline()] == ["k1\n", "\n"]
        (process,) = fresh.processes()
        done = mk9p("umount", str(fresh.dir))
        assert (done.returncode, mounted_at(str(fresh.dir))) == (0, None)
        why = f"it is still mounted in the mount namespace of process {other.pid}"
        assert done.stderr == f"mk9p umount: process {process}, which serves {fresh.dir}, goes on: {why}\n"
        assert other.communicate("\n", timeout=SOON)[0] == "k1\n"
    until_true(lambda: not fresh.processes())


def test_another_user_mounts_and_unmounts(fresh: Place) -> None:
    own = fresh.top / "own"
    own.mkdir()
    os.chown(own, NOBODY, NOBODY)
    (fresh.top / "s").chmod(0o666)
    me = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups"
    script = f"""
    set -e
    mknod fuse c 10 229; chmod 666 fuse; mount --bind fuse /dev/fuse
    {me} {sys.executable} -m mk9p mount --fuse {fresh.address} {own}
    {me} cat {own}/theirs {own}/name
    {me} cat {own}/secret || echo closed
    cat {own}/name || echo closed
    {me} {sys.executable} -m mk9p umount {own}
    ls {own}
    """
    with ExitStack() as stack:
        squat(stack, *(f"mk9p/fuse/0:{minor}" for minor in range(20, 400)))
        done = subprocess.run(
            ["unshare", "-m", "bash", "-c", script], cwd=fresh.top, capture_output=True, text=True, timeout=SOON
        )
    assert done.stdout == "for nobody\nk1\nclosed\nclosed\n", done.stderr
    assert done.stderr.count("Permission denied") == 2
    assert done.returncode == 0
    assert fresh.processes() == []
