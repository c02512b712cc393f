"""What commands take is told without them, and says of them what is true."""

import argparse
import os
import subprocess
import sys

import attrs
import pytest

from mk9p.__main__ import COMMANDS
from mk9p.client.client import DEFAULT
from mk9p.clients import listing, v9fs
from mk9p.clients.doctor import examine
from mk9p.server import Limits
from mk9p.testing import SOON
from mk9p.usage import GLOBAL, common, everything, parsed, tell


def test_numbers_and_names_are_those_of_the_commands() -> None:
    assert common.NAMESPACE == DEFAULT
    assert common.PATIENCE == listing.PATIENCE
    assert (common.CACHES, common.MSIZE) == (v9fs.CACHES, v9fs.MSIZE)
    assert common.EACH == examine.EACH
    assert tuple(sorted(examine.SKIPPED)) == common.SKIPPED
    assert {name: getattr(examine.Bounds(), name) for name in common.BOUNDS} == common.BOUNDS
    assert " ".join(attrs.fields_dict(Limits)) == common.LIMITS


HEAVY = "{'trio', 'attrs', 'attr', 'logging', 'mk9p.client', 'mk9p.wire', 'mk9p.tree', 'mk9p.server', 'mk9p.errors'}"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_wrong_use_are_told_without_the_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"""
import sys
from mk9p.__main__ import main
for word, wanted in ("--help", 0), ("--no-such-option", 2):
    try:
        main([{name!r}, word])
    except SystemExit as error:
        assert error.code == wanted, error.code
    else:
        raise AssertionError(word)
assert not {HEAVY} & set(sys.modules), {HEAVY} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=SOON)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: mk9p {name}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "mount --cache all /mnt",
            "mk9p mount: error: unknown cache 'all': there are none readahead mmap loose fscache",
        ),
        ("socks -l here k1", "mk9p socks: error: -l here: want HOST:PORT"),
        ("run k1 --", "mk9p run: error: no command: give one after --"),
        ("tail -n -1 events", "mk9p tail: error: argument -n: want a number, 0 or more, not '-1'"),
        ("help one two", "usage: mk9p help [NAME]"),
    ],
)
def test_wrong_use(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed(words.split(" "))
    assert caught.value.code == 2
    assert capsys.readouterr().err.endswith(said + "\n")


@pytest.mark.parametrize("words", ["ls d", "tf status 1", "wasm ps", "run k1 -- sh -c x", "top", "lease take /k -- x"])
def test_what_is_said_of_the_tree_may_stand_anywhere(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"-a": "unix:/s", "-c": "lab", "--ca": "a", "--cert": "b", "--key": "c", "--crl": "d", "--cap": "e"}
    name, *rest = words.split(" ")
    at = 1 if rest and rest[0] in ("status", "take", "ps") else 0
    for option, value in said.items():
        chosen = parsed([name, *rest[:at], option, value, *rest[at:]])
        assert vars(chosen)[GLOBAL[option]] == value
        assert vars(parsed([name, *rest])).keys().isdisjoint(GLOBAL.values())
    for variable in GLOBAL.values():
        monkeypatch.setenv(variable, "before")
    tell({GLOBAL["-c"]: "lab", GLOBAL["--cap"]: "e"})
    assert GLOBAL["-a"] not in os.environ
    assert (os.environ[GLOBAL["-c"]], os.environ[GLOBAL["--cap"]]) == ("lab", os.path.abspath("e"))
    tell({GLOBAL["-a"]: "unix:/s", GLOBAL["-c"]: "lab"})
    assert os.environ[GLOBAL["-a"]] == "unix:/s"


def test_no_argument_is_refused_by_the_name_of_a_function() -> None:
    """Each argument that is read by a function says what it wants; "invalid _path value" tells nobody anything."""
    tried = 0
    todo = list(everything().values())
    for parser in todo:
        for action in parser._actions:
            if isinstance(action.choices, dict):
                todo += action.choices.values()
            elif action.type is not None:
                with pytest.raises(argparse.ArgumentTypeError, match=r"^want "):
                    action.type("\0")  # type: ignore[operator]
                tried += 1
    assert tried > 20
