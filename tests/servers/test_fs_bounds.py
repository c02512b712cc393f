"""An exported directory is never left, by whatever name; every name of the host can be used; descriptors are bounded, and none is left."""

import gc
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mk9p.auth import ROOT
from mk9p.servers.fs import kernel, nodes
from mk9p.servers.fs.export import Export
from mk9p.servers.fs.names import from_host, to_host
from mk9p.tree import Open, settle
from mk9p.wire import Dialect, unpack_stats
from mk9p.wire import messages as m
from tests.server.left_open import descriptors
from tests.servers.exported import exported


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A directory to be exported, beside a secret."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "out").mkdir()
    (tmp_path / "in/a/b").mkdir(parents=True)
    return tmp_path / "in"


async def test_links_lead_nowhere(secret: Path) -> None:
    for name, target in {"up": "..", "file": "../secret", "absolute": "/etc/passwd", "proc": "/proc/self/root"}.items():
        (secret / name).symlink_to(target)
    async with exported(secret) as files:
        for name in ("up", "file", "absolute", "proc"):
            with pytest.raises(NotADirectoryError):
                await files.ask(m.Twalk, await files.walk(name), files.new(), ("x",))
            with pytest.raises(OSError, match="levels of symbolic links"):
                await files.open(name)
            with pytest.raises(OSError, match="levels of symbolic links"):
                await files.create(name, os.O_RDWR | 0o100)
            with pytest.raises(OSError, match="levels of symbolic links"):
                await files.setattr(await files.walk(name), 0x8, size=0)
        await files.setattr(await files.walk("file"), 0x2, uid=5)
    assert (secret.parent / "secret").read_text() == "secret"
    assert (secret.parent / "secret").stat().st_uid == 0


async def test_dots_lead_nowhere(secret: Path) -> None:
    async with exported(secret) as files:
        top = (await files.ask(m.Twalk, 0, 60, ("..", "..", ".."))).qids
        assert {qid.path for qid in top} == {(await files.getattr("")).qid.path}
        assert set(await files.ls("a/../..")) == {"a"}
        for name in (".", "..", "a/..", "../secret", ""):
            for ask in (
                (m.Tunlinkat, 0, name, 0),
                (m.Tunlinkat, 0, name, 0x200),
                (m.Trenameat, 0, name, 0, "x"),
                (m.Trenameat, 0, "a", 0, name),
                (m.Tmkdir, 0, name, 0o755, 0),
                (m.Tsymlink, 0, name, "x", 0),
                (m.Tlink, 0, await files.walk("a"), name),
            ):
                with pytest.raises(OSError, match=r"Invalid argument|File exists|Operation not permitted"):
                    await files.ask(*ask)
        for name in ("..", "a/..", "../secret", "", "."):
            with pytest.raises(OSError, match="illegal name"):
                files.root.walk(name, ROOT)
    assert sorted(os.listdir(secret.parent)) == ["in", "out", "secret"]


async def test_a_directory_that_is_moved_while_somebody_is_in_it(secret: Path) -> None:
    (secret / "a/b/f").write_text("f")
    async with exported(secret) as files:
        b = await files.walk("a/b")
        os.rename(secret / "a", secret / "c")
        assert (await files.ask(m.Twalk, b, 60, ("f",))).qids
        os.rename(
            secret / "c/b", secret.parent / "out/b"
        )  # out of the tree: who is in it is in it, but gets no further up
        reply = await files.ask(m.Twalk, b, 61, ("..", "..", ".."))
        assert reply.qids[-1].path == (await files.getattr("")).qid.path
        with pytest.raises(FileNotFoundError):
            await files.ask(m.Twalk, 61, 62, ("secret",))
        assert set(await files.ls()) == {"c"}


async def test_a_name_that_becomes_a_link_meanwhile(secret: Path) -> None:
    """The server asks for a name once, for itself: there is nothing between a check and a use."""
    async with exported(secret) as files:
        directory = await files.walk("a")
        os.rename(secret / "a", secret / "gone")
        (secret / "a").symlink_to("../out")
        await files.ask(m.Tmkdir, directory, "made", 0o755, 0)
        assert os.listdir(secret.parent / "out") == []
        assert (secret / "gone/made").is_dir()


@pytest.fixture
def mounted(secret: Path) -> Iterator[Path]:
    """Mount a directory of the host on one in the exported tree."""
    target = secret / "mounted"
    target.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "--bind", secret.parent / "out", target], check=False).returncode:
        pytest.skip("cannot mount here")
    yield target
    subprocess.run(["umount", str(target)], check=True)


async def test_what_the_host_mounts_below_is_entered_unless_it_shall_not(secret: Path, mounted: Path) -> None:
    (secret.parent / "out/f").touch()
    async with exported(secret) as files:
        assert set(await files.ls("mounted")) == {"f"}
        reply = await files.ask(m.Twalk, 0, 60, ("mounted", "..", "..", ".."))
        assert reply.qids[-1].path == (await files.getattr("")).qid.path
        with pytest.raises(OSError, match="cross-device"):
            await files.ask(m.Trenameat, 0, "a", await files.walk("mounted"), "a")
        with pytest.raises(OSError, match="busy"):
            await files.ask(m.Tunlinkat, 0, "mounted", 0x200)
    async with exported(secret, xdev="on") as files:
        with pytest.raises(OSError, match="cross-device"):
            await files.walk("mounted")
        assert set(await files.ls()) == {"a", "mounted"}


