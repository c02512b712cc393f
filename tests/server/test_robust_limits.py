"""Every limit, reached: what is said there, that nobody else is kept from anything, and that the table of docs/design.md is true."""

import errno
import logging
import re
import resource
import subprocess
import sys
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, socket

import attrs
import pytest
import trio
import trio.testing

from mk9p.dial import TRANSPORTS, Peer
from mk9p.errors import NineError
from mk9p.server import Limits
from mk9p.server.limits import RESERVE
from mk9p.session import LINK
from mk9p.testing import SOON, child, serving_at, until
from mk9p.tree import Ctl, Dir, Text
from mk9p.wire import NOTAG, Dialect, codec
from mk9p.wire import messages as m
from tests.leftovers import descriptors as open_now
from tests.server.left_open import nothing_more
from tests.server.odd_tree import Deep, Never, alone
from tests.server.talk import Talk, connect, serving, talk_to, talking

STRANGER = Peer(TRANSPORTS["unix"], "pid 1", uid=0)


def tree(said: list[str] | None = None) -> Dir:
    words = said if said is not None else []
    return Dir(
        {
            "events": Never(),
            "ctl": Ctl({"say": words.append}),
            "text": Text("text\n"),
            "deep": Deep(),
        }
    )


async def opened(talk: Talk, fid: int, name: str, mode: int = 0) -> None:
    reply = await talk.open(fid, name, mode=mode)
    assert isinstance(reply, m.Rlopen), reply


def refused(reply: object, number: int) -> None:
    assert isinstance(reply, m.Rlerror), reply
    assert reply.ecode == number, reply


