"""Flushes that the server behind the relay does not answer: the client has its answer, and no old answer is taken for a new one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from mk9p.testing import until
from mk9p.wire import Qid
from mk9p.wire import messages as m
from tests.server.relaying import ON, Lab, fails, opened, pack, read, replies, walk
from tests.server.talk import Talk
from tests.server.test_relay_ends import Frames, backend, beside, polite

idle = trio.testing.wait_all_tasks_blocked


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mk9p.server.engine.PATIENCE", 0.05)


class Mute:
    """A server that answers what it is told to, and keeps the rest; of its connections the last is that of the fast way."""

    def __init__(self) -> None:
        self.stream: trio.SocketStream
        self.requests: Frames
        self.kept: list[Any] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        self.stream, self.requests = stream, Frames(stream)
        await polite(stream, self.requests, m.Tfsync)
        await trio.sleep_forever()

    async def ready(self, talk: Talk, fid: int = 5) -> None:
        """Let it do as the test says from now on."""
        await talk.send(m.Tfsync, 1, fid, 0)
        await idle()
        await self.answer(m.Rfsync, 1)
        assert isinstance(await talk.receive(), m.Rfsync)

    async def answer(self, cls: type[m.Message], tag: int, *fields: Any) -> None:
        await self.stream.send_all(pack(cls, tag, *fields))

    async def next(self, cls: type[m.Message]) -> Any:
        q = await self.requests.next()
        assert isinstance(q, cls), q
        return q


@asynccontextmanager
async def owing(tmp_path: Path) -> AsyncIterator[tuple[Lab, Talk, "Mute"]]:
    """Give a client whose fid 5 is a file of a server that answers only what it is told to."""
    mute = Mute()
    async with beside(tmp_path, mute.serve) as found:
        talk = await found.client(on="k1")
        await opened(talk, 5, "f")
        await mute.ready(talk)
        yield found, talk, mute


async def test_a_flush_that_is_not_answered_is_answered_by_the_relay(tmp_path: Path) -> None:
    async with owing(tmp_path) as (found, talk, mute):
        await talk.send(m.Tread, 10, 5, 0, 10)
        await talk.send(m.Tflush, 11, 10)
        await talk.send(m.Tflush, 12, 11)
        got = await replies(talk, 2)
        assert {type(reply) for reply in got.values()} == {m.Rflush}
        for cls in (m.Tread, m.Tflush, m.Tflush):
            await mute.next(cls)
        # the tags are the client's again, and are others there
        seen = set()
        for number in (10, 11, 12):
            await talk.send(m.Tread, number, 5, number, 10)
            q = await mute.next(m.Tread)
            assert q.offset == number
            seen.add(q.tag)
            assert await fails(talk, m.Tread, 5, 0, 10, tag=number) == 22  # it is in use
            await mute.answer(m.Rread, q.tag, b"%d" % number)
            assert bytes((await talk.receive()).data) == b"%d" % number
        assert not seen & {10, 11, 12}
        # then it answers after all: nobody sees that
        await mute.answer(m.Rread, 10, b"late")
        for tag in (11, 12):
            await mute.answer(m.Rflush, tag)
        await talk.send(m.Tread, 20, 5, 0, 10)
        assert (await mute.next(m.Tread)).tag == 20
        await mute.answer(m.Rread, 20, b"now")
        assert bytes((await talk.receive()).data) == b"now"
        await talk.send(m.Tread, 10, 5, 0, 10)
        assert (await mute.next(m.Tread)).tag == 10
        await mute.answer(m.Rread, 10, b"again")
        assert bytes((await talk.receive()).data) == b"again"
        assert not backend(found).asked


async def test_an_answer_to_the_flush_alone_frees_both_tags(tmp_path: Path) -> None:
    async with owing(tmp_path) as (found, talk, mute):
        await talk.send(m.Tread, 10, 5, 0, 10)
        assert isinstance(await talk.rpc(m.Tflush, 11, 10), m.Rflush)
        await mute.answer(m.Rflush, 11)
        await until(lambda: not backend(found).asked)


async def test_what_goes_by_another_tag_is_flushed_by_it(tmp_path: Path) -> None:
    async with owing(tmp_path) as (found, talk, mute):
        for _ in range(3):
            await talk.send(m.Tread, 10, 5, 0, 10)
            assert isinstance(await talk.rpc(m.Tflush, 11, 10), m.Rflush)
        sent = [await mute.requests.next() for _ in range(6)]
        asked, flushes = sent[::2], sent[1::2]
        assert [q.oldtag for q in flushes] == [q.tag for q in asked]
        assert len({q.tag for q in sent}) == 6
        await talk.send(m.Tread, 10, 5, 7, 10)
        q = await mute.next(m.Tread)
        await talk.send(m.Tflush, 12, 10)
        flush = await mute.next(m.Tflush)
        assert flush.oldtag == q.tag
        await mute.answer(m.Rflush, flush.tag)
        assert isinstance(await talk.receive(), m.Rflush)
        for old in flushes:
            await mute.answer(m.Rflush, old.tag)
        await until(lambda: not backend(found).asked)


async def test_tags_that_are_owed_by_one_server_serve_for_another(tmp_path: Path) -> None:
    async with owing(tmp_path) as (_, talk, mute):
        await talk.send(m.Tread, 10, 5, 0, 10)
        assert isinstance(await talk.rpc(m.Tflush, 11, 10), m.Rflush)
        await walk(talk, 0, 2, "k0", tag=10)
        await opened(talk, 6, "d", "f", fid=2)
        assert await read(talk, 6, tag=10) == b"0123456789"
        assert isinstance(await talk.rpc(m.Tgetattr, 11, 0, 0x7FF), m.Rgetattr)
        await mute.answer(m.Rread, 10, b"late")
        await mute.answer(m.Rflush, 11)
        assert await read(talk, 6, tag=10) == b"0123456789"


async def test_a_fid_that_comes_late_is_clunked(tmp_path: Path) -> None:
    async with owing(tmp_path) as (found, talk, mute):
        await talk.send(m.Twalk, 10, ON, 7, ("x",))
        assert isinstance(await talk.rpc(m.Tflush, 11, 10), m.Rflush)
        for cls in (m.Twalk, m.Tflush):
            await mute.next(cls)
        assert backend(found).limbo == {7}
        await mute.answer(m.Rwalk, 10, [Qid(0, 0, 3)])
        clunk = await mute.next(m.Tclunk)
        assert clunk.fid == 7
        await mute.answer(m.Rclunk, clunk.tag)
        await mute.answer(m.Rflush, 11)
        await talk.send(m.Twalk, 10, ON, 7, ("x",))
        q = await mute.next(m.Twalk)
        assert q.newfid == 7
        await mute.answer(m.Rwalk, q.tag, [Qid(0, 0, 3)])
        assert isinstance(await talk.receive(), m.Rwalk)


async def test_what_is_owed_ends_with_the_connection(tmp_path: Path) -> None:
    async with owing(tmp_path) as (found, talk, mute):
        await talk.send(m.Tread, 10, 5, 0, 10)
        assert isinstance(await talk.rpc(m.Tflush, 11, 10), m.Rflush)
        await talk.send(m.Tread, 10, 5, 0, 10)
        await idle()
        await mute.stream.aclose()
        reply = await talk.receive()
        assert isinstance(reply, m.Rlerror)
        assert reply.tag == 10
        (c,) = found.front.connections
        assert not c.asked
