"""What only stored files can, through the namespace: attributes, locks, fsync, and renaming in unions of real directories on two servers."""

import errno
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from mk9p.auth import ROOT, Principal
from mk9p.compose import remote
from mk9p.compose.namespace import Namespace
from mk9p.errors import NineError
from mk9p.servers.fs import tree
from mk9p.testing import serving_at
from mk9p.tree import Dir, Handle, Lock, Node, Open, Stat, Text, settle
from mk9p.wire import LOCK_TYPE_UNLCK, LOCK_TYPE_WRLCK
from mk9p.wire import messages as m
from tests.compose.helpers_compose import Store, make, namespace
from tests.server.talk import talking
from tests.servers.exported import Files
from tests.servers.trees import read, walk
from tests.servers.trees import send as write


@asynccontextmanager
async def served(nursery: trio.Nursery, address: str, root: Node) -> AsyncIterator[remote.Remote]:
    """Serve a tree and return it as another server's."""
    async with serving_at(address, root):
        far = remote.Server(address, nursery)
        try:
            yield far.tree()
        finally:
            far.close()


@attrs.frozen
class Both:
    """Two directories, each on a server of its own, and the namespace of these, k1 and k2."""

    ns: Namespace
    one: Path
    two: Path

    async def do(self, *script: str) -> None:
        await write(self.ns, "ctl", "\n".join(script))

    async def rename(self, old: str, new: str) -> None:
        (up, _, name), (there, _, newname) = old.rpartition("/"), new.rpartition("/")
        await settle((await walk(self.ns, up)).rename(name, await walk(self.ns, there), newname, ROOT))


@asynccontextmanager
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    if os.geteuid() != 0:
        pytest.skip("other users' files need root")
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        far = {}
        for name in ("k1", "k2"):
            (tmp_path / name).mkdir()
            root = await stack.enter_async_context(tree(str(tmp_path / name)))
            far[name] = await stack.enter_async_context(served(nursery, f"unix!{tmp_path}/{name}.s", root))
        with trio.fail_after(20):
            yield Both(namespace(**far), tmp_path / "k1", tmp_path / "k2")
        nursery.cancel_scope.cancel()


def needs_attributes(path: Path) -> None:
    try:
        os.setxattr(path, "user.a", b"one")
    except OSError:
        pytest.skip("no extended attributes on this file system")


async def test_attributes_of_mount_points_files_and_directories_on_the_way(tmp_path: Path) -> None:
    async with both(tmp_path) as made:
        (made.one / "d/deep").mkdir(parents=True)
        (made.one / "f").touch()
        needs_attributes(made.one)
        await made.do("mount -c k1 /n", "mount k2 /n/d/deep", "mount -a k2 /n")
        for path, real in (("n", made.one), ("n/d", made.one / "d"), ("n/f", made.one / "f")):
            node = await walk(made.ns, path)
            await settle(node.set_xattr("user.b", b"two", ROOT, flags=os.XATTR_CREATE))
            assert os.getxattr(real, "user.b") == b"two"
            assert await settle(node.xattr("user.b", ROOT)) == b"two"
            assert "user.b" in set(await settle(node.xattrs(ROOT)))
            with pytest.raises(FileExistsError):
                await settle(node.set_xattr("user.b", b"two", ROOT, flags=os.XATTR_CREATE))
            await settle(node.remove_xattr("user.b", ROOT))
            with pytest.raises(OSError, match="No data"):
                await settle(node.xattr("user.b", ROOT))
        assert os.listxattr(made.two) == []


class Born(Text):
    """A file that was made before 1970."""

    def born(self) -> int:
        return -5


@pytest.mark.parametrize("version", ["9P2000.L", "9P2000"])
async def test_when_a_file_was_made_is_told_through_the_namespace(tmp_path: Path, version: str) -> None:
    async with (
        trio.open_nursery() as nursery,
        served(nursery, f"unix!{tmp_path}/s", Dir({"f": Born("x"), "g": Text("x")})) as far,
    ):
        far.server.version = version
        found = {name: await settle((await walk(far, name)).born()) for name in ("f", "g")}
        assert found == {"f": -5 if version == "9P2000.L" else None, "g": None}
        nursery.cancel_scope.cancel()


async def test_attributes_of_what_is_read_only_are_read(tmp_path: Path) -> None:
    async with both(tmp_path) as made:
        (made.one / "f").touch()
        needs_attributes(made.one)
        needs_attributes(made.one / "f")
        await made.do("mount -r k1 /n")
        for path in ("n", "n/f"):
            node = await walk(made.ns, path)
            assert await settle(node.xattr("user.a", ROOT)) == b"one"
            assert "user.a" in set(await settle(node.xattrs(ROOT)))
            for change in (partial(node.set_xattr, "user.a", b"two", ROOT), partial(node.remove_xattr, "user.a", ROOT)):
                with pytest.raises(NineError) as caught:
                    await settle(change())
                assert caught.value.errno == errno.EROFS
        assert os.getxattr(made.one / "f", "user.a") == b"one"


