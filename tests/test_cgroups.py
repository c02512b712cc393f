"""Control groups: where they can be made, and what one of ours holds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mk9p import cgroups
from mk9p.itself import unique

V1 = (
    "30 29 0:25 / {at}/cpu rw,relatime shared:1 - cgroup cgroup rw,cpu\n"
    "31 29 0:26 / {at}/memory rw,relatime - cgroup cgroup rw,memory\n"
    "32 29 0:27 / {at}/pids rw,relatime - cgroup cgroup rw,pids\n"
)
V2 = "33 29 0:28 / {at}/unified rw,relatime shared:2 - cgroup2 cgroup2 rw\n"


def test_of_version_1_the_own_group_has_a_place_and_of_a_container_its_root(tmp_path: Path) -> None:
    (tmp_path / "cpu/mine").mkdir(parents=True)
    groups = "3:cpu:/mine\n2:memory:/outside/of/the/container\n1:pids:/../..\n0::/\n"
    found = list(cgroups.places(V1.format(at=tmp_path), groups))
    assert found == [
        ("cpu", tmp_path / "cpu/mine", 1),
        ("memory", tmp_path / "memory", 1),
        ("pids", tmp_path / "pids", 1),
    ]


def test_of_version_2_the_nearest_group_that_gives_its_children_controllers(tmp_path: Path) -> None:
    own = tmp_path / "unified/system.slice/mk9p.service"
    own.mkdir(parents=True)
    (own / "cgroup.subtree_control").write_text("\n")
    (own.parent / "cgroup.subtree_control").write_text("memory pids\n")
    (tmp_path / "unified/cgroup.subtree_control").write_text("cpu memory pids io\n")
    found = list(cgroups.places(V2.format(at=tmp_path), "0::/system.slice/mk9p.service\n"))
    assert found == [("memory", own.parent, 2), ("pids", own.parent, 2), ("cpu", tmp_path / "unified", 2)]


def values(memory: int) -> cgroups.Values:
    one = {"memory.limit_in_bytes": str(memory)}, {"memory.max": str(memory)}
    return {"memory": one, "cpu": ({}, {}), "pids": ({"pids.max": "8"}, {"pids.max": "8"})}


@pytest.fixture
def waiting() -> "subprocess.Popen[str]":
    """Give a process that waits for a line of Python and does what it says."""
    words = [sys.executable, "-c", "exec(input())"]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes control groups")
def test_what_takes_too_much_memory_is_ended_and_the_group_says_so(waiting: "subprocess.Popen[str]") -> None:
    held = cgroups.Held.of(waiting.pid, f"mk9p-test-{os.getpid()}-a", values(64 << 20))
    assert held.folders, "this machine has no control group of ours to try that"
    waiting.communicate("import os; held = [os.urandom(1 << 20) for _ in range(256)]\n")
    assert waiting.returncode == -9
    assert held.starved()
    held.end()
    assert not any(folder.exists() for folder in held.folders)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes control groups")
def test_what_a_process_started_ends_with_its_group(waiting: "subprocess.Popen[str]") -> None:
    held = cgroups.Held.of(waiting.pid, f"mk9p-test-{os.getpid()}-b", values(1 << 28))
    said, _ = waiting.communicate("import os, time; n = os.fork(); n or (os.close(1), time.sleep(600)); print(n)\n")
    started = Path("/proc", said.strip())
    assert started.exists()
    held.end()
    assert not held.starved()
    assert not any(folder.exists() for folder in held.folders)
    assert not started.exists() or " Z " in (started / "stat").read_text()


def test_what_cannot_be_made_limits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mounts").write_text(V2.format(at=tmp_path))
    (tmp_path / "groups").write_text("0::/\n")
    (tmp_path / "unified").mkdir()
    (tmp_path / "unified/cgroup.subtree_control").write_text("memory cpu pids\n")
    monkeypatch.setattr(cgroups, "MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(cgroups, "GROUPS", tmp_path / "groups")
    (tmp_path / "unified/mk9p-x-1").write_text("a file is in the way")
    held = cgroups.Held.of(os.getpid(), "mk9p-x-1", values(1 << 28))
    assert (held.folders, held.starved()) == ([], False)
    held.end()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes control groups")
def test_what_a_killed_one_left_is_removed_and_what_is_used_or_new_stays(
    waiting: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    places = list(cgroups.places(cgroups.MOUNTS.read_text(), cgroups.GROUPS.read_text()))
    assert places, "this machine has no control group of ours to try that"
    # what another session has just made stays as it is
    apart = [(what, parent / f"test-{os.getpid()}", version) for what, parent, version in places]
    parents = {parent for _, parent, _ in apart}
    for parent in parents:
        parent.mkdir()
    monkeypatch.setattr(cgroups, "places", lambda mounts, groups: apart)
    left, used = unique("left"), cgroups.Held.of(waiting.pid, unique("used"), values(1 << 28))
    for parent in parents:
        (parent / left / unique("frozen-left")).mkdir(parents=True)
    cgroups.sweep()
    assert all((parent / left).exists() for parent in parents)
    monkeypatch.setattr(cgroups, "_FILLED", -1.0)
    cgroups.sweep()
    assert not any((parent / left).exists() for parent in parents)
    assert all(folder.exists() for folder in used.folders)
    waiting.communicate("pass\n")
    used.end()
    for parent in parents:
        parent.rmdir()
