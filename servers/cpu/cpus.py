"""The CPUs: what their files say, and what their ctl words do."""

import errno
import os
from collections.abc import Callable, Iterable
from functools import partial

import attrs
import trio

from mk9p.errors import NineError, wording
from mk9p.tree import Ctl, Dir, Lazy, Log, Text
from servers.cpu import sysfs
from servers.cpu.sysfs import CpuList

_WINDOW_TICKS = 50  # a load is measured over half a second at least: with ticks of 10 ms, less would be noise


class Load:
    """How busy each CPU was since the last time that anybody asked, or since the start.

    Two samples are kept, since two readers close upon each other would each get a window too short to say anything: the later one only becomes
    what the next is measured against when it is old enough. Time is counted in the kernel's own ticks.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.base = self.last = sysfs.times(root)

    def percent(self) -> dict[int, int]:
        """Return for each online CPU the percentage of time in which it was neither idle nor waiting for I/O; none without a tick since."""
        now = sysfs.times(self.root)
        if any(sum(t[:8]) - sum(self.last.get(n, ())[:8]) >= _WINDOW_TICKS for n, t in now.items()):
            self.base, self.last = self.last, now
        found = {}
        for n, ticks in now.items():
            before = self.base.get(n)
            if before is None:
                continue  # it was offline then
            # guest time, the columns after the eighth, is in user time already
            spent = [b - a for a, b in zip(before[:8], ticks[:8], strict=False)]
            total = sum(spent)
            if total > 0:
                found[n] = min(100, max(0, round(100 * (total - spent[3] - sum(spent[4:5])) / total)))
        return found


@attrs.define(eq=False)
class Cpus:
    """All CPUs of one kernel. `told`: changes are heard from the kernel; else those made here are told of, and no others."""

    root: str
    told: bool = attrs.field(default=False, kw_only=True)
    events: Log = attrs.field(factory=Log, init=False)
    load: Load = attrs.field(init=False)
    known: set[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.load = Load(self.root)
        self.known = set(self.online_now())

    @property
    def base(self) -> str:
        return f"{self.root}/sys/devices/system/cpu"

    def at(self, n: int) -> str:
        return f"{self.base}/cpu{n}"

    def tree(self) -> Dir:
        return Dir(
            {
                "ctl": Ctl({"online": self.online, "offline": self.offline, "governor": self.governor}, self.settings),
                "status": Text(self.status),
                "topology": Text(self.topology),
                "events": self.events,
            },
            Lazy(lambda: map(str, self.present()), self.one),
        )

    def one(self, name: str) -> Dir:
        n = int(name)
        words: dict[str, Callable[..., object]] = {
            "online": partial(self.switch, [n], True),
            "offline": partial(self.switch, [n], False),
            "governor": lambda name: self.govern([n], name),
        }
        return Dir(
            {
                "ctl": Ctl(words, lambda: self.settings_of(n)),
                "status": Text(lambda: self.status_of(n)),
                "stat": Text(lambda: self.stat_of(n)),
            }
        )

    # which there are

    def present(self) -> list[int]:
        """Return the CPUs that are there; those that run, where the kernel has no sysfs for CPUs."""
        return sysfs.numbers(sysfs.text(f"{self.base}/present")) or list(sysfs.times(self.root))

    def online_now(self) -> list[int]:
        """Return the CPUs that run."""
        return sysfs.numbers(sysfs.text(f"{self.base}/online")) or list(sysfs.times(self.root))

    def isolated_now(self) -> list[int]:
        return sysfs.numbers(sysfs.text(f"{self.base}/isolated"))

    def chosen(self, lists: Iterable[CpuList]) -> list[int]:
        """Return the CPUs that a word names, each once; raises ENODEV for the first that is not there."""
        there = set(self.present())
        found: dict[int, None] = {}
        for low, high in (r for cpus in lists for r in cpus.ranges):
            for n in range(low, high + 1):
                if n not in there:
                    raise NineError(errno.ENODEV, f"no CPU {n}")
                found[n] = None
        return list(found)

    # what is read

    def status(self) -> str:
        """Render a line a CPU: `N state node core apic mhz load`."""
        return "".join(f"{' '.join(fields)}\n" for fields in self.fields(self.present()))

    def fields(self, cpus: list[int]) -> list[list[str]]:
        """Return for each of some CPUs the fields of its line in status."""
        nodes, info, load = sysfs.nodes(self.root), sysfs.cpuinfo(self.root), self.load.percent()
        online, isolated = set(self.online_now()), set(self.isolated_now())
        found = []
        for n in cpus:
            cpu, of = self.at(n), info.get(n, {})
            up = n in online
            found.append(
                [
                    str(n),
                    "offline" if not up else "isolated" if n in isolated else "online",
                    str(nodes.get(n, "-")),
                    sysfs.text(f"{cpu}/topology/core_id") or "-",
                    sysfs.physical(cpu, of),
                    sysfs.mhz(cpu, of) if up else "-",
                    str(load.get(n, "-")),
                ]
            )
        return found

    def topology(self) -> str:
        """Render a line a CPU: `N package die core thread node siblings cache…`."""
        nodes = sysfs.nodes(self.root)
        lines = []
        for n in self.present():
            cpu = self.at(n)
            package, die, core = (_known(cpu, name) for name in ("physical_package_id", "die_id", "core_id"))
            siblings = sysfs.text(f"{cpu}/topology/thread_siblings_list")
            thread = sysfs.numbers(siblings).index(n) if siblings else "-"
            fields = [n, package, die, core, thread, nodes.get(n, "-"), siblings or "-", *sysfs.caches(cpu)]
            lines.append(" ".join(map(str, fields)) + "\n")
        return "".join(lines)

    def settings(self) -> str:
        present, online = set(self.present()), set(self.online_now())
        lines = [f"online {sysfs.listed(online)}\n"]
        if off := present - online:
            lines.append(f"offline {sysfs.listed(off)}\n")
        governors = {self.governor_of(n) for n in online} - {""}
        if len(governors) == 1:
            lines.append(f"governor {governors.pop()}\n")
        return "".join(lines)

    def settings_of(self, n: int) -> str:
        state = "online\n" if n in self.online_now() else "offline\n"
        governor = self.governor_of(n)
        return state + (f"governor {governor}\n" if governor else "")

    def status_of(self, n: int) -> str:
        values = dict(zip(("cpu", "state", "node", "core", "apic", "mhz", "load"), self.fields([n])[0], strict=True))
        cpu = self.at(n)
        values["package"] = _known(cpu, "physical_package_id")
        values["die"] = _known(cpu, "die_id")
        values["governor"] = self.governor_of(n) or "-"
        values["hotplug"] = "yes" if os.path.exists(f"{cpu}/online") else "no"
        return "".join(f"{key} {value}\n" for key, value in values.items())

    def stat_of(self, n: int) -> str:
        """Render where the time of a CPU went, in ns since the boot; an offline CPU has no lines."""
        ticks = sysfs.times(self.root).get(n, [])
        return "".join(f"{name} {t * sysfs.TICK_NS}\n" for name, t in zip(sysfs.TIMES, ticks, strict=False))

    def governor_of(self, n: int) -> str:
        return sysfs.text(f"{self.at(n)}/cpufreq/scaling_governor")

    # what is done

    async def online(self, *n: CpuList) -> None:
        await self.switch(self.chosen(n), True)

    async def offline(self, *n: CpuList) -> None:
        await self.switch(self.chosen(n), False)

    async def governor(self, name: str) -> None:
        await self.govern(self.online_now(), name)

    async def switch(self, cpus: list[int], up: bool) -> None:
        """Bring CPUs online or take them offline; those that are there already are left.

        Nothing is done if one of them cannot be (EPERM) or none would be left (EBUSY); when the kernel refuses one, those before it stay changed.
        """
        for n in self.todo(cpus, up):
            await _waiting(partial(sysfs.put, f"{self.at(n)}/online", "1" if up else "0"), partial(_refused, n, up))
            if not self.told:
                (self.known.discard if up else self.known.add)(n)  # what others did went unheard
                self.changed("online" if up else "offline", n)

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
                there = sysfs.text(f"{base}/scaling_available_governors").strip()
                return NineError(number, f"governor {name} refused: {wording(number)}; there are: {there}")

            await _waiting(partial(sysfs.put, f"{base}/scaling_governor", name), refused)

    # what is told

    def changed(self, action: str, n: int) -> None:
        """Tell of a change, once: the kernel's uevent of a CPU that is known to be so already says nothing new."""
        if action == "online" and n not in self.known:
            self.known.add(n)
        elif action == "offline" and n in self.known:
            self.known.remove(n)
        elif action in ("online", "offline"):
            return
        elif action == "remove":
            self.known.discard(n)
        self.events.emit(action, n)

    def look(self) -> None:
        """Compare with what is, and tell of the differences: some uevents were lost."""
        now = set(self.online_now())
        for n in sorted(now ^ self.known):
            self.changed("online" if n in now else "offline", n)


async def _waiting(do: Callable[[], None], refused: Callable[[int], NineError]) -> None:
    """Run what the kernel may take long over in a thread; what it says is put in words."""
    try:
        await trio.to_thread.run_sync(do)
    except OSError as error:
        raise refused(error.errno or errno.EIO) from None


def _refused(n: int, up: bool, number: int) -> NineError:
    what = "brought online" if up else "taken offline"
    return NineError(number, f"CPU {n} cannot be {what}: {wording(number)}")


def _known(cpu: str, name: str) -> str:
    value = sysfs.text(f"{cpu}/topology/{name}")
    return value if value.isdigit() else "-"  # -1, and nothing, are "unknown"
