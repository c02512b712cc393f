"""The client for asyncio: the same words, and a cancelled task does no harm."""

import asyncio
import errno
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

import mk9p
import mk9p.aio
import mk9p.sync
from mk9p.errors import NineError
from mk9p.server import Server
from mk9p.testing import SOON, in_thread, serving_at
from tests.client.test_client_files import BIG, VERSIONS
from tests.client.test_sync import Threaded

Work = Callable[[mk9p.aio.Client, Threaded, Server], Awaitable[None]]


def using(path: Path, work: Work, version: str = "9P2000.L", msize: int = 1 << 16) -> None:
    """Serve a tree in another thread, and do some work with a client of it in asyncio."""
    made = Threaded()

    async def run(address: str, server: Server) -> None:
        async with mk9p.aio.connect(address, version=version, msize=msize) as ns, asyncio.timeout(SOON):
            await work(ns, made, server)

    with in_thread(serving_at(f"unix!{path}/s", made.tree())) as (host, made.call):
        asyncio.run(run(host.address, host.server))


async def left(server: Server, tags: bool = False) -> int:
    """Return how many fids (or tags) the server still has, once what was given up is done."""
    until = time.monotonic() + 10
    while True:
        (connection,) = server.connections
        count = len(connection.session.tags if tags else connection.session.fids)
        if count == (0 if tags else 1) or time.monotonic() > until:
            return count
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("version", VERSIONS)
def test_files_names_and_errors(version: str, tmp_path: Path) -> None:
    async def work(ns: mk9p.aio.Client, made: Threaded, server: Server) -> None:
        assert await ns.read("text") == "three\nlines\nof text\n"
        await ns.write("text", "new")
        assert made.text == "new"
        with pytest.raises(NineError, match="usage: add N") as caught:
            await ns.write("ctl", "add x")
        assert caught.value.filename == "ctl"
        for call in (ns.read, ns.stat, ns.listdir, ns.walk, ns.open, lambda path: anext(ns.lines(path))):
            with pytest.raises(FileNotFoundError) as missing:
                await call("a/none")
            assert missing.value.filename == "a/none"
        with pytest.raises(OSError, match=r".") as moved:
            await ns.rename("text", "other")
        assert (moved.value.filename, moved.value.filename2) == ("text", "other")
        assert len(await ns.listdir("many")) == 200
        assert [line async for line in ns.lines("text")] == ["new"]
        assert await asyncio.gather(*(ns.read("a/b/c") for _ in range(100))) == ["deep\n"] * 100
        assert await left(server) == 1

    using(tmp_path, work, version)


def test_big_files_come_and_go_in_pieces(tmp_path: Path) -> None:
    async def work(ns: mk9p.aio.Client, made: Threaded, _: Server) -> None:
        assert await ns.read_bytes("disk") == BIG
        async with await ns.open("disk", "r+") as f:
            assert await f.pwrite(BIG[::-1], 0) == len(BIG)
        assert made.disk == BIG[::-1]
        with pytest.raises(NineError, match="the file is closed") as caught:
            await f.pread(1, 0)
        assert caught.value.filename == "disk"

    using(tmp_path, work, msize=8192)


def test_a_cancelled_task_flushes_its_call_and_loses_nothing(tmp_path: Path) -> None:
    async def work(ns: mk9p.aio.Client, made: Threaded, server: Server) -> None:
        async with await ns.open("stream") as f:
            for _ in range(20):
                task = asyncio.create_task(f.read(100))
                await asyncio.sleep(0.005)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert await left(server, tags=True) == 0
            made.say(b"record", b"next")
            assert await f.read(100) == b"record"
            assert await f.read(100) == b"next"
        slow = asyncio.create_task(ns.write("ctl", "slow"))
        await asyncio.sleep(0.05)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert await left(server) == 1
        with pytest.raises(TimeoutError):
            await ns.connection.within(0.05, lambda: ns.read("stream"))
        assert await left(server) == 1

    using(tmp_path, work)


def test_a_file_that_nobody_closed_is_clunked(tmp_path: Path) -> None:
    async def work(ns: mk9p.aio.Client, _: Threaded, server: Server) -> None:
        f = await ns.open("text")
        assert await f.read(100) != b""
        del f
        assert await left(server) == 1

    using(tmp_path, work)


def test_the_end_of_the_server_ends_every_call(tmp_path: Path) -> None:
    async def work(ns: mk9p.aio.Client, _: Threaded, __: Server) -> None:
        waiting = [asyncio.create_task(ns.read("stream")) for _ in range(3)]
        await asyncio.sleep(0.05)
        ns.connection.link.sock.shutdown(socket.SHUT_RD)  # type: ignore[attr-defined]
        for each in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(each, NineError)
            assert each.errno == errno.EIO
        assert await ns.wait_closed() == "it was closed by the other side"

    using(tmp_path, work)


def test_what_cannot_be_dialled_is_told_as_elsewhere(tmp_path: Path) -> None:
    async def run() -> None:
        async with mk9p.aio.connect(f"unix:{tmp_path}/nobody"):
            raise AssertionError

    with pytest.raises(FileNotFoundError, match="nobody: no such socket"):
        asyncio.run(run())


def test_each_way_in_says_which_one_is_right() -> None:
    async def in_asyncio() -> None:
        async with mk9p.connect("tcp:localhost"):
            raise AssertionError

    async def in_trio() -> None:
        async with mk9p.aio.connect("tcp:localhost"):
            raise AssertionError

    with pytest.raises(RuntimeError, match=r"asyncio has mk9p.aio.connect, plain code mk9p.sync.connect"):
        asyncio.run(in_asyncio())
    with pytest.raises(RuntimeError, match=r"trio has mk9p.connect, plain code mk9p.sync.connect"):
        trio.run(in_trio)
    for way in (mk9p.connect("tcp:localhost"), mk9p.aio.connect("tcp:localhost")):
        with pytest.raises(TypeError, match=r"plain code has mk9p.sync.connect"), way:
            raise AssertionError


def test_asyncio_needs_no_trio() -> None:
    text = "import sys, mk9p.aio; assert 'trio' not in sys.modules, 'trio'"
    subprocess.run([sys.executable, "-c", text], check=True, timeout=SOON)


@pytest.mark.parametrize("version", VERSIONS)
def test_messages_are_whole_and_a_read_is_empty_only_at_the_end(version: str, tmp_path: Path) -> None:
    async def work(ns: mk9p.aio.Client, made: Threaded, _: Server) -> None:
        async with await ns.open("stream") as f:
            made.say(b"one", b"two", b"three")
            assert [await f.read(100) for _ in range(3)] == [b"one", b"two", b"three"]
        long = bytes(range(256)) * 100  # more than one message of 9P has here
        async with await ns.open("stream") as f:
            made.say(b"short", long, b"last")
            found = [message async for message, _ in _first(f, 3 if version == "9P2000.L" else 6)]
        assert b"".join(found) == b"short" + long + b"last"
        if version == "9P2000.L":
            assert found == [b"short", long, b"last"]
        assert [message async for message in (await ns.open("text")).messages()] == [made.text.encode()]

    using(tmp_path, work, version, msize=8192)


async def _first(f: mk9p.aio.File, count: int):  # type: ignore[no-untyped-def]
    """Give so many messages, each with its number."""
    number = 0
    async for message in f.messages():
        number += 1
        yield message, number
        if number == count:
            return
