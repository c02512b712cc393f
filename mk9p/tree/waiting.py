"""Files that wait: `Stream` for messages; log.py has events. It imports trio, because trio does the waiting; few files at its level do.

A blocking file is a receive function, `async def receive() -> bytes`, cancel-safe as trio's own are: when it is cancelled, nothing is lost; b"" is
the end. The handle of a reader keeps each message whole until the reader asks for the next one.

Where several readers take from one store, only a reader that really gets a message may take it, and then nobody else has it: so it is a `Store`.
The call that answers the read takes the message, after all waiting is done, so a flushed read has taken nothing. One case is left: the answer and
its Tflush cross. A client that drops such an answer says so by a read of no bytes at the same offset, before it clunks, and the store gets the
message back. (9P has no word for this, and such a read means nothing to other servers. flush(5) makes clients use such an answer; a client that
does so need not say anything.)

A read that waits for a store needs no task, as long as nothing of the store's own is between: if `wait` returns a `Chance` of its `Waiters`, the
engine keeps the read and goes on with it when its turn has come (later.py). So what comes wakes a thousand readers for what their answers cost. To
everybody else such a read is a coroutine like any other.

Where a message ends, when the client is Linux. v9fs does not return from read(2) at the first answer. It asks on until an empty answer or a full
buffer, so `cat events` would hold a line that has come until the next one comes. The rule that works on 6.1, 6.12 and 7.3 needs three values for
each handle, (base, message, short):
* a read within [base, base + len) gets a part of the message (a shell reads 128 bytes and seeks back to after the newline);
* a read at the message's end gets one empty answer, if the last answer was shorter than the request: this is the end of that read(2);
* any other read waits for the next message, whose base is then that offset.

Without "only after a short answer" a reader of single bytes, such as busybox's `read`, would see an end of file after each line. The rule is only
for sessions of 9P2000.L: to Plan 9's own clients an empty read is the end of the file.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Protocol, cast

import trio

from mk9p.status import Buffer
from mk9p.tree.files import File
from mk9p.tree.later import Later
from mk9p.tree.node import Handle, Maybe, Open

_LITTLE = 1024  # bytes of a message that are not counted: an open file counts as many anyway


class Source(Protocol):
    """The parts of one open stream: where its messages come from, where written ones go, and its end."""

    async def receive(self) -> bytes: ...
    def send(self, data: bytes) -> Maybe[int | None]: ...
    def close(self) -> Maybe[None]: ...


class Store(Protocol):
    """The parts of one open stream where others take from the same messages, or where a message must not be cut: taking does not wait."""

    def wait(self) -> Awaitable[None]:
        """Wait until there may be something to take. If cancelled, it must leave the chance to the next one who waits.

        A `def` that returns what `Waiters.wait` returns costs least; it may also be an `async def`.
        """
        ...

    def take(self, room: int) -> bytes | None:
        """Take the next message; None if there is none now, b"" at the end. If a read of `room` bytes is too small, it raises, and takes nothing."""
        ...

    def untake(self, message: bytes) -> None:
        """Put back the last message, because its reader has not got it."""
        ...

    def send(self, data: bytes) -> Maybe[int | None]: ...
    def close(self) -> Maybe[None]: ...


def sleep(later: Later) -> Awaitable[None]:
    """Wait as a task for a Later."""
    event = trio.Event()
    later.wake = event.set
    return event.wait()


def _kept(later: Later) -> Awaitable[None]:
    """Wait for a Later without a task, if the engine runs the coroutine by hand."""
    return later.wait(sleep)


class Waiters:
    """Those who wait for a store. Each `wake` wakes one of them, the first who came. If that one is cancelled, the wake is not lost."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: OrderedDict[Later, None] = OrderedDict()

    def wake(self) -> None:
        if self._waiting:
            self._waiting.popitem(last=False)[0].settle()

    def wake_all(self) -> None:
        waiting, self._waiting = self._waiting, OrderedDict()
        for later in waiting:
            later.settle()

    def wait(self) -> "Chance":
        """Wait to be woken. One that is cancelled just after it was woken wakes the next: what it was woken for is still there."""
        return Chance(self)

    async def _wait(self, pause: Callable[[Later], Awaitable[None]]) -> None:
        later = Later()
        self._waiting[later] = None
        try:
            await pause(later)
            if pause is sleep:
                await trio.lowlevel.checkpoint_if_cancelled()
        except BaseException:
            if later.settled:
                self.wake()
            else:
                del self._waiting[later]
            raise


