"""`time`, after cons(3): seconds and nanoseconds since 1970, fast ticks, and the fast ticks of one second.

The fast ticks are those of CLOCK_MONOTONIC: nanoseconds that setting the clock does not move, so programs can measure intervals with them.
"""

import errno
import time

from mk9p.errors import NineError
from mk9p.ktext import split_words

NS = 1_000_000_000


def read_time() -> str:
    """Return `seconds nanoseconds ticks frequency`, all at one moment as nearly as possible."""
    ns = time.time_ns()
    return f"{ns // NS} {ns} {time.monotonic_ns()} {NS}\n"


def parse_time(text: str) -> int:
    """Return the nanoseconds since 1970 that a written text means: `SECONDS`, or a line as somebody read it; raises EINVAL for anything else.

    In such a line the nanoseconds count, and the ticks mean nothing.
    """
    fields = split_words(text)
    if len(fields) not in (1, 2, 4) or not all(field.isdecimal() for field in fields):
        raise NineError(errno.EINVAL, "usage: SECONDS [NANOSECONDS]")
    return int(fields[0]) * NS if len(fields) == 1 else int(fields[1])


def set_time(text: str) -> None:
    """Set the clock (clock_settime(2)); raises EPERM without CAP_SYS_TIME, EINVAL for a time before the machine's start."""
    ns = parse_time(text)
    try:
        time.clock_settime_ns(time.CLOCK_REALTIME, ns)
    except OverflowError:
        raise NineError(errno.EINVAL, "time is out of range") from None
