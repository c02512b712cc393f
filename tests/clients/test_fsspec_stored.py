"""fsspec on stored files of two servers in one namespace: nothing is lost by copying and moving, links are followed, open files can be pickled."""

import errno
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from mk9p.testing import SOON, child

pytest.importorskip("fsspec", reason="fsspec is not installed")

import fsspec  # type: ignore[import-untyped]

ME = [sys.executable, "-m", "mk9p"]


@pytest.fixture
def top(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def address(top: Path) -> Iterator[str]:
    """Serve one and two, from a process each, as /one and /two of a namespace in which /again is /one too."""
    mounts = [f"mount unix!{top}/{name}.s /{name} ''" for name in ("one", "two")]
    (top / "script").write_text("\n".join([*mounts, "bind /one/fs /again"]) + "\n")
    with ExitStack() as stack:
        for words in (
            *(["serve", "-l", f"unix!{top}/{name}.s", f"fs:{top}/{name}?name=x"] for name in ("one", "two")),
            ["compose", "-l", f"unix!{top}/ns", f"{top}/script"],
        ):
            stack.enter_context(child([*ME, *words], "listening"))
        yield f"unix!{top}/ns"


@pytest.fixture
def fs(address: str) -> Iterator[Any]:
    fs = fsspec.filesystem("9p", address=address, skip_instance_cache=True)
    yield fs
    fs.close()


ONE, TWO, AGAIN = "/one/fs/x", "/two/fs/x", "/again/x"


def test_a_file_copied_or_moved_onto_itself_keeps_its_bytes(fs: Any, top: Path, address: str) -> None:
    (top / "one" / "f").write_text("precious")
    (top / "one" / "d").mkdir()
    os.link(top / "one" / "f", top / "one" / "hard")
    (top / "one" / "link").symlink_to("f")
    for name in (f"{ONE}/hard", f"{ONE}/link", f"{AGAIN}/f", f"{AGAIN}/link", f"{ONE}/d/../f", f"{ONE}//f"):
        with pytest.raises(OSError, match="same file") as raised:
            fs.cp_file(f"{ONE}/f", name)
        assert raised.value.errno == errno.EINVAL
        words = [*ME, "-a", address, "cp", f":{ONE}/f", f":{name}"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=SOON)
        assert (done.returncode, done.stderr) == (1, f"mk9p cp: :{name}: it is the same file as its source\n")
    for name in (f"{AGAIN}/f", f"{AGAIN}/hard"):
        with suppress(OSError):  # rename(2) of two names of one file does nothing
            fs.mv(f"{ONE}/f", name)
        assert fs.cat_file(f"{ONE}/hard") == b"precious"
    fs.mv(f"{ONE}/d/../hard", f"{ONE}/hard")
    assert (top / "one" / "hard").read_text() == "precious"


def test_a_file_fetched_to_or_sent_from_where_it_is_served_keeps_its_bytes(fs: Any, top: Path) -> None:
    data = os.urandom(2_500_000)
    (top / "one" / "f").write_bytes(data)
    with pytest.raises(OSError, match="same file"):
        fs.put(str(top / "one" / "f"), f"{ONE}/f")
    with pytest.raises(OSError, match="same file"):
        fs.get(f"{AGAIN}/f", str(top / "one" / "f"))
    with pytest.raises(OSError, match="same file"):
        fs.get(f"{ONE}/", f"{top}/one/", recursive=True)
    assert (top / "one" / "f").read_bytes() == data
    fs.get(f"{ONE}/f", f"{top}/new/g")
    fs.put(f"{top}/new/g", f"{TWO}/new/h")
    assert (top / "two" / "new" / "h").read_bytes() == data
    (top / "new" / "g").write_text("short")
    fs.put(f"{top}/new/", f"{TWO}/new/", recursive=True)
    fs.put_file(f"{top}/new/g", f"{TWO}/new/h")
    assert [(top / "two" / "new" / name).read_text() for name in "gh"] == ["short", "short"]
    with pytest.raises(FileExistsError):
        fs.put_file(f"{top}/new/g", f"{TWO}/new/h", mode="create")


def test_a_directory_is_not_copied_or_moved_into_itself(fs: Any, top: Path) -> None:
    (top / "one" / "d" / "sub").mkdir(parents=True)
    (top / "one" / "d" / "f").write_text("precious")
    (top / "one" / "in").symlink_to("d/sub")
    for target in (f"{ONE}/d/sub", f"{ONE}/d/new", f"{AGAIN}/d/sub", f"{AGAIN}/d/new/newer", f"{ONE}/in", f"{ONE}/d"):
        with pytest.raises(OSError, match="directory that would be copied"):
            fs.cp(f"{ONE}/d", target, recursive=True)
        with pytest.raises(OSError, match=r"Invalid|directory that would|No such"):
            fs.mv(f"{ONE}/d", target if target != f"{ONE}/d" else f"{AGAIN}/d", recursive=True)
    assert (top / "one" / "d" / "f").read_text() == "precious"
    assert sorted(each.name for each in (top / "one" / "d").iterdir()) == ["f", "sub"]
    assert not list((top / "one" / "d" / "sub").iterdir())
    (top / "one" / "d" / "a").mkdir()
    (top / "one" / "d" / "a" / "f").write_text("first in the listing")
    with pytest.raises(OSError, match="directory that would be copied"):
        fs.cp(f"{ONE}/d", f"{AGAIN}/d/sub/in", recursive=True)
    assert not list((top / "one" / "d" / "sub").iterdir())


def test_a_file_and_a_directory_of_one_name_stay(fs: Any, top: Path) -> None:
    (top / "one" / "f").write_text("precious")
    (top / "two" / "f").mkdir()
    (top / "two" / "f" / "in").write_text("kept")
    with pytest.raises(IsADirectoryError):
        fs.cp_file(f"{ONE}/f", f"{TWO}/f")
    with pytest.raises(FileExistsError):
        fs.cp_file(f"{TWO}/f", f"{ONE}/f")
    with pytest.raises(FileExistsError):
        fs.cp(f"{TWO}/f", f"{ONE}/f", recursive=True)
    assert ((top / "one" / "f").read_text(), (top / "two" / "f" / "in").read_text()) == ("precious", "kept")


def test_what_another_server_gets_is_copied_before_it_is_removed(fs: Any, top: Path) -> None:
    (top / "one" / "d").mkdir()
    (top / "one" / "d" / "f").write_text("text")
    (top / "two" / "d").mkdir()
    (top / "two" / "d" / "f").mkdir()
    fs.mv(f"{ONE}/d/f", f"{TWO}/g")
    assert ((top / "two" / "g").read_text(), list((top / "one" / "d").iterdir())) == ("text", [])
    fs.mv(f"{ONE}/d", f"{TWO}/new")
    assert (top / "two" / "new").is_dir()
    assert not (top / "one" / "d").exists()
    (top / "one" / "dangling").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError):
        fs.mv(f"{ONE}/dangling", f"{TWO}/dangling")
    assert (top / "one" / "dangling").is_symlink()


