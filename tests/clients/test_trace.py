"""`mk9p trace`: what passes is what was sent, each message is a line, and Wireshark's dissector reads the capture."""

import fcntl
import io
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, socket
from typing import Any

import pytest
import trio

from mk9p import connect
from mk9p.clients.trace import Watch, in_words, trace
from mk9p.errors import NineError
from mk9p.pcap import Capture
from mk9p.testing import SOON, child, serving_at, until, until_true
from mk9p.tree import Block, Ctl, Dir, Stream, Text
from mk9p.wire import Dialect, encode
from mk9p.wire import messages as m

LINE = re.compile(r"\d\d:\d\d:\d\d\.\d{6} \d+ (->|<-|--) .+")
LATENCY = re.compile(r"  \d+(\.\d+)? (us|ms|s)$")
MESSAGE = re.compile(r"(->|<-) ([TR][a-z]+)")
DISK = bytes(range(256)) * 2000


def tree() -> Dir:
    return Dir(
        {
            "text": Text("made up\n"),
            "ctl": Ctl({"add": lambda n: None}),
            "disk": Block(lambda count, at: DISK[at : at + count], size=lambda: len(DISK)),
            "wait": Stream(trio.sleep_forever),
        }
    )


@asynccontextmanager
async def traced(tmp_path: Path, **options: Any) -> AsyncIterator[tuple[str, list[str]]]:
    """Serve the tree, trace it, and give where the trace is dialled and its lines."""
    lines = list[str]()
    async with serving_at(f"unix!{tmp_path}/server", tree()) as host, trio.open_nursery() as nursery:
        start: Callable[..., Any] = lambda task_status: trace(  # noqa: E731
            host.address, f"unix!{tmp_path}/trace", lines.append, task_status=task_status, **options
        )
        yield await nursery.start(start), lines
        nursery.cancel_scope.cancel()


async def ended(lines: list[str]) -> None:
    """Wait until the trace has seen the end of a connection."""
    await until(lambda: any("closed" in line for line in lines))


@pytest.mark.parametrize("version", ["9P2000", "9P2000.u", "9P2000.L"])
async def test_each_message_is_a_line(tmp_path: Path, version: str) -> None:
    async with traced(tmp_path) as (address, lines):
        async with connect(address, version=version) as ns:
            assert await ns.read("text") == "made up\n"
            assert await ns.read_bytes("disk") == DISK
            with pytest.raises(NineError, match="usage: add"):
                await ns.write("ctl", "add")
        await ended(lines)
    assert all(LINE.fullmatch(line) for line in lines), lines
    found = [MESSAGE.search(line) for line in lines]
    names = [match[2] for match in found if match]
    assert names[:4] == ["Tversion", "Rversion", "Tattach", "Rattach"]
    linux = version == "9P2000.L"
    assert ("Tlopen" if linux else "Topen") in names
    assert ("Rlerror" if linux else "Rerror") in names
    text = "\n".join(lines)
    assert f"version='{version}'" in text
    assert "names=" in text
    assert "b'made up\\n'" in text
    assert "not understood" not in text
    replies = [line for line in lines if " <- " in line]
    assert replies
    assert all(LATENCY.search(line) for line in replies), replies
    assert len(replies) == len([line for line in lines if " -> " in line])
    assert [line.split(" ", 2)[2] for line in lines if " -- " in line][-1] == "-- the client closed"


async def test_a_flush_frees_its_tag(tmp_path: Path) -> None:
    async with traced(tmp_path) as (address, lines), connect(address) as ns:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ns.read, "wait")
            await until(lambda: any("Tread" in line for line in lines))
            nursery.cancel_scope.cancel()
        assert await ns.read("text") == "made up\n"
        asked = next(line for line in lines if "Tflush" in line)
        read = [line for line in lines if "Tread" in line and lines.index(line) < lines.index(asked)][-1]
        tag = re.search(r" tag=(\d+)", read)
        assert tag is not None
        assert f"oldtag={tag[1]}" in asked
        assert any("Rflush" in line for line in lines)
        assert not any("nothing that was asked" in line for line in lines)


