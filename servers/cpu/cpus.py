"""The CPUs: what their files say, and what their ctl words do."""

import errno
import os
from collections.abc import Callable, Iterable
from functools import partial

import attrs
import trio

from mk9p.affinity import CpuList, CpuSet, listed, numbers
from mk9p.errors import NineError, wording
from mk9p.servers.cpu import sysfs
from mk9p.servers.cpu.isolation import Isolation
from mk9p.servers.cpu.noise import Counts, Noise
from mk9p.sysfs import put, text
from mk9p.tree import Ctl, Dir, Lazy, Log, Text, fields
from mk9p.uevents import Uevent

_WINDOW_TICKS = 50  # a load covers at least half a second: with ticks of 10 ms, less would be noise
_DEVICE = "/devices/system/cpu/cpu"
_ACTIONS = frozenset({"online", "offline", "add", "remove"})


class Load:
    """How busy each CPU was since the last time that anybody asked, or since the start.

    It keeps two samples, because two readers shortly after each other would each get a window too short to say anything. The later sample becomes
    the base of the next measurement only when it is old enough. Time is counted in the kernel's own ticks.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.base = self.last = sysfs.times(root)

    def percent(self) -> dict[int, int]:
        """Return for each online CPU the percentage of time in which it was neither idle nor waiting for I/O; nothing for a CPU without a tick
        since then."""
        now = sysfs.times(self.root)
        if any(sum(t[:8]) - sum(self.last.get(n, ())[:8]) >= _WINDOW_TICKS for n, t in now.items()):
            self.base, self.last = self.last, now
        found = {}
        for n, ticks in now.items():
            before = self.base.get(n)
            if before is None:
                continue  # it was offline then
            # guest time, the columns after the eighth, is part of user time already
            spent = [b - a for a, b in zip(before[:8], ticks[:8], strict=False)]
            total = sum(spent)
            if total > 0:
                found[n] = min(100, max(0, round(100 * (total - spent[3] - sum(spent[4:5])) / total)))
        return found


@attrs.define(eq=False)
class Cpus:
    """All CPUs of one kernel. With `told`, events come from the kernel; without it, only changes made here give events."""

    root: str
    told: bool = attrs.field(default=False, kw_only=True)
    events: Log = attrs.field(factory=Log, init=False)
    load: Load = attrs.field(init=False)
    known: set[int] = attrs.field(init=False)
    isolation: Isolation = attrs.field(init=False)
    noises: dict[int, Noise] = attrs.field(factory=dict, init=False)
    changing: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    came: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.load = Load(self.root)
        self.known = set(self.online_now())
        self.isolation = Isolation(self.root)
        for n in self.present():
            self.noise(n)

    @property
    def base(self) -> str:
        return f"{self.root}/sys/devices/system/cpu"

    def at(self, n: int) -> str:
        return f"{self.base}/cpu{n}"

    def tree(self) -> Dir:
        words: dict[str, Callable[..., object]] = {
            "online": self.online,
            "offline": self.offline,
            "isolate": self.isolate,
            "join": self.join,
            "governor": self.governor,
        }
        return Dir(
            {
                "ctl": Ctl(words, self.settings),
                "status": Text(self.status),
                "topology": Text(self.topology),
                "events": self.events,
            },
            Lazy(lambda: map(str, self.present()), self.one),
        )

    def one(self, name: str) -> Dir:
        n = int(name)

        async def measure(seconds: float) -> None:
            await self.measure(n, seconds)

        words: dict[str, Callable[..., object]] = {
            "online": partial(self.switch, [n], True),
            "offline": partial(self.switch, [n], False),
            "isolate": partial(self.take, [n]),
            "join": partial(self.give, [n]),
            "governor": lambda name: self.govern([n], name),
            "measure": measure,
            "reset": partial(self.reset, n),
        }
        return Dir(
            {
                "ctl": Ctl(words, lambda: self.settings_of(n)),
                "status": Text(lambda: self.status_of(n)),
                "stat": Text(lambda: self.stat_of(n)),
                "noise": Text(lambda: self.noise_of(n)),
            }
        )

    # which there are

    def present(self) -> list[int]:
        """Return the CPUs that are present; where the kernel has no sysfs for CPUs, those that run."""
        return numbers(text(f"{self.base}/present")) or list(sysfs.times(self.root))

    def online_now(self) -> list[int]:
        """Return the CPUs that run."""
        return numbers(text(f"{self.base}/online")) or list(sysfs.times(self.root))

    def isolated_now(self) -> CpuSet:
        """Return the isolated CPUs: by this server, at the boot (`isolcpus=`), or, where the kernel tells, in partitions that others made."""
        boot = frozenset(numbers(text(f"{self.base}/isolated")))
        return boot | self.isolation.partition.everyones() | self.isolation.now()

    def chosen(self, lists: Iterable[CpuList]) -> list[int]:
        """Return the CPUs that a word names, each once; raises ENODEV for the first that does not exist."""
        there = set(self.present())
        found: dict[int, None] = {}
        for n in CpuList.chosen(lists):
            if n not in there:
                raise NineError(errno.ENODEV, f"no CPU {n}")
            found[n] = None
        return list(found)

    # what is read

    def status(self) -> str:
        """Render a line for each CPU: `N state node core apic mhz load`."""
        return "".join(f"{' '.join(fields)}\n" for fields in self.fields(self.present()))

    def fields(self, cpus: list[int]) -> list[list[str]]:
        """Return for each of some CPUs the fields of its line in status."""
        nodes, info, load = sysfs.nodes(self.root), sysfs.cpuinfo(self.root), self.load.percent()
        online, isolated = set(self.online_now()), self.isolated_now()
        found = []
        for n in cpus:
            cpu, of = self.at(n), info.get(n, {})
            up = n in online
            found.append(
                [
                    str(n),
                    "offline" if not up else "isolated" if n in isolated else "online",
                    str(nodes.get(n, "-")),
                    text(f"{cpu}/topology/core_id") or "-",
                    sysfs.physical(cpu, of),
                    sysfs.mhz(cpu, of) if up else "-",
                    str(load.get(n, "-")),
                ]
            )
        return found

    def topology(self) -> str:
        """Render a line for each CPU: `N package die core thread node siblings cache…`."""
        nodes = sysfs.nodes(self.root)
        lines = []
        for n in self.present():
            cpu = self.at(n)
            package, die, core = (_known(cpu, name) for name in ("physical_package_id", "die_id", "core_id"))
            siblings = text(f"{cpu}/topology/thread_siblings_list")
            thread = numbers(siblings).index(n) if siblings else "-"
            fields = [n, package, die, core, thread, nodes.get(n, "-"), siblings or "-", *sysfs.caches(cpu)]
            lines.append(" ".join(map(str, fields)) + "\n")
        return "".join(lines)

    def settings(self) -> str:
        present, online = set(self.present()), set(self.online_now())
        lines = [f"online {listed(online)}\n"]
        if off := present - online:
            lines.append(f"offline {listed(off)}\n")
        if isolated := self.isolation.now():
            lines.append(f"isolate {listed(isolated)}\n")
        governors = {self.governor_of(n) for n in online} - {""}
        if len(governors) == 1:
            lines.append(f"governor {governors.pop()}\n")
        return "".join(lines)

    def settings_of(self, n: int) -> str:
        state = "online\n" if n in self.online_now() else "offline\n"
        if n in self.isolation.now():
            state += "isolate\n"
        governor = self.governor_of(n)
        return state + (f"governor {governor}\n" if governor else "")

    async def status_of(self, n: int) -> str:
        values = self.values_of(n)
        if n in self.isolation.now():
            values |= await trio.to_thread.run_sync(self.isolation.stays, n)
        return fields(values)

    def values_of(self, n: int) -> dict[str, str]:
        """Return the lines of a CPU's status; the last four describe an isolated CPU."""
        values = dict(zip(("cpu", "state", "node", "core", "apic", "mhz", "load"), self.fields([n])[0], strict=True))
        cpu = self.at(n)
        values["package"] = _known(cpu, "physical_package_id")
        values["die"] = _known(cpu, "die_id")
        values["governor"] = self.governor_of(n) or "-"
        values["hotplug"] = "yes" if os.path.exists(f"{cpu}/online") else "no"
        values["tick"] = "no" if n in _list(f"{self.base}/nohz_full") else "yes"
        return values | dict.fromkeys(("cgroup", "irqs", "threads", "tasks"), "-")

    def stat_of(self, n: int) -> str:
        """Render how a CPU spent its time, in ns since the boot; an offline CPU has no lines."""
        ticks = sysfs.times(self.root).get(n, [])
        return "".join(f"{name} {t * sysfs.TICK_NS}\n" for name, t in zip(sysfs.TIMES, ticks, strict=False))

    def governor_of(self, n: int) -> str:
        return text(f"{self.at(n)}/cpufreq/scaling_governor")

    def noise(self, n: int) -> Noise:
        """Return the noise counts of a CPU. If it was isolated before this server started, the counts begin with the kernel."""
        if n not in self.noises:
            kept = self.isolation.partition.noted(f"noise.{n}") if n in self.isolation.now() else ""
            self.noises[n] = Noise(Counts.parse(kept) or Counts.now(self.root, n))
        return self.noises[n]

    def noise_of(self, n: int) -> str:
        return self.noise(n).render(Counts.now(self.root, n))

    # what is done

    def reset(self, n: int) -> None:
        """Count the noise of a CPU from now on."""
        self.noise(n).reset(Counts.now(self.root, n))
        if n in self.isolation.now():
            self.isolation.partition.note(f"noise.{n}", str(self.noise(n).base))

    async def measure(self, n: int, seconds: float) -> None:
        """Look for gaps on a CPU. If it is isolated, do so in its cgroup, because nothing else may run there."""
        isolated = n in self.isolation.now()
        await self.noise(n).measure(n, seconds, f"{self.isolation.partition.folder}/cgroup.procs" if isolated else "")

    async def isolate(self, *n: CpuList) -> str | None:
        return await self.take(self.chosen(n))

    async def join(self, *n: CpuList) -> str | None:
        return await self.give(self.chosen(n))

    async def take(self, cpus: list[int]) -> str | None:
        """Isolate CPUs; the answer names what has stayed. Raises EINVAL for a CPU that is offline, and the errors of Isolation."""
        online = self.online_now()
        for n in cpus:
            if n not in online:
                raise NineError(errno.EINVAL, f"CPU {n} cannot be isolated: it is offline")
        async with self.changing:
            new = [n for n in cpus if n not in self.isolation.now()]
            stays = await trio.to_thread.run_sync(self.isolation.isolate, frozenset(cpus))
            for n in new:
                self.reset(n)
                self.events.emit("isolate", n)
        return f"stays {' '.join(stays)}\n" if stays else None

    async def give(self, cpus: list[int]) -> str | None:
        """Give isolated CPUs back; the answer names what could not be put back. Raises EPERM for a CPU that others have isolated."""
        async with self.changing:
            ours = self.isolation.now() | self.isolation.moved()
            others = self.isolated_now() - ours
            for n in cpus:
                if n in others:
                    words = "it was isolated at the boot (isolcpus=), or by a partition of others"
                    raise NineError(errno.EPERM, f"CPU {n} cannot join: {words}")
            mine = [n for n in cpus if n in ours]
            stays = await trio.to_thread.run_sync(self.isolation.join, frozenset(mine)) if mine else []
            for n in mine:
                self.events.emit("join", n)
        return f"stays {' '.join(stays)}\n" if stays else None

    async def online(self, *n: CpuList) -> None:
        await self.switch(self.chosen(n), True)

    async def offline(self, *n: CpuList) -> None:
        await self.switch(self.chosen(n), False)

    async def governor(self, name: str) -> None:
        await self.govern(self.online_now(), name)

    async def switch(self, cpus: list[int], up: bool) -> None:
        """Bring CPUs online or take them offline; leave those that are in the wanted state already.

        Nothing happens if one of them cannot be switched (EPERM) or none would be left (EBUSY). When the kernel refuses one, those before it stay
        changed.
        """
        for n in self.todo(cpus, up):
            await _waiting(partial(put, f"{self.at(n)}/online", "1" if up else "0"), partial(_refused, n, up))
            if not self.told:
                (self.known.discard if up else self.known.add)(n)  # no event told of what others did
                self.changed("online" if up else "offline", n)
        if up:
            await self.free_new()

    async def free_new(self) -> None:
        """Let the threads use the CPUs that came online, where the kernel does not do that itself."""
        async with self.changing:
            await trio.to_thread.run_sync(self.isolation.free_new)

    async def free_what_comes(self) -> None:
        """Call `free_new` whenever anybody brings a CPU online, until cancelled."""
        while True:
            await self.came.wait()
            self.came = trio.Event()
            await self.free_new()

    def todo(self, cpus: list[int], up: bool) -> list[int]:
        online = set(self.online_now())
        found = [n for n in cpus if (n in online) != up]
        for n in found:
            if not os.path.exists(f"{self.at(n)}/online"):
                raise _refused(n, up, errno.EPERM)
        if not up and found and online <= set(found):
            raise NineError(errno.EBUSY, f"CPU {found[-1]} cannot be taken offline: it would be the last one")
        return found

    async def govern(self, cpus: list[int], name: str) -> None:
        """Set the frequency governor of CPUs; raises ENODEV if none of them has one, EINVAL with the known names for an unknown one."""
        some = [n for n in cpus if self.governor_of(n)]
        if not some:
            raise NineError(errno.ENODEV, "no frequency governor here")
        for n in some:
            base = f"{self.at(n)}/cpufreq"

            def refused(number: int, base: str = base) -> NineError:
                there = text(f"{base}/scaling_available_governors")
                return NineError(number, f"governor {name} refused: {wording(number)}; there are: {there}")

            await _waiting(partial(put, f"{base}/scaling_governor", name), refused)

    # what is told

    def heard(self, uevent: Uevent) -> None:
        """Take a uevent of the kernel: about CPUs, and about much else."""
        number = uevent.path.removeprefix(_DEVICE)
        if uevent.action in _ACTIONS and number.isascii() and number.isdigit():
            self.changed(uevent.action, int(number))

    def changed(self, action: str, n: int) -> None:
        """Send an event for a change, once: the kernel's uevent says nothing new if this server already knows the CPU's state."""
        if action == "online" and n not in self.known:
            self.known.add(n)
            self.came.set()
        elif action == "offline" and n in self.known:
            self.known.remove(n)
        elif action in ("online", "offline"):
            return
        elif action == "remove":
            self.known.discard(n)
        self.events.emit(action, n)

    def look(self) -> None:
        """Compare with the present state, and send events for the differences, because some uevents were lost."""
        now = set(self.online_now())
        for n in sorted(now ^ self.known):
            self.changed("online" if n in now else "offline", n)


async def _waiting(do: Callable[[], None], refused: Callable[[int], NineError]) -> None:
    """Run in a thread what the kernel may take long for; put its errors in words."""
    try:
        await trio.to_thread.run_sync(do)
    except OSError as error:
        raise refused(error.errno or errno.EIO) from None


def _refused(n: int, up: bool, number: int) -> NineError:
    what = "brought online" if up else "taken offline"
    return NineError(number, f"CPU {n} cannot be {what}: {wording(number)}")


def _list(path: str) -> list[int]:
    """Return the CPUs of a file, which may also say `(null)` for none."""
    said = text(path)
    return numbers(said) if said[:1].isdigit() else []


def _known(cpu: str, name: str) -> str:
    value = text(f"{cpu}/topology/{name}")
    return value if value.isdigit() else "-"  # -1 and an empty text mean "unknown"
