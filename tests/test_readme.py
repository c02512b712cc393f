"""README tells the truth: the server in it is the tested file, its Python session runs, its commands are those of the Makefile and of `mk9p`."""

import re
from pathlib import Path

import pytest

from mk9p.__main__ import COMMANDS
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


def test_every_command_it_names_is_there() -> None:
    named = re.findall(r"(?:^    |\| |`|ssh box )mk9p (?:-a \S+ )?([a-z-]+)", README, re.MULTILINE)
    assert len(named) > 10
    assert set(named) <= set(COMMANDS)
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^    make ([a-z]+)$", README, re.MULTILINE)) <= targets
    assert {"demo", "test"} <= set(re.findall(r"^    make ([a-z]+)$", README, re.MULTILINE))


def test_every_place_it_names_is_there() -> None:
    places = re.findall(r"^\| `([^`]+)` \|", README, re.MULTILINE)
    assert places
    assert all((ROOT / place).exists() for place in places)
