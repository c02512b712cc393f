"""An open file of a server, and its lines.

A file whose stat has a length is stored: the client splits reads of it as the connection needs, and several of them run at once. A file of length
0 is synthetic, and may be a stream that waits: then the first answer is the result, and the client asks in advance for nothing that somebody would
have to wait for.

Over 9P2000.L a stream ends each record with one empty read (tree/waiting.py says why), so an empty read is the end of a file only if nothing came
since the empty read before. Over the other dialects the first empty read is the end.
"""

import errno
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from mk9p.client import changes, requests
from mk9p.client.conversation import Conversation
from mk9p.errors import NineError
from mk9p.status import Buffer, Change, Stat
from mk9p.wire import Dialect, Qid
from mk9p.wire import messages as m

if TYPE_CHECKING:
    from mk9p.client.calls import Call

WINDOW: Final = 8  # reads at once: at 1 MiB each, more than any link's bandwidth times delay
PATIENCE: Final = 5.0  # seconds that closing waits for a server, shielded: a vanished server must not hold its client
_LINES: Final = 1 << 16
_LINE: Final = 1 << 20  # bytes without a newline: then it is no text, or somebody wants to fill our memory

T = TypeVar("T")


class File:
    """An open file: `pread` and `pwrite` at offsets, `read` and `write` where the last one ended, lines by `async for`.

    Use it as `async with await client.open(…) as file`, or call `aclose`. Calls may overlap. Each raises NineError as the server said, which names
    the file (`.filename`), and is flushed when cancelled; then nothing was read, but a write may have happened. All data is bytes.
    """

    def __init__(self, connection: Conversation, fid: int, name: str, qid: Qid, iounit: int) -> None:
        self.connection, self.fid, self.name, self.qid, self.iounit = connection, fid, name, qid, iounit
        self.position = 0  # of the next `read` or `write`
        self._marked = False  # the last read gave something, so an empty one may be no more than the end of a record
        self._closed = False

    async def __aenter__(self) -> "File":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Clunk the file. Waits at most 5 s for the server to do it, also when cancelled. A second call does nothing."""
        if not self._closed:
            self._closed = True
            await self.connection.clunk_within(PATIENCE, self.fid)
        await self.connection.checkpoint()

    def __del__(self) -> None:
        # A file that nobody closed (an abandoned iteration, a task that died) must not stay open at the server. The collector may run in any thread
        # and in the middle of a send, so this only notes the clunk.
        if not getattr(self, "_closed", True):
            self._closed = True
            self.connection.clunk_later(self.fid)

    def _check(self) -> None:
        if self._closed:
            raise self._about(NineError(errno.EBADF, "the file is closed"))

    def _about(self, error: NineError) -> NineError:
        """Return an error that names this file."""
        if error.filename is None:
            error.filename = self.name
        return error

    async def stat(self) -> Stat:
        """Return the status of the open file."""
        self._check()
        try:
            return await requests.stat(self.connection, self.fid, self.name)
        except NineError as error:
            raise self._about(error) from None

    async def truncate(self, length: int) -> None:
        """Set the length in bytes."""
        self._check()
        try:
            await changes.change(self.connection, self.fid, Change(length=length))
        except NineError as error:
            raise self._about(error) from None

    async def sync(self, *, data: bool = False) -> None:
        """Put what was written where it survives (fsync(2)); with `data` only the contents (fdatasync(2))."""
        self._check()
        try:
            await requests.sync(self.connection, self.fid, data=data)
        except NineError as error:
            raise self._about(error) from None

    # Reading

    async def pread(self, n: int, offset: int) -> bytes:
        """Return at most `n` bytes at `offset`; fewer only at the end of a stored file, or what a synthetic file has at once; empty at its end."""
        self._check()
        try:
            if n <= self.iounit:
                return await requests.read(self.connection, self.fid, offset, n)
            return await self._long(n, offset)
        except NineError as error:
            raise self._about(error) from None

    async def _long(self, n: int, offset: int) -> bytes:
        """Read more than one message has."""
        data = await requests.read(self.connection, self.fid, offset, self.iounit)
        if len(data) < self.iounit:
            return data
        length = (await self.stat()).length
        more = min(offset + n, length) - offset - len(data)
        return data + await self._window(offset + len(data), more) if more > 0 else data

    async def read(self, n: int = -1) -> bytes:
        """Return at most `n` bytes where the last read or write ended, as `pread`; without `n`, everything up to an empty read.

        With `n` it never returns the empty read that ends a record over 9P2000.L: empty is the end of the file.
        """
        if n >= 0:
            data = await self.pread(n, self.position)
            if not data and self._marked and n:
                self._marked = False
                data = await self.pread(n, self.position)
            self._marked = bool(data) and self.connection.dialect is Dialect.L
            self.position += len(data)
            return data
        parts = []
        at = self.position
        while data := await self.pread(1 << 62, at):
            parts.append(data)
            at += len(data)
        self.position = at  # only now: if cancelled, nothing was read
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _window(self, offset: int, n: int) -> bytes:
        """Read a part of a stored file with up to 8 reads at once."""
        c, parts = self.connection, list[bytes]()
        at, end, window = offset, offset + n, WINDOW
        calls: deque[tuple[int, int, Call]] = deque()
        try:
            while True:
                while at < end and len(calls) < window:
                    count = min(self.iounit, end - at)
                    calls.append((at, count, c.call(m.Tread, self.fid, at, count)))
                    at += count
                if not calls:
                    return b"".join(parts)
                start, count, call = calls.popleft()
                (data,) = await call.reply()
                parts.append(data)
                if not data:
                    return b"".join(parts)
                if len(data) < count:
                    # The later reads begin past a hole: drop them and go on where this one ended, one after the other.
                    while calls:
                        calls.pop()[2].abandon()
                    at, window = start + len(data), 1
        finally:
            for _, _, call in calls:
                call.abandon()

    async def messages(self) -> AsyncIterator[bytes]:
        """Give the messages of a file that has them whole (chan's `data`, `events`, `kmsg`), as they come, until its end.

        Over 9P2000.L, which marks where a message ends, one may be longer than `iounit`; over the other dialects each read is one. A message of no
        bytes is left out. Raises as `read`; if cancelled, what was read of a message is lost.
        """
        marked = self.connection.dialect is Dialect.L
        parts = list[bytes]()
        silent = not marked
        while True:
            data = await self.pread(self.iounit, self.position)
            self.position += len(data)
            if data and marked:
                parts.append(data)
            elif data:
                yield data
            elif parts:
                yield b"".join(parts)
                parts.clear()
            elif silent:
                return
            silent = not data or not marked

    def __aiter__(self) -> "Lines[bytes]":
        """Return the lines from here on, as bytes with their newline."""

        async def this() -> File:
            return self

        return Lines(this, bytes)

    # Writing

    async def pwrite(self, data: Buffer, offset: int) -> int:
        """Write all of `data` at `offset` and return its length; more than the connection's msize goes in pieces, in order."""
        self._check()
        done = 0
        view = memoryview(data).cast("B")
        while True:
            try:
                taken = await requests.write(self.connection, self.fid, offset + done, view[done : done + self.iounit])
            except NineError as error:
                raise self._about(error) from None
            done += taken
            if done >= len(view):
                return done
            if not taken:
                raise self._about(NineError(errno.EIO, f"only {done} of {len(view)} bytes were taken"))

    async def write(self, data: Buffer) -> int:
        """Write all of `data` where the last read or write ended, as `pwrite`."""
        count = await self.pwrite(data, self.position)
        self.position += count
        return count


class Lines(Generic[T]):
    """The lines of a file as they come, for `async for`. Cancelling loses none, and the next `anext` goes on. The file is closed at its end."""

    def __init__(self, opener: Callable[[], Awaitable[File]], convert: Callable[[bytes], T]) -> None:
        self._opener, self._convert = opener, convert
        self._file: File | None = None
        self._ready: deque[bytes] = deque()
        self._part = b""  # the beginning of a line whose end has not come
        self._ended = False

    def __aiter__(self) -> "Lines[T]":
        return self

    async def __anext__(self) -> T:
        """Return the next line. Raises as `File.read`, and EMSGSIZE for something that is no line; if cancelled, the read is flushed."""
        if self._file is not None:
            await self._file.connection.checkpoint()
        while not self._ready:
            if self._ended:
                raise StopAsyncIteration
            if self._file is None:
                self._file = await self._opener()
            data = await self._file.read(min(_LINES, self._file.iounit))
            if data:
                *lines, self._part = (self._part + data).split(b"\n")
                self._ready += [line + b"\n" for line in lines]
                if len(self._part) > _LINE:
                    raise NineError(errno.EMSGSIZE, f"{self._file.name}: a line of more than {_LINE} bytes")
            else:
                self._ended = True
                if self._part:
                    self._ready.append(self._part)
                await self._file.aclose()
        return self._convert(self._ready.popleft())

    async def aclose(self) -> None:
        """End the iteration before its end."""
        self._ended = True
        self._ready.clear()
        if self._file is not None:
            await self._file.aclose()
