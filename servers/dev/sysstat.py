"""`sysstat`, after cons(3): a line for each CPU that is online, ten fields.

    id switches interrupts syscalls faults tlbfaults tlbpurges load idle intr

Plan 9's kernel counts all of them; Linux has fewer. A value that Linux does not have for each CPU is `-` (and not 0, which would be a lie). It
never counts system calls and TLB faults. It counts context switches and page faults for all CPUs together, so they are here only where there can
be only one CPU. The last three are times in ns since the boot, where Plan 9 gives averages. They are counters, as all the others are, so every
reader takes the difference over an interval of its own, and no reader disturbs another. load + idle is all the time that passed.
"""

import os

import attrs

from mk9p.ktext import split_lines, split_words, trim, whole


@attrs.frozen
class SysStat:
    """Read proc_stat(5), /proc/interrupts and /proc/vmstat below `root`."""

    root: str

    def read(self) -> str:
        """Return the lines."""
        tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        times: dict[int, list[int]] = {}
        switches = "-"
        for line in self._lines("proc/stat"):
            name, _, rest = line.partition(" ")
            if name.startswith("cpu") and name[3:].isdecimal():
                times[int(name[3:])] = [int(field) * tick for field in split_words(rest)]
            elif name == "ctxt":
                switches = trim(rest)
        if self._possible() == "0":
            faults = next(
                (split_words(line)[1] for line in self._lines("proc/vmstat") if line.startswith("pgfault ")), "-"
            )
        else:
            switches = faults = "-"
        interrupts, purges = self._interrupts()
        lines = []
        for cpu, (user, nice, system, idle, iowait, irq, softirq, steal, *_) in times.items():
            load = user + nice + system + irq + softirq + steal
            lines.append(
                f"{cpu} {switches} {interrupts.get(cpu, '-')} - {faults} - {purges.get(cpu, '-')} {load} {idle + iowait} {irq + softirq}\n"
            )
        return "".join(lines)

    def _lines(self, path: str) -> list[str]:
        return split_lines(whole(os.path.join(self.root, path)))

    def _possible(self) -> str:
        """Return the CPUs that can ever exist; a kernel without SMP (user-mode Linux) has no such file, and only CPU 0."""
        try:
            return self._lines("sys/devices/system/cpu/possible")[0]
        except FileNotFoundError:
            return "0"

    def _interrupts(self) -> tuple[dict[int, int], dict[int, int]]:
        """Return for each CPU all interrupts, and those that came to purge its TLB (only x86 counts these apart).

        The head of the table names the CPUs of its columns; a line with fewer numbers (ERR, MIS) belongs to no CPU.
        """
        head, *lines = self._lines("proc/interrupts")
        cpus = [int(name.removeprefix("CPU")) for name in split_words(head)]
        total = [0] * len(cpus)
        purges: dict[int, int] = {}
        for line in lines:
            name, _, rest = line.partition(":")
            fields = rest.split(None, len(cpus))[: len(cpus)]
            if len(fields) < len(cpus) or not all(field.isdecimal() for field in fields):
                continue
            counts = [int(field) for field in fields]
            total = [a + b for a, b in zip(total, counts, strict=True)]
            if trim(name) == "TLB":
                purges = dict(zip(cpus, counts, strict=True))
        return dict(zip(cpus, total, strict=True)), purges
