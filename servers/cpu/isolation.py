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
    """What the kernel remembers for us: where everything `could` go, off which CPUs it was moved, and which were `online` at the last change."""

    could: dict[str, CpuSet]
    off: CpuSet
    online: CpuSet


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
        return self._kept().off

    def online(self) -> CpuSet:
        return frozenset(numbers(text(f"{self.root}/sys/devices/system/cpu/online", "0")))

    def present(self) -> CpuSet:
        return frozenset(numbers(text(f"{self.root}/sys/devices/system/cpu/present", "0")))

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
            with suppress(OSError):  # it is the first error that is to be told
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
        if new.path in could:  # what came meanwhile got what new interrupts then got
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

    def settle(self) -> None:
        """Give the threads the CPUs that came online since the last change, where the kernel does not (threads.py). It is no error if none came."""
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
        """Remove the cgroup, or keep it as a memory, without CPUs, while a CPU is offline that free threads will have to be given."""
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
        if not self.root:  # the threads of a made-up /proc are not to be had
            put_right(found, mine, now, self.online(), self.present(), could)

    def _unchanged(self, before: Kept, was: CpuSet) -> dict[str, CpuSet]:
        """Return of what was kept that which is still as it was left when the CPUs of `was` were isolated; what others changed is theirs."""
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
