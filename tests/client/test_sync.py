"""The synchronous client: the same words, no trio, and an interrupt that does no harm."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import mk9p.client
import mk9p.sync
from mk9p.client import blocking, conversation, requests
from mk9p.client.blocking import open_blocking
from mk9p.dial import blocking as dial_now
from mk9p.errors import NineError
from mk9p.server import Server
from mk9p.testing import in_thread, serving_at
from mk9p.wire import Dialect, codec
from mk9p.wire import messages as m
from tests.client.test_client_files import BIG, VERSIONS, Made


class Threaded(Made):
    """A tree whose server is in another thread."""

    call: Callable[..., Any]

    def say(self, *records: bytes) -> None:
        for record in records:
            self.call(self.send.send_nowait, record)


@contextmanager
def using(version: str, path: Path, **options: Any) -> Iterator[tuple[mk9p.sync.Client, Threaded, Server]]:
    made = Threaded()
    with (
        in_thread(serving_at(f"unix!{path}/s", made.tree())) as (host, made.call),
        mk9p.sync.connect(host.address, version=version, **options) as ns,
    ):
        yield ns, made, host.server


def left(ns: mk9p.sync.Client, server: Server) -> int:
    """Return how many fids the server still has, once what was given up is done."""
    deadline = time.monotonic() + 10
    while True:
        (connection,) = server.connections
        count = len(connection.session.fids)
        if count == 1 or time.monotonic() > deadline:
            return count
        ns.walk("")


@pytest.mark.parametrize("version", VERSIONS)
def test_files_names_and_errors(version: str, tmp_path: Path) -> None:
    with using(version, tmp_path) as (ns, made, server):
        assert ns.inner.connection.dialect.version == version
        assert ns.read("text") == "three\nlines\nof text\n"
        ns.write("text", "new")
        assert made.text == "new"
        ns.write("ctl", b"add 1\nadd 2\n")
        assert made.added == [1, 2]
        with pytest.raises(NineError, match="usage: add N") as caught:
            ns.write("ctl", "add x")
        assert caught.value.filename == "ctl"
        for call in (ns.read, ns.stat, ns.listdir, ns.walk, ns.open, lambda path: next(ns.lines(path))):
            with pytest.raises(FileNotFoundError) as missing:
                call("a/none")
            assert missing.value.filename == "a/none"
        with pytest.raises(OSError, match=r".") as moved:
            ns.rename("text", "other")
        assert (moved.value.filename, moved.value.filename2) == ("text", "other")
        with pytest.raises(PermissionError):
            ns.mkdir("a/new")
        with pytest.raises(PermissionError):
            ns.remove("text")
        with pytest.raises(ValueError, match="mode 'q'"):
            ns.open("text", "q")
        assert {s.mode for s in ns.listdir("many")} == {0o100400}
        assert len(ns.listdir("many")) == 200
        assert ns.stat("disk").length == len(BIG)
        assert list(ns.lines("text")) == ["new"]
        assert left(ns, server) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_big_files_come_in_pieces(version: str, tmp_path: Path) -> None:
    with using(version, tmp_path, msize=8192) as (ns, made, server):
        assert ns.read_bytes("disk") == BIG
        with ns.open("disk", "r+") as f:
            assert f.pread(100_000, 1000) == BIG[1000:101_000]
            assert f.read(5) == BIG[:5]
            assert f.write(b"x" * 20_000) == 20_000
            assert made.disk == BIG[:5] + b"x" * 20_000 + BIG[20_005:]
            f.position = 0
            assert f.read(6) == BIG[:5] + b"x"
            assert f.stat().length == len(BIG)
        with pytest.raises(NineError, match="the file is closed") as caught:
            f.pread(1, 0)
        assert caught.value.filename == "disk"
        f.close()
        assert left(ns, server) == 1


def test_a_file_that_nobody_closed_is_clunked(tmp_path: Path) -> None:
    with using("9P2000.L", tmp_path) as (ns, _, server):
        f = ns.open("text")
        assert list(f) == [b"three\n", b"lines\n", b"of text\n"]
        del f
        lines = ns.lines("events")
        del lines
        ns.stat("text")
        assert left(ns, server) == 1


def test_a_client_that_is_closed_says_so(tmp_path: Path) -> None:
    with using("9P2000.L", tmp_path) as (ns, _, _):
        assert not ns.closed
        ns.close()
        ns.close()
        assert ns.closed
        with pytest.raises(NineError, match="is gone: it was closed here"):
            ns.read("text")


def test_an_interrupt_gives_up_the_call_and_nothing_else(tmp_path: Path) -> None:
    with using("9P2000.L", tmp_path) as (ns, _, server):
        timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            ns.read("stream")
        timer.join()
        assert ns.read("a/b/c") == "deep\n"
        assert left(ns, server) == 1
        (connection,) = server.connections
        assert not connection.session.tags


def test_an_interrupt_in_the_middle_of_a_message_ends_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with using("9P2000.L", tmp_path) as (ns, _, _):
        monkeypatch.setattr(ns.inner.connection, "_answer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ns.read("text")
        assert ns.closed


def test_a_second_thread_is_refused(tmp_path: Path) -> None:
    with using("9P2000.L", tmp_path) as (ns, made, _):
        thread = threading.Thread(target=ns.read, args=["stream"])
        thread.start()
        while not ns.inner.connection._calls:
            time.sleep(0.001)
        with pytest.raises(RuntimeError, match="one thread at a time"):
            ns.read("text")
        made.say(b"record", b"")
        thread.join()


def test_the_end_of_the_server_ends_the_client(tmp_path: Path) -> None:
    with using("9P2000.L", tmp_path) as (ns, _, _):
        ns.inner.connection.link.sock.shutdown(socket.SHUT_RD)  # type: ignore[attr-defined]
        with pytest.raises(NineError, match="is gone: it was closed by the other side") as caught:
            ns.read("text")
        assert caught.value.errno == errno.EIO


# Several coroutines in one thread


def test_work_goes_side_by_side_and_is_given_up(tmp_path: Path) -> None:
    with using("9P2000.L", tmp_path) as (ns, _, server):
        client, c = ns.inner, ns.inner.connection
        texts: list[str] = []
        late: list[NineError] = []

        async def one() -> None:
            try:
                await c.within(0.1, lambda: client.read("stream"))
            except NineError as error:
                late.append(error)
            texts.append(await client.read("a/b/c"))

        began = time.monotonic()
        ns.run(c.side_by_side(20, one))
        assert time.monotonic() - began < 1.5
        assert texts == ["deep\n"] * 20
        assert {(error.errno, str(error)) for error in late} == {(errno.ETIMEDOUT, "no answer within 0.1 s")}
        assert left(ns, server) == 1


def test_what_one_raises_ends_the_others(tmp_path: Path) -> None:
    with using("9P2000.L", tmp_path) as (ns, _, server):
        client = ns.inner
        paths = ["stream", "none", "stream"]

        async def one() -> None:
            await client.read(paths.pop())

        with pytest.raises(FileNotFoundError):
            ns.run(client.connection.side_by_side(3, one))
        assert ns.read("a/b/c") == "deep\n"
        assert left(ns, server) == 1


# The beginning, and lines that lose bytes


@contextmanager
def far(*, answers: int) -> Iterator[tuple[str, list[bytes]]]:
    """Give the path of a socket where a server played by hand agrees on a version, and answers so many requests; and what came."""
    ours, theirs = socket.socketpair()
    got: list[bytes] = []

    def run() -> None:
        count = 0
        while data := theirs.recv(8192):
            got.append(data)
            if data[4] == m.Tversion.type and len(got) > 1:  # the first is lost
                theirs.sendall(b"login: " + codec(Dialect.L, m.Rversion.type).pack(0xFFFF, 8192, "9P2000.L"))
            elif data[4] == m.Tflush.type and count < answers:
                count += 1
                theirs.sendall(codec(Dialect.L, m.Rflush.type).pack(int.from_bytes(data[5:7], "little")))

    thread = threading.Thread(target=run)
    thread.start()
    with theirs:
        yield f"fd!{ours.fileno()}!{ours.detach()}", got
        thread.join()


def test_a_silent_line_is_asked_and_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for where in (blocking, conversation):
        monkeypatch.setattr(where, "ASK", 0.1)
    monkeypatch.setattr(conversation, "SILENCE", 0.2)
    monkeypatch.setattr(blocking, "REPEAT", 0.05)
    dialled = dial_now.dial

    def lossy(address: str, deadline: float, keys: Any = None) -> Any:
        link = dialled(address, deadline, keys)
        link.lossy = True
        return link

    monkeypatch.setattr(blocking, "dial", lossy)
    with far(answers=2) as (address, got):
        c = open_blocking(address)
        began = time.monotonic()
        with pytest.raises(NineError, match=r"nothing came from it for 0.2 s"):
            c.run(requests.read(c, 5, 0, 10))
        assert time.monotonic() - began >= 0.4
        c.close()
    assert sum(data[4] == m.Tversion.type for data in got) == 2


def test_a_server_that_never_agrees_is_given_up() -> None:
    with far(answers=0) as (address, _), pytest.raises(TimeoutError, match=r"fd![0-9!]*: no answer within 0.1 s"):
        open_blocking(address, deadline=0.1)


@pytest.mark.parametrize("options", [{"version": "nonsense"}, {"msize": 100}])
def test_what_cannot_be_asked_for(options: dict[str, Any]) -> None:
    with pytest.raises(NineError, match="want 9P2000"):
        mk9p.sync.connect("unix!/nonexistent/s", **options)


def test_leaving_waits_for_what_was_given_up_but_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "LEAVING", 0.1)
    ours, theirs = socket.socketpair()
    with theirs:
        number = ours.detach()
        theirs.sendall(codec(Dialect.L, m.Rversion.type).pack(0xFFFF, 8192, "9P2000.L"))
        c = open_blocking(f"fd!{number}!{number}")
        c.clunk_nowait(7)
        began = time.monotonic()
        c.close()
        assert 0.1 <= time.monotonic() - began < 1


def test_no_trio_is_imported(tmp_path: Path) -> None:
    text = """
