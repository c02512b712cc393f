"""Tsetattr and opening of an exported directory: what a user may do is done whole, and what they may not changes nothing."""

import os
import stat as st
import struct
from pathlib import Path
from typing import Any

import pytest

from mk9p.wire import OEXEC, ORCLOSE, OTRUNC, Dialect
from mk9p.wire import messages as m
from tests.servers.plan9 import Plan9, served

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="acting as others needs root")
MODE, UID, GID, SIZE, ATIME, MTIME, CTIME, ATIME_SET, MTIME_SET = 1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0x100
OPENED = SIZE | MTIME | CTIME  # what Linux sends for O_TRUNC
DAEMON = 1
SHOWN = ("st_ino", "st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns")


def content(path: Path) -> str:
    return path.read_text()


async def attempt(who: Plan9, flags: int) -> str:
    """Return what a user reads of the file, or "denied"."""
    try:
        fid = await who.open("f", flags)
    except OSError as error:
        return str(error).lower().split()[-1]
    data = await who.read(fid)
    await who.clunk(fid)
    return data.decode()


def look(path: Path) -> dict[str, Any]:
    now = os.lstat(path)
    return {name: getattr(now, name) for name in SHOWN}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of root's that everybody may write, with a time that is not now."""
    path = tmp_path / "f"
    path.write_text("0123456789")
    path.chmod(0o666)
    os.utime(path, (1000, 1000))
    return path


async def test_who_may_write_may_truncate(file: Path) -> None:
    """As `echo x > f` does, though only an owner sets a time; and truncating sets it."""
    async with served(file.parent, Dialect.L) as files:
        daemon = await files.as_user("daemon")
        for size in (0, 5, 5, 2):
            os.utime(file, (1000, 1000))
            await daemon.setattr(await daemon.walk("f"), OPENED, size=size)
            assert (os.stat(file).st_size, os.stat(file).st_mtime > 1000) == (size, True)
        fid = await daemon.open("f", os.O_WRONLY)
        await daemon.setattr(fid, OPENED, size=1)
        assert os.stat(file).st_size == 1
        os.chmod(file, 0o644)  # what was opened stays so
        await daemon.setattr(fid, OPENED, size=0)
        assert os.stat(file).st_size == 0
        with pytest.raises(PermissionError):
            await daemon.setattr(await daemon.walk("f"), OPENED, size=3)
        await daemon.clunk(fid)


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("size", [None, 0, 5, 10, 20])
@pytest.mark.parametrize(
    "wish",
    [
        {"valid": MODE, "mode": 0o600},
        {"valid": MODE, "mode": 0o4666},
        {"valid": UID, "uid": DAEMON},
        {"valid": GID, "gid": DAEMON},
        {"valid": MTIME | MTIME_SET, "mtime": (5, 0)},
        {"valid": ATIME | ATIME_SET, "atime": (5, 0)},
        {"valid": ATIME},
        {"valid": MTIME | MTIME_SET, "mtime": (5, 1_000_000_000)},
        {"valid": UID, "uid": 0xFFFFFFFF},
    ],
)
async def test_what_is_refused_in_part_is_not_done_at_all(
    file: Path, opened: bool, size: int | None, wish: dict[str, Any]
) -> None:
    async with served(file.parent, Dialect.L) as files:
        daemon = await files.as_user("daemon")
        fid = await daemon.open("f", os.O_WRONLY) if opened else await daemon.walk("f")
        before = look(file)
        valid = wish["valid"] | (0 if size is None else SIZE)
        more = {key: value for key, value in wish.items() if key != "valid"}
        with pytest.raises(OSError, match=r"not permitted|Invalid"):
            await daemon.setattr(fid, valid, size=size or 0, **more)
        after = look(file)
        if size is not None and size > 10:
            after["st_mtime_ns"] = before["st_mtime_ns"]  # it was grown, and taken back
        assert after == before


async def test_an_owner_changes_everything_at_once(file: Path) -> None:
    os.chown(file, DAEMON, 0)
    async with served(file.parent, Dialect.L) as files:
        daemon = await files.as_user("daemon")
        fid = await daemon.walk("f")
        for size in (20, 3):
            await daemon.setattr(
                fid,
                MODE | GID | SIZE | ATIME | ATIME_SET | MTIME | MTIME_SET,
                mode=0o6755,
                gid=DAEMON,
                size=size,
                atime=(7, 1),
                mtime=(9, 2),
            )
            now = os.stat(file)
            assert (now.st_size, st.S_IMODE(now.st_mode), now.st_gid) == (size, 0o6755, DAEMON)
            assert (now.st_atime_ns, now.st_mtime_ns) == (7_000_000_001, 9_000_000_002)
            os.chmod(file, 0o600)