def test_an_error_is_about_the_one_that_is_missing(fs: Any, top: Path) -> None:
    (top / "one" / "f").write_text("text")
    for do in (fs.cp_file, fs.mv):
        for source, target, missing in (
            (f"{ONE}/no", f"{ONE}/g", f"{ONE}/no"),
            (f"{ONE}/f", f"{ONE}/no/g", f"{ONE}/no/g"),
            (f"{ONE}/f", f"{TWO}/no/g", f"{TWO}/no/g"),
            (f"{ONE}/no/f", f"{ONE}/no/g", f"{ONE}/no/f"),
        ):
            with pytest.raises(FileNotFoundError) as raised:
                do(source, target)
            assert raised.value.filename == missing
    assert (top / "one" / "f").read_text() == "text"


def test_links_are_followed(fs: Any, top: Path) -> None:
    (top / "one" / "d" / "e").mkdir(parents=True)
    (top / "one" / "d" / "f").write_text("text")
    (top / "one" / "link").symlink_to("d/f")
    (top / "one" / "to").symlink_to("d")
    (top / "one" / "d" / "e" / "up").symlink_to("..")
    (top / "one" / "whole").symlink_to("/two/fs/x/far")
    (top / "two" / "far").write_text("far away")
    (top / "one" / "dangling").symlink_to("nowhere")
    (top / "one" / "loop").symlink_to("loop")
    info = fs.info(f"{ONE}/link")
    assert (info["name"], info["type"], info["size"], info["islink"]) == (f"{ONE}/link", "file", 4, True)
    assert not fs.info(f"{ONE}/to/f")["islink"]
    assert (fs.isdir(f"{ONE}/to"), fs.info(f"{ONE}/to")["islink"]) == (True, True)
    assert fs.cat_file(f"{ONE}/link") == fs.cat_file(f"{ONE}/to/f") == fs.cat_file(f"{ONE}/to/e/up/f") == b"text"
    assert fs.cat_file(f"{ONE}/whole") == b"far away"
    assert fs.ls(f"{ONE}/to", detail=False) == [f"{ONE}/to/e", f"{ONE}/to/f"]
    found = {each["name"].rpartition("/")[2]: (each["type"], each["islink"]) for each in fs.ls(ONE)}
    assert found["link"] == ("file", True)
    assert found["to"] == found["dangling"] == found["loop"] == ("link", True)
    assert found["d"] == ("directory", False)
    assert f"{ONE}/link" in fs.find(ONE)  # and it ends
    with fs.open(f"{ONE}/link", "wb") as file:
        file.write(b"other")
    assert (top / "one" / "d" / "f").read_text() == "other"
    with fs.open(f"{ONE}/dangling", "wb") as file:
        file.write(b"made")
    assert (top / "one" / "nowhere").read_text() == "made"
    assert fs.exists(f"{ONE}/loop") is False or pytest.fail("it leads nowhere")
    fs.rm(f"{ONE}/to")
    fs.rm(f"{ONE}/d/e", recursive=True)
    assert [each.name for each in (top / "one" / "d").iterdir()] == ["f"]


