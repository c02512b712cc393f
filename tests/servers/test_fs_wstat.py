"""Twstat of an exported directory in 9P2000 and 9P2000.u (stat(5)): what may be changed is, the rest is an error, and all happens or nothing."""

import os
import stat as st
import time
from pathlib import Path
from typing import Any

import pytest

from mk9p.servers.fs.handles import FsFile
from mk9p.servers.fs.nodes import FsNode
from mk9p.wire import (
    DMAPPEND,
    DMAUTH,
    DMDEVICE,
    DMDIR,
    DMEXCL,
    DMLINK,
    DMMOUNT,
    DMNAMEDPIPE,
    DMSETGID,
    DMSETUID,
    DMSETVTX,
    DMSOCKET,
    DMSYMLINK,
    DMTMP,
    OWRITE,
    Dialect,
    Qid,
)
from tests.servers import plan9
from tests.servers.plan9 import BOTH, DAEMON, P9, Plan9, U, served

pytestmark = plan9.ROOT_ONLY
TEXT = "0123456789"


def look(path: Path) -> dict[str, Any]:
    """Return all of a directory that a wstat could have changed."""
    found: dict[str, Any] = {}
    for name in sorted(os.listdir(path)):
        stat = os.lstat(path / name)
        found[name] = (
            stat.st_ino,
            stat.st_mode,
            stat.st_uid,
            stat.st_gid,
            stat.st_size,
            stat.st_mtime_ns,
            stat.st_atime_ns,
        )
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two files and a directory of daemon's, with times that are not now."""
    for name in ("f", "g"):
        (tmp_path / name).write_text(TEXT)
        (tmp_path / name).chmod(0o664)
    (tmp_path / "d").mkdir(0o755)
    for name in "fgd":
        os.chown(tmp_path / name, DAEMON, DAEMON)
        os.utime(tmp_path / name, (1_000_000_000, 1_100_000_000))
    return tmp_path


async def refused(files: Plan9, tree: Path, target: str | int, match: str, **changes: Any) -> None:
    before = look(tree)
    with pytest.raises(OSError, match=match):
        await files.wstat(target, **changes)
    assert look(tree) == before


@BOTH
async def test_the_name_of_a_file_that_is_there_is_refused(tree: Path, dialect: Dialect) -> None:
    async with served(tree, dialect) as files:
        for old, new in (("f", "g"), ("f", "d"), ("d", "f")):
            await refused(files, tree, old, "File exists", name=new)
        os.link(tree / "f", tree / "same")
        await refused(files, tree, "f", "File exists", name="same")
        os.symlink("nowhere", tree / "s")
        await refused(files, tree, "f", "File exists", name="s")


