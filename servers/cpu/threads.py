"""The threads of the kernel and where each may run: what a partition does not keep, and what no partition can move.

Up to Linux 6.1 every change of a partition forgets which CPUs a thread was bound to: it may then go wherever its cgroup may. Later kernels
remember (`user_cpus_ptr`). Such a change also leaves every thread only the CPUs that are online at that moment: a CPU that comes online later
belongs to nobody, until reboot. So this module looks at the threads before a change and when a CPU has come, and puts right each thread that is
not as it should be. A thread is *free* if nobody bound it: it could use all the CPUs that were online and not isolated at the last change. If a
user has bound a thread to exactly those CPUs since then, it counts as free, because nothing distinguishes the two.

The kernel binds kernel threads with PF_NO_SETAFFINITY for good; all others move like any task. (sched_setaffinity(2), proc_pid_stat(5))
"""

import os
from collections.abc import Mapping
from typing import Final

import attrs

from mk9p.affinity import CpuSet, away, numbers
from mk9p.ktext import field, split_words
from mk9p.sysfs import names, text

_KERNEL: Final = 0x00200000  # PF_KTHREAD
_BOUND: Final = 0x04000000  # PF_NO_SETAFFINITY


@attrs.frozen
class Thread:
    """A thread, and the CPUs that it may run on. `bound`: the kernel binds it and lets nobody change that."""

    tid: int
    name: str
    kernel: bool
    bound: bool
    start: str
    cpus: CpuSet

    @property
    def key(self) -> str:
        """What distinguishes it from a later thread with its number."""
        return f"{self.tid}.{self.start}"


def threads(root: str) -> list[Thread]:
    """Return all threads."""
    found = []
    for pid in names(f"{root}/proc"):
        if not pid.isdigit():
            continue
        for tid in names(f"{root}/proc/{pid}/task"):
            base = f"{root}/proc/{pid}/task/{tid}"
            head, _, tail = text(f"{base}/stat").rpartition(")")
            fields, status = split_words(tail), text(f"{base}/status")
            cpus = field(status, "Cpus_allowed_list")
            if len(fields) > 19 and cpus:  # otherwise it has just ended
                flags = int(fields[6])
                name = "_".join(split_words(head.partition("(")[2])) or "-"
                found.append(
                    Thread(
                        int(tid),
                        name,
                        bool(flags & _KERNEL),
                        bool(flags & _BOUND),
                        fields[19],
                        frozenset(numbers(cpus)),
                    )
                )
    return found


def kept(found: list[Thread], mine: frozenset[int], was: CpuSet, online: CpuSet) -> dict[str, CpuSet]:
    """Return the CPUs of the threads that are not free: a thread that may not run on every CPU that was online and not isolated, or that may run
    on one that was isolated.

    `was` and `online` are as at the last change. `mine` are left out.
    """
    return {
        t.key: t.cpus
        for t in found
        if not t.bound and t.tid not in mine and (t.cpus & was or not online - was <= t.cpus)
    }


def put_right(
    found: list[Thread],
    mine: frozenset[int],
    now: CpuSet,
    online: CpuSet,
    present: CpuSet,
    could: Mapping[str, CpuSet],
) -> None:
    """Let threads run where they should after a change: those of `mine` on CPUs of `now`, all others off them, as far as they could go there.

    `found` are the threads as they were before. A thread that is not in `could` is free, and may use all CPUs that are `present`.
    """
    for thread in found:
        if thread.bound:
            continue
        if thread.tid in mine:
            then = thread.cpus & now or now
        elif thread.key in could:
            then = away(could[thread.key], now, online)
        else:
            then = present - now
        try:
            if then and os.sched_getaffinity(thread.tid) & online != then & online:
                os.sched_setaffinity(thread.tid, then)
        except OSError:
            continue  # it has ended, or the kernel keeps it there, and then status names it
