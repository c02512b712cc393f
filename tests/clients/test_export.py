"""`mk9p export`: a directory as the root of what is served, without what patterns leave out."""

import sys
from pathlib import Path

import pytest

from mk9p.authority.guard import Guard
from mk9p.authority.patterns import Patterns
from mk9p.clients.export import exported
from mk9p.errors import NineError
from mk9p.testing import mounted
from tests.clients.mounting import mk9p

ME = [sys.executable, "-m", "mk9p"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for path in ("a.c", "b.key", "src/c.c", "src/d.key", "private/e.c"):
        (tmp_path / "top" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "top" / path).write_text(f"{path}\n")
    (tmp_path / "patterns").write_text("# keys stay here\n-\\.key$\n-^/private\n+^/.*[a-z]\n")
    return tmp_path


async def test_what_is_left_out_is_not_there_and_cannot_be_made(source: Path) -> None:
    async with exported(str(source / "top"), str(source / "patterns")) as tree, mounted(tree) as client:
        assert sorted([entry.name for entry in await client.listdir()]) == ["a.c", "src"]
        assert [entry.name for entry in await client.listdir("src")] == ["c.c"]
        assert await client.read("src/c.c") == "src/c.c\n"
        for path in ("b.key", "src/d.key", "private", "private/e.c"):
            with pytest.raises(FileNotFoundError):
                await client.walk(path)
        with pytest.raises(PermissionError):
            await client.create("new.key")
        with pytest.raises(PermissionError):
            await client.mkdir("private")
        await client.write("new.c", "new")
        with pytest.raises(PermissionError):
            await client.rename("new.c", "new.key")
        with pytest.raises(OSError, match="cross-device") as caught:  # what is below it might be there by the new name
            await client.rename("src", "other")
        assert caught.value.errno == 18
    assert (source / "top/new.c").read_text() == "new"
    assert not (source / "top/new.key").exists()


async def test_without_patterns_everything_is_there(source: Path) -> None:
    async with exported(str(source / "top"), None) as tree, mounted(tree) as client:
        assert not isinstance(tree, Guard)
        assert await client.read("private/e.c") == "private/e.c\n"


def test_a_path_must_match_all_of_the_first_and_none_of_the_others() -> None:
    patterns = Patterns.parse("+a\n+b\n-c\n", "p")
    shown = [path for path in ("", "/a", "/ab", "/ba", "/abc", "/c") if patterns.shows(path)]
    assert shown == ["", "/ab", "/ba"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ok", "line 1: want \\+ or -"),
        ("+a\n-(", "line 2: missing \\)"),
        ("-", "line 1: want"),
        ("+a{4294967295}", "line 1: the repetition number is too large"),
        (f"-{'(' * 3000}{')' * 3000}", "line 1: maximum recursion"),
    ],
)
def test_a_line_that_is_no_pattern_is_told_with_its_number(text: str, said: str) -> None:
    with pytest.raises(NineError, match=f"p: {said}") as caught:
        Patterns.parse(text, "p")
    assert caught.value.errno == 22


def test_the_command_says_what_is_wrong(source: Path) -> None:
    for words, said in (
        (["export", str(source / "nowhere"), "fd!0!1"], "No such file or directory"),
        (["export", "-P", str(source / "nothing"), str(source), "fd!0!1"], "No such file or directory"),
        (["export", str(source), "tcp"], "bad dial string"),
    ):
        done = mk9p(*words)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert done.stderr.startswith("mk9p export: ")
        assert said in done.stderr
