"""Mounts by FUSE."""

from collections.abc import Iterator

import pytest

from tests.clients.mounting import Place, place


@pytest.fixture
def fresh() -> Iterator[Place]:
    """A place with a server, where nothing is mounted yet."""
    with place() as made:
        made.serve()
        yield made
