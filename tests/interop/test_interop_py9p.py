"""py9p as client of our server, and as server of our client: 1.0.8 itself under Python 2.7, and its fork under Python 3.

Its client uses tag 1 for everything, asks for an authentication that nobody wants, and has one fid for all files; its server does one thing at a
time.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mk9p.client import connect
from mk9p.errors import NineError
from mk9p.testing import SOON
from mk9p.wire import Dialect
from tests.interop.peers import Served
from tests.interop.py9p_found import Python
from tests.interop.tree_interop import BIG, MANY, TOP
from tests.servers.trees import names

HERE = Path(__file__).parent

OREAD, OWRITE, OTRUNC = 0, 1, 16
DMDIR = 0x80000000


def client(
    py9p: Python, served: Served, *orders: list[Any], dotu: int = 0, msize: int = 8192, uname: str = "root"
) -> list[Any]:
    """Give orders to py9p's client; return the msize that was agreed on and what each order brought, an error as its words in a tuple."""
    process = py9p.popen(HERE / "py9p_client.py", "127.0.0.1", str(served.port), str(dotu), str(msize), uname)
    out, err = process.communicate(json.dumps(orders).encode(), timeout=SOON)
    assert process.returncode == 0, err.decode()
    return [
        answer["ok"] if "ok" in answer else (answer["error"],) for answer in json.loads(out.splitlines()[-1])
    ]  # the lines before are its complaints


@pytest.mark.parametrize("dotu", [0, 1])
def test_the_client_reads_writes_and_lists(py9p: Python, served: Served, dotu: int) -> None:
    agreed, top, status, added, after, big, disk = client(
        py9p,
        served,
        ["names", "/"] if not dotu else ["cd", "/"],  # its lsdir cannot take stats of 9P2000.u apart
        ["read", "status"],
        ["write", "ctl", "add 41\nadd 1\n", OWRITE | OTRUNC],
        ["read", "status"],
        ["read", "/big"],
        ["stat", "disk"],
        dotu=dotu,
    )
    assert agreed == 8192
    assert top == 1 if dotu else sorted(top) == TOP
    assert (status, added, after) == ("value 0\n", 13, "value 42\n")
    assert big == BIG
    assert (disk["name"], disk["length"], disk["mode"]) == ("disk", 100_000, 0o600)
    assert (disk["uid"], disk["gid"]) == ("root", "root")
    assert disk["uidnum"] == (0 if dotu else 0xFFFFFFFF)
    assert served.state.value == 42


def test_the_client_reads_a_directory_of_many_messages(py9p: Python, served: Served) -> None:
    agreed, many, one, made = client(
        py9p, served, ["names", "many"], ["stat", "many"], ["stat", "/many/file299"], msize=1024
    )
    assert (agreed, many) == (1024, MANY)
    assert (one["type"], one["mode"], one["length"]) == (0x80, DMDIR | 0o555, 0)
    assert (made["name"], made["type"], made["mode"]) == ("file299", 0, 0o444)


def test_the_client_makes_and_removes(py9p: Python, served: Served) -> None:
    _, made, text, stat, names, removed, gone = client(
        py9p,
        served,
        ["create", "/shelf/new", "some words\n"],
        ["read", "shelf/new"],
        ["stat", "shelf/new"],
        ["names", "shelf"],
        ["remove", "shelf/new"],
        ["read", "shelf/new"],
    )
    assert (made, text, stat["length"], stat["mode"]) == (11, "some words\n", 11, 0o644)
    assert (names, removed, gone) == (["new"], None, ("incomplete walk (1 out of 2)",))


@pytest.mark.parametrize("dotu", [0, 1])
def test_the_client_is_told_errors_in_our_words(py9p: Python, served: Served, dotu: int) -> None:
    _, absent, denied, unknown, usage, error, still = client(
        py9p,
        served,
        ["read", "nowhere"],
        ["read", "secret"],
        ["write", "ctl", "frobnicate\n"],
        ["write", "ctl", "add nothing\n"],
        ["read", "error"],
        ["read", "status"],
        dotu=dotu,
        uname="root",
    )
    assert absent == ("No such file or directory",)
    assert denied == "for root\n"
    assert unknown == ("unknown word frobnicate; usage: add N · reset",)
    assert usage == ("usage: add N",)
    assert error == "usage: add N\n"
    assert still == "value 0\n"


def test_the_client_is_whom_it_says(py9p: Python, served: Served) -> None:
    _, secret, ctl, status = client(
        py9p, served, ["read", "secret"], ["write", "ctl", "add 1"], ["read", "status"], uname="nobody"
    )
    assert (secret, ctl, status) == (("permission denied",), ("permission denied",), "value 0\n")


