"""Tcreate of an exported directory in 9P2000 and 9P2000.u (open(5)): each bit of perm is done or refused, and nothing half done is left."""

import errno
import os
import stat as st
from pathlib import Path

import pytest

from mk9p.wire import (
    DMAPPEND,
    DMDEVICE,
    DMDIR,
    DMEXCL,
    DMLINK,
    DMNAMEDPIPE,
    DMSETGID,
    DMSETUID,
    DMSETVTX,
    DMSOCKET,
    DMSYMLINK,
    ORDWR,
    OTRUNC,
    OWRITE,
    QTAPPEND,
    QTEXCL,
    Dialect,
)
from mk9p.wire import messages as m
from tests.servers import plan9
from tests.servers.exported import exported
from tests.servers.plan9 import BOTH, DAEMON, P9, U, served

pytestmark = plan9.ROOT_ONLY
IN_USE = r"exclusive use file already open|Device or resource busy"


def mode(path: Path) -> int:
    return st.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize(
    ("perm", "directory", "want"),
    [(0o666, 0o755, 0o644), (0o666, 0o700, 0o600), (0o777, 0o755, 0o755), (0o644, 0o777, 0o644), (0o777, 0o750, 0o751)],
)
async def test_a_file_has_no_more_read_and_write_bits_than_its_directory(
    tmp_path: Path, perm: int, directory: int, want: int
) -> None:
    async with served(tmp_path, P9) as files:
        os.chmod(tmp_path, directory)
        await files.make("f", perm)
        assert mode(tmp_path / "f") == want


@pytest.mark.parametrize(
    ("perm", "directory", "want"), [(0o777, 0o755, 0o755), (0o777, 0o700, 0o700), (0o711, 0o777, 0o711)]
)
async def test_a_directory_has_no_more_bits_than_its_own(tmp_path: Path, perm: int, directory: int, want: int) -> None:
    async with served(tmp_path, P9) as files:
        os.chmod(tmp_path, directory)
        await files.make("d", DMDIR | perm, 0)
        assert mode(tmp_path / "d") == want


@pytest.mark.parametrize("uname", ["root", "daemon", "nobody"])
async def test_what_9p2000_makes_is_of_its_directorys_group(tmp_path: Path, uname: str) -> None:
    async with served(tmp_path, P9, uname=uname) as files:
        os.chown(tmp_path, 0, DAEMON)
        await files.make("f", 0o666)
        await files.make("d", DMDIR | 0o777, 0)
        assert [(tmp_path / name).stat().st_gid for name in "fd"] == [DAEMON] * 2
        assert (await files.stat("f")).gid == "daemon"


async def test_the_group_of_a_directory_is_not_lent_for_making(tmp_path: Path) -> None:
    async with served(tmp_path, P9, uname="nobody") as files:
        (tmp_path / "d").mkdir()
        os.chown(tmp_path / "d", 0, DAEMON)
        (tmp_path / "d").chmod(0o775)
        with pytest.raises(OSError, match="ermission denied"):
            await files.make("d/f", 0o666)


async def test_9p2000_u_makes_as_unix_does(tmp_path: Path) -> None:
    async with served(tmp_path, U, uname="daemon") as files:
        (tmp_path / "d").mkdir()
        (tmp_path / "d").chmod(0o733)
        os.chown(tmp_path / "d", DAEMON, 0)
        await files.make("d/f", 0o666)
        assert (mode(tmp_path / "d/f"), (tmp_path / "d/f").stat().st_gid) == (0o666, DAEMON)


@BOTH
@pytest.mark.parametrize(
    "bit", [0x08000000, 0x04000000, 0x10000000, 0x00400000, 0x00020000, 0o1000, 0o2000, 0o4000, 0x00008000]
)
async def test_a_bit_without_a_meaning_is_refused(tmp_path: Path, dialect: Dialect, bit: int) -> None:
    async with served(tmp_path, dialect) as files:
        for kind in (0, DMDIR):
            with pytest.raises(OSError, match="illegal mode"):
                await files.make("x", kind | bit | 0o644, 0)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("bit", [DMSYMLINK, DMLINK, DMDEVICE, DMNAMEDPIPE, DMSOCKET, DMSETUID, DMSETGID, DMSETVTX])