import sys
import mk9p.sync
with mk9p.sync.connect(sys.argv[1]) as ns:
    assert ns.read("a/b/c") == "deep\\n"
    assert ns.listdir("many")
    with ns.open("text", "r+") as file:
        file.write(b"x")
assert not {"trio", "attr", "logging"} & set(sys.modules)
"""
    with in_thread(serving_at(f"unix!{tmp_path}/s", Made().tree())) as (host, _):
        subprocess.run([sys.executable, "-c", text, host.address], check=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_call_that_is_stopped_has_been_done_or_not_at_all(version: str, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    try:
        with using(version, tmp_path) as (ns, made, server):
            ns.stop_by(reader)
            with ns.open("stream") as stream:
                threading.Timer(0.05, os.write, (writer, b"x")).start()
                with pytest.raises(mk9p.sync.Stopped) as stopped:
                    stream.pread(100, 0)
                assert stopped.value.errno == errno.EINTR
                ns.stop_by(None)
                made.say(b"not lost")
                assert stream.pread(100, 0) == b"not lost"
            assert left(ns, server) == 1
    finally:
        os.close(reader)
        os.close(writer)


def test_a_call_that_is_stopped_when_the_server_has_answered_gives_the_answer(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    try:
        with using("9P2000.L", tmp_path) as (ns, _, server):
            os.write(writer, b"x")
            ns.stop_by(reader)
            given = stopped = 0
            for _ in range(200):  # the flush meets the answer on its way, or comes before
                try:
                    ns.walk("a/b")
                    given += 1
                except mk9p.sync.Stopped:
                    stopped += 1
            ns.stop_by(None)
            assert given + stopped == 200
            assert given, "the server answers a walk at once"
            assert left(ns, server) == 1
    finally:
        os.close(reader)
        os.close(writer)
