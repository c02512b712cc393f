"""CPUs taken away from everything that can be taken away, and given back as it was.

What is moved: tasks and movable kernel threads (partition.py, threads.py), and whatever has a setting for the CPUs it may go to: interrupts, new
ones too, workers for unbound work, the watchdog, packets (RPS). All this is data: settings with what they were, so that giving back needs no more
than that. What was changed by others meanwhile is theirs and left.

Interrupts and workers that the kernel will not move stay, and so do its threads that belong to one CPU; `cpu/N/status` names them.
"""

import errno
from contextlib import suppress

import attrs

from mk9p.affinity import CpuSet, Setting, away, handler, interrupts, keep_off, listed, new_interrupts, numbers
from mk9p.errors import NineError
from mk9p.sysfs import names, text
from servers.cpu.partition import Partition
from servers.cpu.threads import Thread, kept, put_right, threads

_KEPT = "kept"
_OFF = "off"
_WORKQUEUES = "sys/devices/virtual/workqueue"
_NET = "sys/class/net"


@attrs.frozen
class Isolation:
    """The isolated CPUs of one kernel. All but `now` take time: system calls for every thread and interrupt."""

    root: str
    partition: Partition = attrs.Factory(lambda self: Partition(self.root), takes_self=True)

    def now(self) -> CpuSet:
        """Return the CPUs that were isolated here."""
        return self.partition.cpus()

    def moved(self) -> CpuSet:
        """Return the CPUs that things were moved off: those of `now`, unless somebody has taken the partition away meanwhile."""
        return self._kept()[1]

    def online(self) -> CpuSet:
        return frozenset(numbers(text(f"{self.root}/sys/devices/system/cpu/online", "0")))

    def settings(self) -> list[Setting]:
        """Return all settings of where something may go; that of new interrupts first."""
        workers = [f"{_WORKQUEUES}/{name}/cpumask" for name in names(f"{self.root}/{_WORKQUEUES}")]
        packets = [
            f"{_NET}/{link}/queues/{queue}/rps_cpus"
            for link in names(f"{self.root}/{_NET}")
            for queue in names(f"{self.root}/{_NET}/{link}/queues")
            if queue.startswith("rx-")
        ]
        masks = [f"{_WORKQUEUES}/cpumask", *workers, *packets]
        return [
            new_interrupts(self.root),
            *interrupts(self.root).values(),
            *(Setting(self.root, path, mask=True) for path in masks),
            Setting(self.root, "proc/sys/kernel/watchdog_cpumask"),
        ]

    def isolate(self, cpus: CpuSet) -> list[str]:
        """Isolate CPUs, and return what stays there though it has a setting. Those that are so already are swept again.

        Raises, with all as it was: EBUSY if none would be left or the kernel refuses the partition, EOPNOTSUPP if it cannot have one.
        """
        was, online = self.now(), self.online()
        now = was | self.moved() | cpus
        if online <= now:
            raise NineError(errno.EBUSY, f"CPU {listed(cpus)} cannot be isolated: none would be left for the rest")
        self.partition.require_free(cpus)
        self.partition.make()
        before, moved = self._kept()
        could = self._unchanged(before, moved, online)
        settings, found, mine = self.settings(), threads(self.root), self.partition.threads()
        could = {**{s.path: cpus for s in settings if (cpus := s.read())}, **kept(found, mine, was, online), **could}
        try:
            self._keep(could, now)
            if now != was:
                self.partition.hold(now)
        except OSError:
            with suppress(OSError):  # it is the first error that is to be told
                if before:
                    self._keep(before, moved)
                else:
                    self.partition.remove()
            self._put_right(found, mine, was, could)
            raise
        refused = keep_off(settings, now, online, kept=could)
        self._put_right(found, mine, now, could)
        return [self._name(setting) for setting in refused]

    def join(self, cpus: CpuSet) -> list[str]:
        """Give CPUs back, and return what could not be put back as it was."""
        kept_before, moved = self._kept()
        was, online = moved | self.now(), self.online()
        now = was - cpus
        could = self._unchanged(kept_before, was, online)
        found, mine = threads(self.root), self.partition.threads()
        new = new_interrupts(self.root)
        came = {s.path for s in interrupts(self.root).values()} - kept_before.keys()
        if new.path in could:  # what came meanwhile got what new interrupts then got
            could = self._unchanged(could | dict.fromkeys(came, could[new.path]), was, online)
        refused = []
        for setting in self.settings():
            if setting.path in could and setting.read() != (then := away(could[setting.path], now, online)):
                try:
                    setting.write(then)
                except OSError:
                    refused.append(self._name(setting))
        could = {**kept(found, mine, was, online), **could}
        if now:
            self.partition.hold(now)
            self._keep(could, now)
        else:
            self.partition.release()
        self._put_right(found, mine, now, could)
        if not now:
            self.partition.remove()
        return refused

    def stays(self, n: int) -> dict[str, str]:
        """Return what may still come to an isolated CPU: interrupts, kernel threads, tasks that are not in its cgroup; `-` for none."""
        mine = self.partition.threads()
        there = [t for t in threads(self.root) if n in t.cpus and t.tid not in mine]
        values = {
            "cgroup": f"/{self.partition.folder.rpartition('/')[2]}",
            "irqs": [self._name(s) for s in interrupts(self.root).values() if n in s.read() & s.goes()],
            "threads": [t.name for t in there if t.kernel],
            "tasks": [f"{t.tid}:{t.name}" for t in there if not t.kernel],
        }
        return {key: value if isinstance(value, str) else " ".join(value) or "-" for key, value in values.items()}

    def _put_right(self, found: list[Thread], mine: frozenset[int], now: CpuSet, could: dict[str, CpuSet]) -> None:
        if not self.root:  # the threads of a made-up /proc are not to be had
            put_right(found, mine, now, self.online(), could)

    def _unchanged(self, could: dict[str, CpuSet], was: CpuSet, online: CpuSet) -> dict[str, CpuSet]:
        """Return of what was kept that which is still as it was left when the CPUs of `was` were isolated; what others changed is theirs."""
        now = {s.path: s.read() for s in self.settings()} | {t.key: t.cpus for t in threads(self.root)}
        return {
            key: cpus
            for key, cpus in could.items()
            if key in now and now[key] & online == away(cpus, was, online) & online
        }

    def _kept(self) -> tuple[dict[str, CpuSet], CpuSet]:
        """Return where everything could go before, and the CPUs that it was moved off."""
        lines = [line.rpartition(" ") for line in self.partition.noted(_KEPT).split("\n") if line]
        found = {key: frozenset(numbers(cpus)) for key, _, cpus in lines}
        return found, found.pop(_OFF, frozenset())

    def _keep(self, could: dict[str, CpuSet], off: CpuSet) -> None:
        self.partition.note(_KEPT, "".join(f"{key} {listed(cpus)}\n" for key, cpus in {_OFF: off, **could}.items()))

    def _name(self, setting: Setting) -> str:
        number = setting.path.split("/")[2]
        if setting.effective:
            return f"{number}:{handler(self.root, int(number)) or '-'}"
        return f"/{setting.path}"
