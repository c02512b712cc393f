"""The manual, docs/files: each page against the tree that it is of (mk9p/testing/manual.py tells what is held), and that there is one for each."""

import re
from pathlib import Path

import pytest

from mk9p.loading import available
from mk9p.page import Page
from mk9p.testing import check_page
from tests.servers.whole_tree import BESIDE, PLACES, whole

PAGES = Path(__file__).parent.parent / "docs/files"
OURS = sorted(name for name, entry in available().items() if entry.value.startswith("mk9p.servers."))


def page(server: str) -> str:
    path = PAGES / f"{server.rpartition('/')[2]}.md"
    assert path.exists(), f"there is no page {path.name} for the resource server {server}"
    return path.read_text()


async def wrong(text: str, server: str, folder: Path) -> str:
    """Return what is wrong with a page of a server, nothing if it is right. (Raised here, it would be told inside two groups.)"""
    async with BESIDE[server](folder) if server in BESIDE else whole(server, folder) as client:
        try:
            await check_page(text, client, places=PLACES.get(server))
        except AssertionError as error:
            return str(error)
    return ""


@pytest.mark.parametrize("server", [*OURS, *BESIDE])
async def test_a_page_tells_of_what_is_served_and_of_nothing_else(server: str, tmp_path: Path) -> None:
    text = page(server)
    assert Page.parse(text).top == ("" if server in ("host", "compose") else server)
    said = await wrong(text, server, tmp_path)
    assert not said, said


def test_each_page_is_of_a_server_and_begins_with_its_name() -> None:
    names = {server.rpartition("/")[2] for server in OURS} | BESIDE.keys()
    assert {path.stem for path in PAGES.glob("*.md")} == names
    for name in names:
        assert page(name).startswith(f"# {name}\n\n## NAME\n{name} \u2013 ")


def test_what_is_to_be_typed_is_not_taken_for_history_by_a_shell() -> None:
    for path in (*PAGES.glob("*.md"), PAGES.parent.parent / "README.md"):
        for line in path.read_text().splitlines():
            typed = [line[2:]] if line.startswith("$ ") else re.findall(r"`((?:echo|mk9p) [^`]*)`", line)
            for command in typed:
                assert not re.search(r"![^\s=(]", re.sub("'[^']*'", "", command)), f"{path.name}: {command}"


OFFLINE = "- `offline` take it out of use; the kernel first moves its contents elsewhere, which may take long: `echo offline > mem/block/33/ctl`\n"


@pytest.mark.parametrize(
    ("text", "other", "said"),
    [
        (OFFLINE, "", "block/N/ctl: the word `offline` is not in DESCRIPTION"),
        (OFFLINE, "- `offline [N]`: `echo offline`\n", "block/N/ctl: the page has `offline [N]`, the usage is `offline`"),
        (OFFLINE, "- `offline` take it out of use.\n", "block/N/ctl: the word offline has no example"),
        (OFFLINE, OFFLINE + "- `forget`: `echo forget`\n", "block/N/ctl: has no word `forget`"),
        ("- `auto_online offline|online|", "- `auto_online offline|", "the usage is `auto_online offline|online|"),
        ("node/N/\n        status\n", "node/N/\n", "node/0/status: is in the tree, and not in SYNOPSIS"),
        ("node/N/\n        status\n", "node/N/\n        status stat\n", "node/N/stat: is in SYNOPSIS, and not in the tree"),
        ("`node/N/status` has `cpus`", "There is `cpus`", "node/N/status: no sentence of DESCRIPTION begins with it"),
        ("$ cat mem/node/0/status\n", "", "node/N/status: has no example"),
        ("`error` has the last", "It has the last", "error: no sentence of DESCRIPTION begins with it"),
        ("## BUGS", "## OTHER", "missing or empty: BUGS"),
        ("## ERRORS", "## SOURCE\nx\n\n## ERRORS", "the order is NAME, SYNOPSIS, DESCRIPTION, ERRORS, SOURCE, BUGS"),
        ("mem \u2013 the memory", "the memory", "NAME is not a name, a dash, and what it is"),
    ],
)  # fmt: skip
async def test_what_is_taken_out_of_a_page_or_put_in_is_told(text: str, other: str, said: str, tmp_path: Path) -> None:
    whole_page = page("mem")
    assert whole_page.count(text) == 1, text
    assert said in await wrong(whole_page.replace(text, other), "mem", tmp_path)


async def test_each_word_that_is_taken_out_of_a_page_is_missed(tmp_path: Path) -> None:
    text = page("proc")
    words = [line for line in text.splitlines() if line.startswith("- `")]
    assert len(words) == 7
    for line in words:
        word = line.split("`")[1].split()[0]
        assert f"N/ctl: the word `{word}" in await wrong(text.replace(line, ""), "proc", tmp_path)
