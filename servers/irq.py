"""irq: the interrupts of this kernel. The files are those of docs/files/irq.md.

The server reads everything from the kernel when somebody asks (Documentation/core-api/irq/irq-affinity.rst, kernel/irq/proc.c,
kernel/irq/irqdesc.c). It keeps only the counts that rates are measured against. Counts come from the `intr` line of /proc/stat and not from
/proc/interrupts, which leaves out what offline CPUs have counted, so its sums fall when a CPU goes.
"""

import errno
import os
from collections.abc import Callable, Iterable

import attrs

from mk9p.affinity import CpuList, Setting, handler, interrupts, keep_off, listed, new_interrupts, numbers, one_word
from mk9p.errors import NineError, wording
from mk9p.ktext import split_words, trim
from mk9p.sysfs import names, put, text
from mk9p.tree import Ctl, Dir, Lazy, Text, fields

_WINDOW = 0.5  # a rate covers at least half a second: the clock ticks every 10 ms


def tree(*, root: str = "/") -> Dir:
    """Serve the interrupts of the kernel whose /sys and /proc are below `root`."""
    return Interrupts(root.rstrip("/")).tree()


@attrs.frozen
class Sample:
    """Counts at one time: `seconds` since the boot, and how often each interrupt came, by its number."""

    seconds: float
    counts: list[int]

    @classmethod
    def now(cls, root: str) -> "Sample":
        stat = text(f"{root}/proc/stat")
        start = stat.find("\nintr ") + 1
        line = stat[start : stat.find("\n", start)] if start else ""
        uptime = text(f"{root}/proc/uptime").partition(" ")[0]
        return cls(float(uptime or 0), [int(n) for n in split_words(line)[2:]])  # after the word `intr`, the sum of all

    def count(self, n: int) -> int:
        return self.counts[n] if n < len(self.counts) else 0


