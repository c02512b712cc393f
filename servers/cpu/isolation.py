"""Take CPUs away from everything that can be moved, and give them back as they were.

These move: tasks and movable kernel threads (partition.py, threads.py), and everything that has a setting for its CPUs: interrupts, also new ones,
workers for unbound work, the watchdog, packets (RPS). All this is data: settings with their old values, so giving back needs nothing else. What
others changed meanwhile is theirs and stays.

Interrupts and workers that the kernel will not move stay, and so do its threads that belong to one CPU; `cpu/N/status` names them.
"""

import errno
from contextlib import suppress

import attrs

from mk9p.affinity import CpuSet, Setting, away, handler, interrupts, keep_off, listed, new_interrupts, numbers
from mk9p.errors import NineError
from mk9p.servers.cpu.partition import Partition
from mk9p.servers.cpu.threads import Thread, kept, put_right, threads
from mk9p.sysfs import names, text

_KEPT = "kept"
_OFF = "off"
_ONLINE = "online"
_WORKQUEUES = "sys/devices/virtual/workqueue"
_NET = "sys/class/net"


@attrs.frozen
class Kept:
    """What the kernel remembers for this server: where each thing `could` go, off which CPUs it was moved, and which were `online` at the last
    change."""

    could: dict[str, CpuSet]
    off: CpuSet
    online: CpuSet


@attrs.frozen
class Isolation:
    """The isolated CPUs of one kernel. Everything except `now` takes time: system calls for every thread and interrupt."""

    root: str
    partition: Partition = attrs.Factory(lambda self: Partition(self.root), takes_self=True)

    def now(self) -> CpuSet:
        """Return the CPUs that this server isolated."""
        return self.partition.cpus()

    def moved(self) -> CpuSet:
        """Return the CPUs that things were moved off: those of `now`, unless somebody has taken the partition away meanwhile."""
        return self._kept().off

    def online(self) -> CpuSet:
        return frozenset(numbers(text(f"{self.root}/sys/devices/system/cpu/online", "0")))

    def present(self) -> CpuSet:
        return frozenset(numbers(text(f"{self.root}/sys/devices/system/cpu/present", "0")))

    def settings(self) -> list[Setting]:
        """Return all settings of where something may go; the setting of new interrupts comes first."""
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
        """Isolate CPUs, and return what stays there though it has a setting. CPUs that are isolated already are cleared again.

        Raises these errors, with everything as it was: EBUSY if no CPU would be left or the kernel refuses the partition, EOPNOTSUPP if it cannot
        have one.
        """
        was, online, before = self.now(), self.online(), self._kept()
        now = was | before.off | cpus
        if online <= now:
            raise NineError(errno.EBUSY, f"CPU {listed(cpus)} cannot be isolated: none would be left for the rest")
        self.partition.require_free(cpus)
        self.partition.make()
        could = self._unchanged(before, before.off)
        settings, found, mine = self.settings(), threads(self.root), self.partition.threads()
        bound, noted = kept(found, mine, was, before.online), self.partition.noted(_KEPT)
        could = {**{s.path: cpus for s in settings if (cpus := s.read())}, **bound, **could}
        try:
            self._keep(could, now)
            if now != was:
                self.partition.hold(now)
        except OSError:
            with suppress(OSError):  # the first error is the one to report
                if noted:
                    self.partition.note(_KEPT, noted)
                else:
                    self.partition.remove()
            self._put_right(found, mine, was, could)
            raise
        refused = keep_off(settings, now, online, kept=could)
        self._put_right(found, mine, now, could)
        return [self._name(setting) for setting in refused]

    def join(self, cpus: CpuSet) -> list[str]:
        """Give CPUs back, and return what could not be put back as it was."""
        before, online = self._kept(), self.online()
        was = before.off | self.now()
        now = was - cpus
        could = self._unchanged(before, was)
        found, mine = threads(self.root), self.partition.threads()
        new = new_interrupts(self.root)
        came = {s.path for s in interrupts(self.root).values()} - before.could.keys()
        if new.path in could:  # what came meanwhile got the setting that new interrupts had then
            came_with = attrs.evolve(before, could=could | dict.fromkeys(came, could[new.path]))
            could = self._unchanged(came_with, was)
        refused = []
        for setting in self.settings():
            if setting.path in could and setting.read() != (then := away(could[setting.path], now, online)):
                try:
                    setting.write(then)
                except OSError:
                    refused.append(self._name(setting))
        could = {**kept(found, mine, was, before.online), **could}
        if now:
            self.partition.hold(now)
            self._keep(could, now)
        else:
            self.partition.release()
        self._put_right(found, mine, now, could)
        if not now:
            self._leave(could)
        return refused

    def free_new(self) -> None:
        """Let the threads use the CPUs that came online since the last change, where the kernel does not do that (threads.py). No such CPU is no
        error."""
        if not self.partition.noted(_KEPT):
            return
        before = self._kept()
        was = before.off | self.now()
        could = self._unchanged(before, was)
        found, mine = threads(self.root), self.partition.threads()
        could = {**kept(found, mine, was, before.online), **could}
        self._put_right(found, mine, was, could)
        if was:
            self._keep(could, was)
        else:
            self._leave(could)

    def _leave(self, could: dict[str, CpuSet]) -> None:
        """Remove the cgroup. While a CPU is offline that free threads must get later, keep it without CPUs, as a memory."""
        found = threads(self.root)
        bound = {t.key: could[t.key] for t in found if t.key in could}
        present = self.present()
        lacks = not self.root and any(present - t.cpus for t in found if not t.bound and t.key not in bound)
        if lacks and present - self.online():
            self._keep(bound, frozenset())
        else:
            self.partition.remove()

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
        if not self.root:  # a made-up /proc has no real threads
            put_right(found, mine, now, self.online(), self.present(), could)

    def _unchanged(self, before: Kept, was: CpuSet) -> dict[str, CpuSet]:
        """Return those old settings whose present value is still as it was left when the CPUs of `was` were isolated; what others changed is
        theirs."""
        now = {s.path: s.read() for s in self.settings()} | {t.key: t.cpus for t in threads(self.root)}
        seen = before.online & self.online()
        return {
            key: cpus
            for key, cpus in before.could.items()
            if key in now and now[key] & seen == away(cpus, was, before.online) & seen
        }

    def _kept(self) -> Kept:
        lines = [line.rpartition(" ") for line in self.partition.noted(_KEPT).split("\n") if line]
        found = {key: frozenset(numbers(cpus)) for key, _, cpus in lines}
        off, online = found.pop(_OFF, frozenset()), found.pop(_ONLINE, frozenset())
        return Kept(found, off, online or self.online())

    def _keep(self, could: dict[str, CpuSet], off: CpuSet) -> None:
        said = {_OFF: off, _ONLINE: self.online(), **could}
        self.partition.note(_KEPT, "".join(f"{key} {listed(cpus)}\n" for key, cpus in said.items()))

    def _name(self, setting: Setting) -> str:
        number = setting.path.split("/")[2]
        if setting.effective:
            return f"{number}:{handler(self.root, int(number)) or '-'}"
        return f"/{setting.path}"
