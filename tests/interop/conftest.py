"""What is served to strangers, and where strangers are found: whatever is not there is a skip that says why.

The strangers are fixtures, and so are their skips: pytest-trio loses the reason of a skip inside of an async test.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mk9p.auth import Policy
from mk9p.testing import in_thread, serving_at
from tests.interop import py9p_found
from tests.interop.peers import Diod, Served, program, running_diod
from tests.interop.tree_interop import Everything


@pytest.fixture
def served() -> Iterator[Served]:
    """Serve the tree on a port of the loopback, from a thread that runs trio."""
    state = Everything()
    with in_thread(serving_at("tcp!127.0.0.1!0", state.tree(), Policy(trust=True))) as (host, _):
        yield Served(int(host.address.rpartition("!")[2]), state)


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
    root = tmp_path / "export"
    root.mkdir()
    with running_diod(root) as address:
        yield Diod(address, root)


@pytest.fixture(scope="session", params=["py9p", "p9fs"])
def py9p(request: pytest.FixtureRequest) -> py9p_found.Python:
    """Find a Python that can `import py9p`: 2.7 with py9p 1.0.8 itself, and 3 with its fork in p9fs."""
    try:
        return py9p_found.find(request.param)
    except py9p_found.Missing as missing:
        pytest.skip(str(missing))