async def test_a_lock_is_one_whichever_way_the_file_was_walked_to(tmp_path: Path) -> None:
    async with both(tmp_path) as made:
        (made.one / "f").write_text("x")
        await made.do("mount k1 /k/k1", "bind -r /k/k1 /r", "bind /k/k1 /n", "bind -a /r /n")
        writer = await settle((await walk(made.ns, "n/f")).open(Open(ROOT, write=True)))
        reader = await settle((await walk(made.ns, "r/f")).open(Open(ROOT)))
        whole = Lock(LOCK_TYPE_WRLCK, process=7, client="here")
        shared = Lock(0, process=8, client="there")
        assert await settle(writer.lock(whole))
        assert not await settle(reader.lock(shared))
        found = await settle(reader.locked(shared))
        assert found is not None
        assert (found.process, found.client) == (7, "here")
        assert await settle(writer.lock(Lock(LOCK_TYPE_UNLCK)))
        assert await settle(reader.lock(shared))
        assert not await settle(writer.lock(whole))
        await settle(reader.sync(data=True))
        for handle in (reader, writer):
            await settle(handle.close())


class Synced(Store):
    """A directory that notes what is put where it survives."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bool]] = []
        super().__init__({"f": SyncedFile(self.told), "d": {}})

    def sync(self, who: Principal, *, data: bool = False) -> None:
        self.told.append(("directory", data))

    def create(self, name: str, perm: int, how: Open) -> tuple[Node, Handle]:
        raise NotImplementedError


class SyncedFile(Text):
    def __init__(self, told: list[tuple[str, bool]]) -> None:
        super().__init__("text")
        self.told = told

    def open(self, how: Open) -> Handle:
        handle = Handle()
        told = self.told
        handle.sync = lambda *, data=False: told.append(("file", data))  # type: ignore[method-assign]
        return handle


@pytest.mark.parametrize("hop", [False, True], ids=["here", "remote"])
async def test_fsync_reaches_files_and_directories_and_says_which(tmp_path: Path, hop: bool) -> None:
    one, two = Synced(), Synced()
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        trees: dict[str, Any] = {"k1": one, "k2": two}
        if hop:
            for name in trees:
                trees[name] = await stack.enter_async_context(served(nursery, f"unix!{tmp_path}/{name}", trees[name]))
        ns = namespace(**trees)
        await write(ns, "ctl", "mount -c k1 /u\nmount -a k2 /u\nmount -r k1 /r")
        async with talking(ns.root) as talk:
            sent = Files(talk, ns.root)
            for path in ("u", "r", "u/f", "r/f"):
                for data in (0, 1):
                    await sent.ask(m.Tfsync, await sent.open(path), data)
        told = [("directory", False), ("directory", True)]
        assert two.told == told
        files = [("file", False), ("file", True)]
        assert one.told == [*told, *files, *files]  # no names can have changed in a read-only directory
        nursery.cancel_scope.cancel()


async def test_names_change_in_a_union_as_they_would_in_one_directory(tmp_path: Path) -> None:
    """k1 comes first and takes no new files, k2 does: a rename never goes to another server, and never hides what it renamed."""
    async with both(tmp_path) as made:
        (made.one / "a").write_text("a1")
        (made.one / "sub").mkdir()
        (made.two / "d").mkdir()
        await made.do("mount k1 /u", "mount -ac k2 /u")
        await make(made.ns, "u/b", "b2")
        assert sorted(os.listdir(made.two)) == ["b", "d"]
        await made.rename("u/b", "u/c")
        await made.rename("u/c", "u/d/c")  # a directory of its own server
        await made.rename("u/d/c", "u/b")  # and back to the top, which is two servers' and takes it into the same
        assert sorted(os.listdir(made.two)) == ["b", "d"]
        await made.rename("u/a", "u/e")
        assert sorted(os.listdir(made.one)) == ["e", "sub"]
        for old, new in (("u/b", "u/sub/b"), ("u/e", "u/d/e"), ("u/b", "u/e"), ("u/sub", "u/d/sub")):
            with pytest.raises(NineError) as caught:
                await made.rename(old, new)
            assert caught.value.errno == errno.EXDEV
        await made.rename("u/e", "u/b")  # over a file of a later part: it is seen, as it would be
        assert await read(made.ns, "u/b") == "a1"
        assert (made.two / "b").read_text() == "b2"
        await settle((await walk(made.ns, "u")).remove("b", ROOT))
        assert await read(made.ns, "u/b") == "b2"  # Plan 9's unions are so, too


async def test_renaming_into_a_union_that_takes_nothing(tmp_path: Path) -> None:
    async with both(tmp_path) as made:
        (made.one / "d").mkdir()
        (made.one / "d/f").touch()
        await made.do(
            "mount k1 /k/k1", "bind /k/k1 /u", "bind -a /k/k1/d /u", "bind -cr /k/k1 /r", "mount k2 /k/k1/d/x"
        )
        for new, number in (
            ("u/f", errno.EPERM),
            ("r/f", errno.EROFS),
            ("k/k1/d/x/f", errno.EPERM),
            ("u/x", errno.EBUSY),
        ):
            with pytest.raises(NineError) as caught:
                await made.rename("k/k1/d/f", new)
            assert caught.value.errno == number, new
        assert isinstance(await settle((await walk(made.ns, "u/f")).stat()), Stat)
