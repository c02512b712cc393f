"""What is released: the archives have all files, whichever of them somebody installs."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent


def build(source: Path, target: Path, *kinds: str) -> None:
    chosen = [word for kind in kinds for word in ("-t", kind)]
    subprocess.run([sys.executable, "-m", "hatchling", "build", *chosen, "-d", target], cwd=source, check=True)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder, "sdist", "wheel")
    return folder


def test_the_source_archive_makes_the_same_wheel(archives: Path, tmp_path: Path) -> None:
    (archive,), (wheel,) = archives.glob("*.tar.gz"), archives.glob("*.whl")
    subprocess.run(["tar", "-xzf", archive, "-C", tmp_path], check=True)
    build(tmp_path / archive.name.removesuffix(".tar.gz"), tmp_path / "again", "wheel")
    assert (tmp_path / "again" / wheel.name).read_bytes() == wheel.read_bytes()


def test_the_wheel_has_every_module_under_one_name(archives: Path) -> None:
    (wheel,) = archives.glob("*.whl")
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert all(name.startswith("mk9p/") for name in names)
    for top, below in (("mk9p", "mk9p"), ("servers", "mk9p/servers"), ("clients", "mk9p/clients")):
        for path in (ROOT / top).rglob("*.py"):
            assert f"{below}/{path.relative_to(ROOT / top)}" in names
