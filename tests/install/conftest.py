"""What is installed, built once for all tests of this folder."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.install.debian import Tree, fresh

ROOT = Path(__file__).parent.parent.parent


def made(script: str, *arguments: str | Path) -> None:
    """Run a script of .ci with this Python."""
    env = {"DEBEMAIL": "mk9p@mk9p.org", **os.environ}
    subprocess.run([sys.executable, ROOT / ".ci" / script, *arguments], check=True, stdout=subprocess.DEVNULL, env=env)


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the archive."""
    path = tmp_path_factory.mktemp("pyz") / "mk9p.pyz"
    made("pyz.py", path)
    return path


@pytest.fixture(scope="session")
def debs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Build the Debian packages: mk9p, mk9p-fuse."""
    folder = tmp_path_factory.mktemp("deb")
    made("deb.py", folder)
    return sorted(folder.glob("*.deb"), key=lambda path: path.name.partition("_")[0])


@pytest.fixture(scope="session")
def debian(debs: list[Path]) -> Iterator[Tree]:
    """Give a fresh Debian with the packages installed."""
    with fresh() as tree:
        for deb in debs:
            shutil.copy(deb, tree.path / "root")
        tree.run("dpkg", "-i", *(f"/root/{deb.name}" for deb in debs))
        yield tree
