"""How a connection begins, and what is said when it cannot."""

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from mk9p import connect
from mk9p.client import agreement, handshake
from mk9p.errors import NineError
from mk9p.wire import NOTAG, Dialect
from mk9p.wire import messages as m
from tests.client.helpers_client import DIR, Hand, by_hand, link


@asynccontextmanager
async def agreeing(result: list[Any], *, lossy: bool = False, dialect: Dialect = Dialect.L) -> AsyncIterator[Hand]:
    """Let a client agree on a version with a hand; `result` gets the connection or the error."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    our_link = link(ours, lossy=lossy)

    async def agree() -> None:
        try:
            result.append(await handshake._agree(our_link, "test!1", dialect, 65536))
        except NineError as error:
            result.append(error)

    hand = Hand(trio.SocketStream(trio.socket.from_stdlib_socket(theirs)), Dialect.P9)
    try:
        async with hand.stream, trio.open_nursery() as nursery:
            nursery.start_soon(agree)
            yield hand
    finally:
        our_link.close()


@pytest.mark.parametrize("dialect", Dialect)
async def test_a_server_may_choose_a_poorer_dialect_and_a_smaller_msize(dialect: Dialect) -> None:
    result: list[Any] = []
    async with agreeing(result) as hand:
        asked = await hand.next(m.Tversion)
        assert (asked.tag, asked.msize, asked.version) == (NOTAG, 65536, "9P2000.L")
        await hand.say(m.Rversion(NOTAG, 8192, dialect.version))
    assert (result[0].dialect, result[0].msize, result[0].iounit) == (dialect, 8192, 8192 - 24)


async def test_unknown_and_errors_are_asked_again_for_less() -> None:
    result: list[Any] = []
    async with agreeing(result) as hand:
        assert (await hand.next(m.Tversion)).version == "9P2000.L"
        await hand.say(m.Rversion(NOTAG, 8192, "unknown"))
        assert (await hand.next(m.Tversion)).version == "9P2000.u"
        await hand.say(m.Rerror(NOTAG, "bad version"))
        assert (await hand.next(m.Tversion)).version == "9P2000"
        await hand.say(m.Rversion(NOTAG, 8192, "9P2000"))
    assert result[0].dialect is Dialect.P9


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (m.Rversion(NOTAG, 8192, "unknown"), "speaks no version"),
        (m.Rversion(NOTAG, 8192, "9P2000.L"), "was answered '9P2000.L'"),
        (m.Rversion(NOTAG, 1 << 20, "9P2000"), "with msize 1048576"),
        (m.Rversion(NOTAG, 23, "9P2000"), "with msize 23"),
        (m.Rflush(1), "this is no 9P server"),
    ],
)
async def test_what_cannot_be_agreed_on(answer: m.Message, words: str) -> None:
    result: list[Any] = []
    async with agreeing(result, dialect=Dialect.P9) as hand:
        await hand.next(m.Tversion)
        await hand.say(answer)
    assert result[0].errno == errno.EPROTO
    assert str(result[0]).startswith("test!1: ")
    assert words in str(result[0])


async def test_a_lossy_line_is_asked_until_it_answers(autojump_clock: trio.testing.MockClock) -> None:
    result: list[Any] = []
    async with agreeing(result, lossy=True) as hand:
        for _ in range(3):
            await hand.next(m.Tversion)
        assert trio.current_time() >= 2 * agreement.REPEAT
        await hand.stream.send_all(b"login: \0\xff\x13\x00\x00\x00")
        await hand.say(m.Rversion(NOTAG, 8192, "9P2000.L"))
    assert result[0].dialect is Dialect.L


async def test_the_answers_to_repeated_questions_are_skipped() -> None:
    async with by_hand(lossy=True) as (c, hand), trio.open_nursery() as nursery:
        nursery.start_soon(agreement.attach, c)
        attach = await hand.next(m.Tattach)
        await hand.say(m.Rversion(NOTAG, 8192, "9P2000.L"), m.Rattach(attach.tag, DIR))


async def test_a_server_that_says_nothing_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with pytest.raises(NineError, match=r"^fd!\d+!\d+: no answer within 10 s$") as caught:
            async with connect(f"fd!{ours.fileno()}!{ours.detach()}"):
                pass
        assert caught.value.errno == errno.ETIMEDOUT
        assert theirs.recv(100)
        assert theirs.recv(100) == b"", "the link was left open"


async def test_a_server_that_hangs_up_at_once() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with pytest.raises(OSError, match=r"^fd!"):
        async with connect(f"fd!{ours.fileno()}!{ours.detach()}"):
            pass


async def test_an_address_where_nobody_is(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MK9P", f"unix!{tmp_path}/none")
    with pytest.raises(FileNotFoundError, match=f"^unix!{tmp_path}/none: "):
        async with connect():
            pass


async def test_an_unknown_version_is_refused_before_dialling() -> None:
    with pytest.raises(NineError, match="want 9P2000, 9P2000"):
        async with connect("unix!/nowhere", version="9P1999"):
            pass