ODD = [
    b"with space",
    b"new\nline",
    b"tab\t",
    b"\xff\xfe",
    b"caf\xe9",
    "café".encode(),
    "\uef80".encode(),
    b"-rf",
    b"*",
    b"\x01",
    b"\\x",
]


@pytest.mark.parametrize("raw", ODD)
def test_a_name_there_and_back(raw: bytes) -> None:
    name = from_host(raw)
    name.encode()  # can be sent
    assert to_host(name) == raw
    assert from_host(os.fsdecode(raw)) == name


def test_no_two_names_become_one() -> None:
    assert len({from_host(raw) for raw in ODD}) == len(ODD)
    assert from_host(b"caf\xe9") == "caf\uefe9"
    assert from_host("café".encode()) == "café"


async def test_odd_names_are_listed_and_used(tmp_path: Path) -> None:
    where = os.fsencode(tmp_path)
    for raw in ODD:
        (tmp_path / os.fsdecode(raw)).write_bytes(raw)
    os.symlink(b"to \xff", where + b"/link")
    async with exported(tmp_path) as files:
        assert set(await files.ls()) == {from_host(raw) for raw in ODD} | {"link"}
        assert (await files.ask(m.Treadlink, await files.walk("link"))).target == "to \uefff"
        for raw in ODD:
            name = from_host(raw)
            assert await files.read(await files.open(name)) == raw
            await files.ask(m.Trenameat, 0, name, 0, "x")
            await files.ask(m.Trenameat, 0, "x", 0, name)
            assert raw in os.listdir(where)
        await files.ask(m.Tunlinkat, 0, "caf\uefe9", 0)
        assert b"caf\xe9" not in os.listdir(where)
        with pytest.raises(OSError, match="File name too long"):
            await files.create("x" * 256)
    async with exported(tmp_path, Dialect.P9) as files:
        stats = unpack_stats(Dialect.P9, await files.read(await files.open(""), 0, 8000))
        assert {stat.name for stat in stats} == {from_host(raw) for raw in ODD if raw != b"caf\xe9"} | {"link"}


async def test_no_descriptor_is_left(tmp_path: Path) -> None:
    for i in range(50):
        (tmp_path / f"d{i}").mkdir()
        (tmp_path / f"d{i}/f").write_text("f")
    gc.collect()
    before = descriptors()
    async with exported(tmp_path) as files:
        for i in range(50):
            await files.walk(f"d{i}")
            await files.read(await files.open(f"d{i}/f"))
            await files.open(f"d{i}")
            await files.create(f"d{i}/new")
            with pytest.raises(FileExistsError):
                await files.create(f"d{i}/f")
            with pytest.raises(FileNotFoundError):
                await files.walk(f"d{i}/none")
        assert descriptors() > before + 200
        fids = next(iter(files.talk.server.connections)).session.fids
        for fid in [fid for fid in fids if fid]:
            await files.clunk(fid)
        gc.collect()
        assert descriptors() < before + 15
        assert len(files.root.export.grips) == 1  # type: ignore[attr-defined]
    del files, fids
    gc.collect()
    assert descriptors() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="file handles need root")
async def test_more_files_than_descriptors(tmp_path: Path) -> None:
    for i in range(300):
        (tmp_path / f"f{i}").write_text(str(i))
    (tmp_path / "d").mkdir()
    probe = os.open(tmp_path, os.O_RDONLY)
    handle = kernel.file_handle(probe)
    os.close(probe)
    if handle is None:
        pytest.skip("no file handles on this file system")
    before = descriptors()
    async with exported(tmp_path, descriptors="40") as files:
        directory = await files.walk("d")
        fids = [await files.walk(f"f{i}") for i in range(300)]
        assert descriptors() < before + 60
        for i in range(300):
            os.rename(tmp_path / f"f{i}", tmp_path / f"g{i}")
        for i, fid in enumerate(fids):  # each is still the file that it was
            assert (await files.getattr(fid)).size == len(str(i))
            await files.ask(m.Tlopen, fid, os.O_RDWR)
            assert await files.read(fid) == str(i).encode()
        assert descriptors() < before + 60 + 301 + 300  # those that are open; those looked at since the last walk
        await files.ask(m.Tmkdir, directory, "below", 0o755, 0)
        await files.ask(m.Trenameat, 0, "g0", directory, "moved")
        assert (tmp_path / "d/moved").exists()
        os.unlink(tmp_path / "g7")
        assert (await files.getattr(fids[7])).nlink == 0


async def test_a_handle_outlives_its_export(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("f")
    gc.collect()
    before = descriptors()
    export = Export()
    f = await settle(nodes.root(export, str(tmp_path)).walk("f", ROOT))
    handle = await settle(f.open(Open(ROOT)))
    export.close()
    assert bytes(await settle(handle.read(0, 10))) == b"f"
    await settle(handle.close())
    del f, handle
    gc.collect()
    assert descriptors() == before
