"""docs/ tells the truth: its commands run, its links lead somewhere, the site is built of it, and the messages in it are those of the programs."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mk9p.__main__ import COMMANDS
from mk9p.errors import TABLE
from mk9p.usage import ALIASES, everything
from tests import docs_session

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
RUN = [page for page in [*PAGES, ROOT / "README.md"] if list(docs_session.blocks(page.read_text()))]


def test_the_road_has_commands_to_run() -> None:
    assert {page.stem for page in RUN} >= {
        *("why", "installing", "tutorial", "bare-metal", "containers", "writing-servers", "python", "dial-strings"),
        *("plan9", "monitoring", "README"),
    }


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_the_commands_and_programs_of_a_page_run(page: Path, tmp_path: Path, long: bool) -> None:
    if os.geteuid() != 0:
        pytest.skip("a session with namespaces of its own needs root")
    docs_session.run(page, tmp_path, long=long)


def test_little_is_only_read() -> None:
    every = [block for page in RUN for block in docs_session.blocks(page.read_text())]
    assert len([block for block in every if block.reason]) * 3 < len(every)


def test_what_a_page_wrongly_says_is_found(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a session with namespaces of its own needs root")
    page = tmp_path / "page.md"
    for text, said in (
        ("```sh\ntrue\nfalse\n```\n", "page.md, line 2"),
        ("<!-- says: b -->\n```sh\necho a\n```\n", "'b' is not in what it printed: a"),
        ("```python\nraise OSError('words')\n```\n", "words"),
    ):
        page.write_text(text)
        place = tmp_path / str(abs(hash(text)))
        place.mkdir()
        with pytest.raises(AssertionError, match=re.escape(said)):
            docs_session.run(page, place, long=False)
    for text in ("<!-- not run: x -->\nwords\n", "<!-- lab -->\n```text\n```\n"):
        with pytest.raises(AssertionError, match="a comment, and then no block"):
            list(docs_session.blocks(text))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_every_command_and_option_that_a_page_names_is_there(page: Path) -> None:
    parsers = everything()
    text = page.read_text()
    named = re.findall(
        r"(?:^ {4}(?:\$ )?|\| |`|box )mk9p ((?:-[a-z-]+ \S+ )*)([a-z][a-z-]*)\b([^\n`|;&#]*)", text, re.MULTILINE
    )
    typed = "".join(block.text for block in docs_session.blocks(text) if block.language == "sh")
    named += re.findall(r"^(?:! )?mk9p ((?:-[a-z-]+ \S+ )*)([a-z][a-z-]*)\b([^\n`|;&#]*)", typed, re.MULTILINE)
    for _, command, rest in named:
        assert command in COMMANDS or command in ALIASES, f"{page.name}: mk9p {command}"
        if command in ("ca", "context", "lease", "wasm"):
            continue  # these have commands of their own
        known = {
            option
            for action in parsers[ALIASES.get(command, command).partition(" ")[0]]._actions
            for option in action.option_strings
        }
        try:
            words = shlex.split(rest.partition(" -- ")[0])
        except ValueError:
            continue  # a quote goes on in the next line
        for word in words:
            if re.fullmatch(r"--[a-z-]+", word):
                assert word in {*known, "--ca", "--cert", "--key", "--cap", "--no-such-option"}, (
                    f"{page.name}: mk9p {command} {word}"
                )


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_every_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_site_is_built_without_a_warning_and_has_every_page(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-d",
        f"{tmp_path}/trees",
        str(DOCS),
        f"{tmp_path}/site",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for page in [*PAGES, *(DOCS / "files").glob("*.md")]:
        assert (tmp_path / "site" / page.relative_to(DOCS).with_suffix(".html")).exists()


def sources() -> str:
    """Return all texts that programs print, with the joins of long lines undone."""
    every = "".join(
        path.read_text() for top in ("mk9p", "servers", "clients", ".ci") for path in (ROOT / top).rglob("*.py")
    )
    return re.sub(r'"\s*\n\s*f?"', "", every).replace("`", "")


def test_every_message_of_troubleshooting_is_one_that_a_program_prints() -> None:
    page = (DOCS / "troubleshooting.md").read_text()
    messages = [re.sub(r"\\\|", "|", message) for message in re.findall(r"^### `(.*)`$", page, re.MULTILINE)]
    assert len(messages) >= 20
    there = sources()
    wordings = {word.lower() for _, wording, more in TABLE for word in (wording, *more)}
    unknown = []
    for message in messages:
        # what stands in capitals, and numbers, are places for what the program puts there
        parts = [part.strip(" :;,'()") for part in re.split(r"\b[A-Z][A-Z!_]+\b|\b\d+\b|…", message)]
        unknown += [
            (message, part) for part in parts if len(part) > 3 and part.lower() not in wordings and part not in there
        ]
    assert not unknown


def test_every_message_of_troubleshooting_has_its_cause_and_what_to_do() -> None:
    page = (DOCS / "troubleshooting.md").read_text()
    for message, text in re.findall(r"^### `(.*)`\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL):
        assert "**Cause.**" in text, message
        assert "**What to do.**" in text, message