async def test_a_length_that_cannot_be_leaves_the_rest(file: Path) -> None:
    async with served(file.parent, Dialect.L) as files:
        before = look(file)
        with pytest.raises(OSError, match=r"too large|Invalid"):
            await files.setattr(await files.walk("f"), MODE | SIZE, mode=0o600, size=(1 << 63) - 1)
        assert look(file) == before


@pytest.mark.parametrize(("mode", "left"), [(0o4777, 0o777), (0o2777, 0o777), (0o6777, 0o777), (0o6767, 0o2767)])
async def test_who_may_write_takes_setuid_and_setgid_away_and_nothing_else(file: Path, mode: int, left: int) -> None:
    async with served(file.parent, Dialect.L) as files:
        daemon = await files.as_user("daemon")
        os.chmod(file, mode)
        fid = await daemon.walk("f")
        for other in (mode | 0o1000, left & ~0o001, left & ~0o040, left ^ 0o010, 0, 0o7777):
            with pytest.raises(PermissionError):
                await daemon.setattr(fid, MODE | CTIME, mode=st.S_IFREG | other)
            assert st.S_IMODE(os.stat(file).st_mode) == mode
        await daemon.setattr(fid, MODE | CTIME, mode=st.S_IFREG | left)
        assert st.S_IMODE(os.stat(file).st_mode) == left
        await daemon.setattr(fid, MODE | CTIME, mode=st.S_IFREG | left)  # it had not heard yet
        os.chmod(file, mode)
        await daemon.setattr(fid, OPENED | MODE, mode=st.S_IFREG | 0o777 & mode, size=4)
        assert st.S_IMODE(os.stat(file).st_mode) & 0o4010 != 0o4010
        assert os.stat(file).st_size == 4
        os.chmod(file, 0o4755)
        with pytest.raises(PermissionError):
            await daemon.setattr(fid, MODE | CTIME, mode=st.S_IFREG | 0o755)
        assert st.S_IMODE(os.stat(file).st_mode) == 0o4755


async def test_touch_by_who_may_write(file: Path) -> None:
    async with served(file.parent, Dialect.L) as files:
        daemon = await files.as_user("daemon")
        await daemon.setattr(await daemon.walk("f"), ATIME | MTIME | CTIME)
        assert os.stat(file).st_mtime > 1000
        assert os.stat(file).st_atime > 1000


@pytest.mark.parametrize("seconds", [-1, -315_619_200, 1 - (1 << 31), 0, 1 << 32])
@pytest.mark.parametrize("rest", [0, 999_999_999, (1 << 30) - 1 - 100_000_000])
async def test_times_before_1970_are_times(file: Path, seconds: int, rest: int) -> None:
    async with served(file.parent, Dialect.L) as files:
        fid, wire = await files.walk("f"), seconds & 0xFFFF_FFFF_FFFF_FFFF
        await files.setattr(fid, ATIME | ATIME_SET | MTIME | MTIME_SET, atime=(wire, rest), mtime=(wire, rest))
        assert os.stat(file).st_mtime_ns == os.stat(file).st_atime_ns == seconds * 10**9 + rest
        got = await files.getattr(fid)
        assert (got.mtime_sec, got.mtime_nsec, got.atime_sec, got.atime_nsec) == (wire, rest, wire, rest)


@pytest.mark.parametrize("rest", [10**9, (1 << 30) - 1, (1 << 30) - 2, 5 * 10**9, (1 << 64) - 1])
async def test_a_second_has_no_more_than_10_9_ns(file: Path, rest: int) -> None:
    """UTIME_NOW and UTIME_OMIT of utimensat(2) are such numbers, too."""
    async with served(file.parent, Dialect.L) as files:
        before = os.stat(file).st_mtime_ns
        for valid in (MTIME | MTIME_SET, ATIME | ATIME_SET):
            with pytest.raises(OSError, match="Invalid"):
                await files.setattr(await files.walk("f"), valid, atime=(5, rest), mtime=(5, rest))
        assert os.stat(file).st_mtime_ns == before


@pytest.mark.parametrize("dialect", [Dialect.P9, Dialect.U])
async def test_a_time_that_a_stat_entry_cannot_say_is_its_first_or_last(file: Path, dialect: Dialect) -> None:
    async with served(file.parent, dialect) as files:
        for ns, shown in ((-5 * 10**9, 0), ((1 << 32) * 10**9, 0xFFFF_FFFE)):
            os.utime(file, ns=(ns, ns))
            assert (await files.stat("f")).mtime == shown


