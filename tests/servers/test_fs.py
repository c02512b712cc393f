"""A directory of the host given away: names, contents, status, in all dialects."""

import errno
import os
import stat as st
import time
from pathlib import Path

import pytest

from mk9p.servers.fs import tree
from mk9p.testing import mounted
from mk9p.wire import AT_REMOVEDIR, DMDIR, NOFID, ORDWR, OTRUNC, Dialect, unpack_stats
from mk9p.wire import messages as m
from tests.servers.exported import SIZE, also, exported
from tests.servers.trees import names

L_CREAT, L_EXCL, L_APPEND, L_TRUNC = 0o100, 0o200, 0o2000, 0o1000


async def test_what_is_there_is_read_and_listed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("hello\n")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/b").write_bytes(b"x" * 100_000)
    async with tree(str(tmp_path)) as root, mounted(root) as client:
        assert await client.read("a") == "hello\n"
        assert await client.read_bytes("d/b") == b"x" * 100_000
        assert sorted(await names(client)) == ["a", "d"]
        stat = await client.stat("d/b")
        ours = (tmp_path / "d/b").stat()
        assert (stat.length, stat.mode, stat.uid, stat.mtime) == (100_000, ours.st_mode, 0, ours.st_mtime_ns)


@pytest.mark.parametrize("version", ["9P2000.L", "9P2000.u", "9P2000"])
async def test_files_are_made_written_renamed_and_removed(tmp_path: Path, version: str) -> None:
    os.chmod(tmp_path, 0o755)  # 9P2000 gives nobody more than they have in the directory
    async with tree(str(tmp_path)) as root, mounted(root, version=version) as client:
        await client.mkdir("d", 0o750)
        assert st.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750
        async with await client.open("d/f", "w", perm=0o640) as file:
            assert await file.write(b"0123456789") == 10
            await file.pwrite(b"AB", 3)
            await file.sync()
        assert (tmp_path / "d/f").read_bytes() == b"012AB56789"
        assert st.S_IMODE((tmp_path / "d/f").stat().st_mode) == 0o640
        await client.write("d/f", "new")
        assert (tmp_path / "d/f").read_bytes() == b"new"
        await client.rename("d/f", "d/g")
        assert os.listdir(tmp_path / "d") == ["g"]
        await client.remove("d/g")
        await client.remove("d")
        assert os.listdir(tmp_path) == []


