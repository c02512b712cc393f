"""Requests that go out together, against a server played by hand: one that keeps their order, and one that does not."""

import errno
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from mk9p.client import Connection, flights
from mk9p.errors import NineError
from mk9p.wire import messages as m
from tests.client.helpers_client import DIR, FILE, by_hand


def status(tag: int, qid: Any = FILE, size: int = 7) -> m.Rgetattr:
    numbers = [0] * (len(m.Rgetattr.fields) - 4)
    numbers[4] = size
    return m.Rgetattr(tag, 0x7FF, qid, 0o100644, *numbers)


async def outcome(work: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await work()
    except (NineError, flights.Astray) as error:
        return error


async def flown(nursery: trio.Nursery, work: Callable[[], Awaitable[Any]], into: list[Any]) -> None:
    async def run() -> None:
        into.append(await outcome(work))

    nursery.start_soon(run)


async def known_order(c: Connection, hand: Any, nursery: trio.Nursery) -> None:
    """Have a walk and its status come in order."""
    got: list[Any] = []
    await flown(nursery, lambda: flights.look(c, 99, ("f",)), got)
    walk, ask = await hand.next(m.Twalk), await hand.next(m.Tgetattr)
    await hand.say(m.Rwalk(walk.tag, (FILE,)), status(ask.tag))
    await trio.testing.wait_all_tasks_blocked()
    assert c.ordered
    c.clunk_nowait(got[0][0])
    clunk = await hand.next(m.Tclunk)
    await hand.say(m.Rclunk(clunk.tag))


async def test_a_walk_and_its_status_are_one_round_trip() -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:
        got: list[Any] = []
        await flown(nursery, lambda: flights.look(c, 99, ("d", "f")), got)
        walk, ask = await hand.next(m.Twalk), await hand.next(m.Tgetattr)
        assert (walk.names, ask.fid) == (("d", "f"), walk.newfid)
        await hand.say(m.Rwalk(walk.tag, (DIR, FILE)), status(ask.tag))
        await trio.testing.wait_all_tasks_blocked()
        fid, qids, stat = got[0]
        assert (fid, tuple(qids), stat.length) == (walk.newfid, (DIR, FILE), 7)


async def test_what_is_not_kept_is_clunked_with_it() -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:
        await known_order(c, hand, nursery)
        for there in (True, False):
            got: list[Any] = []
            await flown(nursery, lambda: flights.look(c, 99, ("f",), keep=False), got)
            walk, ask, clunk = await hand.next(m.Twalk), await hand.next(m.Tgetattr), await hand.next(m.Tclunk)
            assert walk.newfid == ask.fid == clunk.fid
            if there:
                await hand.say(m.Rwalk(walk.tag, (FILE,)), status(ask.tag), m.Rclunk(clunk.tag))
            else:
                early = [m.Rlerror(reply.tag, errno.EBADF) for reply in (ask, clunk)]
                await hand.say(m.Rlerror(walk.tag, errno.ENOENT), *early)
            await trio.testing.wait_all_tasks_blocked()
            assert c.new_fid() == walk.newfid, "its number is free, once"
            assert c.new_fid() != walk.newfid
            c.free_fid(walk.newfid)
        assert got[0].errno == errno.ENOENT


@pytest.mark.parametrize("early", ["an error", "another file's"])
async def test_a_server_that_does_not_keep_the_order_is_asked_again_and_one_by_one_from_then_on(early: str) -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:
        got: list[Any] = []
        await flown(nursery, lambda: flights.look(c, 99, ("f",)), got)
        walk, ask = await hand.next(m.Twalk), await hand.next(m.Tgetattr)
        await hand.say(m.Rlerror(ask.tag, errno.EBADF) if early == "an error" else status(ask.tag, DIR, 1))
        await hand.say(m.Rwalk(walk.tag, (FILE,)))
        again = await hand.next(m.Tgetattr)
        await hand.say(status(again.tag))
        await trio.testing.wait_all_tasks_blocked()
        assert (got[0][0], got[0][2].length, c.ordered) == (walk.newfid, 7, False)
        assert not flights.can(c)
        await flown(nursery, lambda: flights.open_(c, 99, ("f",), 0), got)
        walk = await hand.next(m.Twalk)
        await hand.say(m.Rwalk(walk.tag, (FILE,)))
        opened = await hand.next(m.Tlopen)
        await hand.say(m.Rlopen(opened.tag, FILE, 0))
        ask = await hand.next(m.Tgetattr)
        await hand.say(status(ask.tag))
        await trio.testing.wait_all_tasks_blocked()
        assert got[1].stat.length == 7


async def test_a_file_is_opened_with_its_walk_only_where_the_order_is_known_to_be_kept() -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:
        got: list[Any] = []
        assert c.ordered is None
        await flown(nursery, lambda: flights.open_(c, 99, (), 0, stat=False), got)
        walk = await hand.next(m.Twalk)
        await trio.testing.wait_all_tasks_blocked()
        await hand.say(m.Rwalk(walk.tag, ()))
        opened = await hand.next(m.Tlopen)
        await hand.say(m.Rlopen(opened.tag, FILE, 0))
        await known_order(c, hand, nursery)
        await flown(nursery, lambda: flights.open_(c, 99, ("f",), 0, count=100), got)
        walk, opened, ask, read = [await hand.next(kind) for kind in (m.Twalk, m.Tlopen, m.Tgetattr, m.Tread)]
        replies = (
            m.Rwalk(walk.tag, (FILE,)),
            m.Rlopen(opened.tag, FILE, 0),
            status(ask.tag),
            m.Rread(read.tag, b"content"),
        )
        await hand.say(*replies)
        await trio.testing.wait_all_tasks_blocked()
        assert (got[1].qid, got[1].stat.length, got[1].first) == (FILE, 7, b"content")


async def test_an_open_that_is_refused_leaves_no_fid() -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:
        await known_order(c, hand, nursery)
        got: list[Any] = []
        await flown(nursery, lambda: flights.open_(c, 99, ("f",), 0, stat=False), got)
        walk, opened = await hand.next(m.Twalk), await hand.next(m.Tlopen)
        await hand.say(m.Rwalk(walk.tag, (FILE,)), m.Rlerror(opened.tag, errno.EACCES))
        assert (await hand.next(m.Tclunk)).fid == walk.newfid
        assert got[0].errno == errno.EACCES
        assert c.ordered


async def test_a_walk_that_ends_early_tells_how_far_it_came() -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:
        got: list[Any] = []
        await flown(nursery, lambda: flights.look(c, 99, ("d", "f")), got)
        walk, ask = await hand.next(m.Twalk), await hand.next(m.Tgetattr)
        await hand.say(m.Rwalk(walk.tag, (DIR,)), m.Rlerror(ask.tag, errno.EBADF))
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(got[0], flights.Astray)
        assert list(got[0].qids) == [DIR]


@pytest.mark.parametrize("walked", [True, False])
async def test_a_flight_that_is_cancelled_is_flushed_and_leaves_no_fid(walked: bool) -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def fly() -> None:
            with scope:
                await flights.look(c, 99, ("f",))

        nursery.start_soon(fly)
        walk, ask = await hand.next(m.Twalk), await hand.next(m.Tgetattr)
        if walked:
            await hand.say(m.Rwalk(walk.tag, (FILE,)))
            await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        flushed = await hand.next(m.Tflush)
        assert flushed.oldtag == ask.tag, "what uses the fid, before what makes it"
        if not walked:
            other = await hand.next(m.Tflush)
            assert other.oldtag == walk.tag
            await hand.say(m.Rwalk(walk.tag, (FILE,)), m.Rflush(other.tag))
        await hand.say(m.Rflush(flushed.tag))
        assert (await hand.next(m.Tclunk)).fid == walk.newfid


async def test_one_file_that_does_not_answer_keeps_no_other_from_being_told(autojump_clock: Any) -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:
        got: list[Any] = []
        await flown(nursery, lambda: flights.look_at_all(c, 99, ("a", "b", "c", "d"), 5), got)
        asked = [(await hand.next(m.Twalk), await hand.next(m.Tgetattr)) for _ in range(4)]
        for at, (walk, ask) in enumerate(asked):
            await hand.say(m.Rlerror(walk.tag, errno.EACCES) if at == 3 else m.Rwalk(walk.tag, (FILE,)))
            if at != 1:
                await hand.say(m.Rlerror(ask.tag, errno.EBADF) if at == 3 else status(ask.tag))
        flush = await hand.next(m.Tflush)
        await hand.say(m.Rflush(flush.tag))
        assert (await hand.next(m.Tclunk)).fid == asked[1][0].newfid
        kinds = [error.errno if isinstance(error, NineError) else error[2].length for error in got[0]]
        assert kinds == [7, errno.ETIMEDOUT, 7, errno.EACCES]
