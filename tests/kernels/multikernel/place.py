"""Run programs where the emulated kernel is at its place (place.sh)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[2]
SERVE = """LD_PRELOAD="$TOP/shim.so" python -m mk9p serve -l "unix!$TOP/k" "kernels:$TOP/run?state=$TOP/state/journal" & echo $! > "$TOP/pid"
wait $!"""
AGAIN = f'until [ -e "$TOP/over" ]; do {SERVE} || true; done'
PATIENCE = 100.0  # s: each command of kerf starts a Python


@attrs.frozen
class Place:
    """A short folder, in which shim.so is."""

    top: Path

    def command(self, *words: str) -> list[str]:
        """Return the command that runs words where the emulated kernel is at its place."""
        apart = ["unshare", "--mount", "--propagation", "private", "--"]
        return [*apart, "sh", str(HERE / "place.sh"), str(self.top), sys.executable, *words]

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment in which kerf is a command."""
        beside = str(Path(sys.executable).parent)
        return {
            **os.environ,
            "PATH": f"{beside}:{os.environ['PATH']}",
            "PYTHONPATH": str(CHECKOUT),
            "TOP": str(self.top),
        }

    def sh(self, script: str) -> str:
        """Run a script of sh, where `kerf` is a command; return what it says, and how it ended if not well."""
        words = f'kerf() {{ LD_PRELOAD="$TOP/shim.so" command kerf "$@"; }}\n{script}'
        ran = subprocess.run(
            self.command("sh", "-c", words),
            env=self.environment,
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        return ran.stdout + (f"ended with {ran.returncode}\n" if ran.returncode else "")

    @property
    def server(self) -> str:
        """Return where the server of kernels/ is dialled."""
        return f"unix!{self.top}/k"

    @property
    def machine(self) -> str:
        """Return where the emulated machine's own files are dialled."""
        return f"unix!{self.top}/sock"

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run a server of kernels/ there. One that is killed comes back, until the block ends, which ends it in order."""
        with (
            (self.top / "said").open("wb") as said,
            subprocess.Popen(
                self.command("sh", "-c", AGAIN),
                env=self.environment,
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            ) as process,
        ):
            try:
                yield
            finally:
                (self.top / "over").touch()
                self.signal(signal.SIGTERM)
                status = process.wait(PATIENCE)
        assert status == 0, (self.top / "said").read_text()

    def beside(self, *words: str) -> str:
        """Run a command where the server is, and return what it says. Raises AssertionError if it fails."""
        pid = (self.top / "pid").read_text().strip()
        command = ["nsenter", "-t", pid, "-m", "--", "env", f"LD_PRELOAD={self.top}/shim.so", *words]
        ran = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def signal(self, number: int) -> None:
        """Send a signal to the server of kernels/."""
        os.kill(int((self.top / "pid").read_text()), number)


@contextmanager
def placed() -> Iterator[Place]:
    """Make a place, or skip the test where there can be none."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not os.path.exists("/dev/fuse"):
        pytest.skip("needs /dev/fuse")
    for module in ("pyfuse3", "kerf", "libfdt"):
        pytest.importorskip(module)
    top = Path(tempfile.mkdtemp(prefix="mk-"))
    try:
        shim = ["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(top / "shim.so")]
        subprocess.run([*shim, str(HERE / "shim.c"), "-ldl"], check=True)
        yield Place(top)
    finally:
        shutil.rmtree(top)
