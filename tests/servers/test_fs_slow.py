"""A file system below an export that does not answer stops those who ask it, and nobody else."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from mk9p.auth import ROOT
from mk9p.servers.fs import slow, tree
from mk9p.servers.fs.export import THREADS, Export
from mk9p.testing import SOON
from mk9p.tree import Open, settle
from mk9p.wire import Dialect, unpack_stats
from mk9p.wire import messages as m
from tests.servers import silent
from tests.servers.exported import also, exported

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def dead(tmp_path: Path) -> Iterator[Path]:
    """A directory with a file, and a file system that does not answer."""
    (tmp_path / "f").write_text("f")
    (tmp_path / "dead").mkdir()
    try:
        with silent.mounted(tmp_path / "dead"):
            yield tmp_path
    except OSError as error:
        pytest.skip(f"no FUSE here: {error}")


@pytest.mark.parametrize("prompt", [True, False])
async def test_a_walk_into_it_stops_nobody_and_can_be_given_up(
    dead: Path, prompt: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is mounted: on a file system of this machine, and on another that may not answer and does."""
    if not prompt:
        monkeypatch.setattr(slow, "_PROMPT", frozenset())
    with trio.fail_after(SOON):
        async with exported(dead) as files:
            for tag in range(2, 3 * THREADS):
                await files.talk.send(m.Twalk, tag, 0, 1000 + tag, ("dead",))
            assert set(await files.ls()) == {"f", "dead"}
            assert await files.read(await files.open("f")) == b"f"
            fid = await files.create("g")
            await files.write(fid, b"g")
            for tag in range(2, 3 * THREADS):
                assert isinstance(await files.talk.rpc(m.Tflush, 1, tag), m.Rflush)
            assert await files.read(await files.open("g")) == b"g"


async def test_a_listing_with_status_shows_the_rest(dead: Path) -> None:
    """In 9P2000 a listing tells the status of each: of the one that does not answer it waits, and others are served meanwhile."""
    with trio.fail_after(SOON):
        async with exported(dead, Dialect.P9) as files:
            fid = await files.open("")
            await files.talk.send(m.Tread, 2, fid, 0, 8000)
            assert await files.read(await files.open("f")) == b"f"
            assert isinstance(await files.talk.rpc(m.Tflush, 1, 2), m.Rflush)


async def test_an_export_of_it_is_waited_for_only_by_whoever_asks(dead: Path) -> None:
    with trio.fail_after(SOON):
        with trio.move_on_after(0.2) as scope:
            async with tree(str(dead / "dead")):
                pass
        assert scope.cancelled_caught


async def test_what_hangs_below_an_export_of_a_readonly_kind_is_not_asked_where_it_is_not_entered(dead: Path) -> None:
    async with exported(dead, xdev="on") as files:
        with pytest.raises(OSError, match="cross-device"):
            await files.ask(m.Twalk, 0, 60, ("dead",))


@pytest.fixture
def threaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose file system counts as one that may not answer."""
    monkeypatch.setattr(slow, "_PROMPT", frozenset())
    tmp_path.chmod(0o777)
    return tmp_path


async def test_files_of_such_a_file_system_are_used_as_all_others(threaded: Path) -> None:
    path = threaded
    async with exported(path) as files:
        assert isinstance(files.root, slow.SlowNode)
        before = os.umask(0o077)
        try:
            daemon = await also(files, "daemon")
            reply = await files.ask(m.Twalk, 50, 51, ())
            assert not reply.qids
            await files.ask(m.Tlcreate, 51, "f", os.O_RDWR | 0o100, 0o666, 1)
            assert os.umask(0o077) == 0o077
        finally:
            os.umask(before)
        made = (path / "f").stat()
        assert (made.st_mode & 0o7777, made.st_uid, made.st_gid) == (0o666, 1, 1)
        assert await files.write(51, b"0123456789") == 10
        assert await files.read(51, 3, 4) == b"3456"
        await files.setattr(51, 0x8, size=5)
        await files.ask(m.Tfsync, 51, 0)
        assert (await files.ask(m.Tlock, 51, 1, 0, 0, 0, 7, "here")).status == 0
        other = await files.open("f", os.O_RDWR)
        assert (await files.ask(m.Tlock, other, 1, 0, 0, 0, 8, "there")).status == 1
        assert (await files.ask(m.Tgetlock, other, 1, 0, 0, 8, "there")).client_id == "here"
        await files.clunk(51)
        assert (await files.ask(m.Tlock, other, 1, 0, 0, 0, 8, "there")).status == 0
        again = await files.create("f", os.O_RDWR | 0o100)
        assert await files.read(again) == b"01234"
        await files.ask(m.Tmkdir, 0, "d", 0o755, 0)
        await files.ask(m.Tsymlink, 0, "s", "nowhere", 0)
        assert (await files.ask(m.Treadlink, await files.walk("s"))).target == "nowhere"
        await files.ask(m.Tmknod, 0, "p", 0o010600, 0, 0, 0)
        await files.ask(m.Tlink, await files.walk("d"), await files.walk("f"), "g")
        await files.ask(m.Trenameat, 0, "f", await files.walk("d"), "h")
        assert {name: kind for name, (_, kind) in (await files.ls("")).items()} == {"d": 4, "s": 10, "p": 1}
        assert set(await files.ls("d")) == {"g", "h"}
        await files.ask(m.Tfsync, await files.open("d"), 0)
        assert (await files.getattr("d/g", 0xFFF)).nlink == 2
        assert (await files.ask(m.Tstatfs, 0)).namelen == 255
        for name in ("g", "h"):
            await files.ask(m.Tunlinkat, await files.walk("d"), name, 0)
        with pytest.raises(FileNotFoundError):
            await files.ask(m.Tunlinkat, 0, "none", 0)
        (path / "secret").touch(mode=0o600)
        with pytest.raises(PermissionError):
            await daemon.open("secret")
    async with exported(path, Dialect.P9) as files:
        fid = await files.open("")
        names, offset = set[str](), 0
        while data := await files.read(fid, offset, 8000):
            names |= {stat.name for stat in unpack_stats(Dialect.P9, data)}
            offset += len(data)
        assert names >= {"d", "p", "s"}


async def test_what_a_call_opens_for_nobody_is_closed(threaded: Path) -> None:
    (threaded / "f").touch()
    export = Export()
    root = await slow.root(export, str(threaded))
    node = await settle(root.walk("f", ROOT))
    handle = await settle(node.open(Open(ROOT)))
    assert isinstance(handle, slow.SlowFile)
    fd, file = handle.fd, (threaded / "f").stat()
    del handle
    with trio.fail_after(SOON):
        while True:
            try:
                if not os.path.samestat(os.fstat(fd), file):
                    break
            except OSError:
                break
            await trio.lowlevel.checkpoint()
    del root, node
    export.close()
