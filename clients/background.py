"""A process of its own that goes on when the command returns: forked, in a session without a terminal, and announced only when it works.

`in_background(work)` forks before any part of trio runs. `work` gets a function to call when all is well. Until then the command raises what
`work` raises, and its stderr is the command's; from then on both go to syslog(3).
"""

import errno
import logging
import os
import sys
from collections.abc import Callable, Collection

from mk9p.errors import NineError
from mk9p.ktext import split_lines


def in_background(work: Callable[[Callable[[], None]], None], *, keep: Collection[int] = ()) -> None:
    """Run `work(ready)` in a process of its own, and return when it has called `ready`.

    `keep` are the descriptors below 3 that it needs; from `ready` on the others are /dev/null. Raises NineError as `work` did, EIO if it ended
    without a word.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            os.setsid()
            if os.fork() == 0:  # not the leader of a session: it can never get a terminal
                _run(work, writing, keep)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        number, _, words = pipe.read().decode(errors="replace").partition("\n")
    if number != "0":
        raise NineError(int(number or errno.EIO), words or "its process ended without a word")


def _run(work: Callable[[Callable[[], None]], None], writing: int, keep: Collection[int]) -> None:
    ready = False

    def tell() -> None:
        nonlocal ready
        os.write(writing, b"0\n")  # raises EPIPE if the command was killed meanwhile: then nobody wants this
        os.close(writing)
        ready = True
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for fd in {0, 1, 2}.difference(keep):
            os.dup2(null, fd)
        os.close(null)
        log_to_syslog()

    try:
        work(tell)
        if not ready:
            raise NineError(errno.EIO, "it ended before it worked")
    except OSError as error:
        if ready:
            logging.getLogger("mk9p").error("%s", error)
        else:
            os.write(writing, f"{error.errno or errno.EIO}\n{error}".encode())
    except Exception:
        if not ready:
            raise
        logging.getLogger("mk9p").exception("internal error")


def log_to_syslog() -> None:
    """Send what is logged to syslog(3) from now on."""
    import syslog

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            level = syslog.LOG_ERR if record.levelno >= logging.ERROR else syslog.LOG_WARNING
            for line in split_lines(self.format(record)):
                syslog.syslog(level, line)

    syslog.openlog("mk9p", syslog.LOG_PID, syslog.LOG_DAEMON)
    root = logging.getLogger()
    root.handlers = [Handler()]
