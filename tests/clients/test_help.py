"""`mk9p help`: its pages, what it says of a name that is none, and how they look on a terminal, where a pager shows them."""

import errno
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from mk9p.clients.help import main, page, pages, subjects
from mk9p.clients.help_text import rendered
from mk9p.loading import available

PAGES = Path(__file__).parent.parent.parent / "docs/files"


def test_there_is_a_page_for_each_server_and_for_the_composed_namespace() -> None:
    assert set(pages()) >= {*available(), "compose"}
    assert page("dev/block") == page("block") == (PAGES / "block.md").read_text()


def test_without_a_name_all_are_listed_with_what_they_are_about(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[: len(pages())] == sorted(lines[: len(pages())])
    assert "dev/block  the disks of a kernel" in lines
    assert "mem        the memory of a kernel" in lines
    assert "\n\n" in subjects()


def test_piped_it_is_plain_text(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGER", "false")
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["help", "mem"]) == 0
    said = capfd.readouterr().out
    assert said.startswith(
        "NAME\n    mem \u2013 the memory of a kernel\n\nSYNOPSIS\n        mem/\n            ctl  error  status\n"
    )
    assert "\x1b" not in said
    assert all(len(line) <= 80 or line.startswith("        ") for line in said.splitlines())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("prok", "no page 'prok'; similar: proc"),
        ("blok", "no page 'blok'; similar: dev/block"),
        ("mount", "no page 'mount'; it is a command: mk9p mount [DIAL] DIR"),
        ("xyzzy", "no page 'xyzzy'; `mk9p help` lists the pages"),
    ],
)
def test_of_a_name_that_is_none_it_says_what_is_near(name: str, said: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        main(["help", name])
    assert caught.value.errno == errno.ENOENT
    assert str(caught.value) == said


def test_wrong_use_says_usage(capfd: pytest.CaptureFixture[str]) -> None:
    for words in (["a", "b"], ["--x"]):
        with pytest.raises(SystemExit, match="2"):
            main(["help", *words])
    assert capfd.readouterr().err == 2 * "usage: mk9p help [NAME]\n"


def test_on_a_terminal_the_users_pager_shows_it() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PAGER": "sed s/^NAME/PAGED/", "TERM": "vt100", "COLUMNS": "60"}
    environment.pop("MANPAGER", None)
    words = [sys.executable, "-m", "mk9p", "help", "seg"]
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as program:
        os.close(theirs)
        said = b""
        with suppress(OSError):  # EIO: so a terminal says that the last program has closed it
            while piece := os.read(ours, 65536):
                said += piece
        os.close(ours)
    assert program.returncode == 0
    assert said.startswith(b"PAGED\r\n    seg")
    assert max(len(line) for line in said.decode().splitlines() if line[:8].strip()) <= 60


TEXT = """# x

## NAME
x \u2013 y

## DESCRIPTION
**Bold** words, a [link](x.md) and `code that is whole`
go on here.
```
$ as it is   here
```
`ctl` takes
- `one` does one
  thing
- `two` does two

### Below
| key | value |
|---|---|
| `a\\|b` | first |
| c | |

| a first cell that leaves no room beside it | second |
|---|---|
| another first cell that leaves no room at all | third |
"""
SHOWN = """NAME
    x \u2013 y

DESCRIPTION
    Bold words, a link and
    `code that is whole` go on here.

        $ as it is   here

    `ctl` takes
    - `one` does one thing
    - `two` does two

  Below
    key    value
    `a|b`  first
    c

    another first cell that leaves
    no room at all
        third
"""


def test_a_page_is_filled_into_the_columns_there_are() -> None:
    assert rendered(TEXT, 36) == SHOWN
