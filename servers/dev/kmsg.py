"""`kmsg`: the kernel's log as a stream, over /dev/kmsg (Documentation/ABI/testing/dev-kmsg).

The kernel keeps a place in its log for each open descriptor, so each open here has a descriptor of its own. It starts at the oldest record that
the kernel still has, gives one record with each read, exactly as the kernel words it (`PRIORITY,SEQ,TIME_US,FLAGS;TEXT`, continuation lines with a
blank before), and then waits. A cancelled wait has read nothing, so nothing is lost.

A reader that is slower than the log gets EPIPE from the kernel, once, and goes on with the oldest record that is left. Here it gets a line
`SEQ TIME_NS lost COUNT` instead. SEQ is the last lost record, and the blank after the first number distinguishes the line from a record. The open
reads the first record and keeps it, so the count is right also when a reader's first read comes late.
"""

import errno
import os
import re
import time
from collections import deque

import trio

from mk9p.errors import NineError
from mk9p.tree import Open

RECORD = 8192  # CONSOLE_EXT_LOG_MAX: the buffer that the kernel advises; a buffer shorter than the record gets EINVAL
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")


class Records:
    """One open of the log file `path`."""

    def __init__(self, path: str, how: Open) -> None:
        access = os.O_RDWR if how.read and how.write else os.O_WRONLY if how.write else os.O_RDONLY
        self.fd = os.open(path, access | os.O_NONBLOCK | os.O_NOCTTY)
        self.ready: deque[bytes] = deque()
        self.expected = 0
        if how.read:
            try:
                self.take()
            except OSError:
                os.close(self.fd)
                raise

    async def receive(self) -> bytes:
        """Wait for the next record, or the mark of lost ones. If cancelled, it has lost nothing."""
        while not self.ready and not self.take():
            await trio.lowlevel.wait_readable(self.fd)
        return self.ready.popleft()

    def take(self) -> bool:
        """Move what the kernel has now, a record and perhaps the mark before it, to `ready`; False if there is nothing."""
        while True:
            try:
                record = os.read(self.fd, RECORD)
            except BlockingIOError:
                return False
            except BrokenPipeError:
                continue  # overwritten meanwhile: the numbers of the records tell how many
            break
        if not record:  # a made-up log, a plain file, has an end
            self.ready.append(b"")
            return True
        seq = number(record)
        if seq is not None:
            if self.expected and seq > self.expected:
                self.ready.append(lost(self.expected, seq))
            self.expected = seq + 1
        self.ready.append(record)
        return True

    def send(self, data: bytes) -> int:
        """Write each line as one record, with `<PRIORITY>` before it passed through; raises EINVAL for a line of more than about 1000 bytes.

        Returns how many bytes were taken: if a line fails after others were written, the others count, and the next write gets the error.
        """
        taken = 0
        for line in _LINE.findall(data):
            try:
                if line.strip():
                    os.write(self.fd, line)
            except OSError as error:
                if taken:
                    return taken
                if error.errno == errno.EINVAL:
                    raise NineError(errno.EINVAL, "line is longer than the kernel logs") from None
                raise
            taken += len(line)
        return taken

    def close(self) -> None:
        os.close(self.fd)


def number(record: bytes) -> int | None:
    """Return the SEQ of a record; None if it is none."""
    fields = record.split(b";", 1)[0].split(b",")
    return int(fields[1]) if len(fields) > 2 and fields[1].isdigit() else None


def lost(expected: int, seq: int) -> bytes:
    """Return the mark for the records from `expected` to before `seq`."""
    return f"{seq - 1} {time.time_ns()} lost {seq - expected}\n".encode()