async def test_connections_are_told_apart_and_a_lost_server_is_told(tmp_path: Path) -> None:
    async with traced(tmp_path) as (address, lines), connect(address) as one, connect(address) as two:
        assert await one.read("text") == await two.read("text")
        assert {line.split()[1] for line in lines} == {"1", "2"}
    lines.clear()
    async with trio.open_nursery() as nursery:
        nobody = f"unix!{tmp_path}/nobody"
        start: Callable[..., Any] = lambda task_status: trace(  # noqa: E731
            nobody, f"unix!{tmp_path}/t", lines.append, task_status=task_status
        )
        address = await nursery.start(start)
        with pytest.raises(OSError, match="/t: "):
            async with connect(address):
                pass
        assert "nobody: " in lines[0]
        nursery.cancel_scope.cancel()
    assert not (tmp_path / "t").exists()


async def test_what_is_not_understood_passes_as_it_is(tmp_path: Path) -> None:
    got = bytearray()
    ends = socket(AF_UNIX, SOCK_STREAM)
    ends.bind(str(tmp_path / "raw"))
    ends.listen()
    lines: list[str] = []
    bad_name = b"\x12\0\0\0\x6e\1\0\0\0\0\0\1\0\0\0\1\0\xff"
    sent = encode(Dialect.L, m.Tversion(0xFFFF, 8192, "9P2000.L")) + bad_name + b"\3\0\0\0 no frame" + b"more" * 100_000
    async with trio.open_nursery() as nursery:
        start: Callable[..., Any] = lambda task_status: trace(  # noqa: E731
            f"unix!{tmp_path}/raw", f"unix!{tmp_path}/trace", lines.append, task_status=task_status
        )
        await nursery.start(start)
        stream = await trio.open_unix_socket(str(tmp_path / "trace"))
        ends.setblocking(False)
        accepted, _ = await trio.socket.from_stdlib_socket(ends).accept()

        async def receive() -> None:
            while len(got) < len(sent):
                got.extend(await accepted.recv(1 << 16))

        async with stream, trio.open_nursery() as both:
            both.start_soon(receive)
            await stream.send_all(sent)
        accepted.close()
        nursery.cancel_scope.cancel()
    ends.close()
    assert got == sent
    assert "Tversion" in lines[1]
    assert "type 110 tag=1" in lines[2]
    assert "not understood" in lines[2]
    assert "no 9P from here on" in lines[3]


async def test_who_may_be_me(tmp_path: Path) -> None:
    async def refused(address: str, where: str) -> None:
        with pytest.raises(PermissionError, match="--trust"):
            await trace(address, where, print)

    await refused(f"unix!{tmp_path}/s", "tcp!127.0.0.1!0")
    await refused("tcp!127.0.0.1!1", "tcp!*!0")
    for trust, address, where in (
        (False, "tcp!127.0.0.1!1", "tcp!127.0.0.1!0"),
        (True, f"unix!{tmp_path}/s", "tcp!127.0.0.1!0"),
        (False, f"unix!{tmp_path}/s", f"unix!{tmp_path}/t"),
    ):
        # one after the other: who handles signals gives them back to whom they were before
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(trace, address, where, print, trust=trust))
            if where.startswith("unix"):
                assert (tmp_path / "t").stat().st_mode & 0o777 == 0o600
            nursery.cancel_scope.cancel()


def test_words() -> None:
    assert [in_words(ns) for ns in (1_500, 2_340_000, 1_500_000_000)] == ["1 us", "2.3 ms", "1.50 s"]
    lines: list[str] = []
    watch = Watch(7, lines.append, dialect=Dialect.L)
    watch.message(False, memoryview(encode(Dialect.L, m.Rclunk(5))))
    assert lines[0].endswith(" 7 <- Rclunk tag=5  to no request")


