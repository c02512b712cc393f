"""Keep CPUs busy while they are being isolated.

An idle CPU whose tick is stopped is in a mask of the scheduler. Busy CPUs choose from this mask, at every tick, which CPU balances their load
(nohz.idle_cpus_mask, kernel/sched/fair.c). A CPU leaves the mask at its first tick at work. A CPU that has no domain any more neither enters nor
leaves. So if a CPU were idle when it is isolated, the others would call it some hundred times a second, for as long as it is isolated. Therefore
each CPU gets something to do, in the very cgroup that it moves to, until it is there.
"""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from mk9p.ktext import split_words
from mk9p.sysfs import put, text

TICKS: Final = 3  # of 10 ms, at work: a few ticks of any kernel
PATIENCE: Final = 5.0  # seconds; a CPU that has no time to work for so long is isolated as it is


@contextmanager
def awake(cpus: Iterable[int], group: str) -> Iterator[None]:
    """Keep CPUs of a cgroup busy inside the block. Takes a few ticks. Raises OSError, after it has stopped keeping any CPU busy."""
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
    """Return how many ticks a process has worked (proc(5), stat, utime)."""
    return int(split_words(text(f"/proc/{pid}/stat").rpartition(")")[2])[11])
