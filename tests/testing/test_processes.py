"""A child ends with its test, whatever it does, and whatever the test does."""

import os
import signal
import subprocess

import pytest

from mk9p.testing import child


def gone(pid: int) -> bool:
    return not os.path.exists(f"/proc/{pid}")


def test_a_child_is_there_when_it_has_said_so_and_gone_after_the_block() -> None:
    with child(["sh", "-c", "echo one >&2; echo two >&2; exec sleep 1000"], "two") as process:
        assert not gone(process.pid)
    assert gone(process.pid)
    assert process.returncode == -signal.SIGTERM


def test_it_is_gone_too_if_the_test_fails() -> None:
    with pytest.raises(ZeroDivisionError), child(["sleep", "1000"], stdin=subprocess.PIPE) as process:
        1 / 0  # noqa: B018
    assert gone(process.pid)
    assert process.stdin is not None
    assert process.stdin.closed


def test_one_that_does_not_want_to_end_is_killed() -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.01; done"
    with child(["sh", "-c", script], "ready", grace=0.1, stdout=subprocess.PIPE) as process:
        pass
    assert process.returncode == -signal.SIGKILL


def test_one_that_ends_without_the_words_is_an_error_with_what_it_said() -> None:
    wrong = pytest.raises(AssertionError, match="it ended without 'listening': no such thing")
    with wrong, child(["sh", "-c", "echo no such thing >&2"], "listening"):
        raise RuntimeError


def test_one_that_has_ended_keeps_its_status() -> None:
    with child(["sh", "-c", "read x; exit 3"], stdin=subprocess.PIPE) as process:
        process.communicate("\n")
    assert process.returncode == 3