async def test_9p2000_refuses_the_bits_of_9p2000_u(tmp_path: Path, bit: int) -> None:
    async with served(tmp_path, P9) as files:
        with pytest.raises(OSError, match="illegal mode"):
            await files.make("x", bit | 0o644)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "perm",
    [DMDIR | DMSYMLINK, DMLINK | DMDEVICE, DMDIR | DMEXCL, DMDIR | DMAPPEND, DMSYMLINK | DMSETUID, DMSOCKET | DMEXCL],
)
async def test_bits_that_mean_nothing_together_are_refused(tmp_path: Path, perm: int) -> None:
    async with served(tmp_path, U) as files:
        with pytest.raises(OSError, match="illegal mode"):
            await files.make("x", perm | 0o644, 0, "target")
    assert os.listdir(tmp_path) == []


@BOTH
@pytest.mark.parametrize("name", [".", "..", "", "a/b"])
async def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, dialect: Dialect, name: str) -> None:
    async with served(tmp_path, dialect) as files:
        for perm in (0o644, DMDIR | 0o755):
            fid = await files.walk()
            with pytest.raises(OSError, match="illegal name"):
                await files.ask(m.Tcreate, fid, name, perm, 0, *([""] if dialect is U else []))
    assert os.listdir(tmp_path) == []


@BOTH
async def test_what_is_there_is_not_made_again(tmp_path: Path, dialect: Dialect) -> None:
    (tmp_path / "f").write_text("kept")
    async with served(tmp_path, dialect) as files:
        for perm in (0o644, DMDIR | 0o755):
            with pytest.raises(OSError, match="File exists"):
                await files.make("f", perm, OTRUNC if perm < 0o777 else 0)
    assert (tmp_path / "f").read_text() == "kept"


@BOTH
@pytest.mark.parametrize("mode", [OWRITE, ORDWR, OTRUNC])
async def test_a_directory_is_not_made_to_be_written(tmp_path: Path, dialect: Dialect, mode: int) -> None:
    async with served(tmp_path, dialect) as files:
        with pytest.raises(OSError, match="Is a directory"):
            await files.make("x", DMDIR | 0o755, mode)
    assert os.listdir(tmp_path) == []


@BOTH
async def test_an_open_directory_makes_nothing(tmp_path: Path, dialect: Dialect) -> None:
    async with served(tmp_path, dialect) as files:
        for perm in (0o644, DMDIR | 0o755):
            fid = await files.open("")
            with pytest.raises(OSError, match="create in an open fid"):
                await files.ask(m.Tcreate, fid, "x", perm, 0, *([""] if dialect is U else []))
    assert os.listdir(tmp_path) == []


# 9P2000.u


@pytest.mark.parametrize(
    "perm", [DMSETUID | 0o755, DMSETGID | 0o2, DMSETVTX | 0o644, DMSETUID | DMSETGID | DMSETVTX | 0o777]
)
async def test_setuid_setgid_and_sticky_are_made_and_shown(tmp_path: Path, perm: int) -> None:
    special = (perm & DMSETUID and 0o4000) | (perm & DMSETGID and 0o2000) | (perm & DMSETVTX and 0o1000)
    async with served(tmp_path, U) as files:
        await files.make("f", perm)
        await files.make("d", DMDIR | perm, 0)
        assert mode(tmp_path / "f") == mode(tmp_path / "d") == special | perm & 0o777
        assert (await files.stat("f")).mode == perm
        assert (await files.stat("d")).mode == DMDIR | perm


async def test_setgid_for_a_group_of_others_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    async with served(tmp_path, U, uname="daemon") as files:
        os.chown(tmp_path, 0, 0)
        os.chmod(tmp_path, 0o2777)  # what is made here is of group root
        with pytest.raises(OSError, match="cannot be had"):
            await files.make("f", DMSETGID | 0o755)
    assert os.listdir(tmp_path) == []


