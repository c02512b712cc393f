"""What a connection does with tags, fids, cancelled calls and its own end, against a server played by hand."""

import errno
import socket
from typing import Any

import pytest
import trio
import trio.testing

from mk9p.client import Connection, requests
from mk9p.errors import NineError
from mk9p.testing import SOON
from mk9p.wire import NOFID, NONUNAME, Dialect
from mk9p.wire import messages as m
from tests.client.helpers_client import DIR, FILE, by_hand


async def cancelled(nursery: trio.Nursery, call: Any, *args: Any) -> trio.CancelScope:
    """Start a call in a task that can be cancelled."""

    async def run(*, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await call(*args)
        assert scope.cancelled_caught

    scope: trio.CancelScope = await nursery.start(run)
    return scope


async def test_replies_find_their_callers_in_any_order() -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:
        got: dict[int, bytes] = {}

        async def read(fid: int) -> None:
            got[fid] = await requests.read(c, fid, 0, 10)

        for fid in range(3):
            nursery.start_soon(read, fid)
        asked = [await hand.next(m.Tread) for _ in range(3)]
        assert sorted(a.tag for a in asked) == [0, 1, 2]
        await hand.say(*(m.Rread(a.tag, str(a.fid).encode()) for a in reversed(asked)))
        await trio.testing.wait_all_tasks_blocked()
        assert got == {0: b"0", 1: b"1", 2: b"2"}
        nursery.start_soon(read, 3)
        assert (await hand.next(m.Tread)).tag == 0, "the lowest tag is used again"
        await hand.say(m.Rread(0, b""))


async def test_a_cancelled_call_leaves_at_once_and_keeps_its_tag_until_rflush() -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:
        scope = await cancelled(nursery, requests.read, c, 5, 0, 10)
        read = await hand.next(m.Tread)
        scope.cancel()
        flush = await hand.next(m.Tflush)
        assert flush.oldtag == read.tag
        await trio.testing.wait_all_tasks_blocked()
        assert not nursery.child_tasks, "it waited for the Rflush"
        nursery.start_soon(requests.read, c, 6, 0, 10)
        other = await hand.next(m.Tread)
        assert other.tag not in (read.tag, flush.tag)
        await hand.say(m.Rread(read.tag, b"late"), m.Rread(other.tag, b""))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(requests.read, c, 7, 0, 10)
        assert (await hand.next(m.Tread)).tag == other.tag, "the reply came, the Rflush did not: the tag is still taken"
        await hand.say(m.Rflush(flush.tag), m.Rread(other.tag, b""))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(requests.read, c, 8, 0, 10)
        assert (await hand.next(m.Tread)).tag == read.tag
        await hand.say(m.Rread(read.tag, b""))


async def test_a_call_that_is_cancelled_before_it_starts_sends_nothing() -> None:
    async with by_hand() as (c, hand):
        with trio.CancelScope() as scope:
            scope.cancel()
            await c.rpc(m.Twalk, 5, c.new_fid(), ("a",))
        await hand.silent()
        assert c.new_fid() == 0, "the fid's number was not put back"


MAKERS = [
    pytest.param(lambda c: requests.walk(c, 0, ("a",)), m.Twalk, lambda tag: m.Rwalk(tag, (FILE,)), id="walk"),
    pytest.param(
        lambda c: c.rpc(m.Tattach, c.new_fid(), NOFID, "u", "", NONUNAME),
        m.Tattach,
        lambda tag: m.Rattach(tag, DIR),
        id="attach",
    ),
    pytest.param(
        lambda c: c.rpc(m.Txattrwalk, 0, c.new_fid(), ""),
        m.Txattrwalk,
        lambda tag: m.Rxattrwalk(tag, 0),
        id="xattrwalk",
    ),
]


@pytest.mark.parametrize(("call", "request_", "reply"), MAKERS)
async def test_a_fid_that_a_flushed_request_made_is_clunked(call: Any, request_: type[m.Message], reply: Any) -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:
        assert c.new_fid() == 0
        scope = await cancelled(nursery, call, c)
        asked = await hand.next(request_)
        scope.cancel()
        flush = await hand.next(m.Tflush)
        await hand.say(reply(asked.tag), m.Rflush(flush.tag))
        clunk = await hand.next(m.Tclunk)
        assert clunk.fid == 1
        assert c.new_fid() == 2, "its number was put back too early"
        await hand.say(m.Rclunk(clunk.tag))
        await trio.testing.wait_all_tasks_blocked()
        assert c.new_fid() == 1


@pytest.mark.parametrize(("call", "request_", "reply"), MAKERS)
async def test_a_fid_that_a_flushed_request_did_not_make_is_free(
    call: Any, request_: type[m.Message], reply: Any
) -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:
        assert c.new_fid() == 0
        scope = await cancelled(nursery, call, c)
        await hand.next(request_)
        scope.cancel()
        flush = await hand.next(m.Tflush)
        await hand.say(m.Rflush(flush.tag))
        await hand.silent()
        assert c.new_fid() == 1


async def test_a_fid_is_clunked_only_after_the_flushed_request_that_names_it() -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:
        scope = await cancelled(nursery, requests.open_, c, 5)
        opened = await hand.next(m.Tlopen)
        scope.cancel()
        flush = await hand.next(m.Tflush)
        nursery.start_soon(c.clunk, 5)
        await hand.silent()
        await hand.say(m.Rlopen(opened.tag, FILE, 0), m.Rflush(flush.tag))
        clunk = await hand.next(m.Tclunk)
        assert clunk.fid == 5
        await hand.say(m.Rclunk(clunk.tag))


async def test_a_flushed_remove_that_was_not_done_leaves_no_fid() -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:
        scope = await cancelled(nursery, c.rpc, m.Tremove, 5)
        await hand.next(m.Tremove)
        scope.cancel()
        await hand.say(m.Rflush((await hand.next(m.Tflush)).tag))
        assert (await hand.next(m.Tclunk)).fid == 5


async def test_a_cancelled_clunk_is_sent_and_not_flushed() -> None:
    async with by_hand() as (c, hand):
        fid = c.new_fid()
        with trio.CancelScope() as scope:
            scope.cancel()
            await c.clunk(fid)
        clunk = await hand.next(m.Tclunk)
        await hand.silent()
        assert c.new_fid() == 1
        await hand.say(m.Rclunk(clunk.tag))
        await trio.testing.wait_all_tasks_blocked()
        assert c.new_fid() == fid


async def test_a_server_that_refuses_to_flush_still_ends_the_call() -> None:
    async with by_hand(Dialect.P9) as (c, hand), trio.open_nursery() as nursery:
        scope = await cancelled(nursery, requests.read, c, 5, 0, 10)
        read = await hand.next(m.Tread)
        scope.cancel()
        flush = await hand.next(m.Tflush)
        await hand.say(m.Rerror(flush.tag, "what is a flush?"), m.Rread(read.tag, b"x"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(requests.read, c, 6, 0, 10)
        again = await hand.next(m.Tread)
        await hand.say(m.Rread(again.tag, b""))
        assert again.tag in (read.tag, flush.tag)


async def test_a_cancelled_caller_leaves_no_half_message() -> None:
    async with by_hand(msize=1 << 20) as (c, hand), trio.open_nursery() as nursery:
        big = bytes(1_000_000)
        half = await cancelled(nursery, requests.write, c, 5, 0, big)
        await trio.testing.wait_all_tasks_blocked()
        unsent = await cancelled(nursery, requests.write, c, 6, 0, b"never")
        nursery.start_soon(requests.write, c, 7, 0, b"after")
        await trio.testing.wait_all_tasks_blocked()
        unsent.cancel()
        half.cancel()
        await trio.testing.wait_all_tasks_blocked()
        first = await hand.next(m.Twrite)
        assert bytes(first.data) == big
        second = await hand.next(m.Twrite)
        assert (second.fid, bytes(second.data)) == (7, b"after"), "what was not begun is not sent at all"
        flush = await hand.next(m.Tflush)
        assert flush.oldtag == first.tag
        await hand.say(m.Rwrite(second.tag, 5), m.Rflush(flush.tag))


async def test_a_walk_asks_again_for_the_reason() -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:

        async def walk() -> None:
            with pytest.raises(NotADirectoryError):
                await requests.walk(c, 0, ("a", "f", "x"))

        assert c.new_fid() == 0
        nursery.start_soon(walk)
        first = await hand.next(m.Twalk)
        await hand.say(m.Rwalk(first.tag, (DIR, FILE)))
        clunk = await hand.next(m.Tclunk)
        assert clunk.fid == first.newfid, "diod makes this fid"
        await hand.say(m.Rlerror(clunk.tag, errno.EBADF))
        second = await hand.next(m.Twalk)
        assert second.names == ("a", "f")
        await hand.say(m.Rwalk(second.tag, (DIR, FILE)))
        third = await hand.next(m.Twalk)
        assert (third.fid, third.names) == (second.newfid, ("x",))
        assert third.newfid != third.fid, "py9p counts a fid that is walked to itself twice"
        await hand.say(m.Rlerror(third.tag, errno.ENOTDIR))
        assert (await hand.next(m.Tclunk)).fid == second.newfid


async def test_a_long_walk_goes_in_pieces() -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:
        names = tuple(map(str, range(40)))
        nursery.start_soon(requests.walk, c, 99, names)
        seen: tuple[str, ...] = ()
        before = None
        for count in (16, 16, 8):
            asked = await hand.next(m.Twalk)
            assert len(asked.names) == count
            assert asked.fid == (99 if before is None else before.newfid)
            seen += asked.names
            await hand.say(m.Rwalk(asked.tag, (DIR,) * count))
            if before is not None:
                assert (await hand.next(m.Tclunk)).fid == before.newfid
            before = asked
        assert seen == names


async def test_the_end_of_the_connection_fails_all_calls_with_its_reason() -> None:
    async with by_hand() as (c, hand):
        failures: list[NineError] = []
        told: list[str] = []
        c.on_end.append(told.append)

        async def read() -> None:
            try:
                await requests.read(c, 5, 0, 10)
            except NineError as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(read)
            for _ in range(5):
                await hand.next(m.Tread)
            await hand.stream.aclose()
            await c.closed.wait()
        await read()
        assert [(e.errno, e.ename) for e in failures] == [
            (errno.EIO, "connection to test!1 is gone: it was closed by the other side")
        ] * 6
        assert told == ["it was closed by the other side"]
        await c.clunk(5)
        c.clunk_later(5)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        pytest.param(b"\x07\0\0\0\x6d\x07\0", "to tag 7, which nothing was asked with", id="tag"),
        pytest.param(b"\x03\0\0\0", "a frame of 3 bytes", id="short"),
        pytest.param(b"\xff\xff\xff\x7f", "a frame of 2147483647 bytes", id="long"),
        pytest.param(b"\x07\0\0\0\x79\0\0", "reply of type 121 to a request of type 116", id="type"),
        pytest.param(b"\x07\0\0\0\xfe\0\0", "reply of type 254 to a request of type 116", id="unknown"),
    ],
)
async def test_a_server_that_breaks_the_protocol_is_left(frame: bytes, reason: str) -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(NineError, match="broke the protocol") as caught:
                await requests.read(c, 5, 0, 10)
            assert caught.value.errno == errno.EIO
            assert reason in str(caught.value)

        nursery.start_soon(read)
        await hand.next(m.Tread)
        await hand.stream.send_all(frame)


@pytest.mark.parametrize(
    ("dialect", "reply", "number", "words"),
    [
        (Dialect.L, m.Rlerror(0, errno.EBUSY), errno.EBUSY, "Device or resource busy"),
        (Dialect.L, m.Rlerror(0, 4095), 4095, "Unknown error 4095"),
        (Dialect.L, m.Rlerror(0, 0), errno.EIO, "Input/output error"),
        (Dialect.L, m.Rlerror(0, 4096), errno.EIO, "Input/output error"),
        (Dialect.L, m.Rlerror(0, 0xFFFFFFFF), errno.EIO, "Input/output error"),
        (Dialect.U, m.Rerror(0, "", 0), errno.EIO, "Input/output error"),
        (Dialect.U, m.Rerror(0, "odd", 0x80000000), errno.EIO, "odd"),
        (Dialect.U, m.Rerror(0, "held by k2", errno.EBUSY), errno.EBUSY, "held by k2"),
        (Dialect.U, m.Rerror(0, "file not found", 0xFFFF), errno.ENOENT, "file not found"),
        (Dialect.P9, m.Rerror(0, "exclusive use file already open"), errno.EBUSY, "exclusive use file already open"),
        (Dialect.P9, m.Rerror(0, "phase of the moon"), errno.EIO, "phase of the moon"),
    ],
)
async def test_errors_of_each_dialect(dialect: Dialect, reply: m.Message, number: int, words: str) -> None:
    async with by_hand(dialect) as (c, hand), trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(NineError) as caught:
                await requests.read(c, 5, 0, 10)
            assert (caught.value.errno, caught.value.ename) == (number, words)

        nursery.start_soon(read)
        await hand.next(m.Tread)
        await hand.say(reply)


async def test_fids_of_garbage_are_clunked_from_any_thread() -> None:
    async with by_hand() as (c, hand):
        await trio.to_thread.run_sync(c.clunk_later, 5)
        assert (await hand.next(m.Tclunk)).fid == 5


async def test_closing_waits_for_clunks_and_flushes(autojump_clock: trio.testing.MockClock) -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:
        scope = await cancelled(nursery, requests.read, c, 5, 0, 10)
        await hand.next(m.Tread)
        scope.cancel()
        flush = await hand.next(m.Tflush)
        c.clunk_later(6)
        nursery.start_soon(c.aclose)
        clunk = await hand.next(m.Tclunk)
        await hand.say(m.Rclunk(clunk.tag))
        await trio.testing.wait_all_tasks_blocked()
        assert c.gone is None
        await hand.say(m.Rflush(flush.tag))
        await c.closed.wait()
        assert trio.current_time() < 1


async def test_a_line_that_breaks_at_what_follows_a_flush_ends_the_connection_only() -> None:
    """The Rflush is there to be read, and nobody reads the clunk that it lets go on."""
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:
        scope = await cancelled(nursery, c.rpc, m.Tremove, 5)
        await hand.next(m.Tremove)
        scope.cancel()
        flush = await hand.next(m.Tflush)
        hand.stream.socket.shutdown(socket.SHUT_RD)
        await hand.say(m.Rflush(flush.tag))
        with trio.fail_after(SOON):
            await c.closed.wait()
        assert c.gone == "Broken pipe"


async def test_closing_does_not_wait_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    async with by_hand() as (c, _):
        c.clunk_nowait(5)
        start = trio.current_time()
        await c.aclose()
        assert c.gone is not None
        assert trio.current_time() - start == pytest.approx(1)


def test_clunk_later_after_the_end_of_trio_does_nothing() -> None:
    async def main() -> Connection:
        async with by_hand() as (c, _):
            c.link.close()
            return c

    c = trio.run(main)
    c.gone = None
    c.clunk_later(5)
