"""What the fixtures of `conftest.py` give: our server in a thread, and diod on a socketpair."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from mk9p.testing import SOON
from tests.interop.tree_interop import Everything


@attrs.frozen
class Served:
    """A server in a thread of its own: where it listens, and the state behind its tree."""

    port: int
    state: Everything

    @property
    def host_port(self) -> str:
        return f"127.0.0.1:{self.port}"


@attrs.frozen
class Diod:
    """diod serving one connection: the dial string of its other end, and the directory that it exports."""

    address: str
    root: Path


def program(name: str, package: str) -> str:
    """Return the path of a program, also of one for administrators; skip without it."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))
    if found is None:
        pytest.skip(f"no {name}: install Debian's package {package}")
    return found


@contextmanager
def running_diod(root: Path) -> Iterator[str]:
    """Run diod for one connection and give its address; it serves `root`, which is also to be the aname.

    diod drops TCP clients whose address has no name, so it is given its connection. It ends when that does.
    """
    command = program("diod", "diod")
    if os.geteuid() != 0:
        pytest.skip("diod serves only root without its authentication")
    ours, theirs = socket.socketpair()
    fd = str(theirs.fileno())
    words = [command, "-f", "-n", "-r", fd, "-w", fd, "-e", str(root), "-L", "stderr", "-c", "/dev/null"]
    process = subprocess.Popen(words, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True, cwd=root)
    theirs.close()
    number = ours.detach()
    try:
        yield f"fd!{number}!{number}"
    finally:
        _, said = process.communicate(timeout=SOON)
        assert process.returncode == 0, (process.returncode, said)
        # The root goes with its connection; every other fid must have been clunked.
        assert [line for line in said.splitlines() if "unclunked" in line and " 1 unclunked" not in line] == []
