"""How quiet a CPU is: what came to it and disturbed what runs there, and the longest time for which the CPU was away.

For each CPU alone, it counts
* interrupts: its column of /proc/interrupts, all lines: those of devices and the kernel's own (timer, calls from other CPUs, rescheduling);
* soft interrupts: its column of /proc/softirqs;
* switches: how often a task got the CPU, the last number of its line in /proc/schedstat (Documentation/scheduler/sched-stats.rst: timeslices). The
  kernel counts all its switches, also those to the idle loop, but tells that only in debugfs, with every thread of the machine.

A process on that CPU measures the gap. It does nothing but look at the clock (CLOCK_MONOTONIC), as the kernel's osnoise tracer does in a thread of
the kernel: the gap is the longest time between two looks. It is a process, because one thread of this server could not be in the CPU's cgroup. It
is a Python loop, and the file also tells the loop's own time, the shortest between two looks. While it runs the CPU is not idle: the tick, which
an idle CPU is spared, comes to it, and is counted.
"""

import errno
import sys
import time
from typing import Final

import attrs
import trio

from mk9p.errors import NineError, wording
from mk9p.ktext import split_words, trim
from mk9p.sysfs import text
from mk9p.tree import fields

LONGEST: Final = 3600.0  # seconds; to measure for longer, measure again: the worst gap is kept

_LOOK: Final = """
import gc, os, sys, time
group, cpu, ns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
try:
    if group:
        with open(group, "w") as procs:
            procs.write("0")
    os.sched_setaffinity(0, {cpu})
except OSError as error:
    sys.exit(f"{error.errno}")
gc.disable()
def look(ns, clock=time.monotonic_ns):
    worst, best = 0, ns
    last = clock()
    end = last + ns
    while last < end:
        now = clock()
        gap = now - last
        if gap > worst:
            worst = gap
        if gap < best:
            best = gap
        last = now
    return worst, best
look(20_000_000)
print(*look(ns))
"""


@attrs.frozen
class Counts:
    """What a CPU had counted at a time, in ns since the boot; None for what the kernel does not tell."""

    ns: int
    interrupts: int | None
    softirqs: int | None
    switches: int | None

    @classmethod
    def now(cls, root: str, n: int) -> "Counts":
        return cls(
            time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            _column(text(f"{root}/proc/interrupts"), n),
            _column(text(f"{root}/proc/softirqs"), n),
            _timeslices(text(f"{root}/proc/schedstat"), n),
        )

    @classmethod
    def parse(cls, line: str) -> "Counts | None":
        """Return what `str` wrote; None for an empty line."""
        values = [int(word) if word.isdigit() else None for word in split_words(line)]
        return cls(values[0] or 0, *values[1:]) if len(values) == 4 else None

    def __str__(self) -> str:
        return f"{self.ns} {_told(self.interrupts)} {_told(self.softirqs)} {_told(self.switches)}"


@attrs.define
class Noise:
    """What disturbed one CPU since `base`, and what was measured since then: for how long, the worst gap and the loop's own step, in ns."""

    base: Counts
    measured: int = 0
    gap: int | None = None
    step: int | None = None
    busy: bool = False

    def render(self, now: Counts) -> str:
        values = {
            "since_ns": now.ns - self.base.ns,
            "interrupts": _since(now.interrupts, self.base.interrupts),
            "softirqs": _since(now.softirqs, self.base.softirqs),
            "switches": _since(now.switches, self.base.switches),
            "measured_ns": self.measured,
            "gap_ns": _told(self.gap),
            "step_ns": _told(self.step),
        }
        return fields(values)

    def reset(self, base: Counts) -> None:
        self.base, self.measured, self.gap, self.step = base, 0, None, None

    async def measure(self, n: int, seconds: float, group: str) -> None:
        """Look for gaps on CPU `n` for some seconds, in the cgroup whose cgroup.procs is `group`, unless that is empty.

        Raises EINVAL for an impossible time, EBUSY while somebody else measures, and what the kernel says. If cancelled, it ends at once.
        """
        if not 0 < seconds <= LONGEST:
            raise NineError(errno.EINVAL, f"a time is above 0 and at most {LONGEST:.0f} seconds")
        if self.busy:
            raise NineError(errno.EBUSY, f"CPU {n} is being measured")
        self.busy, base = True, self.base
        words = [sys.executable, "-I", "-S", "-c", _LOOK, group, str(n), str(round(seconds * 1e9))]
        try:
            done = await trio.run_process(words, capture_stdout=True, capture_stderr=True, check=False)
        finally:
            self.busy = False
        if done.returncode != 0:
            said = trim(done.stderr.decode(errors="replace"))
            number = int(said) if said.isdigit() else errno.EIO
            raise NineError(number, f"CPU {n} cannot be measured: {wording(number)}")
        if self.base is base:  # otherwise somebody reset it meanwhile
            gap, step = map(int, split_words(done.stdout))
            self.measured += round(seconds * 1e9)
            self.gap, self.step = max(gap, self.gap or 0), min(step, self.step or step)


def _column(table: str, n: int) -> int | None:
    """Return the sum of a CPU's column of /proc/interrupts or /proc/softirqs; None if it has none. Lines with fewer columns belong to no CPU."""
    head, *lines = table.split("\n")
    cpus = split_words(head)
    if f"CPU{n}" not in cpus:
        return None
    at, total = cpus.index(f"CPU{n}") + 1, 0
    for line in lines:
        fields = line.split(None, len(cpus) + 1)
        if len(fields) > len(cpus) and fields[at].isdigit() and fields[len(cpus)].isdigit():
            total += int(fields[at])
    return total


def _timeslices(schedstat: str, n: int) -> int | None:
    for line in schedstat.split("\n"):
        if line.startswith(f"cpu{n} "):
            return int(split_words(line)[9])
    return None


def _since(now: int | None, then: int | None) -> str:
    return "-" if now is None or then is None else str(now - then)


def _told(value: int | None) -> str:
    return "-" if value is None else str(value)
