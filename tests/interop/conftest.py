"""What is served to strangers, and where strangers are found: whatever is not there is a skip that says why.

The strangers are fixtures, and so are their skips: pytest-trio loses the reason of a skip inside of an async test.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mk9p.auth import Policy
from mk9p.testing import in_thread, serving_at
from tests.interop import py9p_found
from tests.interop.peers import Diod, Served
from tests.interop.tree_interop import Everything


@pytest.fixture
def served() -> Iterator[Served]:
    """Serve the tree on a port of the loopback, from a thread that runs trio."""
    state = Everything()
    with in_thread(serving_at("tcp!127.0.0.1!0", state.tree(), Policy(trust=True))) as (host, _):
        yield Served(int(host.address.rpartition("!")[2]), state)


def program(name: str, package: str) -> str:
    """Return the path of a program, also of one for administrators; skip without it."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))
    if found is None:
        pytest.skip(f"no {name}: install Debian's package {package}")
    return found


@pytest.fixture(scope="session")
def tshark() -> str:
    return program("tshark", "tshark")


@pytest.fixture(scope="session")
def diodls() -> str:
    return program("diodls", "diod")


@pytest.fixture(scope="session")
def diodcat() -> str:
    return program("diodcat", "diod")


@pytest.fixture
def diod(tmp_path: Path) -> Iterator[Diod]:
    """Start diod on a socketpair. It drops TCP clients whose address has no name, so it is given its connection."""
    command = program("diod", "diod")
    if os.geteuid() != 0:
        pytest.skip("diod serves only root without its authentication")
    root = tmp_path / "export"
    root.mkdir()
    ours, theirs = socket.socketpair()
    fd = str(theirs.fileno())
    log = tmp_path / "diod.log"
    with log.open("wb") as err:
        words = [command, "-f", "-n", "-r", fd, "-w", fd, "-e", str(root), "-L", "stderr", "-c", "/dev/null"]
        process = subprocess.Popen(words, pass_fds=[theirs.fileno()], stderr=err, stdin=subprocess.DEVNULL)
    theirs.close()
    number = ours.detach()
    try:
        yield Diod(f"fd!{number}!{number}", root)
    finally:
        try:
            process.wait(10)  # it ends when its connection does
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"diod did not end with its connection: {log.read_text()}") from None
        # The root goes with its connection; every other fid must have been clunked.
        left = [line for line in log.read_text().splitlines() if "unclunked" in line and " 1 unclunked" not in line]
        assert left == []


@pytest.fixture(scope="session", params=["py9p", "p9fs"])
def py9p(request: pytest.FixtureRequest) -> py9p_found.Python:
    """Find a Python that can `import py9p`: 2.7 with py9p 1.0.8 itself, and 3 with its fork in p9fs."""
    try:
        return py9p_found.find(request.param)
    except py9p_found.Missing as missing:
        pytest.skip(str(missing))
