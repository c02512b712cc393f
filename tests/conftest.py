"""What all tests share: the long mode, and that nothing is left behind."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from tests.guard import guarded
from tests.leftovers import Seen

# A program started by nohup, or in the background of a script, ignores these, and so would all that the tests start.
for _signal in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, signal.default_int_handler if _signal is signal.SIGINT else signal.SIG_DFL)

# Property tests have no deadline: a loaded machine is no bug of ours.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="generate as much as it takes to be sure, for minutes")


def _is_long(config: pytest.Config) -> bool:
    return bool(config.getoption("--long") or os.environ.get("MK9P_LONG"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "minutes: it takes long where CPUs are emulated; skipped when there is no time for it"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not _is_long(config):
        for item in items:
            if item.get_closest_marker("minutes"):
                item.add_marker(pytest.mark.skip(reason="it takes minutes: MK9P_LONG=1"))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Iterator[Any]:
    """Let Ctrl-C end the run also from a test's nursery, which makes a group of it: pytest would count that as a failure, and go on."""
    try:
        return (yield)
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is not None:
            raise KeyboardInterrupt from group
        raise


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether there is time for a million: `pytest --long`, or MK9P_LONG=1 in the environment."""
    return _is_long(request.config)


@pytest.fixture(scope="session", autouse=True)
def _nothing_outlives_the_run() -> Iterator[None]:
    with guarded():
        yield


@pytest.fixture(scope="session", autouse=True)
def _state_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What programs keep for their next start (mk9p/state.py) is not this user's."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
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
