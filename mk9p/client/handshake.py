"""How a connection begins in trio: dial, and agree as in agreement.py."""

import errno
import math
from collections.abc import Awaitable, Callable

import trio

from mk9p.client.agreement import (
    DEADLINE,
    FIRST,
    MSIZE,
    REPEAT,
    Answer,
    agreeing,
    agreement,
    answer_in,
    received,
    tversion,
    wanted,
)
from mk9p.client.connection import Connection
from mk9p.dial import Link, dial, receive, send_all
from mk9p.errors import NineError
from mk9p.wire import Dialect, FrameBuffer
from mk9p.wire import messages as m


async def open_connection(
    address: str,
    nursery: trio.Nursery,
    *,
    msize: int = MSIZE,
    version: str = "9P2000.L",
    deadline: float = DEADLINE,
    dialler: Callable[[str], Awaitable[Link]] = dial,
) -> Connection:
    """Dial an address, agree on a version, and return the connection, whose tasks run in `nursery`. `dialler` dials, if the address is no dial
    string.

    Raises NineError: as `dial` does, ETIMEDOUT after `deadline` seconds, EPROTO if the server speaks nothing that is known, EINVAL for a bad
    version. Every message begins with the address. If cancelled, the link is closed.
    """
    dialect = wanted(address, version, msize)
    with trio.move_on_after(deadline):
        link = await dialler(address)
        try:
            connection = await _agree(link, address, dialect, msize)
        except BaseException:
            link.close()
            raise
        connection.start(nursery)
        return connection
    raise NineError(errno.ETIMEDOUT, f"{address}: no answer within {deadline:g} s")


async def _agree(link: Link, address: str, dialect: Dialect, msize: int) -> Connection:
    frames = FrameBuffer(max(msize, FIRST))
    steps = agreement(address, dialect, msize)
    with agreeing(address):
        try:
            asked = next(steps)
            while True:
                asked = steps.send(await _ask(link, frames, asked, msize))
        except StopIteration as end:
            agreed, frames.limit = end.value
    return Connection(link, address, dialect=agreed, msize=frames.limit, frames=frames)


async def _ask(link: Link, frames: FrameBuffer, dialect: Dialect, msize: int) -> Answer:
    request = tversion(dialect, msize)
    while True:
        await send_all(link, request)  # outside of the timeout: half a message on the line would spoil the next
        if link.lossy:
            frames.resync(m.Rversion.type)
        with trio.move_on_after(REPEAT if link.lossy else math.inf):
            return await _answer(link, frames)


async def _answer(link: Link, frames: FrameBuffer) -> Answer:
    while (answer := answer_in(frames)) is None:
        received(frames, await receive(link, frames.space()), link.peer.address)
    return answer[0]