def test_the_client_flushes_the_tag_that_it_uses_for_all(py9p: Python, served: Served) -> None:
    assert client(py9p, served, ["flush"], ["read", "status"])[1:] == [True, "value 0\n"]


# py9p as server


@pytest.fixture(params=[0, 1], ids=["9P2000", "9P2000.u"])
def py9p_server(py9p: Python, request: pytest.FixtureRequest) -> Iterator[tuple[str, Dialect]]:
    """Start py9p's server; give its address and the richest dialect that it speaks."""
    process = py9p.popen(HERE / "py9p_server.py", str(request.param), "8192")
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip().decode()
        assert port, process.communicate(timeout=SOON)[1].decode()
        yield f"tcp!127.0.0.1!{port}", Dialect(request.param)
    finally:
        try:
            _, said = process.communicate(timeout=SOON)  # closes its stdin: it ends
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert b"Traceback" not in said, said.decode()


async def test_our_client_comes_down_to_what_the_server_speaks(py9p_server: tuple[str, Dialect]) -> None:
    address, dialect = py9p_server
    async with connect(address) as c:
        # version(5) has it that of .L and .u, which it does not know, 9P2000 is left
        assert (c.connection.dialect, c.connection.msize) == (Dialect.P9, 8192)
        assert await c.read("hello") == "hello from py9p\n"
    async with connect(address, version="9P2000.u") as c:
        assert (c.connection.dialect, c.connection.msize) == (dialect, 8192)
        assert await c.read("hello") == "hello from py9p\n"


async def test_our_client_reads_writes_lists_and_stats(py9p_server: tuple[str, Dialect]) -> None:
    address, dialect = py9p_server
    async with connect(address, version=dialect.version) as c:
        assert await names(c) == ["hello", "secret", "full", "big", "many"]
        assert await names(c, "many") == [f"file{n:03}" for n in range(200)]
        assert await c.read_bytes("big") == b"".join(b"%06d\n" % n for n in range(20000))
        assert await c.read("many/file123") == "123"
        assert [qid.type for qid in await c.walk("many/file123")] == [0x80, 0]
        hello = await c.stat("hello")
        assert (hello.name, hello.mode, hello.length, hello.mtime) == ("hello", 0o100644, 16, 10**18)
        assert (hello.user, hello.group) == ("glenda", "sys")
        if dialect is Dialect.U:
            assert (hello.uid, hello.gid) == (7, 8)
        await c.write("hello", "x" * 20000)
        assert await c.read("hello") == "x" * 20000
        async with await c.open("hello", "r+") as file:
            await file.pwrite(b"new", 10)
            assert await file.pread(8, 8) == b"xxnewxxx"
            await file.truncate(11)
        assert await c.read("hello") == "x" * 10 + "n"


async def test_our_client_makes_renames_and_removes(py9p_server: tuple[str, Dialect]) -> None:
    address, dialect = py9p_server
    async with connect(address, version=dialect.version) as c:
        await c.mkdir("dir")
        async with await c.create("dir/file", 0o600) as file:
            await file.write(b"made")
        assert await c.read("dir/file") == "made"
        await c.rename("dir/file", "dir/other")
        assert await names(c, "dir") == ["other"]
        with pytest.raises(OSError, match="directory not empty"):
            await c.remove("dir")
        await c.remove("dir/other")
        await c.remove("dir")
        assert "dir" not in await names(c)


async def test_our_client_raises_what_the_servers_words_mean(py9p_server: tuple[str, Dialect]) -> None:
    address, dialect = py9p_server
    async with connect(address, version=dialect.version) as c:
        with pytest.raises(FileNotFoundError):
            await c.read("nowhere")
        with pytest.raises(PermissionError):
            await c.read("secret")
        with pytest.raises(IsADirectoryError):
            await c.write("many", "x")
        with pytest.raises(FileExistsError):
            await c.create("hello")
        with pytest.raises(NineError, match="file system is full, and has been"):
            await c.write("full", "x")
        assert await c.read("hello") == "hello from py9p\n"


async def test_our_client_goes_on_after_a_walk_that_led_only_halfway(py9p_server: tuple[str, Dialect]) -> None:
    """A Twalk of a fid to itself, allowed by walk(5), leaves it at py9p's server counted twice: it outlives its Tclunk as `duplicate fid`."""
    address, dialect = py9p_server
    async with connect(address, version=dialect.version) as c:
        for _ in range(3):
            with pytest.raises(OSError, match="file not found"):
                await c.read("many/nowhere")
            assert await c.read("hello") == "hello from py9p\n"
