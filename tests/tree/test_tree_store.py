"""Streams of stores: a message is taken for who gets it, and never for a read that was flushed."""

from collections import deque
from collections.abc import Awaitable

import pytest
import trio
import trio.testing

from mk9p.auth import ROOT
from mk9p.errors import NineError
from mk9p.testing import until
from mk9p.tree import Open, Stream, StreamHandle, Waiters


class Box:
    """A store of messages in memory, for any number of handles."""

    def __init__(self, *messages: bytes) -> None:
        self.messages, self.waiters, self.closed = deque(messages), Waiters(), 0

    async def wait(self) -> None:
        await self.waiters.wait()

    def take(self, room: int) -> bytes | None:
        if self.messages and len(self.messages[0]) > room:
            self.waiters.wake()
            raise NineError(90)
        return self.messages.popleft() if self.messages else None

    def untake(self, message: bytes) -> None:
        self.messages.appendleft(message)
        self.waiters.wake()

    def send(self, data: bytes) -> None:
        self.messages.append(data)
        self.waiters.wake()

    def close(self) -> None:
        self.closed += 1


def opened(box: Box, *, records: bool = False) -> StreamHandle:
    handle = Stream(per_open=lambda _: box).open(Open(ROOT, records=records))
    assert isinstance(handle, StreamHandle)
    return handle


def now(handle: StreamHandle, offset: int, count: int = 100) -> bytes:
    """Read what must be there without waiting."""
    data = handle.read(offset, count)
    assert not isinstance(data, Awaitable)
    return bytes(data)


async def later(handle: StreamHandle, offset: int, count: int = 100) -> bytes:
    """Read what is waited for."""
    data = handle.read(offset, count)
    assert isinstance(data, Awaitable)
    return bytes(await data)


def test_what_is_there_is_read_without_waiting() -> None:
    handle = opened(Box(b"one", b"two"), records=True)
    assert [now(handle, 0), now(handle, 1), now(handle, 3), now(handle, 3)] == [b"one", b"ne", b"", b"two"]


async def test_a_read_that_waits_takes_what_comes() -> None:
    box = Box()
    handle = opened(box)
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert await later(handle, 0) == b"come"

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        box.send(b"come")


@pytest.mark.parametrize("first", [True, False])
async def test_a_cancelled_read_takes_nothing_and_wakes_the_next(first: bool) -> None:
    """Cancelled before or after it was woken, and before it could run."""
    box, got = Box(), list[bytes]()
    scope = trio.CancelScope()

    async def read(scope: trio.CancelScope) -> None:
        with scope:
            got.append(await later(opened(box), 0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, scope)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(read, trio.CancelScope())
        await trio.testing.wait_all_tasks_blocked()
        if first:
            scope.cancel()
        box.send(b"message")
        scope.cancel()
        await until(lambda: got)
    assert got == [b"message"]
    assert not box.messages


async def test_what_was_flushed_when_its_turn_came_takes_nothing() -> None:
    box = Box()
    handle = opened(box)
    scopes = [trio.CancelScope() for _ in range(2)]

    async def read(mine: trio.CancelScope, next_: trio.CancelScope) -> None:
        with mine:
            await later(handle, 0)
        box.messages.append(b"message")
        next_.cancel()  # who has just been given the turn, and has not run yet

    async with trio.open_nursery() as nursery:
        for mine, next_ in (scopes, scopes[::-1]):
            nursery.start_soon(read, mine, next_)
            await trio.testing.wait_all_tasks_blocked()
        scopes[0].cancel()
    assert list(box.messages) == [b"message"] * 2


@pytest.mark.parametrize(
    ("reads", "left"),
    [([(0, 0)], [b"one", b"two"]), ([(0, 0), (0, 9)], [b"two"]), ([(9, 0)], [b"two"]), ([], [b"two"])],
)
def test_a_read_of_no_bytes_gives_back(reads: list[tuple[int, int]], left: list[bytes]) -> None:
    box = Box(b"one", b"two")
    handle = opened(box)
    assert now(handle, 0) == b"one"
    for offset, count in reads:
        now(handle, offset, count)
    handle.close()
    assert list(box.messages) == left
    assert box.closed == 1


async def test_a_read_with_too_little_room_takes_nothing() -> None:
    box = Box(b"four")
    handle, other = opened(box), opened(box)
    with pytest.raises(NineError):
        handle.read(0, 3)
    assert now(other, 0, 4) == b"four"
    async with (
        trio.open_nursery() as nursery
    ):  # the same of two who wait: the first is woken, and leaves it to the second

        async def short() -> None:
            with pytest.raises(NineError):
                await later(handle, 0, 3)

        async def long() -> None:
            assert await later(other, 4, 5) == b"again"

        nursery.start_soon(short)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(long)
        await trio.testing.wait_all_tasks_blocked()
        box.send(b"again")
