"""README tells the truth: the server in it is the tested file, its targets are those of the Makefile. tests/test_docs.py runs its commands."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mk9p.testing import mounted

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_server_in_it_is_the_file_that_is_tested() -> None:
    shown = re.search(r"```python\n(import attrs\n.*?)```", README, re.DOTALL)
    assert shown is not None
    assert shown[1] in (ROOT / "examples/counter/mk9p_counter/__init__.py").read_text()


async def test_the_example_works_and_says_usage() -> None:
    from mk9p_counter import Counter

    async with mounted(Counter().tree()) as tree:
        await tree.write("ctl", "add 2\nadd 3\n")
        assert await tree.read("count") == "5\n"
        with pytest.raises(OSError, match="usage: add N"):
            await tree.write("ctl", "add two")
        assert await tree.read("error") == "usage: add N\n"
        async for line in tree.lines("events"):
            assert line.split()[2:] == ["added", "2"]
            break


def test_its_targets_are_those_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^    |`)make ([a-z]+)", README, re.MULTILINE))
    assert {"demo", "test", "setup", "pyz", "deb", "docs"} <= named <= targets


def test_its_pictures_are_whole_and_say_in_words_what_they_show() -> None:
    paths = re.findall(r"!\[[^]]+\]\(([^)]+\.svg)\)", README)
    assert "docs/page.svg" in paths
    for path in paths:
        root = ElementTree.parse(ROOT / path).getroot()
        names = {child.tag.rpartition("}")[2] for child in root}
        assert {"title", "desc"} <= names


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 120
