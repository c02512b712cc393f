"""`mk9p new-server`: what it makes passes its own tests and every check, as made; where something is, and of what is no name, it makes nothing."""

import errno
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from mk9p.clients.new_server import made, main, make

EXAMPLE = Path(__file__).parent.parent.parent / "examples/counter"
LONGEST = "a" + 30 * "_" + "9"


def run(folder: Path, *words: str) -> None:
    done = subprocess.run([sys.executable, "-m", *words], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["gpio", LONGEST])
def test_the_package_passes_its_own_tests_and_every_check_as_it_is_made(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    make(name, folder)
    run(folder, "pytest", "-q", "-p", "no:cacheprovider")
    if find_spec("ruff") is None or find_spec("mypy") is None:
        pytest.skip("no ruff, no mypy (the group lint): only its tests were run")
    run(folder, "ruff", "check", "--no-cache")
    run(folder, "ruff", "format", "--check", "--no-cache")
    run(folder, "mypy", "--cache-dir", str(tmp_path / "mypy"))


def test_it_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new-server", "gpio"]) == 0
    assert "cd mk9p-gpio\n" in capsys.readouterr().out
    files = {str(path.relative_to("mk9p-gpio")) for path in Path("mk9p-gpio").rglob("*") if path.is_file()}
    assert files == {
        "README.md",
        "mk9p_gpio/__init__.py",
        "mk9p_gpio/gpio.md",
        "mk9p_gpio/py.typed",
        "pyproject.toml",
        "tests/test_gpio.py",
    }
    assert not any("@name@" in path.read_text() for path in Path("mk9p-gpio").rglob("*") if path.is_file())


def test_what_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "there", tmp_path / "file"):
        with pytest.raises(FileExistsError, match="is not changed"):
            make("gpio", folder)
    assert not list((tmp_path / "there").iterdir())
    assert (tmp_path / "file").read_text() == "mine"


def test_what_cannot_be_made_whole_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mk9p.clients.new_server.made", lambda name: {"a": "a", "no/such/folder": "b"})
    with pytest.raises(FileNotFoundError):
        make("gpio", tmp_path / "made")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "name", ["", "9p", "my-disk", "My", "class", "a b", "../x", "\u00e9", "x_", "_x", "x" * 33, "a\n"]
)
def test_a_name_that_cannot_be_one_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="is no name for a server: want a Python identifier") as caught:
        make(name, tmp_path / "made")
    assert caught.value.errno == errno.EINVAL
    assert not (tmp_path / "made").exists()


def test_the_name_of_a_server_that_is_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="there is a resource server cpu already"):
        make("cpu", tmp_path / "made")


def test_wrong_use_says_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["a", "b", "c"], ["-x"]):
        with pytest.raises(SystemExit, match="2"):
            main(["new-server", *words])
        assert capsys.readouterr().err == "usage: mk9p new-server NAME [DIR]\n"


def test_the_example_is_what_would_be_made_and_grown() -> None:
    files = made("counter")
    there = {str(path.relative_to(EXAMPLE)) for path in EXAMPLE.rglob("*") if path.is_file()}
    assert set(files) == {path for path in there if "cache" not in path}
    assert (EXAMPLE / "pyproject.toml").read_text() == files["pyproject.toml"]
    example = (EXAMPLE / "README.md").read_text()
    assert all(line in example for line in files["README.md"].splitlines())