class Chance:
    """A wait that has not begun, for a chance to take something. A task that awaits it waits as tasks do."""

    __slots__ = ("_waiters",)

    def __init__(self, waiters: Waiters) -> None:
        self._waiters = waiters

    def __await__(self) -> Generator[Any, Any, None]:
        return self._waiters._wait(sleep).__await__()

    def by(self, pause: Callable[[Later], Awaitable[None]]) -> Awaitable[None]:
        """Wait in the way of `pause`."""
        return self._waiters._wait(pause)


class Turn:
    """Whose turn it is: those who come meanwhile wait, and each leaves it to the next."""

    __slots__ = ("_waiting", "taken")

    def __init__(self) -> None:
        self.taken = False
        self._waiting: OrderedDict[Later, None] = OrderedDict()

    async def wait(self, pause: Callable[[Later], Awaitable[None]]) -> None:
        """Wait for it, and take it."""
        later = Later()
        self._waiting[later] = None
        try:
            await pause(later)
        except BaseException:
            if later.settled:
                self.leave()
            else:
                del self._waiting[later]
            raise

    def leave(self) -> None:
        if self._waiting:
            self._waiting.popitem(last=False)[0].settle()
        else:
            self.taken = False


class Waiting:
    """A read that waits and has not begun. A task that awaits it waits as tasks do; the engine runs it by hand (later.py)."""

    __slots__ = ("_count", "_handle", "_offset")

    def __init__(self, handle: "StreamHandle", offset: int, count: int) -> None:
        self._handle, self._offset, self._count = handle, offset, count

    def __await__(self) -> Generator[Any, Any, Buffer]:
        return self._handle._read(self._offset, self._count, sleep).__await__()

    def by_hand(self) -> Awaitable[Buffer]:
        """Return the read for an op that awaits it, with nothing of others between."""
        return self._handle._read(self._offset, self._count, _kept)


class Stream(File):
    """A file of messages that readers wait for.

    `receive()` gives the next message, b"" at the end; `send(data)` takes one write and may return how much of it was taken (None: all). All who
    have the file open share them. Where each reader has its own position, or a message goes to only one reader, `per_open(how)` makes a `Source`
    or a `Store` for each open instead.
    """

    def __init__(
        self,
        receive: Callable[[], Awaitable[bytes]] | None = None,
        send: Callable[[bytes], Maybe[int | None]] | None = None,
        *,
        per_open: Callable[[Open], Maybe[Source | Store]] | None = None,
        mode: int | None = None,
        exclusive: bool = False,
    ) -> None:
        if mode is None:
            mode = 0o644 if per_open else 0o200 if receive is None else 0o644 if send else 0o444
        super().__init__(mode, exclusive=exclusive)
        self.receive, self.send, self.per_open = receive, send, per_open
        if per_open is not None:
            self.descriptors = 1  # as most streams have

    def open(self, how: Open) -> Maybe[Handle]:
        if self.per_open is None:
            return StreamHandle(self.receive, self.send, None, how.records)
        source = self.per_open(how)
        return self._open(source, how) if isinstance(source, Awaitable) else StreamHandle.of(source, how)

    async def _open(self, source: Awaitable[Source | Store], how: Open) -> Handle:
        return StreamHandle.of(await source, how)


