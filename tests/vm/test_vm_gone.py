"""`mk9p up` and `mk9p down`: whatever was started is gone after down, after Ctrl-C, and after the process that holds the kernels was killed."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from mk9p.clients.lab import Lab
from mk9p.itself import itself
from tests.kernels.guests import processes_of
from tests.vm.lab_vm import PATIENCE, Pipe, lab_file, until, up_or_down

pytestmark = pytest.mark.usefixtures("guests")
UML: dict[str, dict[str, object]] = {
    "g1": {"backend": "uml", "kernel": "uml", "memory": "256M", "serve": ["host", "cpu"]}
}
QEMU: dict[str, dict[str, object]] = {
    "g1": {"backend": "qemu", "kernel": "6.1", "memory": "384M", "serve": ["host", "cpu"]}
}


@attrs.frozen
class Up:
    """An `mk9p up` under way, or done."""

    lab: Lab
    process: subprocess.Popen[bytes]
    said: Pipe

    def holder(self) -> int:
        return int((self.lab.run / "holder").read_text())


@contextmanager
def up(home: Path, kernels: dict[str, dict[str, object]], *options: str) -> Iterator[Up]:
    lab = Lab(home / "lab")
    words = up_or_down(lab, "up", "--no-mount", *options, str(lab_file(home.with_suffix(".toml"), kernels)))
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
    try:
        yield Up(lab, process, Pipe(process.stdout))
    finally:
        process.kill()
        process.communicate()
        lab.end()
        home.with_suffix(".toml").unlink()


def left(home: Path, holder: int) -> list[str]:
    """Return what is left of a lab: processes, network namespaces, mounts, sockets, files."""
    found = [f"process {line}" for line in processes_of(home / "lab")]
    names = f"mk9p-{holder}-"
    netns = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    found += [f"netns {line}" for line in netns.splitlines() if line.startswith(names)]
    for table in ("/proc/mounts", "/proc/net/unix"):
        lines = Path(table).read_text().splitlines()
        found += [f"{table} {line}" for line in lines if str(home) in line or names in line]
    for folder, folders, files in os.walk(home):  # it passes over what goes meanwhile
        found += [f"file {folder}/{name}" for name in (*folders, *files)]
    return found


def nothing_is_left(home: Path, holder: int) -> bool:
    return until(lambda: not left(home, holder), f"an end of {left(home, holder)}", 30)


def is_up(up: Up) -> int:
    """Wait until the lab is up, see that there is much to be undone, and return the holder's process."""
    up.said.expect(b"the namespace is ")
    holder = up.holder()
    things = "\n".join(left(up.lab.run.parent, holder))
    for kind in ("process", "netns", "/proc/mounts", "/proc/net/unix", "file"):
        assert kind in things, things
    return holder


def test_down_leaves_nothing(home: Path) -> None:
    with up(home, UML) as lab:
        holder = is_up(lab)
        assert lab.process.wait(PATIENCE) == 0
        again = subprocess.run(up_or_down(lab.lab, "up"), capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert (again.returncode, again.stderr.count("\n")) == (1, 1)
        assert "a lab is up" in again.stderr
        down = subprocess.run(
            up_or_down(lab.lab, "down"), capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert (down.returncode, down.stderr) == (0, "")
        assert left(home, holder) == []  # when it says so, it is so
        down = subprocess.run(
            up_or_down(lab.lab, "down"), capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert (down.returncode, down.stderr) == (1, "mk9p: no lab is up\n")


@pytest.mark.parametrize("kernels", [QEMU, UML], ids=["qemu", "uml"])
def test_ctrl_c_in_mid_boot_leaves_nothing(home: Path, kernels: dict[str, dict[str, object]]) -> None:
    with up(home, kernels) as lab:
        lab.said.expect(b"g1: started")
        holder = lab.holder()
        assert left(home, holder)
        lab.process.send_signal(signal.SIGINT)
        assert lab.process.wait(PATIENCE) == 130
        nothing_is_left(home, holder)


def test_ctrl_c_in_the_foreground_leaves_nothing(home: Path) -> None:
    with up(home, UML, "-f") as lab:
        holder = is_up(lab)
        lab.said.expect(b"mk9p down")
        lab.process.send_signal(signal.SIGINT)
        assert lab.process.wait(PATIENCE) == 130
        nothing_is_left(home, holder)


@pytest.mark.parametrize("kernels", [QEMU, UML], ids=["qemu", "uml"])
def test_a_killed_holder_leaves_nothing(home: Path, kernels: dict[str, dict[str, object]]) -> None:
    with up(home, kernels) as lab:
        lab.said.expect(b"the namespace is ")
        holder = lab.holder()
        assert left(home, holder)
        os.kill(holder, signal.SIGKILL)
        nothing_is_left(home, holder)
        assert not lab.lab.end()


MACHINE = """
mount -t tmpfs run /run; mkdir /run/netns; ip link set lo up
"$@" up --no-mount "$LAB" && "$@" apply "$LAB"; echo "status $?"
kill -9 $$
"""


def test_a_lab_whose_whole_machine_was_killed_is_up_again_with_the_same_words(tmp_path: Path) -> None:
    """A container has the same process ids each time. What its lab left are control groups, and what was desired of it."""
    wanted = lab_file(tmp_path / "lab.toml", {"killed": UML["g1"]})
    alone = ["unshare", "--mount", "--propagation", "private", "--net", "--uts", "--pid", "--mount-proc", "--fork"]
    machine = [*alone, "--kill-child", "sh", "-c", MACHINE, "sh", *itself()]
    env = {**os.environ, "LAB": str(wanted), "XDG_STATE_HOME": str(tmp_path / "state")}
    try:
        for _ in range(2):
            done = subprocess.run(machine, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
            assert (done.stdout.splitlines()[-1], done.stderr) == ("status 0", "")
    finally:
        left = list(Path("/sys/fs/cgroup").glob("**/mk9p-*-killed-*/"))
        for group in left:
            group.rmdir()
    assert len({group.name for group in left}) == 2
