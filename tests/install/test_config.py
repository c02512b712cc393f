"""`--config FILE`: what its keys are, and that a mistake in it is one line and starts nothing."""

import argparse
from pathlib import Path

import pytest

from mk9p.errors import NineError
from mk9p.usage import parsed

ALL = """
listen = ["unix!/run/a", "tcp!*!564"]
trust = true
from = "10.0.0.2"
readonly = true
verbose = 2
servers = ["cpu", "fs:/srv/data?ro"]
[limit]
fids = 100
connections = 7
"""


def serve(path: Path, text: str, *words: str) -> argparse.Namespace:
    path.write_text(text)
    return parsed(["serve", "--config", str(path), *words])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "serve.toml"


def test_its_keys_are_the_long_names_of_the_options(file: Path) -> None:
    chosen = serve(file, ALL)
    assert chosen.listen == ["unix!/run/a", "tcp!*!564"]
    assert (chosen.trust, chosen.readonly, chosen.come_from, chosen.verbose) == (True, True, "10.0.0.2", 2)
    assert chosen.specs == ["cpu", "fs:/srv/data?ro"]
    assert chosen.limit == ["fids=100", "connections=7"]


def test_the_command_line_wins_and_adds_to_lists(file: Path) -> None:
    chosen = serve(file, ALL, "-l", "unix!/run/b", "--from", "10.0.0.3", "--limit", "held=9", "mem")
    assert chosen.listen == ["unix!/run/a", "tcp!*!564", "unix!/run/b"]
    assert chosen.come_from == "10.0.0.3"
    assert chosen.limit == ["fids=100", "connections=7", "held=9"]
    assert chosen.specs == ["mem"]


def test_an_empty_file_changes_nothing(file: Path) -> None:
    assert vars(serve(file, "# nothing\n")) | {"config": None} == vars(parsed(["serve"]))


def test_compose_takes_one_too(file: Path) -> None:
    file.write_text('namespace = "/etc/mk9p/namespace"\nkernels = "/run/mk9p/kernels"\n')
    chosen = parsed(["compose", "--config", str(file)])
    assert (chosen.file, chosen.kernels) == ("/etc/mk9p/namespace", "/run/mk9p/kernels")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lisen = []", "unknown key 'lisen'; similar: listen"),
        ("come_from = 'x'", "unknown key 'come_from'; similar: "),
        (
            "colour = 1",
            "unknown key 'colour'; there are: audit ca cert crl from key limit listen policy readonly servers trust verbose",
        ),
        ("config = 'x'", "unknown key 'config'"),
        ("listen = 'tcp!*!564'", 'listen: want a list of texts: ["...", "..."]'),
        ("listen = [564]", "listen: want a list of texts"),
        ("trust = 'no'", "trust: want true or false"),
        ("trust = 1", "trust: want true or false"),
        ("verbose = true", "verbose: want a number"),
        ("from = 7", "from: want a text in quotes"),
        ("trust = yes", "Invalid value (at line 1, column 9)"),
        ("trust = true\ntrust = true", "Cannot overwrite a value"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_file(text: str, said: str, file: Path) -> None:
    with pytest.raises(NineError) as wrong:
        serve(file, text)
    assert str(wrong.value).startswith(f"{file}: ")
    assert said in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_a_file_that_is_not_there_or_no_text_is_one_line(file: Path) -> None:
    with pytest.raises(NineError, match=r"serve.toml: No such file or directory"):
        parsed(["serve", "--config", str(file)])
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(NineError, match=r"serve.toml: .*utf-8"):
        parsed(["serve", "--config", str(file)])
