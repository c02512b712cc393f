"""What may be made, changed and taken away where: `-c`, `-r`, and which element of a union it is."""

import errno
import stat as st
from functools import partial
from typing import Any

import pytest

from mk9p.auth import ROOT
from mk9p.errors import NineError
from mk9p.tree import Change, Open, settle
from tests.compose.helpers_compose import k1, k2, make, namespace
from tests.servers.trees import ls, read, walk
from tests.servers.trees import send as write


async def test_creation_goes_to_the_first_with_c() -> None:
    one, two = k1(), k2()
    ns = namespace(k1=one, k2=two)
    await write(ns, "ctl", "mount k1 /bin bin\nmount -ac k2 /bin bin")
    await make(ns, "bin/new", "hello")
    assert two.at("bin/new").data == b"hello"
    assert await read(ns, "bin/new") == "hello"
    bin_ = await walk(ns, "bin")
    await settle(bin_.mkdir("d", 0o755, ROOT))
    assert "d" in await ls(two, "bin")
    await settle(bin_.symlink("s", "target", ROOT))
    await settle(bin_.mknod("p", st.S_IFIFO | 0o644, 0, ROOT))
    await settle(bin_.link("l", await walk(ns, "bin/new"), ROOT))
    assert (two.at("bin/s").target, two.at("bin/l")) == ("target", two.at("bin/new"))
    assert {"s", "p", "l"} & set(await ls(one, "bin")) == set()


async def test_creation_without_c_is_forbidden_at_the_point_and_not_below() -> None:
    ns = namespace(k1=k1())
    await write(ns, "ctl", "mount k1 /k/k1")
    with pytest.raises(NineError, match="mounted directory forbids creation") as caught:
        await make(ns, "k/k1/new", "")
    assert caught.value.errno == errno.EPERM
    await make(ns, "k/k1/bin/new", "below")
    assert await read(ns, "k/k1/bin/new") == "below"
    await write(ns, "ctl", "mount -c k1 /k/k1")
    await make(ns, "k/k1/new", "there")
    assert await read(ns, "k/k1/new") == "there"


async def test_bind_of_a_place_on_itself_gives_it_c() -> None:
    one = k1()
    ns = namespace(k1=one, k2=k2())
    await write(ns, "ctl", "mount -c k1 /k/k1\nmount -b k2 /k/k1/bin bin")
    with pytest.raises(PermissionError):
        await make(ns, "k/k1/bin/new", "")
    await write(ns, "ctl", "bind -ac /k/k1/bin /k/k1/bin")
    await make(ns, "k/k1/bin/new", "")
    assert "new" in await ls(one, "bin")


@pytest.mark.parametrize(
    "how", ["mount -r k1 /t", "mount k1 /k/k1\nbind -r /k/k1 /t", "mount -r k1 /k/k1\nbind /k /n\nbind -c /n/k1 /t"]
)
async def test_read_only_refuses_every_change_below(how: str) -> None:
    tree = k1()
    ns = namespace(k1=tree)
    await write(ns, "ctl", how)
    before = await ls(tree), await ls(tree, "bin")
    assert await read(ns, "t/bin/ls") == "k1 ls"
    assert await ls(ns, "t/cpu/0") == ["status"]
    for path in ("t", "t/bin"):
        node = await walk(ns, path)
        there = "bin" if path == "t" else "ls"
        changes: list[Any] = [
            partial(node.create, "new", 0o644, Open(ROOT, write=True)),
            partial(node.mkdir, "new", 0o755, ROOT),
            partial(node.symlink, "new", "x", ROOT),
            partial(node.link, "new", tree, ROOT),
            partial(node.mknod, "new", 0, 0, ROOT),
            partial(node.change, Change(mode=0), ROOT),
            partial(node.remove, there, ROOT),
            partial(node.rename, there, node, "other", ROOT),
        ]
        for change in changes:
            with pytest.raises(NineError) as caught:
                await settle(change())
            assert caught.value.errno == errno.EROFS
    file = await walk(ns, "t/bin/ls")
    for flag in ("write", "truncate", "remove"):
        with pytest.raises(NineError, match="Read-only"):
            await settle(file.open(Open(ROOT, **{flag: True})))
    handle = await settle(file.open(Open(ROOT)))
    with pytest.raises(NineError, match="Read-only"):
        handle.change(Change(mode=0))
    assert (await ls(tree), await ls(tree, "bin")) == before


async def test_what_is_bound_from_a_read_only_place_is_read_only_through_it() -> None:
    ns = namespace(k1=k1())
    await write(ns, "ctl", "mount -c k1 /k/k1\nbind -r /k /n")
    await make(ns, "k/k1/one", "")
    with pytest.raises(NineError, match="Read-only"):
        await make(ns, "n/k1/two", "")
    with pytest.raises(NineError, match="Read-only"):
        await make(ns, "n/k1/bin/two", "")


async def test_exclusive_use_is_one_through_a_read_only_place() -> None:
    ns = namespace(k1=k1())
    await write(ns, "ctl", "mount k1 /k/k1\nmount -r k1 /r")
    assert {await walk(ns, "k/k1/name")} == {await walk(ns, "r/name")}


async def test_remove_and_rename_go_to_the_element_that_has_the_file() -> None:
    one, two = k1(), k2()
    ns = namespace(k1=one, k2=two)
    await write(ns, "ctl", "mount -c k1 /bin bin\nmount -a k2 /bin bin\nmount k2 /bin/sub")
    bin_ = await walk(ns, "bin")
    await settle(bin_.rename("top", bin_, "htop", ROOT))
    assert await ls(two, "bin") == ["ls", "htop"]
    await settle(bin_.remove("ls", ROOT))
    assert (await ls(one, "bin"), await ls(two, "bin")) == (["ps"], ["ls", "htop"])
    with pytest.raises(FileNotFoundError):
        await settle(bin_.remove("none", ROOT))
    for name in ("sub",):
        with pytest.raises(NineError, match="mount point"):
            await settle(bin_.remove(name, ROOT))
        with pytest.raises(NineError, match="mount point"):
            await settle(bin_.rename(name, bin_, "x", ROOT))
        with pytest.raises(NineError, match="mount point"):
            await settle(bin_.rename("ps", bin_, name, ROOT))


async def test_rename_out_of_a_tree_is_refused() -> None:
    ns = namespace(k1=k1(), k2=k2())
    await write(ns, "ctl", "mount -c k1 /k/k1\nmount -c k2 /k/k2")
    one = await walk(ns, "k/k1")
    await settle(one.rename("name", await walk(ns, "k/k2"), "name", ROOT))  # stores in one process can; see below
    with pytest.raises(NineError) as caught:
        await settle(one.rename("bin", await walk(ns, "k"), "bin", ROOT))
    assert caught.value.errno in (errno.EXDEV, errno.EPERM)


async def test_a_mount_points_name_cannot_be_created() -> None:
    ns = namespace(k1=k1())
    await write(ns, "ctl", "mount -c k1 /k/k1\nmount k1 /k/k1/x\nmount k1 /k/k1/y/z")
    for name in ("x", "y"):
        with pytest.raises(FileExistsError):
            await make(ns, f"k/k1/{name}", "")
