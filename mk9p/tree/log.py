"""`Log`: a file of events."""

import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from mk9p.tree.files import File
from mk9p.tree.node import Handle, Maybe, Open
from mk9p.tree.waiting import StreamHandle, Waiters
from mk9p.tree.words import join

MOST: Final = 1 << 20  # bytes of lines that a log keeps: who causes events may make long ones
AT_ONCE: Final = 65536  # bytes of lines in one message


class Log(File):
    """A file of events: `SEQ TIME_NS WHAT ARGS…`, a line each, with a bounded history.

    A reader starts with the oldest line that is kept, and waits for new ones. A reader that was too slow gets `SEQ TIME_NS lost COUNT` where the
    gap is; no gap is silent. `emit(what, *args)` adds a line and wakes the readers. `history` is how many lines are kept, and MOST how many
    bytes, which bounds the memory. Functions in `heard` are called with each event first, before whoever causes it goes on; they may not wait.
    What they raise, `emit` raises, and then nothing is added.
    """

    def __init__(self, history: int = 1024, *, mode: int = 0o444) -> None:
        super().__init__(mode)
        self.lines: deque[bytes] = deque(maxlen=history)
        self.size = 0  # bytes of these lines
        self.next = 1  # SEQ of the next line
        self.waiters = Waiters()
        self.heard: list[Callable[[str, tuple[object, ...]], None]] = []

    def emit(self, what: str, *args: object) -> None:
        """Add an event; the words are quoted as in rc."""
        for hear in self.heard:
            hear(what, args)
        self.add(f"{self.next} {time.time_ns()} {join([what, *args])}\n".encode(errors="backslashreplace"))

    def add(self, line: bytes) -> None:
        """Add a line that has a number already, as a line of the kernel's own log has."""
        self.size += len(line) - (len(self.lines[0]) if len(self.lines) == self.lines.maxlen and self.lines else 0)
        self.lines.append(line)
        while self.size > MOST and len(self.lines) > 1:
            self.size -= len(self.lines.popleft())
        self.next += 1
        self.waiters.wake_all()

    async def wait(self, seq: int) -> None:
        """Return once the line `seq` has been added."""
        while self.next <= seq:
            await self.waiters.wait()

    def open(self, how: Open) -> Maybe[Handle]:
        return StreamHandle.of(_Reader(self), how)


class _Reader:
    """One reader of a Log: where it is (waiting.Store). It gives what has come meanwhile in one message of whole lines, so a slow reader catches up
    quickly."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.seq = log.next - len(log.lines)

    def wait(self) -> Awaitable[None]:
        return self.log.waiters.wait()

    def take(self, room: int) -> bytes | None:
        log = self.log
        if self.seq + 1 == log.next and log.lines:  # it waited, or was as quick: nearly always
            self.seq = log.next
            return log.lines[-1]
        if self.seq >= log.next:
            return None
        oldest = log.next - len(log.lines)
        parts: list[bytes] = []
        size = 0
        if self.seq < oldest:
            parts.append(f"{oldest - 1} {time.time_ns()} lost {oldest - self.seq}\n".encode())
            self.seq = oldest
        for at in range(self.seq - oldest, len(log.lines)):
            line = log.lines[at]
            if parts and size + len(line) > AT_ONCE:
                break
            parts.append(line)
            size += len(line)
            self.seq += 1
        return b"".join(parts)

    def untake(self, message: bytes) -> None:
        """Do nothing: others have the lines too."""

    def send(self, data: bytes) -> Maybe[int | None]:
        return Handle().write(0, memoryview(data))

    def close(self) -> None:
        return None
