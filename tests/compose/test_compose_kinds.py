"""Listings tell of what kind each file is, whichever way they come: as the server that has the files says it, to `find -type` and getdents(2)."""

import os
import socket
import stat as st
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from mk9p.auth import ROOT
from mk9p.compose.remote import Remote, Server
from mk9p.servers.fs import tree
from mk9p.wire import messages as m
from mk9p.wire import unpack_dirents
from tests.server.relaying import ON, Lab, lab, opened
from tests.server.talk import Talk, talking

PLAIN = {"dir": 4, "file": 8, "link": 10}  # DT_ of readdir(3)
SPECIAL = {"fifo": 1, "socket": 12}
KINDS = PLAIN | SPECIAL


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    top = tmp_path / "top"
    (top / "dir").mkdir(parents=True)
    (top / "file").write_text("text")
    (top / "link").symlink_to("/dev/null")
    os.mkfifo(top / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(top / "socket"))
    return top


async def kinds(talk: Talk, *names: str, fid: int = ON, count: int = 4096) -> dict[str, int]:
    """Return d_type by name, of a directory that is read in answers of `count` bytes."""
    await opened(talk, 50, *names, fid=fid)
    found: dict[str, int] = {}
    offset = 0
    while data := (await talk.rpc(m.Treaddir, 1, 50, offset, count)).data:
        entries = unpack_dirents(data)
        found |= {name: kind for _, _, kind, name in entries}
        offset = entries[-1][1]
    assert isinstance(await talk.rpc(m.Tclunk, 1, 50), m.Rclunk)
    assert found.pop(".") == found.pop("..") == 4
    return found


async def own(directory: Path) -> dict[str, int]:
    """Return what the server of a directory itself says."""
    async with tree(str(directory)) as node, talking(node) as talk:
        return await kinds(talk, fid=0)


async def test_the_server_itself(directory: Path) -> None:
    assert await own(directory) == KINDS


@pytest.mark.parametrize("flags", ["-c", "-r"])
@pytest.mark.parametrize("fast", [True, False])
async def test_both_ways_say_what_the_server_says(tmp_path: Path, directory: Path, fast: bool, flags: str) -> None:
    (directory / "dir" / "below").mkdir()
    os.mkfifo(directory / "dir" / "pipe")
    async with tree(str(directory)) as node, lab(tmp_path, node, fast=fast, flags=flags) as found:
        talk = await found.client()
        assert await kinds(talk) == KINDS
        assert await kinds(talk, count=100) == KINDS
        assert await kinds(talk, "dir") == {"below": 4, "pipe": 1}
        assert bool(found.crossings) == (fast and flags == "-c")


@pytest.mark.parametrize("fast", [True, False])
async def test_devices(tmp_path: Path, directory: Path, fast: bool) -> None:
    for name, kind in (("null", st.S_IFCHR), ("disk", st.S_IFBLK)):
        try:
            os.mknod(directory / name, kind | 0o600, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("devices can't be made here")
    async with tree(str(directory)) as node, lab(tmp_path, node, fast=fast) as found:
        assert await kinds(await found.client()) == {**KINDS, "null": 2, "disk": 6}


async def two(stack: AsyncExitStack, tmp_path: Path, directory: Path, *, fast: bool) -> Lab:
    """Return a lab of the directory at /k0, and of another with a pipe, and a file for each name of the first's special ones, at /k1."""
    other = tmp_path / "other"
    other.mkdir()
    os.mkfifo(other / "pipe")
    for name in SPECIAL:
        (other / name).write_text("no special file")
    trees = [await stack.enter_async_context(tree(str(path))) for path in (directory, other)]
    return await stack.enter_async_context(lab(tmp_path, *trees, fast=fast))


@pytest.mark.parametrize("fast", [True, False])
async def test_a_union_says_what_each_part_says(tmp_path: Path, directory: Path, fast: bool) -> None:
    async with AsyncExitStack() as stack:
        found = await two(stack, tmp_path, directory, fast=fast)
        await found.ns.run("bind /k0 /u\nbind -a /k1 /u\nbind /k1 /v\nbind -a /k0 /v\n")
        talk = await found.client(on="u")
        assert await kinds(talk) == {**KINDS, "pipe": 1}
        assert await kinds(talk, "v", fid=0) == {**KINDS, "pipe": 1, "fifo": 8, "socket": 8}


@pytest.mark.parametrize("fast", [True, False])
async def test_mount_points_between_special_files(tmp_path: Path, directory: Path, fast: bool) -> None:
    """What stands where something is bound over a special file is what is bound; bound to itself, it stays what it is."""
    async with AsyncExitStack() as stack:
        found = await two(stack, tmp_path, directory, fast=fast)
        await found.ns.run("bind /k1 /k0/fifo\nbind -c /k0/socket /k0/socket\nbind /k1/fifo /k0/link\n")
        talk = await found.client()
        assert await kinds(talk) == {**PLAIN, "fifo": 4, "socket": 12, "link": 8}


@pytest.mark.parametrize("version", ["9P2000.L", "9P2000.u", "9P2000"])
async def test_servers_of_other_dialects(tmp_path: Path, directory: Path, version: str) -> None:
    """There the permission bits of a stat tell the kind; to the composer's clients it is one of readdir(3)."""
    async with tree(str(directory)) as node, lab(tmp_path, node) as found, trio.open_nursery() as nursery:
        far = Server(found.hosts[0].address, nursery, version=version)
        listed: dict[str, Any] = dict(await far.tree(ROOT).entries(ROOT))
        assert {type(entry) for entry in listed.values()} == {Remote}
        told = {name: entry.dtype for name, entry in listed.items()}
        assert told == KINDS
        async with talking(far.tree(ROOT)) as talk:
            assert await kinds(talk, fid=0) == told
        far.close()
        nursery.cancel_scope.cancel()
