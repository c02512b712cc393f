"""Code of a user's own as a resource server: a file, a module, a tree; what is wrong with it is told in a line."""

import subprocess
import sys
from pathlib import Path

import pytest

from mk9p.loading import Code, code_of
from mk9p.testing import SOON, child

ME = [sys.executable, "-m", "mk9p"]
COUNTER = """
import beside
from mk9p.tree import Ctl, Dir, Text

n = 0


def add(by: int) -> None:
    global n
    n += by * beside.STEP


tree = Dir({"ctl": Ctl({"add": add}), "count": Text(lambda: f"{n}\\n")})


def labelled(label: str, *, mark: str = "!") -> Dir:
    return Dir({"label": Text(f"{label}{mark}\\n")})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "counter.py").write_text(COUNTER)
    (tmp_path / "beside.py").write_text("STEP = 2\n")
    return tmp_path


def ask(address: str, *words: str) -> str:
    done = subprocess.run([*ME, "-a", address, *words], capture_output=True, text=True, timeout=SOON)
    return done.stdout + done.stderr


def test_a_file_and_a_module_are_served_as_they_are(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    where = f"unix:{folder}/s"
    specs = ["./counter.py", "counter:labelled:/a/one?mark=.", f"{folder}/counter.py:labelled:two?name=other"]
    with child([*ME, "serve", "-l", where, *specs], "listening"):
        assert ask(where, "write", "counter/ctl", "add", "3") == ""
        assert ask(where, "cat", "counter/count") == "6\n"
        assert ask(where, "cat", "labelled/one/label") == "/a/one.\n"
        assert ask(where, "cat", "labelled/other/label") == "two!\n"


@pytest.mark.parametrize(
    ("code", "spec", "said"),
    [
        ("x = 1 / 0\n", "./it.py", "{folder}/it.py: line 1: ZeroDivisionError: division by zero"),
        ("def f(:\n", "./it.py", "{folder}/it.py: line 1: invalid syntax"),
        (
            "import no_such_module\n",
            "./it.py",
            "{folder}/it.py: line 1: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("def other(): ...\n", "./it.py", "./it.py: no 'tree' there; functions: other"),
        ("tree = 5\n", "it:tree", "it: tree is neither a tree nor a function that returns one"),
        ("def tree(): return 5\n", "it:tree", "it: it gives int, and no tree (mk9p.tree.Dir)"),
        ("def tree(a): ...\n", "./it.py", "it: it wants an argument, it:A"),
        ("def tree(): ...\n", "./it.py:tree:x", "it: it takes no argument: say it alone"),
        ("", "./none.py", "./none.py: no such file"),
        ("", "no.such:tree", "no resource server and no module 'no'"),
    ],
)
def test_what_is_wrong_with_code_is_one_line(
    code: str, spec: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "it.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    done = subprocess.run(
        [*ME, "serve", "-l", f"unix:{tmp_path}/s", spec], capture_output=True, text=True, timeout=SOON
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("mk9p: ")]
    assert (done.returncode, lines) == (1, [f"mk9p serve: {said.format(folder=tmp_path)}"])


def test_what_is_installed_comes_first() -> None:
    assert code_of("fs", "path", ["fs"]) is None
    assert code_of("nowhere", None, ["fs"]) is None
    assert code_of("nowhere", "/a/path", ["fs"]) is None
    assert code_of("a.b", "tree:x:y", []) == Code("a.b", "tree", "b", "x:y")
    assert code_of("./d/c.py", None, []) == Code("./d/c.py", "tree", "c", None)
    assert code_of("./d/c.py", "f", []) == Code("./d/c.py", "f", "f", None)
