"""An exported directory through a composer: what stored files can is passed on, the general way and the fast one; and `mk9p serve fs:DIR`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from mk9p.compose import remote
from mk9p.errors import NineError
from mk9p.servers.fs import tree
from mk9p.specs import Spec, kernel_tree
from mk9p.testing import address_of, mounted, serving_at
from mk9p.wire import LOCK_BLOCKED, LOCK_SUCCESS, LOCK_TYPE_UNLCK, LOCK_TYPE_WRLCK
from mk9p.wire import messages as m
from tests.server.talk import talking
from tests.servers.exported import SIZE, Files, also
from tests.servers.trees import names


@asynccontextmanager
async def composed(path: Path, *, fast: bool) -> AsyncIterator[Files]:
    """Serve a directory, and serve that again: over an address, which everybody can dial, or a descriptor, which only the composer has."""
    async with (
        tree(str(path)) as root,
        serving_at(f"unix!{path.parent}/s", root) as host,
        trio.open_nursery() as nursery,
    ):
        far = remote.Server(host.address if fast else address_of(host.server), nursery)
        async with talking(far.tree()) as talk:
            yield Files(talk, root)
        far.close()
        nursery.cancel_scope.cancel()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "x").mkdir()
    return tmp_path / "x"


@pytest.mark.parametrize("fast", [True, False])
async def test_stored_files_through_a_composer(directory: Path, fast: bool) -> None:
    async with composed(directory, fast=fast) as files:
        (directory / "d").mkdir()
        fid = await files.create("d/f", os.O_RDWR | 0o100, gid=4300)
        assert (directory / "d/f").stat().st_gid == 4300
        await files.write(fid, b"0123456789")
        await files.setattr(fid, SIZE, size=4)
        assert await files.read(fid) == b"0123"
        again = await files.create("d/f", os.O_RDWR | 0o100)
        assert await files.read(again) == b"0123"
        with pytest.raises(FileExistsError):
            await files.create("d/f", os.O_RDWR | 0o300)
        assert (await files.ask(m.Tlock, fid, LOCK_TYPE_WRLCK, 0, 0, 0, 7, "here")).status == LOCK_SUCCESS
        assert (await files.ask(m.Tlock, again, LOCK_TYPE_WRLCK, 0, 0, 0, 8, "there")).status == LOCK_BLOCKED
        found = await files.ask(m.Tgetlock, again, LOCK_TYPE_WRLCK, 0, 0, 8, "there")
        assert (found.type_, found.proc_id, found.client_id) == (LOCK_TYPE_WRLCK, 7, "here")
        assert (await files.ask(m.Tlock, fid, LOCK_TYPE_UNLCK, 0, 0, 0, 7, "here")).status == LOCK_SUCCESS
        assert (await files.ask(m.Tlock, again, LOCK_TYPE_WRLCK, 0, 0, 0, 8, "there")).status == LOCK_SUCCESS
        await files.ask(m.Tfsync, fid, 0)


@pytest.mark.parametrize("fast", [True, False])
async def test_attributes_through_a_composer(directory: Path, fast: bool) -> None:
    (directory / "d").mkdir()
    (directory / "d/f").touch()
    try:
        os.setxattr(directory / "d/f", "user.a", b"one")
    except OSError:
        pytest.skip("no extended attributes on this file system")
    async with composed(directory, fast=fast) as files:
        file, value = await files.walk("d/f"), files.new()
        assert (await files.ask(m.Txattrwalk, file, value, "user.a")).size == 3
        assert await files.read(value) == b"one"
        await files.clunk(value)
        for _ in range(2):
            with pytest.raises(OSError, match="No data"):
                await files.ask(m.Txattrwalk, file, value, "user.none")  # and the number is free again
        await files.ask(m.Txattrwalk, file, value, "")
        assert b"user.a\0" in await files.read(value)
        fid = await files.walk("d/f")
        await files.ask(m.Txattrcreate, fid, "user.b", 3, 0)
        await files.write(fid, b"two")
        await files.clunk(fid)
        assert os.getxattr(directory / "d/f", "user.b") == b"two"
        await files.ask(m.Txattrcreate, file, "user.a", 0, os.XATTR_REPLACE)
        assert os.listxattr(directory / "d/f") == ["user.b"]


@pytest.mark.parametrize("fast", [True, False])
async def test_changes_and_names_through_a_composer(directory: Path, fast: bool) -> None:
    for way in (directory, *directory.parents[:-2]):
        os.chmod(way, os.stat(way).st_mode | 0o755)
    for name in ("f", "g"):
        (directory / name).write_text("0123456789")
        os.chmod(directory / name, 0o4777)
    async with composed(directory, fast=fast) as files:
        daemon = await also(files, "daemon")
        await daemon.setattr(await daemon.walk("f"), 0x1 | 0x40, mode=0o100777)
        assert os.stat(directory / "f").st_mode & 0o7777 == 0o777
        await daemon.setattr(await daemon.walk("f"), SIZE | 0x20 | 0x40, size=3)
        with pytest.raises(PermissionError):
            await daemon.setattr(await daemon.walk("f"), SIZE | 0x20 | 0x100, size=0, mtime=(5, 0))
        assert os.stat(directory / "f").st_size == 3
        before = (1 << 64) - 315_619_200
        await files.setattr(await files.walk("f"), 0x20 | 0x100, mtime=(before, 5))
        assert os.stat(directory / "f").st_mtime_ns == -315_619_200 * 10**9 + 5
        assert (await files.getattr("f")).mtime_sec == before
        fid = await files.walk("g")
        os.rename(directory / "g", directory / "h")
        (directory / "g").write_text("another")
        with pytest.raises(OSError, match=r"Stale|another"):
            await files.ask(m.Tremove, fid)
        assert sorted(os.listdir(directory)) == ["f", "g", "h"]


async def test_directories_hang_at_their_names(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    specs = [f"fs:{tmp_path}/a", f"fs:{tmp_path}/b/?ro", f"fs:{tmp_path}/b?name=again&xdev"]
    async with kernel_tree([Spec.parse(text) for text in specs]) as top, mounted(top) as client:
        assert await names(client) == ["fs"]
        assert set(await names(client, "fs")) == {"a", "b", "again"}
        assert [await client.read(f"fs/{name}/f") for name in ("a", "b", "again")] == ["a", "b", "b"]
        await client.write("fs/a/new", "x")
        assert (tmp_path / "a/new").read_text() == "x"
        with pytest.raises(OSError, match="Read-only"):
            await client.write("fs/b/f", "x")


async def test_two_trees_of_one_name_are_refused(tmp_path: Path) -> None:
    for texts in ([f"fs:{tmp_path}", f"fs:{tmp_path}"], [f"fs:{tmp_path}?name=a/b"], [f"fs:{tmp_path}/none"]):
        with pytest.raises(NineError):
            async with kernel_tree([Spec.parse(text) for text in texts]):
                pass
    assert Spec.parse("fs:/").place == "fs/root"
    assert Spec.parse("cpu").place == "cpu"
