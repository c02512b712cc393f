"""A server without manners, and its replies; the same for the same seed and the same requests.

It serves an endless tree: a name that begins with `d` is a directory with a few files in it, one with `f` a file, one with `l` a symbolic link.
Most replies are right. The others are what no server should send: changed in one byte or more, longer or shorter than their fields, of another
type or tag, with numbers at the end of their range, errors that are none, names that no file has, more bytes or qids than the client asked for,
frames with a wrong size. Or they come twice, late, without a request, or not at all, and now and then the server hangs up.

A client passes if at worst that one connection ends. The test, which knows the client, must check that nothing else ends, that nothing is left
behind, and that each call ends, or can be cancelled. What a client tells its own callers after such a reply (a file's content is whatever the
server says) does not matter here.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Final

import attrs
import trio

from mk9p.dial import Link, listen, send_all
from mk9p.errors import ProtocolError
from mk9p.testing.replies import Replies
from mk9p.wire import IOHDRSZ, Dialect, FrameBuffer

LATE: Final = 0.02  # seconds after which a late reply comes, if nobody asks for anything


@attrs.define(eq=False)
class Oddity:
    """What an odd server has done: counts. A test may set `often` while it serves: 0 is a good server, for connections that come then."""

    address: str
    often: int
    connections: int = 0
    replies: int = 0
    odd: int = 0
    links: set[Link] = attrs.field(factory=set, repr=False)

    def reform(self) -> None:
        """Be a good server from now on. Those who are connected are hung up on: they may wait for what was never said."""
        self.often = 0
        for link in list(self.links):
            link.close()


@asynccontextmanager
async def odd(
    address: str, seed: int, *, dialect: Dialect = Dialect.L, often: int = 100, silent: bool = True
) -> AsyncIterator[Oddity]:
    """Serve such replies at a dial string while the block runs: `async with odd("unix!/tmp/odd", 1) as server`; see `Replies` for the options."""
    listener = await listen(address)
    count = Oddity(listener.address, often)

    async def serve(link: Link, number: int) -> None:
        replies = Replies(Random(f"{seed} {number}"), dialect=dialect, often=count.often, silent=silent)
        count.links.add(link)
        try:
            await _serve(link, replies, count)
        except (OSError, ProtocolError, trio.ClosedResourceError):
            pass  # what the client does with it is the client's matter
        finally:
            count.odd += replies.odd
            count.links.discard(link)
            link.close()

    async def accept() -> None:
        while True:
            link = await listener.accept()
            count.connections += 1
            nursery.start_soon(serve, link, count.connections)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            yield count
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await listener.aclose()


async def _serve(link: Link, replies: Replies, count: Oddity) -> None:
    frames = FrameBuffer((1 << 16) + IOHDRSZ)
    while True:
        said: list[bytes] = []
        while not replies.over and (span := frames.next()) is not None:
            said.append(replies.to(bytes(frames.view[slice(*span)])))
            count.replies += 1
        await send_all(link, b"".join(said))
        if replies.over:
            return
        try:
            got = link.recv_into(frames.space())
        except BlockingIOError:
            with trio.move_on_after(LATE) as scope:
                await link.wait_readable()
            if scope.cancelled_caught:
                await send_all(link, replies.late())
                await link.wait_readable()
            continue
        if not got:
            return
        frames.received(got)
        await trio.lowlevel.checkpoint()
