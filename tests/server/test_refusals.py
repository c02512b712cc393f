"""One line a connection that is refused: who, from where, why, and nothing that a peer says can break the line."""

import errno
import logging
import re
import shlex
from pathlib import Path

import pytest
import trio
import trio.testing

from mk9p.dial import TRANSPORTS, Peer
from mk9p.server import Limits
from mk9p.server.refusals import line
from mk9p.testing import serving_at, until
from mk9p.tree import Dir, Text
from mk9p.wire import NOFID, NONUNAME, NOTAG, Dialect
from mk9p.wire import messages as m
from tests.server.odd_tree import alone
from tests.server.talk import Talk, connect, serving, talk_to

STRANGER = Peer(TRANSPORTS["unix"], "pid 1", uid=0)
TREE = Dir({"text": Text("x" * 60_000), "closed": Dir({"a": Dir({})}, mode=0o700)})


def fields(record: logging.LogRecord) -> dict[str, str]:
    word, *pairs = shlex.split(record.getMessage())
    return {"": word} | dict(pair.split("=", 1) for pair in pairs)


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, str]]:
    return [fields(record) for record in caplog.records if record.levelno >= logging.WARNING]


async def greet(talk: Talk) -> None:
    await talk.rpc(m.Tversion, NOTAG, 8192, talk.dialect.version)


async def test_an_attach_that_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(TREE) as server:
        talk = connect(server, peer=Peer(TRANSPORTS["tcp"], "10.0.0.7!51234"))
        await greet(talk)
        for name, aname in (("root", "none\nuser=root"), ("again", "none")):
            reply = await talk.rpc(m.Tattach, 1, 0, NOFID, name, aname, NONUNAME)
            assert isinstance(reply, m.Rlerror)
        closed = connect(server, peer=Peer(TRANSPORTS["tcp"], "[::1]!9"))
        await greet(closed)
        reply = await closed.rpc(m.Tattach, 1, 0, NOFID, "", "closed/a", NONUNAME)
        assert isinstance(reply, m.Rlerror)
        assert reply.ecode == errno.EACCES
        assert server.tally.refused == {"attach": 2}
        await talk.attach(0)
        await talk.rpc(m.Tattach, 1, 1, NOFID, "root", "none", NONUNAME)  # he is in: a wrong name is no more than that
    assert told(caplog) == [
        {
            "": "refused",
            "why": "attach",
            "from": "tcp!10.0.0.7!51234",
            "user": "none",
            "text": "none\\nuser=root: No such file or directory",
        },
        {
            "": "refused",
            "why": "attach",
            "from": "tcp![::1]!9",
            "user": "none",
            "text": "closed/a: permission denied",
        },
    ]
    assert "\n" not in "".join(record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(("msize", "version"), [(8192, "SMB3"), (10, "9P2000.L")])
async def test_a_version_that_is_refused(msize: int, version: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(TREE) as server:
        talk = connect(server, Dialect.P9, peer=STRANGER)
        await talk.rpc(m.Tversion, NOTAG, msize, version)
    (found,) = told(caplog)
    assert (found[""], found["why"], found["from"], found["uid"]) == ("refused", "version", "unix!pid_1", "0")
    assert version in found["text"] or str(msize) in found["text"]


async def test_garbage_is_refused_and_from_who_was_let_in_an_end(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(TREE) as server:
        stranger, known = connect(server, peer=STRANGER), connect(server, peer=STRANGER)
        await known.start(uname="glenda")
        for talk in (stranger, known):
            await talk.raw(b"GET / HTTP/1.0\r\n\r\n")
            assert await talk.receive() is None
        await alone(server)
        assert server.tally.refused == {"protocol": 2}
    first, second = told(caplog)
    assert (first[""], first["why"], first["user"]) == ("refused", "protocol", "-")
    assert (second[""], second["why"], second["user"]) == ("ended", "protocol", "glenda")
    assert "bytes" in first["text"]


async def test_who_takes_too_long_and_who_is_too_many(
    tmp_path: Path, mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving_at(f"unix!{tmp_path}/s", TREE, limits=Limits(connections=1, handshake=10)) as host:
        server = host.server
        async with await trio.open_unix_socket(f"{tmp_path}/s") as silent:
            await until(lambda: server.connections)
            async with await trio.open_unix_socket(f"{tmp_path}/s") as second:
                assert await second.receive_some() == b""
            mock_clock.jump(11)
            assert await silent.receive_some() == b""
        await alone(server)
    assert server.tally.refused == {"connections": 1, "handshake": 1}
    assert [(found[""], found["why"], found["text"]) for found in told(caplog)] == [
        ("refused", "connections", "all 1 connections are in use"),
        ("refused", "handshake", "it did not attach within 10 s"),
    ]
    assert all(re.fullmatch(r"unix!pid_\d+", found["from"]) for found in told(caplog))


async def test_with_more_words_comings_and_goings_are_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving(TREE) as server:
        talk = await talk_to(server, peer=STRANGER, uname="glenda")
        await talk.stream.aclose()
        await alone(server)
    came, went = (fields(record) for record in caplog.records)
    assert came == {"": "connected", "number": "1", "from": "unix!pid_1", "uid": "0"}
    assert went == {
        "": "ended",
        "number": "1",
        "from": "unix!pid_1",
        "uid": "0",
        "user": "glenda",
        "text": "the peer closed it",
    }


def test_a_value_is_one_word_or_quoted() -> None:
    values = ("plain", "", "two words", 'a "quote"', "a\\b", "k=v", "new\nline", "\x1b[2J", "ü", "\u202e")
    for value in values:
        said = line("word", key=value)
        assert said.isprintable()
        text = said.removeprefix("word key=")
        assert text == value or (text[0] == text[-1] == '"' and '"' not in text[1:-1].replace('\\"', ""))
    assert line("word", from_="x", n=3) == "word from=x n=3"
