"""diod, the other server of 9P2000.L: its clients on our server, and our client on it."""

import errno
import os
import stat as st
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from mk9p.client import changes, connect
from mk9p.client import requests as r
from mk9p.errors import NineError
from mk9p.testing import SOON
from mk9p.tree import Change
from mk9p.wire import Dialect
from tests.interop.peers import Diod, Served
from tests.interop.tree_interop import BIG, DISK, MANY, TOP

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MSIZES = [4096, 8192, 65536, 1 << 20]


def run(command: str, served: Served, *words: str, uid: int = 0) -> "subprocess.CompletedProcess[bytes]":
    """Run diodls or diodcat on our server."""
    options = ["-s", served.host_port, "-a", "", "-u", str(uid), "-t", "60"]
    return subprocess.run([command, *options, *words], capture_output=True, timeout=SOON)


# diod's clients


@pytest.mark.parametrize("msize", MSIZES)
def test_diodls_lists_what_is_there(diodls: str, served: Served, msize: int) -> None:
    done = run(diodls, served, "-m", str(msize), "/", "/many", "/status")
    assert (done.returncode, done.stderr) == (0, b"")
    names = done.stdout.decode().split()
    for name in (*TOP, *MANY):
        assert name in names


def test_diodls_shows_status(diodls: str, served: Served) -> None:
    done = run(diodls, served, "-l", "/")
    assert (done.returncode, done.stderr) == (0, b"")
    lines = {line.split()[-1]: line.split() for line in done.stdout.decode().splitlines() if line.split()}
    assert lines["disk"][0].rstrip(".") == "-rw-------"
    assert "100000" in lines["disk"]
    assert lines["status"][0].rstrip(".") == "-r--r--r--"
    assert lines["shelf"][0].rstrip(".") == "drwxrwxrwx"


@pytest.mark.parametrize("msize", MSIZES)
def test_diodcat_reads_whole_files(diodcat: str, served: Served, msize: int) -> None:
    done = run(diodcat, served, "-m", str(msize), "status", "big", "disk", "many/file299")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"value 0\n" + BIG.encode() + DISK + b"file299\n"


def test_diodcat_is_refused_what_its_user_may_not(diodcat: str, served: Served) -> None:
    assert run(diodcat, served, "secret").stdout == b"for root\n"
    done = run(diodcat, served, "secret", uid=65534)
    assert done.returncode != 0
    assert (done.stdout, os.strerror(errno.EACCES).encode() in done.stderr) == (b"", True)
    done = run(diodcat, served, "nowhere")
    assert done.returncode != 0
    assert os.strerror(errno.ENOENT).encode() in done.stderr


# diod as server


async def test_our_client_reads_and_writes_what_lies_on_disk(diod: Diod) -> None:
    (diod.root / "hello").write_text("hello\n")
    async with connect(diod.address, aname=str(diod.root)) as c:
        assert (c.connection.dialect, c.connection.msize) == (Dialect.L, 65536)  # it has no more
        assert await c.read("hello") == "hello\n"
        await c.write("new", "written\n")
        assert (diod.root / "new").read_text() == "written\n"
        async with await c.open("new", "a") as file:
            await file.write(b"more\n")
            await file.sync()
        assert (diod.root / "new").read_text() == "written\nmore\n"
        async with await c.open("new", "r+") as file:
            await file.pwrite(b"WRITTEN", 0)
            assert await file.pread(100, 3) == b"TTEN\nmore\n"
            await file.truncate(4)
        assert (diod.root / "new").read_text() == "WRIT"


async def test_our_client_sees_the_status_of_files(diod: Diod) -> None:
    path = diod.root / "file"
    path.write_bytes(bytes(12345))
    os.chown(path, 12, 34)
    path.chmod(0o4751)
    os.utime(path, ns=(1_111_111_111_222_222_222, 999_999_999_888_888_888))
    os.mkfifo(diod.root / "fifo")
    (diod.root / "link").symlink_to("file")
    async with connect(diod.address, aname=str(diod.root)) as c:
        stat, want = await c.stat("file"), path.stat()
        assert (stat.mode, stat.uid, stat.gid, stat.length) == (st.S_IFREG | 0o4751, 12, 34, 12345)
        assert (stat.atime, stat.mtime, stat.ctime) == (want.st_atime_ns, want.st_mtime_ns, want.st_ctime_ns)
        assert (stat.nlink, stat.name, stat.is_dir) == (1, "file", False)
        assert {each.name: st.S_IFMT(each.mode) for each in await c.listdir()} == {
            "file": st.S_IFREG,
            "fifo": st.S_IFIFO,
            "link": st.S_IFLNK,
        }
        fid, _ = await r.walk(c.connection, c.root, ("link",))
        assert await r.readlink(c.connection, fid) == "file"
        await c.connection.clunk(fid)
        fid, _ = await r.walk(c.connection, c.root, ("file",))
        await changes.change(c.connection, fid, Change(mode=0o600, uid=1, gid=2, mtime=1_000_000_000_000_000_007))
        await c.connection.clunk(fid)
        want = path.stat()
        assert (want.st_mode, want.st_uid, want.st_gid) == (st.S_IFREG | 0o600, 1, 2)
        assert want.st_mtime_ns == 1_000_000_000_000_000_007


