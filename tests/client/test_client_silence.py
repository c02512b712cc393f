"""A line that does not tell that nobody is at its other end any more."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from socket import AF_UNIX, SOCK_STREAM, socketpair

import pytest
import trio
import trio.testing

from mk9p.client.agreement import answer_in
from mk9p.client.connection import Connection
from mk9p.client.conversation import ASK, SILENCE
from mk9p.client.handshake import open_connection
from mk9p.dial import TRANSPORTS, Link, Peer, SocketLink
from mk9p.errors import NineError
from mk9p.wire import NOBODY, NOTAG, Dialect, FrameBuffer, codec
from mk9p.wire import messages as m


class Far:
    """The other end: it agrees on a version, and answers what is in `answers`."""

    def __init__(self, link: SocketLink) -> None:
        self.link, self.frames = link, FrameBuffer(8192)
        self.answers: set[int] = set()
        self.got: list[int] = []

    async def run(self) -> None:
        while True:
            while (span := self.frames.next()) is not None:
                start, _ = span
                type_, tag = (
                    self.frames.buf[start + 4],
                    int.from_bytes(self.frames.buf[start + 5 : start + 7], "little"),
                )
                self.got.append(type_)
                if type_ == m.Tversion.type:
                    self.link.send(codec(Dialect.P9, m.Rversion.type).pack(tag, 8192, "9P2000.L"))
                elif type_ in self.answers:
                    self.link.send(codec(Dialect.L, type_ + 1).pack(tag))
            try:
                count = self.link.recv_into(self.frames.space())
            except BlockingIOError:
                await self.link.wait_readable()
                continue
            if not count:
                return
            self.frames.received(count)


@asynccontextmanager
async def line(*, lossy: bool) -> AsyncIterator[tuple[Connection, Far]]:
    ends = socketpair(AF_UNIX, SOCK_STREAM)
    for end in ends:
        end.setblocking(False)
    near, far = (SocketLink(end, Peer(TRANSPORTS["char"], "a line"), lossy=lossy) for end in ends)

    async def dialler(_: str) -> Link:
        return near

    async with trio.open_nursery() as nursery:
        there = Far(far)
        nursery.start_soon(there.run)
        yield await open_connection("a line", nursery, dialler=dialler), there
        nursery.cancel_scope.cancel()
    near.close()
    far.close()


async def test_a_silent_line_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async with line(lossy=True) as (connection, far):
        began = trio.current_time()
        with pytest.raises(NineError) as refused:
            await connection.rpc(m.Tclunk, 1)
        assert refused.value.errno == errno.EIO
        assert "nothing came from it for 30 s" in str(refused.value)
        assert SILENCE <= trio.current_time() - began <= SILENCE + 2 * ASK
        assert far.got[:3] == [m.Tversion.type, m.Tclunk.type, m.Tflush.type]


async def test_one_that_lives_is_kept_however_long_an_answer_takes(autojump_clock: trio.testing.MockClock) -> None:
    async with line(lossy=True) as (connection, far):
        far.answers.add(m.Tflush.type)
        call = connection.call(m.Tclunk, 1)
        await trio.sleep(3600)
        assert connection.gone is None
        assert far.got.count(m.Tflush.type) > 100
        far.link.send(codec(Dialect.L, m.Rclunk.type).pack(call.tag))
        await call.reply()


@pytest.mark.parametrize("lossy", [True, False])
async def test_who_is_asked_nothing_may_be_silent_and_a_socket_tells_its_end(
    lossy: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with line(lossy=lossy) as (connection, far):
        if not lossy:
            connection.call(m.Tclunk, 1)
        await trio.sleep(3600)
        assert connection.gone is None
        assert m.Tflush.type not in far.got


async def test_a_server_that_has_begun_anew_ends_the_conversation_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    none = codec(Dialect.P9, m.Rversion.type).pack(NOTAG, NOBODY, "unknown")
    async with line(lossy=True) as (connection, far):
        call = connection.call(m.Tclunk, 1)
        await trio.sleep(3)
        assert far.got[-1] == m.Tflush.type  # it has asked by then
        far.link.send(none)
        with pytest.raises(NineError, match="its server has begun anew"):
            await call.reply()


async def test_what_was_said_to_an_earlier_conversation_is_no_answer() -> None:
    frames = FrameBuffer(8192)
    said = codec(Dialect.P9, m.Rversion.type).pack(NOTAG, NOBODY, "unknown")
    for piece in (said, b"half a frame", said[:9]):
        frames.space()[: len(piece)] = piece
        frames.received(len(piece))
        assert answer_in(frames) is None
    answer = codec(Dialect.P9, m.Rversion.type).pack(NOTAG, 8192, "9P2000.L")
    frames.space()[: len(answer)] = answer
    frames.received(len(answer))
    assert answer_in(frames) == ((8192, "9P2000.L"),)
