"""`ctl` and `note`: what users may do to a process, and which users.

The server is usually root, so the kernel refuses it nothing. Therefore this module checks the user who asks, at each word and not only at open,
because a process may have changed its user meanwhile. The process's guard (procfs.py) may do what Linux lets a user do to their own process. Only
root may lower a nice value, and set a real-time policy or a cgroup. Signals go through the descriptor of the checked directory. Linux has no such
call for scheduling: those words check the process, then name its threads by number. They act on all threads, because that is what people mean; the
kernel's own calls act on one.
"""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import attrs

from mk9p import signals
from mk9p.auth import ROOT, WRITE, Principal, may
from mk9p.errors import NineError
from mk9p.ktext import field, mounts, split_lines, trim
from mk9p.servers.proc.procfs import Pid, Times, exited, guard_of, read_at
from mk9p.servers.proc.texts import POLICIES
from mk9p.tree import settings

_URGENT = ("fifo", "rr")


@attrs.frozen
class Control:
    """Steer one process."""

    pid: Pid

    def words(self) -> dict[str, Callable[..., None]]:
        """Return the words of `ctl`."""
        return {
            "kill": self.kill,
            "stop": self.stop,
            "start": self.start,
            "nice": self.nice,
            "wired": self.wired,
            "sched": self.sched,
            "cgroup": self.cgroup,
        }

    def settings(self) -> str:
        """Render the present settings as lines that a client can write back."""
        with self.pid.directory() as directory:
            times = Times.parse(read_at(directory, "stat"))
            cpus = field(read_at(directory, "status"), b"Cpus_allowed_list").decode()
            groups = split_lines(os.fsdecode(read_at(directory, "cgroup")))
        policy = times.field(41)
        lines = settings({"nice": times.field(19), "wired": cpus})
        lines += f"sched {POLICIES[policy] if policy < len(POLICIES) else policy} {times.field(40)}\n"
        return lines + "".join(settings({"cgroup": path}) for path in [g[3:] for g in groups if g.startswith("0::")])

    @contextmanager
    def _mine(self, who: Principal) -> Iterator[int]:
        """Hold the process's directory for a user who may steer it; raises EPERM for anybody else, ESRCH if it has ended."""
        with self.pid.directory() as directory:
            if not may(who, 0o600, *guard_of(directory), WRITE):
                raise NineError(errno.EPERM)
            yield directory

    def send(self, who: Principal, number: int) -> None:
        """Send a signal; raises EPERM for this server itself, which then could not answer anybody."""
        if self.pid.number == self.pid.procfs.own:
            raise NineError(errno.EPERM, "this process is the server that you speak to")
        with self._mine(who) as directory:
            self.pid.procfs.require_ours()
            try:
                signal.pidfd_send_signal(directory, number)
            except ProcessLookupError:
                raise exited() from None

    def note(self, who: Principal, text: str) -> None:
        """Send the signal with this name, note or number."""
        self.send(who, signals.number(trim(text)))

    def kill(self, who: Principal) -> None:
        self.send(who, signal.SIGKILL)

    def stop(self, who: Principal) -> None:
        self.send(who, signal.SIGSTOP)

    def start(self, who: Principal) -> None:
        self.send(who, signal.SIGCONT)

    def _threads(self, who: Principal, act: Callable[[int], None]) -> None:
        """Do something to every thread, also to threads that are made meanwhile."""
        with self._mine(who) as directory:
            self.pid.procfs.require_ours()
            done: set[int] = set()
            while new := _threads_of(directory) - done:
                for thread in new:
                    try:
                        act(thread)
                    except ProcessLookupError:
                        if thread == self.pid.number:
                            raise exited() from None
                done |= new

    def nice(self, who: Principal, n: int) -> None:
        """Set the nice value of all threads; only root may lower it."""
        if not -20 <= n <= 19:
            raise NineError(errno.EINVAL, "nice goes from -20 to 19")

        def act(thread: int) -> None:
            if who.uid != 0 and n < os.getpriority(os.PRIO_PROCESS, thread):
                raise NineError(errno.EPERM, "only root may lower a nice value")
            os.setpriority(os.PRIO_PROCESS, thread, n)

        self._threads(who, act)

    def wired(self, who: Principal, list_: str) -> None:
        """Let all threads run only on these CPUs; `0-3,8` as Linux writes lists."""
        cpus = cpu_list(list_)
        self._threads(who, lambda thread: os.sched_setaffinity(thread, cpus))

    def sched(self, who: Principal, policy: Literal["other", "batch", "idle", "fifo", "rr"], prio: int = 0) -> None:
        """Set the scheduling policy of all threads (sched(7)); only root may set a real-time policy, or leave idle."""
        number = POLICIES.index(policy)

        def act(thread: int) -> None:
            idle = os.sched_getscheduler(thread) == os.SCHED_IDLE
            if who.uid != 0 and (policy in _URGENT or (idle and policy != "idle")):
                raise NineError(errno.EPERM, f"only root may set {policy} here")
            os.sched_setscheduler(thread, number, os.sched_param(prio))

        self._threads(who, act)

    def cgroup(self, who: Principal, path: str) -> None:
        """Move the process to an existing cgroup of version 2, by its path below the mount; only root may."""
        if who.uid != ROOT.uid:
            raise NineError(errno.EPERM, "only root may move a process to another cgroup")
        if not path.startswith("/") or ".." in path.split("/"):
            raise NineError(errno.EINVAL, "usage: cgroup /PATH")
        with self._mine(who):
            self.pid.procfs.require_ours()
            group = cgroup_mount(self.pid.procfs.path) + path
            try:
                fd = os.open(f"{group}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise NineError(errno.ENOENT, f"no cgroup {path}") from None
            try:
                os.write(fd, str(self.pid.number).encode())
            except ProcessLookupError:
                raise exited() from None
            finally:
                os.close(fd)


def _threads_of(directory: int) -> set[int]:
    task = os.open("task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return {int(name) for name in os.listdir(task)}
    finally:
        os.close(task)


def cpu_list(text: str) -> set[int]:
    """Return the CPUs of a list as Linux writes it; raises EINVAL."""
    cpus: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) > 65535:
            raise NineError(errno.EINVAL, "usage: wired LIST, as in 0-3,8")
        cpus.update(range(int(first), int(last or first) + 1))
    return cpus


def cgroup_mount(proc: str) -> str:
    """Return where cgroups of version 2 are mounted; raises ENODEV if nowhere."""
    with open(f"{proc}/self/mountinfo", "rb") as file:
        for mount in mounts(file.read()):
            if mount.kind == "cgroup2":
                return mount.target
    raise NineError(errno.ENODEV, "no cgroups of version 2 are mounted")