def test_the_table_in_the_manual_is_true() -> None:
    text = (Path(__file__).parents[2] / "docs/design.md").read_text()
    rows = {
        row[0]: row[1:] for row in re.findall(r"^\| (\w+) \| ([\d,.]+) \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    }
    assert rows == {
        field.name: (f"{field.default:,}", field.metadata["at"], field.metadata["reason"])
        for field in attrs.fields(Limits)
    }


def test_limits_are_set_by_name() -> None:
    assert Limits.parse([]) == Limits()
    assert Limits.parse(["fids=10", "handshake=0.5"]) == Limits(fids=10, handshake=0.5)
    for bad in (
        "fids",
        "fids=",
        "fids=ten",
        "fids=0",
        "msize=100",
        "handshake=inf",
        "handshake=nan",
        "fid=3",
        "fids=1.5",
    ):
        with pytest.raises(NineError) as error:
            Limits.parse([bad])
        assert error.value.errno == errno.EINVAL
        assert ("at least" in str(error.value)) == (bad in ("fids=0", "msize=100")), error.value


async def test_a_fid_too_many_is_refused() -> None:
    async with serving(tree(), Limits(fids=3)) as server:
        talk, other = await talk_to(server), await talk_to(server)
        for fid in (1, 2):
            assert isinstance(await talk.rpc(m.Twalk, 1, 0, fid, ()), m.Rwalk)
        refused(await talk.rpc(m.Twalk, 1, 0, 3, ()), errno.EMFILE)
        assert isinstance(await other.rpc(m.Twalk, 1, 0, 3, ()), m.Rwalk)
        assert isinstance(await talk.rpc(m.Tclunk, 1, 1), m.Rclunk)
        assert isinstance(await talk.rpc(m.Twalk, 1, 0, 3, ()), m.Rwalk)


async def test_readers_that_wait_leave_room_for_everything_else() -> None:
    said: list[str] = []
    async with talking(tree(said), limits=Limits(requests=20)) as talk:
        await opened(talk, 1, "events", 2)
        await opened(talk, 2, "ctl", 1)
        await opened(talk, 3, "text")
        for tag in range(100, 120):
            await talk.send(m.Tread, tag, 1, 0, 100)
        refused(await talk.rpc(m.Tread, 200, 1, 0, 100), errno.EAGAIN)
        assert isinstance(await talk.rpc(m.Twrite, 201, 2, 0, b"say something\n"), m.Rwrite)
        assert said == ["something"]
        assert bytes((await talk.rpc(m.Tread, 202, 3, 0, 100)).data) == b"text\n"
        for tag in range(1000, 1000 + RESERVE):  # other things that wait: a full pipe is written to
            await talk.send(m.Twrite, tag, 1, 0, b"x")
        refused(await talk.rpc(m.Twrite, 203, 2, 0, b"say no more\n"), errno.EAGAIN)
        assert isinstance(await talk.rpc(m.Tflush, 204, 100), m.Rflush)
        assert isinstance(await talk.rpc(m.Twrite, 205, 2, 0, b"say it\n"), m.Rwrite)
        assert isinstance(await talk.rpc(m.Tclunk, 206, 3), m.Rclunk)
        assert said == ["something", "it"]


async def test_writes_that_wait_hold_so_many_bytes_and_no_more() -> None:
    async with serving(tree(), Limits(held=50_000)) as server:
        talk = await talk_to(server)
        await opened(talk, 1, "events", 1)
        await talk.send(m.Twrite, 100, 1, 0, bytes(10_000))
        assert isinstance(await talk.rpc(m.Tgetattr, 1, 0, 1), m.Rgetattr)  # it waits by now
        for tag in range(101, 107):
            await talk.send(m.Twrite, tag, 1, 0, bytes(10_000))
        for _ in range(4):
            refused(await talk.receive(), errno.EAGAIN)
        (c,) = server.connections
        assert c.session.held == 32_768 + 2 * (
            10_000 + LINK
        )  # what the first lies in, and copies of two, each of which waits
        for tag in range(102, 99, -1):
            assert isinstance(await talk.rpc(m.Tflush, tag + 100, tag), m.Rflush)
        assert c.session.held == 0


async def test_what_was_dropped_holds_nothing() -> None:
    """A write that waits for another is flushed, again and again: neither it nor its bytes are kept."""
    async with serving(tree()) as server:
        talk = await talk_to(server)
        await opened(talk, 1, "events", 1)
        await talk.send(m.Twrite, 100, 1, 0, b"x")
        for _ in range(100):
            await talk.send(m.Twrite, 101, 1, 0, bytes(1000))
            assert isinstance(await talk.rpc(m.Tflush, 102, 101), m.Rflush)
        (c,) = server.connections
        (waits,) = c.session.tags.values()
        assert (waits.tag, waits.followers) == (100, {})


async def test_flushes_of_flushes_have_no_end_of_the_stack() -> None:
    async with talking(tree()) as talk:
        await opened(talk, 1, "events")
        await talk.send(m.Tread, 1, 1, 0, 1)
        pack = codec(Dialect.L, m.Tflush.type).pack
        await talk.raw(b"".join(pack(tag, tag - 1) for tag in range(2, 5000)))
        assert [(await talk.receive()).tag for _ in range(2, 5000)] == list(range(2, 5000))


async def test_a_path_too_deep_is_refused() -> None:
    async with talking(tree(), limits=Limits(depth=40)) as talk:
        assert isinstance(await talk.rpc(m.Twalk, 1, 0, 1, ("deep",)), m.Rwalk)
        for _ in range(3):
            assert isinstance(await talk.rpc(m.Twalk, 1, 1, 1, ("deep",) * 13), m.Rwalk)
        refused(await talk.rpc(m.Twalk, 1, 1, 1, ("deep",)), errno.ENAMETOOLONG)
        assert isinstance(await talk.rpc(m.Twalk, 1, 1, 1, ("..",)), m.Rwalk)
        refused(await talk.rpc(m.Tattach, 1, 7, 0xFFFFFFFF, "root", "deep/" * 41, 0), errno.ENAMETOOLONG)


async def test_replies_that_pile_up_end_the_connection_that_does_not_take_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Readers that wait are not stopped by `out`: what they are brought at once, when the client takes nothing, has an end of its own."""
    gate = trio.Event()

    async def late() -> bytes:
        await gate.wait()
        return bytes(60_000)

    async with serving(
        Dir({"f": Text(late), "text": Text("x" * 60_000)}), Limits(out=100_000, unread=2_000_000)
    ) as server:
        talk = await talk_to(server, msize=65536)
        await opened(talk, 1, "f")
        await opened(talk, 2, "text")
        for tag in range(100, 200):
            await talk.send(m.Tread, tag, 1, 0, 60_000)
        for tag in range(200, 220):
            await talk.send(m.Tread, tag, 2, 0, 60_000)
        (c,) = server.connections
        await until(lambda: c.blocked)
        gate.set()
        await alone(server)
    assert [r.message for r in caplog.records if "does not take" in r.message] != []


async def test_who_does_not_attach_in_time_is_hung_up_on(
    mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tree(), Limits(handshake=10)) as server:
        silent, slow, good = (connect(server, peer=STRANGER) for _ in range(3))
        given = connect(server)  # a line that somebody was given may be silent for as long as he likes
        await good.start()
        frame = codec(Dialect.P9, m.Tversion.type).pack(NOTAG, 8192, "9P2000")
        for byte in frame:
            await slow.raw(bytes([byte]))  # slow loris: a byte now and then
            mock_clock.jump(9.9 / len(frame))
            await trio.testing.wait_all_tasks_blocked()
        assert isinstance(await slow.receive(), m.Rversion)
        assert len(server.connections) == 4
        mock_clock.jump(0.2)
        assert await silent.receive() is None
        assert await slow.receive() is None
        await alone(server, 2)
        assert isinstance(await good.rpc(m.Tgetattr, 1, 0, 1), m.Rgetattr)
        await given.start()
        late = connect(server, peer=STRANGER)
        mock_clock.jump(11)
        assert await late.receive() is None
    assert len([r for r in caplog.records if "did not attach" in r.message]) == 3


async def test_a_connection_too_many_is_told_in_one_line_and_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving_at(f"unix!{tmp_path}/s", tree(), limits=Limits(connections=2)) as host:
        server = host.server
        talks = [Talk(await trio.open_unix_socket(f"{tmp_path}/s"), server=server) for _ in range(2)]
        for talk in talks:
            await talk.start()
        before = open_now()
        for _ in range(3):
            async with await trio.open_unix_socket(f"{tmp_path}/s") as stream:
                assert await stream.receive_some() == b""
        await nothing_more(before)
        await talks.pop().stream.aclose()
        await alone(server, 1)
        again = Talk(await trio.open_unix_socket(f"{tmp_path}/s"), server=server)
        await again.start()
        for talk in (*talks, again):
            await talk.stream.aclose()
        await alone(server)
    lines = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert len(lines) == 3
    assert all("all 2 connections are in use" in line for line in lines)


async def test_a_thousand_connections() -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2200:
        pytest.skip("too few descriptors: ulimit -n 2200")
    before = open_now()
    async with serving(tree()) as server:
        talks = [connect(server) for _ in range(1000)]
        for talk in talks:
            await talk.start()
        for talk in talks:
            await talk.send(m.Tgetattr, 5, 0, 0x7FF)
        for talk in talks:
            assert isinstance(await talk.receive(), m.Rgetattr)
        for talk in talks:
            await talk.stream.aclose()
        await alone(server)
    await nothing_more(before)


@pytest.mark.parametrize("words", [("serve", "host"), ("compose",)])
def test_both_daemons_take_limits(words: tuple[str, ...], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mk9p", words[0], "-l", f"unix!{tmp_path}/s", *words[1:]]
    wrong = subprocess.run([*command, "--limit", "fids=none"], capture_output=True, text=True, timeout=SOON)
    assert wrong.returncode == 1
    assert "want fids=NUMBER" in wrong.stderr
    with child([*command, "--limit", "msize=4242"], "listening on"), socket(AF_UNIX, SOCK_STREAM) as sock:
        sock.settimeout(10)
        sock.connect(f"{tmp_path}/s")
        sock.sendall(codec(Dialect.P9, m.Tversion.type).pack(NOTAG, 1 << 20, "9P2000.L"))
        assert int.from_bytes(sock.recv(100)[7:11], "little") == 4242
