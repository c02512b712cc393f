"""What all tests share: helpers that stand beside a test are imported by their names, and the long mode."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guard import guarded

for folder in ("server", "servers"):
    sys.path.insert(0, str(Path(__file__).parent / folder))


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