async def test_our_client_makes_moves_and_removes(diod: Diod) -> None:
    async with connect(diod.address, aname=str(diod.root)) as c:
        await c.mkdir("a", 0o750)
        await c.mkdir("a/b")
        assert st.S_IMODE((diod.root / "a").stat().st_mode) == 0o750
        async with await c.create("a/b/file", 0o640) as file:
            await file.write(b"x")
        assert st.S_IMODE((diod.root / "a/b/file").stat().st_mode) == 0o640
        await c.rename("a/b/file", "moved")
        assert (diod.root / "moved").read_bytes() == b"x"
        await c.rename("moved", "again")
        assert sorted(each.name for each in diod.root.iterdir()) == ["a", "again"]
        await c.remove("a/b")
        await c.remove("again")
        await c.remove("a")
        assert list(diod.root.iterdir()) == []


async def test_our_client_raises_the_kernels_errors(diod: Diod) -> None:
    (diod.root / "file").touch()
    (diod.root / "dir").mkdir()
    (diod.root / "dir/inside").touch()
    async with connect(diod.address, aname=str(diod.root)) as c:
        refused: list[tuple[int, Callable[[], Awaitable[object]]]] = [
            (errno.ENOENT, lambda: c.read("nowhere")),
            (errno.ENOENT, lambda: c.read("dir/nowhere/further")),
            (errno.ENOENT, lambda: c.remove("nowhere")),
            (errno.ENOTDIR, lambda: c.read("file/below")),
            (errno.EEXIST, lambda: c.mkdir("dir")),
            (errno.EEXIST, lambda: c.create("file")),
            (errno.EISDIR, lambda: c.write("dir", "x")),
            (errno.ENOTEMPTY, lambda: c.remove("dir")),
            (errno.ENAMETOOLONG, lambda: c.mkdir("x" * 300)),
        ]
        for number, do in refused:
            with pytest.raises(NineError) as caught:
                await do()
            assert caught.value.errno == number, caught.value
        assert await c.read("file") == ""


async def test_our_client_is_the_user_that_it_says(diod: Diod) -> None:
    (diod.root / "secret").write_text("s")
    (diod.root / "secret").chmod(0o600)
    async with connect(diod.address, aname=str(diod.root), n_uname=65534, uname="") as c:
        with pytest.raises(PermissionError):
            await c.read("secret")
        with pytest.raises(PermissionError):
            await c.write("new", "x")


async def test_our_client_lists_a_thousand_names(diod: Diod) -> None:
    names = [f"a file with number {n:04} and a name as long as this one is" for n in range(1000)]
    for n, name in enumerate(names):
        (diod.root / name).write_bytes(bytes(n))
    async with connect(diod.address, aname=str(diod.root), msize=8192) as c:
        assert c.connection.msize == 8192
        listed = await c.listdir()
        assert sorted(each.name for each in listed) == names
        assert all(each.length == names.index(each.name) for each in listed)


async def test_eight_megabytes_there_and_back(diod: Diod) -> None:
    data = os.urandom(1 << 16) * 128
    async with connect(diod.address, aname=str(diod.root), msize=65536) as c:
        assert c.connection.msize == 65536
        await c.write("large", data)
        assert (diod.root / "large").read_bytes() == data
        assert await c.read_bytes("large") == data
        async with await c.open("large") as file:
            assert await file.pread(3_000_000, 1_234_567) == data[1_234_567:4_234_567]
            assert await file.pread(100, len(data) - 50) == data[-50:]
            assert await file.pread(100, len(data)) == b""


async def test_many_at_once_share_a_connection(diod: Diod) -> None:
    async with connect(diod.address, aname=str(diod.root)) as c:

        async def one(n: int) -> None:
            await c.write(f"file{n}", f"{n}" * 1000)
            assert await c.read(f"file{n}") == f"{n}" * 1000
            await c.remove(f"file{n}")

        async with trio.open_nursery() as nursery:
            for n in range(50):
                nursery.start_soon(one, n)
    assert list(diod.root.iterdir()) == []


async def test_a_cancelled_call_is_flushed_and_the_connection_goes_on(diod: Diod) -> None:
    fifo = diod.root / "fifo"
    os.mkfifo(fifo)
    (diod.root / "file").write_text("still there\n")
    async with connect(diod.address, aname=str(diod.root)) as c:
        with trio.move_on_after(0.2) as scope:
            await c.open("fifo")  # waits in open(2) for somebody who writes
        assert scope.cancelled_caught
        assert await c.read("file") == "still there\n"
        # diod does not interrupt open(2), so it answers the flush only now; what it opened must be closed again by our client.
        with trio.fail_after(SOON):
            while has_reader(fifo):
                assert await c.read("file") == "still there\n"
        assert await c.read("file") == "still there\n"


def has_reader(fifo: Path) -> bool:
    """Tell whether somebody reads a fifo; whoever waits for a writer before he can is let go on."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        if error.errno == errno.ENXIO:
            return False
        raise
    return True