class StreamHandle(Handle):
    """One open stream: a message and its place, by the rule above. Readers of one handle take turns, so order is kept."""

    duplex = True
    keeps = True

    def __init__(
        self,
        receive: Callable[[], Awaitable[bytes]] | None,
        send: Callable[[bytes], Maybe[int | None]] | None,
        close: Callable[[], Maybe[None]] | None,
        records: bool,
        store: Store | None = None,
    ) -> None:
        self._receive, self._send, self._close, self._records, self._store = receive, send, close, records, store
        self._turn = Turn()
        self._base, self._message, self._short, self._ended = 0, b"", False, False
        self._refused = -1  # where a reader said that it has not got the answer

    @classmethod
    def of(cls, source: Source | Store, how: Open) -> "StreamHandle":
        """Return the handle for the source or store of one open stream."""
        store = cast("Store", source) if hasattr(source, "untake") else None
        receive = cast("Source", source).receive if store is None else None
        return cls(receive, source.send, source.close, how.records, store)

    def read(self, offset: int, count: int) -> Maybe[Buffer]:
        if not count:
            self._refused = offset
            return b""
        if self._receive is None and self._store is None:
            return b""
        self._refused = -1
        if not self._turn.taken:  # what is there now needs no task
            piece = self._kept(offset, count)
            if piece is not None:
                return piece
            if self._store is not None:
                self._forget()
                if (message := self._store.take(count)) is not None:
                    return self._new(message, offset, count)
        return Waiting(self, offset, count)

    async def _read(self, offset: int, count: int, pause: Callable[[Later], Awaitable[None]]) -> Buffer:
        turn = self._turn
        if turn.taken:
            await turn.wait(pause)
        else:
            turn.taken = True
        try:
            piece = self._kept(offset, count)
            if piece is not None:
                return piece
            self._forget()
            return self._new(await self._next(count, pause), offset, count)
        finally:
            turn.leave()

    async def _next(self, room: int, pause: Callable[[Later], Awaitable[None]]) -> bytes:
        store = self._store
        if store is None:
            assert self._receive is not None
            return await self._receive()
        while True:
            if pause is sleep:  # a read that was flushed while it waited for its turn takes nothing
                await trio.lowlevel.checkpoint_if_cancelled()
            message = store.take(room)
            if message is not None:
                return message
            chance = store.wait()
            await (chance.by(pause) if chance.__class__ is Chance else chance)

    def _kept(self, offset: int, count: int) -> Buffer | None:
        """Return what is known without asking for the next message: a piece of the last one, its end, or the end; None if one must ask."""
        at = offset - self._base
        if 0 <= at < len(self._message):
            piece = self._message[at : at + count]
            self._short = len(piece) < count
            return piece
        if self._ended:
            return b""
        if self._records and self._short and self._message and at == len(self._message):
            self._short = False
            return b""
        return None

    def _new(self, message: bytes, offset: int, count: int) -> Buffer:
        if not message:
            self._ended = True
            return b""
        self._base, self._message = offset, message
        self._short = len(message) < count
        if len(message) > _LITTLE and self.keeper is not None:
            self.keeper.keep_text(len(message))  # whatever the limits are: it is taken, and may not be lost
        return message[:count]

    def _forget(self) -> None:
        """Count the last message as gone, before asking for the next. Raises ENOMEM if the reader's user has too much."""
        if self.keeper is not None:
            self.keeper.keep_text(0)
            self.keeper.check(waits=True)

    def write(self, offset: int, data: memoryview) -> Maybe[int]:
        if self._send is None:
            return super().write(offset, data)
        taken = self._send(bytes(data))
        if isinstance(taken, Awaitable):
            return self._taken(taken, len(data))
        return len(data) if taken is None else taken

    async def _taken(self, taken: Awaitable[int | None], count: int) -> int:
        number = await taken
        return count if number is None else number

    def close(self) -> Maybe[None]:
        if self._store is not None and self._message and self._refused == self._base:
            self._store.untake(self._message)
        return self._close() if self._close else None
