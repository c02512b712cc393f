"""What all tests share: the long mode, and that nothing is left behind."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.guard import guarded
from tests.leftovers import Seen

# A program started by nohup, or in the background of a script, ignores these, and so would all that the tests start.
for _signal in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, signal.default_int_handler if _signal is signal.SIGINT else signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="generate as much as it takes to be sure, for minutes")


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether there is time for a million: `pytest --long`, or MK9P_LONG=1 in the environment."""
    return bool(request.config.getoption("--long") or os.environ.get("MK9P_LONG"))


@pytest.fixture(scope="session", autouse=True)
def _nothing_outlives_the_run() -> Iterator[None]:
    with guarded():
        yield


@pytest.fixture
def open_too() -> bool:
    """Whether a test may leave no descriptor open either; a folder's conftest says so."""
    return False


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path_factory: pytest.TempPathFactory, open_too: bool) -> Iterator[None]:
    """Fail a test that leaves something behind (leftovers.py), and end that, so that it is no other test's trouble."""
    seen = Seen(tmp_path_factory.getbasetemp(), open_too)
    yield
    left = seen.left()
    assert not left, f"left behind: {'; '.join(left)}"
