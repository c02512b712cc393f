"""CPUs kept at work while they are isolated.

An idle CPU whose tick is stopped stands in a mask of the scheduler's, from which busy CPUs choose, at every tick, who shall balance their load
(nohz.idle_cpus_mask, kernel/sched/fair.c). A CPU leaves it at its first tick at work; one that has no domain any more neither enters nor leaves. So a
CPU that is isolated while it idles would be called by the others some hundred times a second, for as long as it is isolated. Therefore each is given
something to do, in the very cgroup that it goes to, until it is there.
"""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from mk9p.ktext import split_words
from mk9p.sysfs import put, text

TICKS: Final = 3  # of 10 ms, at work: some ticks of any kernel
PATIENCE: Final = 5.0  # seconds, after which a CPU that has no time for that is isolated as it is


@contextmanager
def awake(cpus: Iterable[int], group: str) -> Iterator[None]:
    """Keep CPUs of a cgroup at work in the block. Takes some ticks; raises OSError, with nobody left at work."""
    pids: list[int] = []
    try:
        for cpu in cpus:
            pid = os.posix_spawn("/bin/sh", ["sh", "-c", "while :; do :; done"], {})
            pids.append(pid)
            put(f"{group}/cgroup.procs", str(pid))
            os.sched_setaffinity(pid, {cpu})
        until = time.monotonic() + PATIENCE
        while any(_worked(pid) < TICKS for pid in pids) and time.monotonic() < until:
            time.sleep(0.01)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _worked(pid: int) -> int:
    """Return the ticks for which a process was at work (proc(5), stat, utime)."""
    return int(split_words(text(f"/proc/{pid}/stat").rpartition(")")[2])[11])
