"""Our own client on an exported directory in 9P2000.u and 9P2000: what Linux's modes, links and special files become, and what is refused."""

import os
import stat as st
from pathlib import Path

import pytest

from mk9p.client import changes, requests
from mk9p.servers.fs import tree
from mk9p.testing import mounted
from mk9p.tree import Change

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sets modes that are root's to set")
SPECIAL = (0o4755, 0o2755, 0o1755, 0o7777)


def mode(path: Path) -> int:
    return st.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("bits", [*SPECIAL, 0o644])
async def test_a_mode_goes_there_and_back(tmp_path: Path, bits: int) -> None:
    async with tree(str(tmp_path)) as root, mounted(root, version="9P2000.u") as client:
        c = client.connection
        async with await client.create("f", bits):
            pass
        await client.mkdir("d", bits)
        assert [mode(tmp_path / name) for name in "fd"] == [bits, bits]
        assert [st.S_IMODE((await client.stat(name)).mode) for name in "fd"] == [bits, bits]
        for wanted in (*SPECIAL, 0o700, bits):
            for name in "fd":
                fid, _ = await requests.walk(c, client.root, (name,))
                await changes.change(c, fid, Change(mode=wanted))
                assert mode(tmp_path / name) == wanted
                c.clunk_nowait(fid)


async def test_9p2000_refuses_what_it_cannot_say(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    async with tree(str(tmp_path)) as root, mounted(root, version="9P2000") as client:
        c = client.connection
        fid, _ = await requests.walk(c, client.root, ("f",))
        for bits in SPECIAL:
            for refused in (
                lambda bits=bits: client.create("x", bits),
                lambda bits=bits: client.mkdir("x", bits),
                lambda bits=bits: changes.change(c, fid, Change(mode=bits)),
            ):
                with pytest.raises(PermissionError):
                    await refused()
        with pytest.raises(PermissionError):
            await changes.link(c, client.root, fid, "x")
        with pytest.raises(PermissionError):
            await changes.mknod(c, client.root, "x", st.S_IFIFO | 0o600, 0)
        await changes.mknod(c, client.root, "plain", st.S_IFREG | 0o600, 0)
        await changes.change(c, fid, Change(mode=0o600))
    assert sorted(os.listdir(tmp_path)) == ["f", "plain"]
    assert mode(tmp_path / "f") == 0o600


async def test_links_are_made_and_read(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("content")
    async with tree(str(tmp_path)) as root, mounted(root, version="9P2000.u") as client:
        c = client.connection
        fid, _ = await requests.walk(c, client.root, ("f",))
        await changes.link(c, client.root, fid, "g")
        assert (tmp_path / "g").samefile(tmp_path / "f")
        await changes.symlink(c, client.root, "s", "f")
        link, _ = await requests.walk(c, client.root, ("s",))
        assert await requests.readlink(c, link) == "f"
        with pytest.raises(PermissionError):
            await changes.mknod(c, client.root, "x", st.S_IFBLK | 0o600, os.makedev(8, 1))
        async with await client.open("f", "a") as one, await client.open("g", "a") as two:
            for file, text in ((one, b"1"), (two, b"2"), (one, b"3")):
                await file.write(text)
    assert (tmp_path / "f").read_text() == "content123"