async def test_a_file_is_renamed_into_another_directory_and_over_another(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a/f").write_text("f")
    (tmp_path / "b/g").write_text("g")
    async with exported(tmp_path) as files:
        a, b = await files.walk("a"), await files.walk("b")
        await files.ask(m.Trenameat, a, "f", b, "g")
        assert (tmp_path / "b/g").read_text() == "f"
        fid = await files.walk("b/g")
        await files.ask(m.Trename, fid, a, "h")
        assert (tmp_path / "a/h").read_text() == "f"
        with pytest.raises(OSError, match="Invalid argument"):
            await files.ask(m.Trenameat, 0, "a", a, "below-itself")


async def test_a_file_that_was_removed_is_used_while_it_is_open(tmp_path: Path) -> None:
    async with exported(tmp_path) as files:
        fid = await files.create("f")
        await files.write(fid, b"still here")
        await files.ask(m.Tunlinkat, 0, "f", 0)
        assert os.listdir(tmp_path) == []
        assert await files.read(fid) == b"still here"
        attr = await files.getattr(fid)
        assert (attr.nlink, attr.size) == (0, 10)
        await files.setattr(fid, SIZE, size=5)
        assert await files.read(fid) == b"still"


async def test_unlinking_tells_files_from_directories(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").touch()
    async with exported(tmp_path) as files:
        with pytest.raises(IsADirectoryError):
            await files.ask(m.Tunlinkat, 0, "d", 0)
        with pytest.raises(NotADirectoryError):
            await files.ask(m.Tunlinkat, 0, "f", AT_REMOVEDIR)
        (tmp_path / "d/x").touch()
        with pytest.raises(OSError, match="not empty"):
            await files.ask(m.Tunlinkat, 0, "d", AT_REMOVEDIR)
        fid = await files.walk("d/x")
        await files.ask(m.Tremove, fid)
        await files.ask(m.Tunlinkat, 0, "d", AT_REMOVEDIR)
        assert os.listdir(tmp_path) == ["f"]


async def test_creating_opens_what_is_there_unless_it_is_to_be_new(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    async with exported(tmp_path) as files:
        with pytest.raises(FileExistsError):
            await files.create("f", os.O_RDWR | L_CREAT | L_EXCL)
        fid = await files.create("f", os.O_RDWR | L_CREAT)
        assert await files.read(fid) == b"old"
        fid = await files.create("f", os.O_RDWR | L_CREAT | L_TRUNC)
        assert await files.read(fid) == b""
        (tmp_path / "d").mkdir()
        with pytest.raises(IsADirectoryError):
            await files.create("d", os.O_RDWR | L_CREAT)
        fid = await files.create("read-only", os.O_RDWR | L_CREAT | L_EXCL, mode=0o444)
        await files.write(fid, b"by who made it")
        assert (tmp_path / "read-only").read_bytes() == b"by who made it"
    async with exported(tmp_path, Dialect.P9) as files:
        fid = await files.walk()
        with pytest.raises(OSError, match="File exists"):
            await files.ask(m.Tcreate, fid, "f", 0o644, ORDWR)


async def test_appending_writes_at_the_end_wherever_it_is_asked_to(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("one\n")
    async with exported(tmp_path) as files:
        first, second = await files.open("f", os.O_WRONLY | L_APPEND), await files.open("f", os.O_WRONLY | L_APPEND)
        await files.write(first, b"two\n", 0)
        await files.write(second, b"three\n", 0)
        await files.write(first, b"four\n", 4)
        assert (tmp_path / "f").read_text() == "one\ntwo\nthree\nfour\n"


async def test_opening_truncates_if_asked(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("content")
    async with exported(tmp_path) as files:
        await files.open("f", os.O_WRONLY | L_TRUNC)
        assert (tmp_path / "f").read_text() == ""
    (tmp_path / "f").write_text("content")
    async with exported(tmp_path, Dialect.P9) as files:
        await files.open("f", ORDWR | OTRUNC)
        assert (tmp_path / "f").read_text() == ""


async def test_links_and_symbolic_links(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("f")
    async with exported(tmp_path) as files:
        fid = await files.walk("f")
        await files.ask(m.Tlink, 0, fid, "g")
        assert (tmp_path / "g").stat().st_ino == (tmp_path / "f").stat().st_ino
        assert (await files.getattr("g")).nlink == 2
        assert (await files.ask(m.Twalk, 0, 70, ("f",))).qids == (await files.ask(m.Twalk, 0, 71, ("g",))).qids
        qid = (await files.ask(m.Tsymlink, 0, "s", "some/../where é", 0)).qid
        assert qid.type == 0x02
        assert os.readlink(tmp_path / "s") == "some/../where é"
        s = await files.walk("s")
        assert (await files.ask(m.Treadlink, s)).target == "some/../where é"
        assert st.S_ISLNK((await files.getattr(s)).mode)
        with pytest.raises(OSError, match="Too many levels"):
            await files.ask(m.Tlopen, s, os.O_RDONLY)
        await files.ask(m.Tlink, 0, s, "s2")
        assert os.readlink(tmp_path / "s2") == "some/../where é"
        with pytest.raises(OSError, match="Invalid argument"):
            await files.ask(m.Treadlink, fid)


async def test_special_files_are_shown_and_not_opened_and_devices_not_made(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    async with exported(tmp_path) as files:
        assert (await files.ls())["pipe"][1] == 1  # DT_FIFO
        assert st.S_ISFIFO((await files.getattr("pipe")).mode)
        with pytest.raises(PermissionError):
            await files.open("pipe")  # and does not wait for a writer
        with pytest.raises(PermissionError):
            await files.create("pipe", os.O_WRONLY | L_CREAT)
        for kind in (st.S_IFBLK, st.S_IFCHR):
            with pytest.raises(PermissionError):
                await files.ask(m.Tmknod, 0, "new", kind | 0o600, 1, 3, 0)
        daemon = await also(files, "daemon")
        os.chmod(tmp_path, 0o777)
        for name, kind in {"regular": st.S_IFREG, "fifo": st.S_IFIFO, "socket": st.S_IFSOCK}.items():
            await daemon.ask(m.Tmknod, 50, name, kind | 0o620, 1, 3, 1)
            made = os.lstat(tmp_path / name)
            assert (made.st_mode, made.st_uid, made.st_gid, made.st_rdev) == (kind | 0o620, 1, 1, 0)
        with pytest.raises(FileExistsError):
            await files.ask(m.Tmknod, 0, "fifo", st.S_IFIFO | 0o600, 0, 0, 0)
        assert sorted(os.listdir(tmp_path)) == ["fifo", "pipe", "regular", "socket"]


async def test_mode_owner_and_times_are_changed(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    os.utime(tmp_path / "f", (1, 1))
    async with exported(tmp_path) as files:
        fid = await files.walk("f")
        await files.setattr(fid, 0x1, mode=0o4751)
        await files.setattr(fid, 0x2 | 0x4, uid=1, gid=2)
        ours = (tmp_path / "f").stat()
        assert (ours.st_uid, ours.st_gid, st.S_IMODE(ours.st_mode)) == (1, 2, 0o751)  # chown takes setuid away
        await files.setattr(fid, 0x20 | 0x100, mtime=(5, 123456789))
        ours = (tmp_path / "f").stat()
        assert (ours.st_atime_ns, ours.st_mtime_ns) == (1_000_000_000, 5_123456789)
        before = time.time_ns() - 10_000_000_000
        await files.setattr(fid, 0x10)  # now
        ours = (tmp_path / "f").stat()
        assert ours.st_atime_ns > before
        assert ours.st_mtime_ns == 5_123456789
        attr = await files.getattr(fid)
        assert (attr.mtime_sec, attr.mtime_nsec, attr.uid, attr.gid) == (5, 123456789, 1, 2)
        await files.ask(m.Tsymlink, 0, "s", "nowhere", 0)
        s = await files.walk("s")
        await files.setattr(s, 0x2, uid=7)
        await files.setattr(s, 0x20 | 0x100, mtime=(9, 0))
        ours = os.lstat(tmp_path / "s")
        assert (ours.st_uid, ours.st_mtime_ns) == (7, 9_000_000_000)
        with pytest.raises(OSError, match="not supported"):
            await files.setattr(s, 0x1, mode=0o600)


async def test_status_follows_every_change(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("1")
    async with exported(tmp_path) as files:
        fid = await files.walk("f")
        first = await files.getattr(fid)
        assert first.qid.version != 0  # stored: v9fs may cache it
        assert first == await files.getattr(fid)
        (tmp_path / "f").write_text("22")
        second = await files.getattr(fid)
        assert second.size == 2
        assert second.qid.version != first.qid.version
        assert second.qid.path == first.qid.path
        (tmp_path / "f").chmod(0o600)
        assert (await files.getattr(fid)).mode == st.S_IFREG | 0o600
        os.utime(tmp_path / "f", (3, 3))
        third = await files.getattr(fid)
        assert third.atime_sec == 3
        assert third.qid.version != second.qid.version
        times = (tmp_path / "f").stat()
        (tmp_path / "f").write_text("33")
        os.utime(tmp_path / "f", ns=(times.st_atime_ns, times.st_mtime_ns))
        assert (await files.getattr(fid)).qid.version != third.qid.version
        made = await files.getattr(fid, 0x800 | 0x7FF)
        if made.valid & 0x800:
            assert abs(made.btime_sec - time.time()) < 1000


async def test_paths_are_the_same_after_a_restart_and_in_a_listing(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "d").mkdir()
    async with exported(tmp_path) as files:
        before = {name: (await files.getattr(name)).qid.path for name in ("f", "d")}
        assert {name: qid.path for name, (qid, _) in (await files.ls()).items()} == before
    async with exported(tmp_path) as files:
        assert {name: (await files.getattr(name)).qid.path for name in ("f", "d")} == before


async def test_a_sparse_file_beyond_4_gib(tmp_path: Path) -> None:
    async with exported(tmp_path) as files:
        fid = await files.create("big")
        far = 5 << 30
        await files.write(fid, b"end", far)
        attr = await files.getattr(fid)
        assert attr.size == far + 3
        assert attr.blocks * 512 < 1 << 20
        assert await files.read(fid, far) == b"end"
        assert await files.read(fid, far - 8, 16) == b"\0" * 8 + b"end"
        assert await files.read(fid, far + 3) == b""
        assert await files.read(fid, 1 << 40) == b""
        await files.setattr(fid, SIZE, size=6 << 30)
        assert (tmp_path / "big").stat().st_size == 6 << 30
        for offset in (1 << 63, (1 << 64) - 1):
            with pytest.raises(OSError, match="Invalid argument"):
                await files.read(fid, offset)
            with pytest.raises(OSError, match="Invalid argument"):
                await files.write(fid, b"x", offset)
        with pytest.raises(OSError, match="Invalid argument"):
            await files.setattr(fid, SIZE, size=1 << 63)


async def test_a_read_sees_what_was_written_after_the_file_was_opened(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"a" * 10)
    async with exported(tmp_path) as files:
        fid = await files.open("f")
        assert await files.read(fid, 0, 60_000) == b"a" * 10
        (tmp_path / "f").write_bytes(b"b" * 50_000)
        assert await files.read(fid, 0, 60_000) == b"b" * 50_000
        (tmp_path / "f").write_bytes(b"c" * 8192)  # whole pages
        assert await files.read(fid, 0, 60_000) == b"c" * 8192
        assert await files.read(fid, 8192, 60_000) == b""


async def test_a_file_that_is_not_in_the_page_cache_is_read_whole(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "f").write_bytes(content)
    async with exported(tmp_path) as files:
        fd = os.open(tmp_path / "f", os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.pread(fd, 10, 0)  # its beginning is there again
        fid = await files.open("f")
        got = b""
        while data := await files.read(fid, len(got), 60_000):
            assert len(data) == min(60_000, len(content) - len(got))
            got += data
        os.close(fd)
        assert got == content


async def test_a_synchronous_file_is_written(tmp_path: Path) -> None:
    async with exported(tmp_path) as files:
        fid = await files.create("f", os.O_RDWR | os.O_SYNC | L_EXCL)
        await files.write(fid, b"on the disk")
        assert await files.read(fid) == b"on the disk"


async def test_files_and_directories_are_synced(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    async with exported(tmp_path) as files:
        await files.ask(m.Tfsync, await files.create("f"), 0)
        await files.ask(m.Tfsync, await files.open("d"), 1)


async def test_statfs_is_the_host_s(tmp_path: Path) -> None:
    async with exported(tmp_path) as files:
        got, ours = await files.ask(m.Tstatfs, 0), os.statvfs(tmp_path)
        assert (got.bsize, got.blocks, got.files, got.namelen) == (ours.f_frsize, ours.f_blocks, ours.f_files, 255)


async def test_a_big_directory_is_listed_in_pieces(tmp_path: Path) -> None:
    names = {f"file-{i}" for i in range(1000)}
    for name in names:
        (tmp_path / name).touch()
    async with exported(tmp_path) as files:
        assert set(await files.ls()) == names
    async with exported(tmp_path, Dialect.P9) as files:
        fid, found, at = await files.open(""), set[str](), 0
        while data := await files.read(fid, at, 8000):
            found |= {stat.name for stat in unpack_stats(Dialect.P9, data)}
            at += len(data)
        assert found == names


async def test_nothing_is_changed_through_a_readonly_export(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("f")
    (tmp_path / "d").mkdir()
    async with exported(tmp_path, ro="on") as files:
        fid = await files.open("f")
        assert await files.read(fid) == b"f"
        f = await files.walk("f")
        for attempt in (
            (m.Tlopen, f, os.O_WRONLY),
            (m.Tlopen, f, os.O_RDONLY | L_TRUNC),
            (m.Tsetattr, f, 0x1, 0o600, 0, 0, 0, 0, 0, 0, 0),
            (m.Tsetattr, f, SIZE, 0, 0, 0, 0, 0, 0, 0, 0),
            (m.Tmkdir, 0, "new", 0o755, 0),
            (m.Tsymlink, 0, "new", "f", 0),
            (m.Tmknod, 0, "new", st.S_IFREG | 0o644, 0, 0, 0),
            (m.Tlink, 0, f, "new"),
            (m.Tunlinkat, 0, "f", 0),
            (m.Tunlinkat, 0, "d", AT_REMOVEDIR),
            (m.Trenameat, 0, "f", 0, "new"),
            (m.Tlcreate, await files.walk(), "new", os.O_RDWR, 0o644, 0),
            (m.Txattrcreate, await files.walk("f"), "user.a", 0, 0),
            (m.Txattrcreate, await files.walk("f"), "user.a", 0, 2),
        ):
            with pytest.raises(OSError, match="Read-only"):
                await files.ask(*attempt)
        assert sorted(os.listdir(tmp_path)) == ["d", "f"]


async def test_plan9_clients_make_directories_by_create_and_rename_by_wstat(tmp_path: Path) -> None:
    async with exported(tmp_path, Dialect.U) as files:
        fid = await files.walk()
        await files.ask(m.Tcreate, fid, "d", DMDIR | 0o755, 0, "")
        assert (tmp_path / "d").is_dir()
        fid = await files.walk()
        await files.ask(m.Tcreate, fid, "s", 0x02000000 | 0o777, 0, "target")
        assert os.readlink(tmp_path / "s") == "target"
        with pytest.raises(OSError, match="devices"):
            await files.ask(m.Tcreate, await files.walk(), "dev", 0x00800000 | 0o644, 0, "c 1 3")
        assert sorted(os.listdir(tmp_path)) == ["d", "s"]
        assert NOFID


async def test_an_option_that_means_nothing_is_refused(tmp_path: Path) -> None:
    for options in ({"ro": "perhaps"}, {"xdev": ""}, {"descriptors": "many"}):
        with pytest.raises(OSError, match="want"):
            async with tree(str(tmp_path), **options):
                pass
    with pytest.raises(FileNotFoundError):
        async with tree(str(tmp_path / "none")):
            pass
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as refused:
        async with tree(str(tmp_path / "file")):
            pass
    assert refused.value.errno == errno.ENOTDIR
