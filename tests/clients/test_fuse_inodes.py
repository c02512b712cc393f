"""Which file is which to the kernel: inodes of a FUSE mount, against servers that say anything of their files' numbers."""

import stat as st
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from mk9p.auth import ROOT
from mk9p.compose.remote import Remote, Server
from mk9p.testing import SOON, serving_at
from mk9p.tree import Dir, Text

if sys.platform != "linux":
    pytest.skip("Linux only", allow_module_level=True)

from mk9p.clients.fuse_inodes import Inode, Inodes

FILE, DIR = st.S_IFREG, st.S_IFDIR


class Numbered(Dir):
    def __init__(self, path: int, children: dict[str, Dir | Text]) -> None:
        super().__init__(children)
        self.path = path


def file(path: int) -> Text:
    made = Text("x")
    made.path = path
    return made


@asynccontextmanager
async def inodes(tmp_path: Path, children: dict[str, Dir | Text]) -> AsyncIterator[Inodes]:
    async with serving_at(f"unix!{tmp_path}/s", Dir(children)) as host, trio.open_nursery() as nursery:
        yield Inodes(Server(host.address, nursery, deadline=SOON).tree(ROOT))
        nursery.cancel_scope.cancel()


async def look(table: Inodes, parent: Inode, name: str, kind: int = FILE, nlink: int = 1, path: int = 0) -> Inode:
    """Do what a lookup does; `path` is the number that the server's file seems to have here."""
    node = await parent.seen_by(ROOT).walk(name, ROOT)
    assert isinstance(node, Remote)
    if path:
        node.path = path
    inode = await table.found(parent.number, name, node, kind, nlink)
    inode.known += 1
    return inode


@pytest.mark.parametrize("path", [1, (1 << 64) - 1, 2])
async def test_no_file_takes_the_place_of_the_root(tmp_path: Path, path: int) -> None:
    async with inodes(tmp_path, {"d": Dir({"ctl": file(9)}), "ctl": file(10)}) as table:
        d = await look(table, table.root, "d", DIR, path=path)
        assert d is not table.root
        assert d.number != 1
        assert (await look(table, table.root, "ctl")).node.parent is table.root.node
        assert table.by_number[1] is table.root
        table.forget(1, 1 << 40)
        assert table.by_number[1] is table.root


async def test_a_number_that_is_taken_is_not_given_again(tmp_path: Path) -> None:
    async with inodes(tmp_path, {name: file(5) for name in "abc"}) as table:
        a, b = [await look(table, table.root, name) for name in "ab"]
        assert a.number == a.path == b.path != b.number
        assert (a.node.name, b.node.name) == ("a", "b")
        assert await look(table, table.root, "a") is a
        assert await look(table, table.root, "b") is b
        table.forget(a.number, 2)
        c = await look(table, table.root, "c")
        assert c.node.name == "c"
        assert c is not b
        assert await look(table, table.root, "b") is b


async def test_names_of_one_file_are_one_inode_if_it_has_several(tmp_path: Path) -> None:
    async with inodes(tmp_path, {name: file(5) for name in "abcd"}) as table:
        a, b = [await look(table, table.root, name, nlink=2) for name in "ab"]
        assert a is b
        c, d = [await look(table, table.root, name, nlink=1) for name in "cd"]
        assert len({id(inode) for inode in (a, c, d)}) == 3
        assert (await look(table, table.root, "c", kind=st.S_IFIFO)) is not c


async def test_a_file_that_was_renamed_elsewhere_is_the_same(tmp_path: Path) -> None:
    children: dict[str, Dir | Text] = {"p": Numbered(6, {"f": file(5)}), "q": Numbered(7, {})}
    async with inodes(tmp_path, children) as table:
        p = await look(table, table.root, "p", DIR)
        f = await look(table, p, "f")
        children["pp"] = children.pop("p")
        assert await look(table, table.root, "pp", DIR) is p
        assert p.node.names == ("pp",)
        assert f.node.names == ("pp", "f")
        table.renamed(1, "pp", 1, "ppp")
        assert f.node.names == ("ppp", "f")
        table.removed(p.number, "f")
        table.forget(f.number, 1)
        table.forget(p.number, 2)
        assert list(table.by_number) == [1]
        assert not table._by_name
        assert not table._by_path


async def test_a_directory_below_itself_has_an_end(tmp_path: Path) -> None:
    inner = Numbered(6, {})
    outer = Numbered(5, {"in": inner})
    children: dict[str, Dir | Text] = {"out": outer}
    async with inodes(tmp_path, children) as table:
        one = await look(table, table.root, "out", DIR)
        two = await look(table, one, "in", DIR)
        inner.children = [{"again": outer}]
        del children["out"]
        three = await look(table, two, "again", DIR)
        four = await look(table, three, "in", DIR)
        for inode in (one, two, three, four):
            assert len(inode.node.names) < 5