class Rates:
    """How often interrupts came, and how often a second since anybody asked last, or since the start.

    It keeps two samples, because two readers shortly after each other would each get a window too short to say anything. The later sample becomes
    the base of the next measurement only when it is old enough.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.base = self.last = Sample.now(root)

    def take(self) -> Sample:
        """Return a sample of now, for `per_second`."""
        now = Sample.now(self.root)
        if now.seconds - self.last.seconds >= _WINDOW:
            self.base, self.last = self.last, now
        return now

    def per_second(self, now: Sample, n: int) -> int:
        passed = now.seconds - self.base.seconds
        return max(0, round((now.count(n) - self.base.count(n)) / passed)) if passed > 0 else 0


@attrs.define(eq=False)
class Interrupts:
    """The interrupts of one kernel."""

    root: str
    rates: Rates = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.rates = Rates(self.root)

    @property
    def base(self) -> str:
        return f"{self.root}/proc/irq"

    def tree(self) -> Dir:
        words: dict[str, Callable[..., object]] = {
            "banish": self.banish,
            "spread": self.spread_all,
            "default": self.default,
        }
        return Dir(
            {
                "ctl": Ctl(words, self.settings),
                "status": Text(self.status),
            },
            Lazy(self.names, self.one, key=self.key),
        )

    def one(self, name: str) -> Dir:
        n = int(name)

        def affinity(list: str) -> None:  # noqa: A002  # the usage line says it
            self.move(n, list)

        return Dir(
            {
                "ctl": Ctl({"affinity": affinity, "spread": lambda: self.spread(n)}, lambda: self.settings_of(n)),
                "status": Text(lambda: self.status_of(n)),
            }
        )

    def names(self) -> list[str]:
        return sorted((name for name in names(self.base) if name.isdigit()), key=int)

    def key(self, name: str) -> object:
        return True if name.isdigit() and os.path.isdir(f"{self.base}/{name}") else None

    # what is read

    def status(self) -> str:
        """Render a line for each interrupt: `N count/s affinity name count`."""
        now, handlers = self.rates.take(), self.handlers()
        return "".join(
            f"{n} {self.rates.per_second(now, n)} {self.affinity(n) or '-'} {self.name(n, handlers)} {now.count(n)}\n"
            for n in map(int, self.names())
        )

    def status_of(self, n: int) -> str:
        now = self.rates.take()
        proc, sys = f"{self.base}/{n}", f"{self.root}/sys/kernel/irq/{n}"
        spurious = dict(split_words(line)[:2] for line in text(f"{proc}/spurious").split("\n") if line)
        node = text(f"{proc}/node")
        values = {
            "irq": n,
            "count": now.count(n),
            "rate": self.rates.per_second(now, n),
            "affinity": self.affinity(n) or "-",
            "effective": text(f"{proc}/effective_affinity_list") or "-",
            "name": self.name(n, self.handlers()),
            "chip": text(f"{sys}/chip_name") or "-",
            "hwirq": text(f"{sys}/hwirq") or "-",
            "type": text(f"{sys}/type") or "-",
            "node": node if node.isdigit() else "-",
            "unhandled": spurious.get("unhandled", "-"),
            "percpu": text(f"{sys}/per_cpu_count").replace(",", " ") or "-",
        }
        return fields(values)

    def settings(self) -> str:
        """Render where new interrupts may go; nothing on a kernel for one CPU."""
        now = new_interrupts(self.root).read()
        return f"default {listed(now)}\n" if now else ""

    def settings_of(self, n: int) -> str:
        now = self.affinity(n)
        return f"affinity {now}\n" if now else ""

    def affinity(self, n: int) -> str:
        """Return the CPUs that an interrupt may go to, as the kernel's list; empty where the kernel knows no affinity."""
        return text(f"{self.base}/{n}/smp_affinity_list")

    def handlers(self) -> dict[int, str]:
        """Return the handlers of each interrupt, from /proc/interrupts: for kernels without SPARSE_IRQ, which have no /sys/kernel/irq."""
        if os.path.isdir(f"{self.root}/sys/kernel/irq"):
            return {}
        found = {}
        for line in text(f"{self.root}/proc/interrupts").split("\n"):
            number, _, rest = line.partition(":")
            if trim(number).isdigit():
                # two blanks stand before the handlers, and in no name of a handler
                found[int(number)] = rest.rpartition("  ")[2]
        return found

    def name(self, n: int, handlers: dict[int, str]) -> str:
        """Return the handlers of an interrupt, as one word; `-` for none."""
        return one_word(handlers.get(n, "")) or handler(self.root, n) or "-"

    # what is done

    def move(self, n: int, cpus: str) -> None:
        """Let an interrupt go to the CPUs of a list, as the kernel writes it (`0-1,3`), and no others."""
        try:
            put(f"{self.base}/{n}/smp_affinity_list", cpus)
        except OSError as error:
            wrong = "no online CPU in" if set(cpus) <= set("0123456789,-") else "not a CPU list:"
            raise self.refused(n, error, f"{wrong} {cpus}") from None

    def spread(self, n: int) -> None:
        """Let an interrupt go wherever a new one may go: the kernel's default mask (of `irqaffinity=`, else all)."""
        mask = text(f"{self.base}/default_smp_affinity")
        try:
            put(f"{self.base}/{n}/smp_affinity", mask)
        except OSError as error:
            raise self.refused(n, error, f"no online CPU in the default mask {mask}") from None

    def spread_all(self) -> str:
        """Spread every interrupt that can be moved; the answer names those that cannot."""
        refused = []
        for name in self.names():
            try:
                self.spread(int(name))
            except NineError:
                refused.append(name)
        return f"refused {' '.join(refused)}\n" if refused else ""

    def default(self, list: CpuList) -> None:  # noqa: A002  # the usage line says it
        """Let interrupts that are set up from now on go to the CPUs of a list."""
        setting = new_interrupts(self.root)
        cpus = frozenset(self.chosen([list]))
        try:
            setting.write(cpus)
        except OSError as error:
            raise self.unchanged(setting, cpus, error) from None

    def banish(self, *cpu: CpuList) -> None:
        """Move all interrupts off some CPUs, also new ones. When all others have been moved, raises what the kernel said of those that stay."""
        off = frozenset(self.chosen(cpu))
        others = self.online() - off
        if not others:
            raise NineError(errno.EBUSY, f"no online CPU would be left beside {listed(off)}")
        default = new_interrupts(self.root)
        by_setting = {setting: n for n, setting in interrupts(self.root).items()}
        refused = keep_off([default, *by_setting], off, others)
        if (error := refused.pop(default, None)) is not None:
            raise self.unchanged(default, off, error)
        if refused:
            handlers = self.handlers()
            stay = [f"{by_setting[s]} {self.name(by_setting[s], handlers)}: {_said(e)}" for s, e in refused.items()]
            raise NineError(next(iter(refused.values())).errno or errno.EIO, f"cannot be moved: {'; '.join(stay)}")

    def online(self) -> frozenset[int]:
        """Return the CPUs that run; only CPU 0 where the kernel has no list of them."""
        return frozenset(numbers(text(f"{self.root}/sys/devices/system/cpu/online", "0")))

    def chosen(self, lists: Iterable[CpuList]) -> list[int]:
        """Return the CPUs that a word names; raises ENODEV for the first that the kernel has no place for."""
        possible = set(numbers(text(f"{self.root}/sys/devices/system/cpu/possible"))) or self.online()
        found = []
        for n in CpuList.chosen(lists):
            if n not in possible:
                raise NineError(errno.ENODEV, f"no CPU {n}")
            found.append(n)
        return found

    def unchanged(self, setting: Setting, cpus: Iterable[int], error: OSError) -> NineError:
        """Return in words what the kernel said to a change of where new interrupts go."""
        if error.errno == errno.ENOENT:
            return NineError(errno.EPERM, "this kernel's interrupts cannot be moved")
        if error.errno in (errno.EINVAL, errno.ERANGE):
            return NineError(errno.EINVAL, f"no online CPU in {listed(cpus)}")
        return NineError(error.errno or errno.EIO, f"cannot set where new interrupts go: {_said(error)}")

    def refused(self, n: int, error: OSError, wrong: str) -> NineError:
        """Return in words what the kernel said to a move."""
        number = error.errno or errno.EIO
        if not os.path.isdir(f"{self.base}/{n}"):
            return NineError(errno.ENODEV, f"no interrupt {n}")
        if number == errno.ENOENT:  # a kernel for one CPU
            number = errno.EPERM
        if number in (errno.EIO, errno.EPERM):  # managed, or of one CPU only: EIO in Linux 6.1, EPERM in 6.12
            return NineError(number, f"interrupt {n} cannot be moved")
        if number in (errno.EINVAL, errno.ERANGE, errno.EOVERFLOW):
            return NineError(errno.EINVAL, wrong)
        return NineError(number, f"interrupt {n} cannot be moved: {wording(number)}")


def _said(error: OSError) -> str:
    return wording(error.errno or errno.EIO)
