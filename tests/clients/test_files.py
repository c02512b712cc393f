"""The file commands as a shell uses them: what a ctl refuses is told in its words, a slip costs nothing, and a filter in a pipe ends quietly."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mk9p.testing import SOON
from tests.clients.stored_tree import serving_stored

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def mk9p(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Serve the tree of stored_tree.py, and give what runs a command on it: its exit status, and what it says."""
    with serving_stored(tmp_path_factory.mktemp("served")) as where:

        def run(*words: str, stdin: str = "", stdout: int = subprocess.PIPE) -> tuple[int, str]:
            command = [sys.executable, "-m", "mk9p", "-a", where, *words]
            done = subprocess.run(command, input=stdin, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=SOON)
            return done.returncode, (done.stdout or "") + done.stderr

        yield run


def test_what_a_ctl_refuses_is_told_in_its_words_wherever_it_came_from(mk9p: Run, tmp_path: Path) -> None:
    (tmp_path / "commands").write_text("add x\n")
    told = "usage: add N\n"
    assert mk9p("write", "ctl", "add", "x") == (1, f"mk9p: ctl: {told}")
    assert mk9p("write", "ctl", stdin="add x\n") == (1, f"mk9p: ctl: {told}")
    assert mk9p("cp", str(tmp_path / "commands"), ":ctl") == (1, f"mk9p cp: :ctl: {told}")


def test_copying(mk9p: Run, tmp_path: Path) -> None:
    data = "some text\n" * 1000
    (tmp_path / "here").write_text(data)
    assert mk9p("cp", str(tmp_path / "here"), ":top/a") == (0, "")
    assert mk9p("cp", ":top/a", ":top/b") == (0, "")
    assert mk9p("cp", ":top/b", str(tmp_path / "back")) == (0, "")
    assert (tmp_path / "back").read_text() == data


def test_a_source_that_is_not_there_empties_nothing(mk9p: Run, tmp_path: Path) -> None:
    assert mk9p("write", "top/kept", stdin="kept") == (0, "")
    (tmp_path / "kept").write_text("kept")
    assert mk9p("cp", ":top/no", ":top/kept") == (1, "mk9p cp: :top/no: No such file or directory\n")
    assert mk9p("cp", str(tmp_path / "no"), ":top/kept")[0] == 1
    assert mk9p("cp", ":top/no", str(tmp_path / "kept"))[0] == 1
    assert mk9p("cat", "top/kept") == (0, "kept")
    assert (tmp_path / "kept").read_text() == "kept"


@pytest.mark.parametrize("words", ["tree", "stat text", "doctor"])
def test_who_prints_to_nobody_ends_quietly(mk9p: Run, words: str) -> None:
    reader, nobody = os.pipe()
    os.close(reader)
    try:
        assert mk9p(*words.split(), stdout=nobody) == (128 + 13, "")
    finally:
        os.close(nobody)
