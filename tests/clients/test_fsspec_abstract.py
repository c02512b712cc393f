"""The tests that fsspec itself has for every file system, on a served tree: copy, get, put, open, pipe."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.stored_tree import serving_stored

pytest.importorskip("fsspec", reason="fsspec is not installed")

import fsspec  # type: ignore[import-untyped]
from fsspec.tests import abstract  # type: ignore[import-untyped]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve files stored in memory, from a process of their own."""
    with serving_stored(tmp_path_factory.mktemp("served")) as where:
        yield where


class Fixtures(abstract.AbstractFixtures):  # type: ignore[misc]
    """The file system under test, and a directory of each test's own in it."""

    @pytest.fixture
    def fs(self, address: str) -> Iterator[Any]:
        """Give a connection of this test's own; the tests want directories made as they want of fsspec's local file system."""
        fs = fsspec.filesystem("9p", address=address, auto_mkdir=True, skip_instance_cache=True)
        yield fs
        fs.close()

    @pytest.fixture
    def fs_path(self, fs: Any) -> Iterator[str]:
        """Give a directory, and remove it with all that the test left in it."""
        fs.mkdir("/top/abstract")
        yield "/top/abstract"
        fs.rm("/top/abstract", recursive=True)

    @pytest.fixture
    def local_path(self, tmp_path: Path) -> str:
        """Give a directory of this machine's."""
        return str(tmp_path)


class TestCopy(abstract.AbstractCopyTests, Fixtures):  # type: ignore[misc]
    """Copies within the tree."""


class TestGet(abstract.AbstractGetTests, Fixtures):  # type: ignore[misc]
    """Copies from the tree to this machine's files."""


class TestPut(abstract.AbstractPutTests, Fixtures):  # type: ignore[misc]
    """Copies from this machine's files to the tree."""


class TestOpen(abstract.AbstractOpenTests, Fixtures):  # type: ignore[misc]
    """Opening."""


class TestPipe(abstract.AbstractPipeTests, Fixtures):  # type: ignore[misc]
    """Writing whole contents."""
