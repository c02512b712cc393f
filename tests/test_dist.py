"""What is released: the archives have all files, whichever of them somebody installs."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
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


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "library":
            (name,) = node.args
            if isinstance(name, ast.Constant):
                yield str(name.value).split(".")[0]


# what a package is imported as, where that is not its name
MODULES = {"biscuit-python": "biscuit_auth", "icpp-binaryen": "icpp_binaryen", "kerf-multikernel": "kerf"}
BROUGHT = {"libfdt"}  # by kerf-multikernel


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    names = [re.split(r"[^\w-]", each)[0] for each in wanted]
    declared = {MODULES.get(name, name) for name in names}
    found = {
        name for top in ("mk9p", "servers", "clients") for path in (ROOT / top).rglob("*.py") for name in imported(path)
    }
    assert found - set(sys.stdlib_module_names) - {"mk9p"} - BROUGHT == declared
