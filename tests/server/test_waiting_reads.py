"""Reads that wait for a store: they take no task, come in order, and what came for one that was given up is for the next."""

from collections.abc import AsyncIterator

import pytest
import trio
import trio.lowlevel

from mk9p.server import Server
from mk9p.tree import Dir, Log, Stream, Text
from mk9p.wire import messages as m
from tests.server.talk import Talk, connect, serving
from tests.tree.test_tree_store import Box


def tree(box: Box, log: Log) -> Dir:
    async def patient() -> str:
        with trio.move_on_after(0.01):
            await box.wait()
        return "nothing came\n"

    return Dir({"box": Stream(per_open=lambda _: box), "events": log, "patient": Text(patient)})


class Rig:
    """A server of a box and a log."""

    def __init__(self, server: Server, box: Box, log: Log) -> None:
        self.server, self.box, self.log = server, box, log

    async def reader(self, name: str) -> Talk:
        """Return a client that has the file open as fid 1."""
        talk = connect(self.server)
        await talk.start()
        assert isinstance(await talk.open(1, name), m.Rlopen)
        return talk

    async def waits(self, requests: int) -> None:
        """Wait until so many requests wait in the server."""
        while sum(len(c.session.tags) for c in self.server.connections) < requests:
            await trio.lowlevel.checkpoint()

    def give_up(self, tag: int) -> None:
        """Cancel the request with this tag, in this step."""
        for c in self.server.connections:
            if tag in c.session.tags:
                cancel = c.session.tags[tag].cancel
                assert cancel is not None
                cancel()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    box, log = Box(), Log()
    async with serving(tree(box, log)) as server:
        yield Rig(server, box, log)


async def test_a_read_that_waits_for_a_store_takes_no_task(rig: Rig) -> None:
    talk = await rig.reader("events")
    tasks = trio.lowlevel.current_statistics().tasks_living
    for tag in range(100):
        await talk.send(m.Tread, tag, 1, 0, 100)
    await rig.waits(100)
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_an_event_reaches_all_who_wait(rig: Rig) -> None:
    talks = [await rig.reader("events") for _ in range(20)]
    for number in range(3):
        for talk in talks:
            await talk.send(m.Tread, 1, 1, 1000 * number, 100)
        await rig.waits(len(talks))
        rig.log.emit("come", number)
        for talk in talks:
            assert bytes((await talk.receive()).data).split()[2:] == [b"come", b"%d" % number]


async def test_what_came_for_a_read_that_is_given_up_is_for_the_next(rig: Rig) -> None:
    first, second = await rig.reader("box"), await rig.reader("box")
    await first.send(m.Tread, 5, 1, 0, 100)
    await rig.waits(1)
    await second.send(m.Tread, 6, 1, 0, 100)
    await rig.waits(2)
    rig.box.send(b"message")
    rig.give_up(5)
    assert bytes((await second.receive()).data) == b"message"


async def test_reads_of_one_handle_are_answered_in_order(rig: Rig) -> None:
    talk = await rig.reader("box")
    for tag in (1, 2, 3):
        await talk.send(m.Tread, tag, 1, 1000 * tag, 100)
    await rig.waits(3)
    for message in (b"a", b"b", b"c"):
        rig.box.send(message)
    replies = [await talk.receive() for _ in range(3)]
    assert [(reply.tag, bytes(reply.data)) for reply in replies] == [(1, b"a"), (2, b"b"), (3, b"c")]


@pytest.mark.parametrize("flushed", [1, 2])
async def test_a_flushed_read_leaves_its_turn_to_the_next(rig: Rig, flushed: int) -> None:
    talk = await rig.reader("box")
    for tag in (1, 2, 3):
        await talk.send(m.Tread, tag, 1, 1000 * tag, 100)
    await rig.waits(3)
    assert isinstance(await talk.rpc(m.Tflush, 9, flushed), m.Rflush)
    rig.box.send(b"a")
    rig.box.send(b"b")
    replies = [await talk.receive() for _ in range(2)]
    left = [tag for tag in (1, 2, 3) if tag != flushed]
    assert [(reply.tag, bytes(reply.data)) for reply in replies] == [(left[0], b"a"), (left[1], b"b")]


async def test_a_turn_that_came_for_a_read_that_is_given_up_is_the_next_ones(rig: Rig) -> None:
    talk = await rig.reader("box")
    for tag in (1, 2, 3):
        await talk.send(m.Tread, tag, 1, 1000 * tag, 100)
    await rig.waits(3)
    rig.give_up(1)
    rig.give_up(2)
    rig.box.send(b"a")
    reply = await talk.receive()
    assert (reply.tag, bytes(reply.data)) == (3, b"a")


async def test_a_server_s_own_function_waits_in_scopes_of_its_own(rig: Rig) -> None:
    """What an author awaits is in a task, and its cancel scopes are that task's."""
    talk = await rig.reader("patient")
    for _ in range(3):
        assert bytes((await talk.rpc(m.Tread, 1, 1, 0, 100)).data) == b"nothing came\n"


async def test_a_client_that_leaves_takes_nothing(rig: Rig) -> None:
    first, second = await rig.reader("box"), await rig.reader("box")
    await first.send(m.Tread, 1, 1, 0, 100)
    await rig.waits(1)
    await second.send(m.Tread, 1, 1, 0, 100)
    await rig.waits(2)
    await first.stream.aclose()
    while len(rig.server.connections) > 1:
        await trio.lowlevel.checkpoint()
    rig.box.send(b"message")
    assert bytes((await second.receive()).data) == b"message"
