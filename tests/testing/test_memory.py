"""A directory tree in memory does what a file system does, and refuses what one refuses."""

import errno
import os
import stat as st

import pytest

from mk9p.auth import ROOT
from mk9p.testing import Memory, check_tree, mounted
from mk9p.tree import Ctl
from tests.servers.trees import fails


def tree() -> Memory:
    return Memory({"f": "0123456789", "d": {"g": b"g", "e": {}}, "ctl": Ctl({"word": lambda: None})})


async def test_it_is_a_good_tree() -> None:
    seen = await check_tree(
        lambda: Memory({"f": "text", "d": {"g": b"g" * 9000}, "e": {}, "secret": Memory("x", mode=0o600)})
    )
    assert seen == ["f", "d", "d/g", "e", "secret"]


async def test_what_is_written_is_there() -> None:
    made = tree()
    async with mounted(made) as client:
        async with await client.open("f", "r+") as file:
            await file.pwrite(b"xy", 12)
            assert made.at("f").data == b"0123456789\0\0xy"
            assert made.at("f").open_now == 1
        async with await client.open("f", "a") as file:
            await file.write(b"end")
        assert await client.read_bytes("f") == b"0123456789\0\0xyend"
        version = made.at("f").version
        await client.write("f", "new")
        assert made.at("f").data == b"new"
        assert made.at("f").version > version
        assert (await client.stat("f")).length == 3
        async with await client.create("d/made") as file:
            await file.write(b"made")
        assert made.at("d/made").data == b"made"
    assert made.at("f").open_now == 0


async def test_names_are_made_moved_and_removed() -> None:
    made = tree()
    async with mounted(made) as client:
        await client.mkdir("d/new", 0o750)
        assert made.at("d/new").mode == st.S_IFDIR | 0o750
        await client.rename("f", "d/new/f")
        assert list(made.children) == ["d", "ctl"]
        await client.rename("d/new/f", "d/g")
        assert made.at("d/g").data == b"0123456789"
        for call, number in (
            (client.remove("d"), errno.ENOTEMPTY),
            (client.remove("none"), errno.ENOENT),
            (client.mkdir("d/e"), errno.EEXIST),
            (client.rename("d", "d/e/d"), errno.EINVAL),
            (client.rename("d/g", "d/e"), errno.EISDIR),
            (client.rename("d/e", "d/g"), errno.ENOTDIR),
            (client.stat("d/g/x"), errno.ENOTDIR),
        ):
            with fails(number):
                await call
        await client.remove("d/e")
        assert sorted(made.at("d").children) == ["g", "new"]


def test_links_and_attributes() -> None:
    made = tree()
    made.symlink("s", "f", ROOT)
    made.link("h", made.at("f"), ROOT)
    assert (made.at("h"), made.at("f").nlink) == (made.at("f"), 2)
    assert made.at("s").readlink() == "f"
    with fails(errno.EPERM):
        made.link("x", made.at("d"), ROOT)
    with fails(errno.EINVAL):
        made.at("f").readlink()
    made.remove("h", ROOT)
    assert made.at("f").nlink == 1
    file = made.at("f")
    with fails(errno.ENODATA):
        file.xattr("user.a", ROOT)
    file.set_xattr("user.a", b"one", ROOT)
    with fails(errno.EEXIST):
        file.set_xattr("user.a", b"two", ROOT, flags=os.XATTR_CREATE)
    assert file.attributes == {"user.a": b"one"}
    file.remove_xattr("user.a", ROOT)
    with fails(errno.ENODATA):
        file.set_xattr("user.a", b"two", ROOT, flags=os.XATTR_REPLACE)


async def test_its_bits_count() -> None:
    made = Memory({"f": Memory("secret", mode=0o600, uid=7)})
    async with mounted(made, uname="none") as client:
        with pytest.raises(PermissionError):
            await client.read("f")