async def test_a_hard_link_is_made_of_a_fid(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("content")
    async with served(tmp_path, U) as files:
        old = await files.walk("a")
        new = await files.make("b", DMLINK, 0, f"{old}\n")
        assert (tmp_path / "b").samefile(tmp_path / "a")
        stat = await files.stat(new)
        assert (stat.name, stat.length, stat.extension) == ("b", 7, "HARDLINKCOUNT 2")
        assert stat.qid.path == (await files.stat(old)).qid.path


@pytest.mark.parametrize("extension", ["", "x", "-1", "1e3", "99999", "4294967296", "4294967295\n", "\u0661"])
async def test_a_link_to_what_is_no_fid_is_refused(tmp_path: Path, extension: str) -> None:
    async with served(tmp_path, U) as files:
        with pytest.raises(OSError, match="fid"):
            await files.make("b", DMLINK, 0, extension)
    assert os.listdir(tmp_path) == []


async def test_a_symbolic_link_is_made_and_told(tmp_path: Path) -> None:
    target = "dir/f\u00fcr \u20ac"
    async with served(tmp_path, U) as files:
        await files.make("s", DMSYMLINK | 0o777, 0, target)
        assert os.readlink(tmp_path / "s") == target
        stat = await files.stat("s")
        assert (stat.mode, stat.extension) == (DMSYMLINK | 0o777, target)
        with pytest.raises(OSError, match="its target"):
            await files.make("t", DMSYMLINK | 0o777, 0, "")


@pytest.mark.parametrize("extension", ["", "b", "b 1", "x 1 2", "b 1 2 3", "b -1 2", "b 99999999999 1", "B 1 2"])
async def test_a_device_without_a_number_is_refused(tmp_path: Path, extension: str) -> None:
    async with served(tmp_path, U) as files:
        with pytest.raises(OSError, match="the extension of a device"):
            await files.make("x", DMDEVICE | 0o600, 0, extension)
    assert os.listdir(tmp_path) == []


async def test_a_device_is_not_made_for_a_client(tmp_path: Path) -> None:
    async with served(tmp_path, U) as files:
        for extension in ("b 8 1", "c 1 3"):
            with pytest.raises(PermissionError):
                await files.make("x", DMDEVICE | 0o600, 0, extension)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("bit", "kind"), [(DMNAMEDPIPE, st.S_IFIFO), (DMSOCKET, st.S_IFSOCK)])
async def test_a_pipe_or_socket_is_made_and_shown(tmp_path: Path, bit: int, kind: int) -> None:
    async with served(tmp_path, U, uname="daemon") as files:
        await files.make("x", bit | 0o640, 0)
        assert (tmp_path / "x").lstat().st_mode == kind | 0o640
        assert (await files.stat("x")).mode == bit | 0o640


