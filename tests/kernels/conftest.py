"""Fixtures of the tests of kernels."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def home() -> Iterator[Path]:
    """Give a folder with a short name: the names of unix sockets in it are at most 107 characters."""
    path = Path(tempfile.mkdtemp(prefix="mk9p-"))
    yield path
    shutil.rmtree(path)