@pytest.mark.parametrize("dialect", [Dialect.P9, Dialect.U])
async def test_opening_to_execute_gives_no_more_than_the_user_has(file: Path, dialect: Dialect) -> None:
    """Truncating takes the right to write, reading the right to read, and executing the right to execute."""
    async with served(file.parent, dialect) as files:
        for who in (await files.as_user("daemon"), await files.as_user("none")):
            for mode, flags, may in (
                (0o755, OEXEC, True),
                (0o755, OEXEC | OTRUNC, False),
                (0o711, OEXEC, False),
                (0o711, OEXEC | OTRUNC, False),
                (0o744, OEXEC, False),
                (0o644, 0, True),
                (0o722, OEXEC | OTRUNC, False),
                (0o766, OEXEC | OTRUNC, False),
                (0o755, ORCLOSE | OTRUNC, False),
            ):
                os.chmod(file, mode)
                assert await attempt(who, flags) == ("0123456789" if may else "denied"), (mode, flags)
                assert content(file) == "0123456789"
        os.chmod(file, 0o777)
        await who.open("f", OEXEC | OTRUNC)
        assert content(file) == ""


async def test_opening_to_execute_asks_the_access_list(file: Path) -> None:
    # user::rwx, user:1:---, group::r-x, mask::rwx, other::r-x (include/uapi/linux/posix_acl_xattr.h)
    entries = ((1, 7, 0xFFFFFFFF), (2, 0, DAEMON), (4, 5, 0xFFFFFFFF), (0x10, 7, 0xFFFFFFFF), (0x20, 5, 0xFFFFFFFF))
    acl = b"\2\0\0\0" + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(file, "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("no access lists on this file system")
    async with served(file.parent, Dialect.U) as files:
        daemon, man = await files.as_user("daemon"), await files.as_user("man")
        assert await man.read(await man.open("f", OEXEC)) == b"0123456789"
        with pytest.raises(PermissionError):
            await daemon.open("f", OEXEC)


@pytest.mark.parametrize("dialect", list(Dialect))
async def test_a_directory_may_be_listed_by_who_may_read_it(tmp_path: Path, dialect: Dialect) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").touch()
    os.chown(tmp_path / "d", DAEMON, DAEMON)
    (tmp_path / "d").chmod(0o400)
    async with served(tmp_path, dialect) as files:
        daemon = await files.as_user("daemon")
        if dialect is Dialect.L:
            assert set(await daemon.ls("d")) == {"f"}
        else:
            assert b"\x01\x00f" in await daemon.read(await daemon.open("d"), 0, 4096)
        with pytest.raises(OSError, match="denied"):
            await daemon.ask(m.Twalk, await daemon.walk("d"), daemon.new(), ("f",))
        os.chmod(tmp_path / "d", 0o100)
        with pytest.raises(OSError, match="denied"):
            await daemon.open("d")


async def test_reading_a_readonly_export_changes_no_time(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_text("f")
    (tmp_path / "d/f").chmod(0o444)
    (tmp_path / "d/s").symlink_to("f")
    for name in ("d/f", "d/s", "d"):
        os.utime(
            tmp_path / name, (1000, 2000), follow_symlinks=False
        )  # read before it was written: Linux would note the next read
    async with served(tmp_path, Dialect.L, ro="on") as files:
        daemon = await files.as_user("daemon")
        for who in (files, daemon):
            assert set(await who.ls("d")) == {"f", "s"}
            assert await who.read(await who.open("d/f")) == b"f"
            assert (await who.ask(m.Treadlink, await who.walk("d/s"))).target == "f"
    for name in ("d/f", "d/s", "d"):
        assert os.lstat(tmp_path / name).st_atime == 1000


@pytest.mark.parametrize(
    ("valid", "mode"),
    [(0x200 | SIZE, 0), (1 << 31 | MODE, 0o600), (MODE, 0xFFFFFFFF), (MODE, 0o10000600), (MODE, st.S_IFDIR | 0o600)],
)
async def test_a_setattr_that_says_what_is_not_understood_changes_nothing(file: Path, valid: int, mode: int) -> None:
    before = look(file)
    async with served(file.parent, Dialect.L) as files:
        with pytest.raises(OSError, match="Invalid argument"):
            await files.setattr(await files.walk("f"), valid, mode=mode)
        assert look(file) == before
        await files.setattr(await files.walk("f"), MODE, mode=st.S_IFREG | 0o600)  # as Linux says it
    assert st.S_IMODE(os.stat(file).st_mode) == 0o600
