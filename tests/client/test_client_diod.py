"""The client with diod, a server of 9P2000.L that is not ours: real files, and what it was told is left of fids."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from mk9p import connect
from mk9p.client import changes, requests, stored
from mk9p.errors import NineError
from mk9p.tree import NOW, Change
from tests.interop.peers import running_diod
from tests.servers.trees import names


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with running_diod(tmp_path) as address:
        yield address


async def test_files(tmp_path: Path, address: str) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_text("hello\nworld\n")
    (tmp_path / "d/l").symlink_to("f")
    big = os.urandom(3_000_001)
    (tmp_path / "big").write_bytes(big)
    async with connect(address, aname=str(tmp_path)) as ns:
        assert await ns.read("d/f") == "hello\nworld\n"
        assert {s.name: s.mode & 0o170000 for s in await ns.listdir("d")} == {"f": 0o100000, "l": 0o120000}
        assert await ns.read_bytes("big") == big
        async with await ns.open("big") as f:
            assert await f.pread(2_000_000, 500_000) == big[500_000:2_500_000]
        assert [line async for line in ns.lines("d/f")] == ["hello", "world"]
        stat, real = await ns.stat("d/f"), (tmp_path / "d/f").stat()
        assert (stat.mode, stat.length, stat.mtime, stat.qid.path if stat.qid else 0) == (
            real.st_mode,
            real.st_size,
            real.st_mtime_ns,
            real.st_ino,
        )
        for path, error in (
            ("no", FileNotFoundError),
            ("d/no/x", FileNotFoundError),
            ("d/f/x", NotADirectoryError),
        ):
            with pytest.raises(error):
                await ns.read(path)


async def test_changes(tmp_path: Path, address: str) -> None:
    async with connect(address, aname=str(tmp_path)) as ns:
        await ns.write("new", "longer text")
        await ns.write("new", "text")
        assert (tmp_path / "new").read_text() == "text"
        async with await ns.open("new", "a") as f:
            await f.write(b" more")
        assert (tmp_path / "new").read_text() == "text more"
        with pytest.raises(FileExistsError):
            await ns.open("new", "x")
        async with await ns.create("made", 0o640, read=True) as f:
            await f.write(b"0123456789" * 20_000)
            assert await f.pread(4, 199_998) == b"89"
            await f.truncate(3)
            await f.sync()
        assert (tmp_path / "made").read_text() == "012"
        assert (tmp_path / "made").stat().st_mode & 0o777 == 0o640
        await ns.mkdir("e", 0o700)
        await ns.rename("made", "e/moved")
        assert (tmp_path / "e/moved").exists()
        with pytest.raises(NineError) as caught:
            await ns.remove("e")
        assert caught.value.errno == errno.ENOTEMPTY
        await ns.remove("e/moved")
        await ns.remove("e")
        assert sorted(os.listdir(tmp_path)) == ["new"]


async def test_what_is_made_has_no_more_permissions_than_the_umask_leaves(tmp_path: Path, address: str) -> None:
    was = os.umask(0o027)
    try:
        async with connect(address, aname=str(tmp_path)) as ns:
            await ns.write("written", "text")
            async with await ns.open("opened", "x"), await ns.create("created"), await ns.create("said", 0o606):
                pass
            await ns.mkdir("d")
            await ns.mkdir("e", 0o705)
    finally:
        os.umask(was)
    with os.scandir(tmp_path) as entries:
        found = {entry.name: entry.stat().st_mode & 0o777 for entry in entries}
    assert found == {"written": 0o640, "opened": 0o640, "created": 0o640, "said": 0o606, "d": 0o750, "e": 0o705}


async def test_requests_of_linux(tmp_path: Path, address: str) -> None:
    (tmp_path / "f").write_text("text")
    async with connect(address, aname=str(tmp_path)) as ns:
        c, root = ns.connection, ns.root
        await changes.symlink(c, root, "l", "f")
        fid, _ = await requests.walk(c, root, ("l",))
        assert await requests.readlink(c, fid) == "f"
        file, _ = await requests.walk(c, root, ("f",))
        await changes.link(c, root, file, "g")
        await changes.change(c, file, Change(mode=0o600, mtime=5_000_000_006, atime=NOW))
        stat = (tmp_path / "g").stat()
        assert (stat.st_mode & 0o777, stat.st_mtime_ns, stat.st_nlink) == (0o600, 5_000_000_006, 2)
        with pytest.raises(NotADirectoryError):
            await changes.remove(c, root, "g", directory=True)
        await changes.remove(c, root, "g", directory=False)
        assert (await stored.statfs(c, root)).bsize == os.statvfs(tmp_path).f_bsize
        await c.clunk(fid)
        await c.clunk(file)


async def test_many_tasks(tmp_path: Path, address: str) -> None:
    for i in range(300):
        (tmp_path / f"{i}").write_text(f"{i}")
    async with connect(address, aname=str(tmp_path)) as ns, trio.open_nursery() as nursery:

        async def read(i: int) -> None:
            assert await ns.read(f"{i}") == f"{i}"

        for i in range(300):
            nursery.start_soon(read, i)
        assert len(await ns.listdir()) == 300


async def test_names_that_are_not_utf_8_come_and_go_as_they_are(tmp_path: Path, address: str) -> None:
    raw = os.fsencode(tmp_path)
    (tmp_path / "caf\udce9").write_text("coffee")
    (tmp_path / "good").write_text("good")
    os.symlink(b"\xff\xfe", raw + b"/link")
    async with connect(address, aname=str(tmp_path)) as ns:
        assert set(await names(ns)) == {"caf\udce9", "good", "link"}
        assert await ns.read("caf\udce9") == "coffee"
        assert (await ns.stat("caf\udce9")).length == 6
        await ns.rename("caf\udce9", "th\udce9")
        await ns.mkdir("\udcff")
        fid, _ = await requests.walk(ns.connection, ns.root, ["link"])
        assert await requests.readlink(ns.connection, fid) == "\udcff\udcfe"
        ns.connection.clunk_nowait(fid)
        with pytest.raises(NineError) as caught:
            await ns.mkdir("\ud800")
        assert caught.value.errno == errno.EILSEQ
    assert set(os.listdir(raw)) == {b"th\xe9", b"good", b"link", b"\xff"}
