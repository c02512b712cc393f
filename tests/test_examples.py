"""A resource server from outside: examples/counter is built, installed beside mk9p's own wheel, served, used, asked for its page, and tested.

The two are in a virtual environment of their own, which finds the libraries of ours, and not the working tree.
"""

import os
import shutil
import site
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

from mk9p.client import connect
from mk9p.testing import child
from tests.servers.trees import names

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples/counter"


def run(*words: str | Path, cwd: Path) -> str:
    """Run a program, and return what it says; its end must be a good one."""
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "MK9P")}
    done = subprocess.run(words, cwd=cwd, env=clean, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Build both, with the build backend that is installed, from nothing but these trees."""
    pytest.importorskip("hatchling", reason="no hatchling: make setup")
    folder = tmp_path_factory.mktemp("wheels")
    offline = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "wheel", "-q", *offline, "-w", folder, ROOT, EXAMPLE, cwd=folder)
    return sorted(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install both; return the environment's folder of programs."""
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    programs = folder / "bin"
    offline = ("--no-deps", "--no-index", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", programs / "python", "install", "-q", *offline, *wheels, cwd=folder)
    ours = Path(
        run(programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    there = {sysconfig.get_path("purelib"), *site.getsitepackages()}
    (ours / "libraries.pth").write_text("\n".join(path for path in sorted(there) if Path(path).is_dir()))
    assert str(ours) in run(programs / "python", "-c", "import mk9p; print(mk9p.__file__)", cwd=folder)
    return programs


def test_the_wheels_have_what_is_no_module(wheels: list[Path]) -> None:
    mk9p, counter = (ZipFile(wheel).namelist() for wheel in wheels)
    assert {"mk9p_counter/counter.md", "mk9p_counter/py.typed"} <= set(counter)
    assert {name.split("/")[0] for name in mk9p if ".dist-info" not in name} == {"mk9p"}, "a name that users may have"
    pages = {f"mk9p/clients/manual/{page.name}" for page in (ROOT / "docs/files").glob("*.md")}
    assert pages == {name for name in mk9p if name.startswith("mk9p/clients/manual/")}
    assert "mk9p/clients/template/mk9p_@name@/__init__.py.in" in mk9p


@pytest.fixture
def served(installed: Path, tmp_path: Path) -> Iterator[str]:
    """Serve it; give the address."""
    address = f"unix!{tmp_path}/counter"
    words = [str(installed / "mk9p"), "serve", "-l", address, "counter"]
    with child(words, "mk9p: listening on", cwd=tmp_path):
        yield address


async def test_it_is_served_and_used(installed: Path, served: str, tmp_path: Path) -> None:
    async with connect(served) as client:
        listed = sorted(await names(client, "counter"))
        assert listed == ["count", "ctl", "error", "events"]
        await client.write("counter/ctl", "add 4\nadd 3")
        assert await client.read("counter/count") == "7\n"
        with pytest.raises(OSError, match="usage: add N"):
            await client.write("counter/ctl", "add nothing")
    assert run(installed / "mk9p", "-a", served, "cat", "counter/count", cwd=tmp_path) == "7\n"


def test_the_manual_is_installed_and_so_is_the_page_of_a_server_from_outside(installed: Path, tmp_path: Path) -> None:
    listed = run(installed / "mk9p", "help", cwd=tmp_path)
    assert "counter    a number that grows\n" in listed
    assert "dev/block  the disks of a kernel\n" in listed
    assert run(installed / "mk9p", "help", "counter", cwd=tmp_path).startswith(
        "NAME\n    counter \u2013 a number that grows\n"
    )
    assert run(installed / "mk9p", "help", "cpu", cwd=tmp_path).startswith("NAME\n    cpu \u2013 ")


def test_new_server_works_where_mk9p_is_installed(installed: Path, tmp_path: Path) -> None:
    run(installed / "mk9p", "new-server", "gpio", cwd=tmp_path)
    run(installed / "python", "-m", "pytest", "-q", cwd=tmp_path / "mk9p-gpio")


def test_its_own_tests_pass_where_it_is_installed(installed: Path, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    shutil.copy(EXAMPLE / "pyproject.toml", tmp_path)
    assert "3 passed" in run(installed / "python", "-m", "pytest", "-q", cwd=tmp_path)