async def test_devices_and_pipes_of_the_host_are_told_with_their_numbers(tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", st.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(tmp_path / "disk", st.S_IFBLK | 0o660, os.makedev(259, 70000))
    os.mkfifo(tmp_path / "fifo")
    async with served(tmp_path, U) as files:
        found = {name: await files.stat(name) for name in ("null", "disk", "fifo")}
    assert [(s.mode & ~0o777, s.extension) for s in found.values()] == [
        (DMDEVICE, "c 1 3"),
        (DMDEVICE, "b 259 70000"),
        (DMNAMEDPIPE, ""),
    ]


# exclusive use and append-only


@BOTH
async def test_a_file_of_exclusive_use_is_open_for_one_whoever_asks(tmp_path: Path, dialect: Dialect) -> None:
    async with served(tmp_path, dialect) as files, exported(tmp_path) as linux:
        fid = await files.make("lock", DMEXCL | 0o644)
        stat = await files.stat("lock")
        assert (stat.mode, stat.qid.type) == (DMEXCL | 0o644, QTEXCL)
        for other in (await files.as_user("daemon"), linux):
            with pytest.raises(OSError, match=IN_USE):
                await other.open("lock")
        with pytest.raises(OSError, match=IN_USE):
            await linux.create("lock", os.O_RDWR)
        await files.clunk(fid)
        again = await files.open("lock")
        with pytest.raises(OSError, match=IN_USE):
            await linux.open("lock")
        await files.clunk(again)
        await linux.clunk(await linux.open("lock"))


async def test_exclusive_use_outlives_the_server_a_rename_and_a_chmod(tmp_path: Path) -> None:
    async with served(tmp_path, P9) as files:
        await files.make("lock", DMEXCL | 0o400)
        assert mode(tmp_path / "lock") == 0o1400
    (tmp_path / "lock").rename(tmp_path / "moved")
    async with served(tmp_path, P9) as files, exported(tmp_path) as linux:
        assert (await files.stat("moved")).mode == DMEXCL | 0o400
        assert (await linux.getattr("moved")).mode == st.S_IFREG | 0o400
        await linux.setattr(await linux.walk("moved"), 1, mode=0o640)
        assert (await files.stat("moved")).mode == DMEXCL | 0o640


@BOTH
async def test_what_is_append_only_is_written_at_its_end(tmp_path: Path, dialect: Dialect) -> None:
    async with served(tmp_path, dialect) as files:
        fid = await files.make("log", DMAPPEND | 0o644)
        for text in (b"one", b"two"):
            await files.write(fid, text, 0)
        await files.clunk(fid)
        again = await files.open("log", OWRITE | OTRUNC)
        await files.write(again, b"three", 1)
        assert (tmp_path / "log").read_text() == "onetwothree"
        stat = await files.stat("log")
        assert (stat.mode, stat.qid.type) == (DMAPPEND | 0o644, QTAPPEND)
        for target in ("log", again):
            with pytest.raises(OSError, match="append-only"):
                await files.wstat(target, length=3)
        await files.wstat("log", length=11)


async def test_linux_does_not_cut_what_is_append_only(tmp_path: Path) -> None:
    async with served(tmp_path, P9) as files, exported(tmp_path) as linux:
        await files.write(await files.make("log", DMAPPEND | 0o644), b"kept")
        with pytest.raises(PermissionError):
            await linux.setattr(await linux.walk("log"), 8, size=0)
        with pytest.raises(PermissionError):
            await linux.setattr(await linux.open("log", os.O_WRONLY), 8, size=1)
        with pytest.raises(PermissionError):
            await linux.open("log", 0o1001)
        await linux.write(await linux.create("log", 1), b" too", 0)
        assert (tmp_path / "log").read_text() == "kept too"


async def test_a_file_system_that_keeps_no_marks_refuses_them_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "setxattr", refuse)
    async with served(tmp_path, U) as files:
        for bit in (DMEXCL, DMAPPEND):
            with pytest.raises(OSError, match="keeps no attributes") as caught:
                await files.make("x", bit | 0o644)
            assert caught.value.errno == errno.EPERM
        assert os.listdir(tmp_path) == []
        (tmp_path / "f").touch(0o644)
        with pytest.raises(OSError, match="keeps no attributes"):
            await files.wstat("f", mode=DMEXCL | 0o600)
        assert mode(tmp_path / "f") == 0o644


@pytest.mark.parametrize("bits", [0x04, 0x08, 0x0C])
@BOTH
async def test_an_open_mode_without_a_meaning_is_refused(tmp_path: Path, dialect: Dialect, bits: int) -> None:
    (tmp_path / "f").write_text("kept")
    async with served(tmp_path, dialect) as files:
        with pytest.raises(OSError, match="illegal mode"):
            await files.open("f", bits)
        if dialect is P9:
            with pytest.raises(OSError, match="illegal mode"):
                await files.open("f", 0x80 | OWRITE)


async def test_9p2000_u_opens_for_appending(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("one")
    async with served(tmp_path, U) as files:
        await files.write(await files.open("f", 0x80 | OWRITE), b"two", 0)
    assert (tmp_path / "f").read_text() == "onetwo"