def dissect(path: Path, *fields: str) -> list[list[str]]:
    tshark = shutil.which("tshark")
    if tshark is None:
        pytest.skip("tshark is not installed")
    words = [tshark, "-n", "-r", str(path), "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=|"]
    for field in fields:
        words += ["-e", field]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


async def test_wireshark_reads_the_capture(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcap"
    with path.open("wb") as file:
        async with traced(tmp_path, capture=Capture(file)) as (address, lines):
            for version in ("9P2000.L", "9P2000"):
                lines.clear()
                async with connect(address, version=version) as ns:
                    assert await ns.read_bytes("disk") == DISK  # a message of many segments
                    assert len(await ns.listdir()) == 5
                await ended(lines)
                if version == "9P2000.L":
                    seen = [match[2] for line in lines if (match := MESSAGE.search(line))]
    rows = dissect(path, "tcp.stream", "9p.msgtype", "_ws.malformed", "_ws.expert.message", "ip.checksum.status")
    assert {row[0] for row in rows} == {"0", "1"}
    types = [int(kind) for row in rows if row[0] == "0" for kind in row[1].split("|") if kind]
    assert types == [getattr(m, name).type for name in seen]
    assert not any(row[2] for row in rows)
    analysed = dissect(path, "tcp.analysis.flags", "tcp.flags.syn", "tcp.flags.fin")
    assert not any(row[0] for row in analysed), analysed
    assert sum(row[1] in ("1", "True") for row in analysed) == 4
    assert sum(row[2] in ("1", "True") for row in analysed) == 4


def test_the_capture_is_exact() -> None:
    file = io.BytesIO()
    flow = Capture(file).flow(now=1_000_000_007)
    before = len(file.getvalue())
    flow.write(True, b"x" * 100_000, now=2_000_000_009)
    data = file.getvalue()[before:]
    assert data[:16] == b"\2\0\0\0\x09\0\0\0\xff\xff\0\0\xff\xff\0\0"  # seconds, ns, lengths
    words = [int.from_bytes(data[16 + at : 18 + at], "big") for at in range(0, 20, 2)]
    assert sum(words) % 0xFFFF == 0  # the IP header's checksum (RFC 1071)
    assert data.count(b"x") == 100_000


def test_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mk9p", "trace", "-l", "tcp!*!0", "unix!/x"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "--trust" in done.stderr
    command = [sys.executable, "-m", "mk9p", "trace", "-l", f"unix!{tmp_path}/t", "--pcap", f"{tmp_path}/p", "unix!/x"]
    with child(command, "is unix!/x, traced", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        with socket(AF_UNIX, SOCK_STREAM) as client:
            client.connect(str(tmp_path / "t"))
            assert "unix!/x: " in process.stdout.readline()
        process.send_signal(2)
        assert process.wait(10) == 0
    assert not (tmp_path / "t").exists()
    assert (tmp_path / "p").stat().st_size == 24


def test_it_ends_when_it_is_told_though_nobody_takes_its_lines(tmp_path: Path) -> None:
    """The messages wait meanwhile: none passes unseen."""
    reader, writer = os.pipe()
    me = [sys.executable, "-m", "mk9p"]
    command = [*me, "trace", f"unix!{tmp_path}/s", "-l", f"unix!{tmp_path}/t"]
    asking = ["sh", "-c", 'while "$@"; do :; done', "sh", *me, "-a", f"unix!{tmp_path}/t", "ls", "-l"]
    try:
        with (
            child([*me, "serve", "-l", f"unix!{tmp_path}/s", "host"], "listening"),
            child(command, "traced", stdout=writer, stderr=subprocess.PIPE) as process,
            child(asking, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client,
        ):
            poll = select.poll()
            poll.register(writer, select.POLLOUT)
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
            until_true(lambda: not poll.poll(0))
            process.send_signal(signal.SIGTERM)
            assert process.wait(SOON) == 0
            client.wait(SOON)
    finally:
        os.close(reader)
        os.close(writer)
