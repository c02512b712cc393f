"""A connection to a 9P server that blocks its thread where others wait, and needs no trio. conversation.py says what it sends.

`run` does coroutines that wait only for calls of one connection: a coroutine that waits yields what it waits for, and goes on when that is there.
So several of them can go side by side, and a caller can give one of them up after a while.

One thread uses a connection at a time. An interrupt (KeyboardInterrupt) in a wait gives up what waits and flushes it, and the connection can still
be used. An interrupt in the middle of a message ends the connection.
"""

import errno
import select
from _thread import allocate_lock
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager, suppress
from math import inf
from time import monotonic
from types import coroutine
from typing import Any, Final, NamedTuple, TypeVar

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
from mk9p.client.calls import Call, Reply
from mk9p.client.conversation import ASK, LEAVING, Conversation
from mk9p.dial import Link
from mk9p.dial.blocking import Late, dial
from mk9p.dial.keys import Keys
from mk9p.errors import NineError
from mk9p.wire import Dialect, FrameBuffer
from mk9p.wire import messages as m

T = TypeVar("T")

_LONGEST: Final = 3600.0  # seconds of one poll(2), whose number is an int
_FLUSHED: Final = 5.0  # seconds that a server has to answer a flush: it needs nobody for that


class Wait(NamedTuple):
    """What a coroutine waits for: the reply to any of these calls, or a time of time.monotonic()."""

    calls: tuple[Call, ...]
    until: float = inf

    @property
    def over(self) -> bool:
        return any(call.result is not None for call in self.calls) or monotonic() >= self.until


Work = Coroutine[Wait, None, T]


@coroutine
def _pause(wait: Wait) -> Generator[Wait, None, None]:
    yield wait


class Stopped(NineError, InterruptedError):
    """The call was flushed before it was done, because `stop` became readable."""


class _GivenUp(BaseException):
    """Ends a coroutine whose result nobody wants any more."""


class BlockingCall(Call):
    """One running request, which one coroutine may wait for."""

    __slots__ = ()

    async def reply(self) -> Reply:
        try:
            while self.result is None:
                await _pause(Wait((self,)))
        except BaseException:
            self.abandon()
            raise
        return self.taken()


class Blocking(Conversation):
    """A conversation in one thread."""

    kind = BlockingCall

    def __init__(self, link: Link, address: str, *, dialect: Dialect, msize: int, frames: FrameBuffer) -> None:
        super().__init__(link, address, dialect=dialect, msize=msize, frames=frames)
        self.stop: int | None = None  # a descriptor: while it can be read, no call waits
        self._since = 0.0  # when something was received, or the wait for it began
        self._lock = allocate_lock()

    def run(self, work: Awaitable[T]) -> T:
        """Run a coroutine, wait where it waits, and return what it returns. Raises RuntimeError if another is running."""
        if not self._lock.acquire(blocking=False):
            if isinstance(work, Coroutine):
                work.close()
            raise RuntimeError(f"the connection to {self.address} is in use: one thread at a time")
        try:
            return self._through(_steps(work))
        finally:
            self._lock.release()

    def _through(self, steps: Work[T]) -> T:
        async def for_the_line(wait: Wait) -> None:
            self._until(wait)

        try:
            _driven(steps, for_the_line).send(None)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        raise AssertionError("it waited for something else")

    def call(self, message: type[m.Message], *fields: Any) -> Call:
        with self._whole():
            return super().call(message, *fields)

    # Waiting

    async def checkpoint(self) -> None:
        pass

    async def within(self, seconds: float, work: Callable[[], Awaitable[T]]) -> T:
        until = monotonic() + seconds

        async def at_most(wait: Wait) -> None:
            nonlocal until
            await _pause(Wait(wait.calls, min(wait.until, until)))
            if not wait.over and monotonic() >= until:
                until = inf
                raise _GivenUp

        try:
            return await _driven(_steps(work()), at_most)
        except _GivenUp:
            raise NineError(errno.ETIMEDOUT, f"no answer within {seconds:g} s") from None

    async def side_by_side(self, count: int, work: Callable[[], Awaitable[None]]) -> None:
        todo = [_steps(work()) for _ in range(count)]
        waiting: dict[Work[None], Wait] = {}
        try:
            while todo:
                for steps in todo:
                    waiting.pop(steps, None)
                    try:
                        waiting[steps] = steps.send(None)
                    except StopIteration:
                        continue
                if not waiting:
                    return
                calls = tuple(call for wait in waiting.values() for call in wait.calls)
                while not (todo := [steps for steps, wait in waiting.items() if wait.over]):
                    await _pause(Wait(calls, min(wait.until for wait in waiting.values())))
        except BaseException:
            for steps in waiting:
                await _given_up(steps)
            for steps in todo:  # some may not have begun
                steps.close()
            raise

    async def aside(self, call: Callable[..., T], *args: Any, give_up: bool = False) -> T:
        return call(*args)

    async def clunk_within(self, seconds: float, fid: int) -> None:
        with suppress(TimeoutError):
            await self.within(seconds, lambda: self.clunk(fid))

    async def wait_ended(self) -> None:
        while self.gone is None:
            await _pause(Wait(()))

    def _until(self, wait: Wait) -> None:
        """Receive until a wait is over."""
        self.tidy()
        self._since, self._asked = monotonic(), 0
        while self.gone is None and not wait.over:
            if self._turn(wait.until) and not wait.over:
                self._take_back(wait.calls)

    def _take_back(self, calls: tuple[Call, ...]) -> None:
        """Flush calls, and wait for that: each has then been answered, or raises Stopped and has not been done.

        What a server sends before Rflush counts (flush(5)). A clunk is not flushed: nobody would know whether the fid exists.
        """
        stop, self.stop = self.stop, None
        until = monotonic() + _FLUSHED
        try:
            todo = [call for call in calls if call.result is None and call.type != m.Tclunk.type]
            for call, flush in [(call, self.call(m.Tflush, call.tag)) for call in todo]:
                while self.gone is None and flush.result is None and monotonic() < until:
                    self._turn(until)
                if self.gone is None and not isinstance(flush.result, tuple):
                    self.end("it does not answer a flush")
                elif self.gone is None and call.result is None:
                    self._free_tag(call.tag)
                    self._over(call, None)
                    call.made = None
                    call.set_result(Stopped(errno.EINTR))
        finally:
            self.stop = stop

    def _turn(self, until: float) -> bool:
        """Wait for the line, at most until a time, and do what can be done then. Tell whether `stop` can be read."""
        silence = self._since + ASK if self.link.lossy and self._calls else inf
        poll = select.poll()
        poll.register(self.link.rfd, select.POLLIN)
        if self._out:
            poll.register(self.link.wfd, select.POLLOUT | (select.POLLIN if self.link.wfd == self.link.rfd else 0))
        if self.stop is not None:
            poll.register(self.stop, select.POLLIN)
        ready = poll.poll(min(max(min(until, silence) - monotonic(), 0), _LONGEST) * 1000)
        with self._whole(), self._judging():
            if ready:
                self._drain()
                if self.gone is None and self._receive():
                    self._since, self._asked = monotonic(), 0
                    self._replies()
            elif monotonic() >= silence:
                self._since = monotonic()
                self._listened(self._heard)
        return any(descriptor == self.stop for descriptor, _ in ready)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """End the connection when an interrupt comes in this block: nobody knows how far it went."""
        try:
            yield
        except KeyboardInterrupt:
            self.end("it was interrupted here")
            raise

    def _queued(self) -> None:
        pass

    def _quiet(self) -> None:
        pass

    def _ended(self) -> None:
        pass

    def close(self) -> None:
        """Close the connection when clunks and flushes that nobody waits for have been answered, at most a second later; see `Connection.aclose`."""
        until = monotonic() + LEAVING
        try:
            self.tidy()
            while self.gone is None and self._left and monotonic() < until:
                self._turn(until)
        finally:
            self.end("it was closed here")


