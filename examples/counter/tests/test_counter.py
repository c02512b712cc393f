"""counter: what every tree must do, its page, and its own rules."""

from importlib.resources import files

import pytest
from mk9p.testing import check_page, check_tree, mounted

from mk9p_counter import tree


async def test_it_is_as_every_tree() -> None:
    await check_tree(tree)


async def test_its_page_tells_of_all_that_is_there() -> None:
    page = (files("mk9p_counter") / "counter.md").read_text()
    async with mounted(tree()) as client:
        await check_page(page, client)


async def test_it_counts_and_says_so_and_refuses_what_is_no_number() -> None:
    async with mounted(tree()) as client:
        await client.write("ctl", "add 2\nadd 3\n")
        assert await client.read("count") == "5\n"
        with pytest.raises(OSError, match="usage: add N"):
            await client.write("ctl", "add two")
        assert await client.read("error") == "usage: add N\n"
        async for line in client.lines("events"):
            assert line.split()[2:] == ["added", "2"]
            break
        await client.write("ctl", "reset")
        assert await client.read("count") == "0\n"
