"""Where the lines of `auth/log` also go: a file that is rotated, and the journal of systemd.

A thread of its own writes them, so a slow disk holds up nobody. It has a queue of `WAITING` lines. What does not fit is dropped, and the program's
own log says so once.
"""

import logging
import os
import queue
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from logging.handlers import QueueListener, RotatingFileHandler
from typing import Final

from mk9p.errors import NineError

log = logging.getLogger("mk9p.audit")

JOURNAL: Final = "journal"
SOCKET: Final = "/run/systemd/journal/socket"
SIZE: Final = 16 << 20  # bytes of a file before the next begins
OLD: Final = 8  # files that are kept besides: weeks of a busy server
WAITING: Final = 65536


@contextmanager
def sink(places: list[str], socket_path: str = SOCKET) -> Iterator[Callable[[str], None]]:
    """Give a function that writes a line to all places: paths of files, or `journal`. Raises OSError for a file that cannot be written."""
    handlers: list[_Told] = [_Journal(socket_path) if place == JOURNAL else _File(place) for place in places]
    waiting: queue.Queue[logging.LogRecord] = queue.Queue(WAITING)
    listener = QueueListener(waiting, *handlers)
    full = False

    def put(line: str) -> None:
        nonlocal full
        try:
            waiting.put_nowait(logging.makeLogRecord({"msg": line, "levelno": logging.INFO, "levelname": "INFO"}))
            full = False
        except queue.Full:
            if not full:
                log.warning("the audit log cannot be written quickly enough: lines are lost in %s", " ".join(places))
            full = True

    listener.start()
    try:
        yield put
    finally:
        listener.stop()
        for handler in handlers:
            try:
                handler.close()
            except OSError as error:
                handler.fails(handler.where, error)


class _Told(logging.Handler):
    """A handler whose failure is said once, until it works again."""

    failed = False
    where = "the journal"

    def worked(self) -> None:
        self.failed = False

    def fails(self, where: str, error: BaseException) -> None:
        if not self.failed:
            log.warning("the audit log cannot be written to %s: %s", where, error)
        self.failed = True


class _File(RotatingFileHandler, _Told):
    """A file that only its owner can read. When it has SIZE bytes, it becomes NAME.1, and what was NAME.1 becomes NAME.2, up to OLD."""

    def __init__(self, path: str) -> None:
        self.where = path
        super().__init__(path, maxBytes=SIZE, backupCount=OLD, encoding="utf-8", errors="backslashreplace")

    def _open(self) -> TextIOWrapper:
        def opener(path: str, flags: int) -> int:
            return os.open(path, flags | os.O_CLOEXEC, 0o600)

        file = open(  # noqa: SIM115 - the handler closes it
            self.baseFilename, self.mode, encoding=self.encoding, errors=self.errors, opener=opener
        )
        assert isinstance(file, TextIOWrapper)
        return file

    def handleError(self, record: logging.LogRecord) -> None:
        import sys

        self.fails(self.where, sys.exc_info()[1] or NineError(5))


class _Journal(_Told):
    """The journal, by its native protocol: one datagram of `FIELD=value` lines."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self.socket.connect(path)
        except OSError as error:
            self.fails(self.where, error)

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        fields = {"MESSAGE": line, "PRIORITY": "6", "SYSLOG_IDENTIFIER": "mk9p-audit", "SYSLOG_FACILITY": "10"}
        data = "".join(f"{key}={value}\n" for key, value in fields.items()).encode(errors="backslashreplace")
        try:
            try:
                self.socket.send(data)
            except OSError:  # it was started again, or for the first time
                self.socket.connect(self.path)
                self.socket.send(data)
            self.worked()
        except OSError as error:
            self.fails(self.where, error)

    def close(self) -> None:
        self.socket.close()
        super().close()