async def _steps(work: Awaitable[T]) -> T:
    """Return an awaitable as a coroutine."""
    return await work


async def _driven(steps: Work[T], wait_for: Callable[[Wait], Awaitable[None]]) -> T:
    """Do a coroutine, and wait where it waits; what that raises is raised there. Return what it returns."""
    failure: BaseException | None = None
    while True:
        try:
            wait = steps.send(None) if failure is None else steps.throw(failure)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        failure = None
        try:
            await wait_for(wait)
        except BaseException as error:
            failure = error


async def _given_up(steps: Work[Any]) -> None:
    """End a coroutine, and wait where it waits at its end."""
    try:
        wait = steps.throw(_GivenUp())
        while True:
            await _pause(wait)
            wait = steps.send(None)
    except (StopIteration, _GivenUp):
        pass


def open_blocking(
    address: str,
    *,
    msize: int = MSIZE,
    version: str = "9P2000.L",
    deadline: float = DEADLINE,
    keys: Keys | None = None,
) -> Blocking:
    """Dial an address, agree on a version, and return the connection; `keys` are for TLS. Raises as `open_connection` does."""
    link, agreed, frames = agreed_link(address, msize=msize, version=version, deadline=deadline, keys=keys)
    return Blocking(link, address, dialect=agreed, msize=frames.limit, frames=frames)


def agreed_link(
    address: str, *, msize: int, version: str, deadline: float, keys: Keys | None
) -> tuple[Link, Dialect, FrameBuffer]:
    """Dial an address and agree on a version; return the link, the dialect, and the buffer whose limit is the msize."""
    dialect = wanted(address, version, msize)
    until = monotonic() + deadline
    try:
        link = dial(address, until, keys)
        try:
            return _agree(link, address, dialect, msize, until)
        except BaseException:
            link.close()
            raise
    except Late:
        raise NineError(errno.ETIMEDOUT, f"{address}: no answer within {deadline:g} s") from None


def _agree(link: Link, address: str, dialect: Dialect, msize: int, until: float) -> tuple[Link, Dialect, FrameBuffer]:
    frames = FrameBuffer(max(msize, FIRST))
    steps = agreement(address, dialect, msize)
    with agreeing(address):
        try:
            asked = next(steps)
            while True:
                asked = steps.send(_ask(link, frames, tversion(asked, msize), until))
        except StopIteration as end:
            agreed, frames.limit = end.value
    return link, agreed, frames


def _ask(link: Link, frames: FrameBuffer, request: bytes, until: float) -> Answer:
    while True:
        rest = memoryview(request)
        while rest:
            try:
                rest = rest[link.send(rest) :]
            except BlockingIOError:
                _wait(link.wfd, select.POLLOUT, until)
        again = until
        if link.lossy:
            frames.resync(m.Rversion.type)
            again = min(until, monotonic() + REPEAT)
        try:
            return _answer(link, frames, again)
        except Late:
            if again == until:
                raise


def _answer(link: Link, frames: FrameBuffer, until: float) -> Answer:
    while (answer := answer_in(frames)) is None:
        try:
            count = link.recv_into(frames.space())
        except BlockingIOError:
            _wait(link.rfd, select.POLLIN, until)
            continue
        received(frames, count, link.peer.address)
    return answer[0]


def _wait(descriptor: int, events: int, until: float) -> None:
    poll = select.poll()
    poll.register(descriptor, events)
    if not poll.poll(max(until - monotonic(), 0) * 1000):
        raise Late