async def test_a_name_that_comes_between_is_not_replaced(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that the host makes after the server has looked survives as well."""
    looked = FsNode.walk

    def walk(self: FsNode, name: str, who: Any) -> Any:
        try:
            return looked(self, name, who)
        finally:
            if name == "new":
                (tree / "new").write_text("made meanwhile")

    async with served(tree, P9) as files:
        monkeypatch.setattr(FsNode, "walk", walk)
        with pytest.raises(OSError, match="File exists"):
            await files.wstat("f", name="new")
    assert ((tree / "new").read_text(), (tree / "f").read_text()) == ("made meanwhile", TEXT)


@BOTH
async def test_a_new_name_is_the_files_and_the_fids(tree: Path, dialect: Dialect) -> None:
    async with served(tree, dialect) as files:
        fid = await files.walk("f")
        inode = (await files.stat(fid)).qid.path
        await files.wstat(fid, name="new")
        await files.wstat(fid, name="new")
        assert [(s.name, s.qid.path) for s in (await files.stat(fid), await files.stat("new"))] == [("new", inode)] * 2
        for name in (".", "..", "a/b", "x\0"):
            await refused(files, tree, fid, "illegal name|NUL|Bad message", name=name)
        await refused(files, tree, await files.walk(), "the root has no name", name="x")


@BOTH
async def test_what_no_wstat_changes_is_an_error(tree: Path, dialect: Dialect) -> None:
    async with served(tree, dialect) as files:
        wishes: list[dict[str, Any]] = [
            {"uid": "root"},
            {"uid": "nosuchuser"},
            {"muid": "root"},
            {"type": 7},
            {"dev": 7},
        ]
        wishes += [{"qid": Qid(0, 0, 0)}]
        if dialect is U:
            wishes += [{"extension": "elsewhere"}, {"n_muid": 0}]
        for changes in wishes:
            await refused(files, tree, "f", "wstat prohibited", **changes)


@BOTH
async def test_what_is_there_already_is_no_change(tree: Path, dialect: Dialect) -> None:
    async with served(tree, dialect, uname="nobody") as files:
        for name in ("f", "d"):
            stat = await files.stat(name)
            before = look(tree)
            same = {
                k: getattr(stat, k)
                for k in ("name", "mode", "uid", "gid", "muid", "mtime", "atime", "type", "dev", "qid")
            }
            await files.wstat(name, **same)
            assert look(tree) == before


@BOTH
@pytest.mark.parametrize(
    "bit", [DMDIR, DMSYMLINK, DMLINK, DMDEVICE, DMNAMEDPIPE, DMSOCKET, DMMOUNT, DMAUTH, DMTMP, 0x20000, 0o4000]
)
async def test_a_file_stays_of_its_kind_and_a_bit_without_a_meaning_is_refused(
    tree: Path, dialect: Dialect, bit: int
) -> None:
    async with served(tree, dialect) as files:
        await refused(files, tree, "f", "wstat prohibited|illegal mode", mode=bit | 0o600)
        await refused(files, tree, "d", "wstat prohibited|illegal mode", mode=(bit | 0o700) if bit != DMDIR else 0o700)


async def test_9p2000_leaves_the_bits_that_it_cannot_say(tree: Path) -> None:
    (tree / "f").chmod(0o4755)
    (tree / "d").chmod(0o1777)
    async with served(tree, P9) as files:
        await files.wstat("f", mode=0o711)
        await files.wstat("d", mode=DMDIR | 0o755)
        assert [st.S_IMODE((tree / name).stat().st_mode) for name in "fd"] == [0o4711, 0o1755]
        for bit in (DMSETUID, DMSETGID, DMSETVTX):
            (tree / "f").chmod(0o755)
            await refused(files, tree, "f", "illegal mode", mode=bit | 0o755)


async def test_9p2000_u_sets_and_takes_away_setuid_setgid_and_sticky(tree: Path) -> None:
    async with served(tree, U, uname="daemon") as files:
        for perm, want in (
            (DMSETUID | 0o755, 0o4755),
            (DMSETGID | 0o755, 0o2755),
            (DMSETVTX | 0o755, 0o1755),
            (0o700, 0o700),
        ):
            await files.wstat("f", mode=perm)
            await files.wstat("d", mode=DMDIR | perm)
            assert [st.S_IMODE((tree / name).stat().st_mode) for name in "fd"] == [want, want]
            assert (await files.stat("f")).mode == perm
        os.chown(tree / "f", DAEMON, 0)
        await refused(files, tree, "f", "members of the group", mode=DMSETGID | 0o755)


@BOTH
async def test_the_owner_gives_a_file_to_a_group_they_are_in(tree: Path, dialect: Dialect) -> None:
    async with served(tree, dialect) as files:
        await files.wstat("f", gid="adm")
        assert (await files.stat("f")).gid == "adm"
        os.chown(tree / "g", DAEMON, 54321)
        assert (await files.stat("g")).gid == "54321"
        await files.wstat("f", gid="54321")
        assert (tree / "f").stat().st_gid == 54321
        await refused(files, tree, "f", "unknown group", gid="nosuchgroup")
        await refused(files, tree, "f", "unknown group", gid="-1")
        daemon, nobody = await files.as_user("daemon"), await files.as_user("nobody")
        await refused(daemon, tree, "f", "not a member", gid="adm")
        await refused(nobody, tree, "f", "not permitted|not owner", gid="nogroup")
        await daemon.wstat("f", gid="daemon")
        assert (tree / "f").stat().st_gid == DAEMON


async def test_a_group_may_be_said_by_number_in_9p2000_u_and_an_owner_is_roots_to_change(tree: Path) -> None:
    async with served(tree, U) as files:
        await files.wstat("f", n_gid=4)
        assert (tree / "f").stat().st_gid == 4
        await refused(files, tree, "f", "two groups", n_gid=1, gid="root")
        await refused(await files.as_user("daemon"), tree, "f", "not permitted", n_uid=65534)
        await files.wstat("f", n_uid=65534)
        assert (tree / "f").stat().st_uid == 65534


@BOTH
async def test_exclusive_use_and_append_only_go_on_and_off(tree: Path, dialect: Dialect) -> None:
    async with served(tree, dialect) as files:
        daemon = await files.as_user("daemon")
        for perm in (DMEXCL | 0o640, DMEXCL | DMAPPEND | 0o440, DMAPPEND | 0o600, 0o400, 0o644):
            await daemon.wstat("f", mode=perm)
            assert (await files.stat("f")).mode == perm
        assert os.listxattr(tree / "f") == []
        assert st.S_IMODE((tree / "f").stat().st_mode) == 0o644
        await refused(await files.as_user("nobody"), tree, "f", "not permitted", mode=DMEXCL | 0o644)
        for bit in (DMEXCL, DMAPPEND):
            await refused(files, tree, "d", "wstat prohibited|plain file", mode=DMDIR | bit | 0o755)


@BOTH
@pytest.mark.parametrize(
    "changes",
    [
        {"name": "new", "length": 1 << 62},
        {"mode": 0o600, "length": 1 << 62},
        {"gid": "daemon", "mode": 0o600, "mtime": 5, "name": "new", "length": 1 << 62},
        {"mode": DMEXCL | 0o600, "mtime": 5, "length": 1 << 62},
        {"name": "new", "length": 1 << 63},
        {"name": "new", "uid": "root"},
        {"length": 3, "uid": "root"},
        {"length": 3, "gid": "nosuchgroup"},
        {"length": 3, "name": "g"},
        {"length": 3, "mode": DMDIR | 0o755},
    ],
)
async def test_all_of_a_wstat_happens_or_nothing(tree: Path, dialect: Dialect, changes: dict[str, Any]) -> None:
    async with served(tree, dialect) as files:
        os.chown(tree / "f", DAEMON, 4)
        await refused(files, tree, "f", ".", **changes)
        fid = await files.open("f", OWRITE)
        await refused(files, tree, fid, ".", **changes)
        assert (await files.stat(fid)).name == "f"
        await refused(files, tree, "d", "Is a directory", name="moved", length=5)


@BOTH
async def test_who_may_write_and_does_not_own_changes_nothing_but_the_length(tree: Path, dialect: Dialect) -> None:
    (tree / "f").chmod(0o666)
    async with served(tree, dialect, uname="nobody") as files:
        for more in ({"mode": 0o600}, {"mtime": 5}, {"gid": "nogroup"}, {"atime": 5, "mtime": 5}):
            await refused(files, tree, "f", "not permitted|not owner", length=1, **more)
        now = int(time.time())
        await files.wstat("f", length=4, mtime=now)
        assert ((tree / "f").read_text(), (tree / "f").stat().st_mtime > now - 60) == (TEXT[:4], True)
        os.utime(tree / "f", (5, 5))
        await files.wstat("f", atime=now, mtime=now)  # touch(1) of Linux
        assert (tree / "f").stat().st_mtime > now - 60
        await refused(files, tree, "g", "ermission denied|not permitted", length=1)


@BOTH
async def test_a_cut_file_has_the_time_that_was_asked_for(tree: Path, dialect: Dialect) -> None:
    async with served(tree, dialect) as files:
        await files.wstat("f", length=3, mtime=77, mode=0o600, name="new")
        stat = await files.stat("new")
        assert (stat.length, stat.mtime, stat.mode) == (3, 77, 0o600)
        await files.wstat("d", length=0)


@BOTH
async def test_a_wstat_that_touches_nothing_is_a_sync(
    tree: Path, dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    async with served(tree, dialect) as files:
        before = look(tree)
        for target in (await files.open("f", OWRITE), "g", await files.open("d"), "d"):
            await files.wstat(target)
        assert synced == [str(tree / name) for name in "fgdd"]
        assert look(tree) == before


@BOTH
async def test_an_open_file_that_cannot_be_cut_keeps_its_name(
    tree: Path, dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: FsFile, change: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(FsFile, "change", full)
    async with served(tree, dialect) as files:
        fid = await files.open("f", OWRITE)
        await refused(files, tree, fid, "No space left", name="new", mode=0o600, length=100)
