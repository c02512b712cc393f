"""Mounts, commands and fsspec on a server that says anything: none of them dies of it, nor writes where it should not."""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mk9p.clients import mount
from mk9p.testing import SOON, child, until_true
from mk9p.testing.replies import CONTENT, FILES
from mk9p.wire import Dialect
from tests.clients.mounting import Place, place

HERE = Path(__file__).parent


@contextmanager
def odd_server(address: str, *, dialect: Dialect = Dialect.L, often: int = 50) -> Iterator[list[int]]:
    """Run saying_anything.py while the block runs; when it has ended, the list has how many replies there were, and how many were odd."""
    counts: list[int] = []
    command = [sys.executable, str(HERE / "saying_anything.py"), address, "1", str(int(dialect)), str(often)]
    with child(command, "listening", stdout=subprocess.PIPE) as server:
        try:
            yield counts
        finally:
            server.terminate()
            counts += map(int, server.communicate(timeout=SOON)[0].split())


def use(what: str, where: str, count: int, *, patience: float) -> None:
    command = [sys.executable, str(HERE / "ordinary_use.py"), what, where, "1", str(count)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=patience)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr


def held(place: Place) -> tuple[int, int]:
    """Return the process that serves the mount, and how many descriptors it has."""
    (pid,) = place.processes()
    return pid, len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.parametrize("dialect", [Dialect.L, Dialect.P9])
def test_no_reply_breaks_a_fuse_mount(dialect: Dialect, long: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with place() as made:
        made.address = f"unix!{made.top}/s"
        with odd_server(made.address, dialect=dialect, often=0):
            made.mount()
            assert sorted(os.listdir(made.dir / "d1")) == list(FILES)
            before = held(made)
        with odd_server(made.address, dialect=dialect) as counts:
            use("files", str(made.dir), 3000 if long else 100, patience=30 * SOON if long else SOON)
        with odd_server(made.address, dialect=dialect, often=0):
            until_true(lambda: os.path.isdir(made.dir / "d1"))
            assert sorted(os.listdir(made.dir / "d1")) == list(FILES)
            assert (made.dir / "d1/f1").read_bytes() == CONTENT
            assert held(made) == before
        mount.umount(str(made.dir))
    with capsys.disabled():
        print(f"\nFUSE, {dialect.version}: {counts[0]} replies, {counts[1]} of them odd")


@pytest.mark.parametrize("dialect", [Dialect.L, Dialect.P9])
def test_no_reply_makes_a_command_fail_but_in_a_line(
    dialect: Dialect, long: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with odd_server(f"unix!{tmp_path}/s", dialect=dialect) as counts:
        use("commands", f"unix!{tmp_path}/s", 5000 if long else 150, patience=30 * SOON if long else SOON)
    with capsys.disabled():
        print(f"\ncommands, {dialect.version}: {counts[0]} replies, {counts[1]} of them odd")


_LISTED = """
import sys, trio
from mk9p.serving import serve_tree
from mk9p.tree import Dir, Text

class Odd(Dir):
    def entries(self, who):
        names = ("../ESCAPED", "../../../ESCAPED", "/ESCAPED", "a/../../ESCAPED", "..", "", "nul\\0x", "x" * 300)
        return [*super().entries(who), *((name, Text("bad")) for name in names)]

trio.run(serve_tree, Dir({"odd": Odd({"good": Text("good"), "sub": Odd({"good": Text("good")})})}), [sys.argv[1]])
"""


@pytest.fixture
def listed(tmp_path: Path) -> Iterable[str]:
    """Serve directories that list what they do not have."""
    address = f"unix!{tmp_path}/s"
    command = [sys.executable, "-c", _LISTED, address]
    with child(command, "listening"):
        yield address


@pytest.mark.parametrize("version", ["9P2000.L", "9P2000.u", "9P2000"])
def test_fsspec_writes_nothing_outside_of_its_target(listed: str, version: str, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    fs = fsspec.filesystem("9p", address=listed, version=version, skip_instance_cache=True)
    target = tmp_path / "deep/er/target"
    target.mkdir(parents=True)
    try:
        assert {name.rpartition("/")[2] for name in fs.find("/odd")} == {"good"}
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(target)
            fs.get("/odd", str(target), recursive=True)
    finally:
        fs.close()
    found = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(name for name in found if "good" in name) == [
        f"deep/er/target/{where}good" for where in ("odd/", "odd/sub/")
    ]
    assert not [name for name in found if "ESCAPED" in name or "nul" in name]
