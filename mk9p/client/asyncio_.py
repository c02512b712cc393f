"""A connection to a 9P server whose calls wait as asyncio's tasks do. conversation.py says what it sends.

The event loop tells when the line can be read, and written while something waits to be sent; there are no tasks of its own. It is dialled and agreed
on in a thread (blocking.py). A cancelled call is flushed, as in trio.
"""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from mk9p.client.agreement import DEADLINE, MSIZE
from mk9p.client.blocking import agreed_link
from mk9p.client.calls import Call, Reply, Result
from mk9p.client.conversation import ASK, LEAVING, Conversation
from mk9p.dial import Link
from mk9p.dial.keys import Keys
from mk9p.errors import NineError
from mk9p.wire import Dialect, FrameBuffer
from mk9p.wire import messages as m

T = TypeVar("T")


class AsyncioCall(Call):
    """One running request, which one task may wait for."""

    __slots__ = ("waiter",)

    def __init__(self, connection: Conversation, message: type[m.Message], fields: Reply) -> None:
        super().__init__(connection, message, fields)
        self.waiter: asyncio.Future[None] | None = None

    async def reply(self) -> Reply:
        if self.result is None:
            self.waiter = asyncio.get_running_loop().create_future()
            try:
                await self.waiter
            except BaseException:
                self.abandon()
                raise
        return self.taken()

    def set_result(self, result: Result) -> None:
        self.result = result
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class AsyncioConnection(Conversation):
    """A conversation in one event loop, whose thread alone may use it."""

    kind = AsyncioCall

    def __init__(self, link: Link, address: str, *, dialect: Dialect, msize: int, frames: FrameBuffer) -> None:
        super().__init__(link, address, dialect=dialect, msize=msize, frames=frames)
        self._loop = asyncio.get_running_loop()
        self._gone = asyncio.Event()
        self._still = asyncio.Event()
        self._rfd, self._wfd = link.rfd, link.wfd
        self._writing = False
        self._loop.add_reader(self._rfd, self._readable)
        self._listening = self._loop.create_task(self._listen()) if link.lossy else None

    # Waiting

    async def checkpoint(self) -> None:
        """Do nothing: asyncio cancels where something waits."""

    async def within(self, seconds: float, work: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(seconds) as scope:
                return await work()
        except TimeoutError:
            if not scope.expired():
                raise
            raise NineError(errno.ETIMEDOUT, f"no answer within {seconds:g} s") from None

    async def side_by_side(self, count: int, work: Callable[[], Awaitable[None]]) -> None:
        async def one() -> None:
            await work()

        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(one())

    async def aside(self, call: Callable[..., T], *args: Any, give_up: bool = False) -> T:
        work = asyncio.ensure_future(asyncio.to_thread(call, *args))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if not give_up:
                with suppress(Exception):  # the caller is cancelled, and so learns of no other failure
                    await work
            raise

    async def clunk_within(self, seconds: float, fid: int) -> None:
        work = asyncio.ensure_future(self.clunk(fid))
        until = self._loop.time() + seconds
        cancelled: asyncio.CancelledError | None = None
        while not work.done() and (rest := until - self._loop.time()) > 0:
            try:
                await asyncio.wait({work}, timeout=rest)
            except asyncio.CancelledError as error:
                cancelled = error
        if not work.done():
            work.cancel()
        if cancelled is not None:
            raise cancelled

    async def wait_ended(self) -> None:
        await self._gone.wait()

    def clunk_later(self, fid: int) -> None:
        super().clunk_later(fid)
        if self.gone is None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.tidy)

    # The line

    def _readable(self) -> None:
        with self._judging():
            while self.gone is None and self._receive():
                self._replies()
            self._frames.put_away()

    def _writable(self) -> None:
        with self._judging():
            self._drain()
        if not self._out and self._writing and self.gone is None:
            self._loop.remove_writer(self._wfd)
            self._writing = False

    def _queued(self) -> None:
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self._wfd, self._writable)

    async def _listen(self) -> None:
        """End the connection when its line has gone silent: it does not report that nobody is at its other end any more."""
        while self.gone is None:
            heard = self._heard
            await asyncio.sleep(ASK)
            self._listened(heard)

    # The end

    def _quiet(self) -> None:
        self._still.set()

    async def aclose(self) -> None:
        """Close the connection when clunks and flushes that nobody waits for have been answered, at most a second later, also when cancelled."""
        try:
            self.tidy()
            async with asyncio.timeout(LEAVING):
                while self.gone is None and self._left:
                    self._still.clear()
                    await self._still.wait()
        except TimeoutError:
            pass
        finally:
            self.end("it was closed here")

    def _ended(self) -> None:
        self._loop.remove_reader(self._rfd)
        if self._writing:
            self._loop.remove_writer(self._wfd)
        if self._listening is not None:
            self._listening.cancel()
        self._still.set()
        self._gone.set()


async def open_asyncio(
    address: str, *, msize: int = MSIZE, version: str = "9P2000.L", keys: Keys | None = None
) -> AsyncioConnection:
    """Dial an address, agree on a version, and return the connection; `keys` are for TLS. Raises as `open_connection` does.

    If cancelled, it leaves the dialling to its thread, which then closes the link.
    """
    work = asyncio.ensure_future(
        asyncio.to_thread(agreed_link, address, msize=msize, version=version, deadline=DEADLINE, keys=keys)
    )
    try:
        link, dialect, frames = await asyncio.shield(work)
    except asyncio.CancelledError:
        work.add_done_callback(_closed)
        raise
    try:
        return AsyncioConnection(link, address, dialect=dialect, msize=frames.limit, frames=frames)
    except BaseException:
        link.close()
        raise


def _closed(work: "asyncio.Future[tuple[Link, Dialect, FrameBuffer]]") -> None:
    """Close a link that was dialled for somebody who has gone."""
    if not work.cancelled() and work.exception() is None:
        work.result()[0].close()
