"""`mk9p.pyz`: one file, which a Python without any package runs, on a machine where nothing else of mk9p is."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

from mk9p.clients.help import pages
from mk9p.testing import child
from tests.install.conftest import ROOT, made

PYTHON = f"{sys.base_prefix}/bin/python3"
BARE = ("env", "-i", PYTHON, "-I", "-S")  # no environment, no packages of this Python


def run(pyz: Path, *words: str, status: int = 0) -> str:
    done = subprocess.run([*BARE, pyz, *words], cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout or done.stderr


def test_it_is_one_file_that_says_its_version(pyz: Path) -> None:
    assert run(pyz, "--version").startswith("mk9p 0.")
    assert subprocess.run([pyz, "--version"], check=True, capture_output=True).stdout.startswith(b"mk9p 0.")


def test_the_same_tree_gives_the_same_bytes(pyz: Path, tmp_path: Path) -> None:
    made("pyz.py", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == pyz.read_bytes()


def test_nothing_in_it_is_compiled_or_a_test(pyz: Path) -> None:
    names = ZipFile(pyz).namelist()
    assert "trio/__init__.py" in names
    assert "pyroute2/__init__.py" in names
    assert not [name for name in names if name.endswith((".so", ".pyc")) or "_tests/" in name]


@pytest.mark.parametrize("name", sorted(pages()))
def test_every_page_of_the_manual_is_in_it(name: str, pyz: Path) -> None:
    assert run(pyz, "help", name).startswith("NAME\n")


@pytest.fixture
def namespace(pyz: Path, tmp_path: Path) -> Iterator[str]:
    """Compose this machine's tree, which another process of the archive serves on its standard input and output, as over ssh."""
    there = shlex.join([*BARE, str(pyz), "serve", "-l", "fd!0!1", "cpu", "mem"])
    (tmp_path / "ns").write_text(f"mount 'exec!{there}' /k/box\n")
    address = f"unix!{tmp_path}/s"
    with child([*BARE, pyz, "compose", "-l", address, tmp_path / "ns"], "listening on"):
        yield address


def test_it_serves_composes_and_lists(namespace: str, pyz: Path) -> None:
    assert run(pyz, "-a", namespace, "ls", "k/box").split()[-3:] == ["cpu/", "mem/", "stats/"]
    assert "online" in run(pyz, "-a", namespace, "cat", "k/box/cpu/status")


def test_its_live_page_is_in_it(namespace: str, pyz: Path) -> None:
    with child([*BARE, pyz, "-a", namespace, "web", "-l", "127.0.0.1:0"], "http://", stdout=subprocess.PIPE) as process:
        assert process.poll() is None
    names = ZipFile(pyz).namelist()
    assert "mk9p/clients/web/static/index.html" in names


def test_it_leaves_nothing_on_the_disk(pyz: Path, tmp_path: Path) -> None:
    command = ["env", "-i", f"HOME={tmp_path}", f"TMPDIR={tmp_path}", PYTHON, str(pyz), "help", "cpu"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert not list(tmp_path.iterdir())
    assert [path.name for path in pyz.parent.iterdir()] == ["mk9p.pyz"]


def test_other_programs_can_read_what_it_brings_for_them(pyz: Path, tmp_path: Path) -> None:
    names = ("keeper.sh", "place.sh", "umlfp.c")
    script = f"""
import sys
sys.path.insert(0, {str(pyz)!r})
from mk9p.servers.kernels.brought import brought
for name in {names!r}:
    print(brought(name))
"""
    command = ["env", "-i", f"MK9P_CACHE={tmp_path}", *BARE[2:], "-c", script]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    for name, line in zip(names, done.stdout.splitlines(), strict=True):
        assert Path(line).parent == tmp_path
        assert Path(line).read_bytes() == (ROOT / "servers/kernels" / name).read_bytes()


def test_it_starts_a_kernel_of_its_own(pyz: Path, tmp_path: Path, long: bool) -> None:
    if not long or os.geteuid() != 0:
        pytest.skip("a kernel takes a while, and root: MK9P_LONG=1")
    (tmp_path / "lab.toml").write_text('[k1]\nbackend = "uml"\nkernel = "uml"\nmemory = "512M"\n')
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec"]
    script = f"""
    mount -t tmpfs run /run
    mk9p() {{ {PYTHON} -I -S {pyz} "$@"; }}
    mk9p up --no-mount {tmp_path}/lab.toml
    mk9p run k1 -- uname -n
    mk9p down
    """
    done = subprocess.run([*command, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "k1" in done.stdout.splitlines()


def test_an_older_python_is_told_in_one_line(pyz: Path) -> None:
    old = f"import runpy, sys; sys.version_info = (3, 9, 2); runpy.run_path({str(pyz)!r}, run_name='__main__')"
    done = subprocess.run([PYTHON, "-c", old], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"mk9p: this is Python 3.9, and mk9p needs 3.11 or newer: python3.11 {pyz}\n"


def test_a_mistake_is_one_line(pyz: Path) -> None:
    assert run(pyz, "-a", "unix!/nonexistent/s", "ls", status=1).count("\n") == 1


def test_the_page_about_installing_says_how_large_it_is(pyz: Path) -> None:
    page = (ROOT / "docs/installing.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| one file"))
    told = float(row.rstrip("| ").rpartition("| ")[2].removesuffix(" MB"))
    assert abs(pyz.stat().st_size / 1e6 - told) < 0.5
