"""Kernels that a process of their own holds (`mk9p serve kernels?run=DIR&through=DIAL`), and the composer of their namespace: either may be killed.

The kernel is this one, whose tree is attached, so no guest is started.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs
import pytest

from mk9p.testing import child
from tests.vm.lab_vm import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ME = [sys.executable, "-m", "mk9p"]


@attrs.define
class Held:
    """The namespace of kernels that are held."""

    home: Path

    def mk9p(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*ME, "-a", f"unix!{self.home}/ns", *words], capture_output=True, text=True, timeout=60, check=False
        )

    def cat(self, path: str) -> str:
        return self.mk9p("cat", path).stdout


@contextmanager
def composer(home: Path) -> Iterator[subprocess.Popen[str]]:
    words = [*ME, "compose", "-l", f"unix!{home}/ns", "--kernels", f"unix!{home}/held", "--state", f"{home}/table"]
    with child(words, "listening on") as process:
        yield process


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder with the kernel's own tree, and what holds the kernels."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    holder = f"kernels?run={tmp_path}/run&through=unix!{tmp_path}/ns"
    with (
        child([*ME, "serve", "-l", f"unix!{tmp_path}/k9", "host", "cpu"], "listening on"),
        child([*ME, "serve", "-l", f"unix!{tmp_path}/held", holder], "listening on"),
    ):
        yield tmp_path


def test_they_go_on_without_the_composer_and_are_asked_through_the_next_one(home: Path) -> None:
    with composer(home) as process:
        held = Held(home)
        for path, words in (
            ("kernels/ctl", "create k9"),
            ("kernels/k9/ctl", f"backend attach\ndial unix!{home}/k9\nwatch 1 tell\nstart"),
        ):
            for word in words.split("\n"):
                assert held.mk9p("write", path, word).stderr == ""
        until(lambda: "state active\n" in held.cat("kernels/k9/status"), "k9")
        boot = until(lambda: held.cat("k/k9/status"), "its tree")
        # what is asked of the kernel itself goes through the namespace, and comes back in words
        refused = held.mk9p("write", "kernels/k9/ctl", "cpu del 4096")
        assert "k9 has no CPU 4096" in refused.stderr
        process.kill()
        process.wait()
    # nobody can tell now whether it answers: so it is not called silent, or worse
    time.sleep(2.5)  # it is asked every second
    alone = [*ME, "-a", f"unix!{home}/held", "cat", "kernels/k9/status"]
    said = subprocess.run(alone, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "state active\n" in said
    with composer(home):
        held = Held(home)
        assert until(lambda: held.cat("k/k9/status"), "its tree").split("uptime")[0] == boot.split("uptime")[0]
        assert f"mount -u unix!{home}/k9 /k/k9\n" in held.cat("ns")
        assert held.mk9p("write", "kernels/k9/ctl", "kill").stderr == ""
        assert held.mk9p("write", "kernels/ctl", "delete k9").stderr == ""
        until(lambda: "/k/k9" not in held.cat("ns"), "its branch gone")