def test_open_files_can_be_pickled(fs: Any, top: Path) -> None:
    (top / "one" / "f").write_bytes(bytes(range(256)) * 100)
    with fs.open(f"{ONE}/f", "rb", block_size=1000) as file:
        file.seek(300)
        other = pickle.loads(pickle.dumps(file))
        assert (other.tell(), other.read(4), file.read(4)) == (300, bytes([44, 45, 46, 47]), bytes([44, 45, 46, 47]))
        other.close()
    with fs.open(f"{ONE}/f", "rb", size=16) as file:
        assert file.read() == bytes(range(16))
    with pickle.loads(pickle.dumps(fsspec.core.OpenFile(fs, f"{ONE}/f"))) as file:
        assert file.read(3) == b"\0\1\2"


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "/a/../../../etc/passwd", "9p:///../etc/passwd", "//../etc/./passwd"]
)
def test_no_path_leads_above_the_root(fs: Any, path: str) -> None:
    assert fs._strip_protocol(path) == "/etc/passwd"


@pytest.mark.parametrize("when", [-1, -315_000_000, 1 << 33])
def test_times_of_any_year(fs: Any, top: Path, when: int) -> None:
    (top / "one" / "old").touch()
    os.utime(top / "one" / "old", (when, when))
    told = os.stat(top / "one" / "old").st_mtime  # as the file system of this machine keeps it
    assert fs.info(f"{ONE}/old")["mtime"] == told
    assert fs.modified(f"{ONE}/old").timestamp() == told


def test_a_time_out_of_range_is_the_nearest() -> None:
    from mk9p.clients.fsspec_calls import moment

    assert [moment(seconds).year for seconds in (-1e30, -(1 << 62), -1, 1 << 62, 1e30)] == [1, 1, 1969, 9999, 9999]


def test_touched_is_now(fs: Any, top: Path) -> None:
    (top / "one" / "old").write_text("text")
    os.utime(top / "one" / "old", (1, 1))
    (top / "one" / "link").symlink_to("old")
    fs.touch(f"{ONE}/link", truncate=False)
    assert os.stat(top / "one" / "old").st_mtime > 1_700_000_000
    assert (top / "one" / "old").read_text() == "text"
