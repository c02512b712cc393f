"""What a test run has started ends with it, however it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mk9p.testing import SOON
from tests.guard import WORD
from tests.leftovers import Seen

# A run that starts what outlives its starter: one in a session of its own, and its child; it says their numbers, and waits.
RUN = """
import subprocess, sys, time
sys.path.insert(0, sys.argv[1])
from tests.guard import guarded
with guarded():
    script = "sleep 1000 & echo $$ $!; trap 'echo told >$0; exit' TERM; while :; do sleep 0.02; done"
    made = subprocess.Popen(["setsid", "sh", "-c", script, sys.argv[2]], stdout=subprocess.PIPE, text=True)
    print(made.stdout.readline(), flush=True, end="")
    sys.stdin.readline()
"""


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, None])
def test_what_a_run_started_ends_with_it_only_if_it_is_killed(tmp_path: Path, number: int | None) -> None:
    told = tmp_path / "told"
    words = [sys.executable, "-c", RUN, str(Path(__file__).parent.parent), str(told)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        started = [int(word) for word in run.stdout.readline().split()]
        try:
            if number is None:
                run.communicate("\n")
                assert run.returncode == 0
                assert not any(gone(pid) for pid in started)
                return
            run.send_signal(number)
            run.wait(SOON)
            end = time.monotonic() + SOON
            while not all(gone(pid) for pid in started):
                assert time.monotonic() < end, started
                time.sleep(0.02)
            assert told.read_text() == "told\n"  # it was asked, and not killed outright
        finally:
            for pid in started:
                if not gone(pid):
                    os.kill(pid, signal.SIGKILL)


def test_this_run_is_guarded() -> None:
    assert os.environ[WORD].startswith(f"{os.getpid()}-")
    for folder in Path("/proc").glob("[0-9]*"):
        words = b""
        try:
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"tests/guard.py\0" in words and os.environ[WORD].encode() in words:
            return
    raise AssertionError("there is no guard")


def test_what_a_test_leaves_is_told_and_ended(tmp_path: Path) -> None:
    seen = Seen(tmp_path, open_too=True)
    assert seen.left() == []
    child = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {})
    fd = os.open("/dev/null", os.O_RDONLY)
    assert sorted(seen.left()) == [f"child {child}: sleep 1000 ", f"descriptor {fd}: /dev/null"]
    assert gone(child)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert seen.left() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_mount_that_a_test_leaves_is_taken_away(tmp_path: Path) -> None:
    seen = Seen(tmp_path)
    place = tmp_path / "m"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    assert seen.left() == [f"mount {place}: tmpfs"]
    assert not place.is_mount()
    assert seen.left() == []
