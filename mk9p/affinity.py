"""Where work may go: CPU lists and masks as Linux writes them, the settings that hold them, and how to keep work off CPUs. For servers of CPUs and
of interrupts.

The kernel writes CPUs as a list (`0-2,5`) or as a mask of hexadecimal words of 32 bits, the highest first (`1,0000000f`); a setting takes what it
shows (lib/bitmap-str.c, Documentation/core-api/irq/irq-affinity.rst).

When something that may go to some CPUs must stay off others, it keeps the rest; if nothing is left, it may go to all others. So an interrupt that
was bound to one CPU goes somewhere else rather than stay.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeAlias

import attrs

from mk9p.ktext import split_words
from mk9p.sysfs import names, put, text

__all__ = [
    "CpuList",
    "CpuSet",
    "Setting",
    "away",
    "handler",
    "interrupts",
    "keep_off",
    "listed",
    "masked",
    "new_interrupts",
    "numbers",
    "one_word",
    "ranges",
    "unmasked",
]

CpuSet: TypeAlias = frozenset[int]

DEFAULT: Final = "proc/irq/default_smp_affinity"
"""Where new interrupts may go, a mask."""


def ranges(text: str) -> tuple[tuple[int, int], ...]:
    """Split a CPU list into first and last numbers; raises ValueError for anything else."""
    found = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not (first.isascii() and first.isdigit()) or (dash and not (last.isascii() and last.isdigit())):
            raise ValueError(text)
        low, high = int(first), int(last or first)
        if low > high:
            raise ValueError(text)
        found.append((low, high))
    return tuple(found)


@attrs.frozen
class CpuList:
    """An argument of a ctl word: a number or a CPU list. It is not expanded, because somebody may write `0-999999999`."""

    ranges: tuple[tuple[int, int], ...] = attrs.field(converter=ranges)

    @staticmethod
    def chosen(lists: "Iterable[CpuList]") -> Iterator[int]:
        """Give the CPUs of several lists in their order, one after the other: the caller stops at the first that does not exist."""
        return (n for cpus in lists for low, high in cpus.ranges for n in range(low, high + 1))


def numbers(text: str) -> list[int]:
    """Return the CPUs of a list that the kernel wrote; none for an empty one."""
    return [n for low, high in ranges(text) for n in range(low, high + 1)] if text else []


def listed(cpus: Iterable[int]) -> str:
    """Return CPUs as the kernel's list: `0-1,3`."""
    parts: list[list[int]] = []
    for n in sorted(cpus):
        if parts and n == parts[-1][1] + 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def unmasked(mask: str) -> list[int]:
    """Return the CPUs of a mask that the kernel wrote; raises ValueError for anything else."""
    bits = int(mask.replace(",", ""), 16)
    return [n for n in range(bits.bit_length()) if bits >> n & 1]


def masked(cpus: Iterable[int]) -> str:
    """Return CPUs as the kernel's mask: `1,0000000f`."""
    bits = sum(1 << n for n in set(cpus))
    words = [f"{bits >> at & 0xFFFFFFFF:08x}" for at in range(0, max(bits.bit_length(), 1), 32)]
    return ",".join(reversed(words)).lstrip("0") or "0"


@attrs.frozen
class Setting:
    """A file below `root` that says which CPUs something may go to: a list, or a `mask`.

    `effective` is the file beside it that lists where it really goes, if there is one: an interrupt that may go to all CPUs goes to one of them,
    and an interrupt that nobody handles goes to none.
    """

    root: str
    path: str
    mask: bool = attrs.field(default=False, kw_only=True)
    effective: str = attrs.field(default="", kw_only=True)

    def read(self) -> CpuSet:
        """Return the CPUs that it may go to; none where there is no such setting, or the kernel does not tell."""
        said = text(f"{self.root}/{self.path}")
        return frozenset((unmasked if self.mask else numbers)(said) if said else ())

    def write(self, cpus: CpuSet) -> None:
        """Set them; raises OSError as the kernel says."""
        put(f"{self.root}/{self.path}", (masked if self.mask else listed)(cpus))

    def goes(self) -> CpuSet:
        """Return the CPUs that it really goes to now, as far as the kernel tells."""
        effective = f"{self.root}/{self.effective}"
        return frozenset(numbers(text(effective))) if self.effective and os.path.exists(effective) else self.read()


def interrupts(root: str) -> dict[int, Setting]:
    """Return the affinity of each interrupt, by its number."""
    found = sorted(int(name) for name in names(f"{root}/proc/irq") if name.isdigit())
    base = "proc/irq"
    return {
        n: Setting(root, f"{base}/{n}/smp_affinity_list", effective=f"{base}/{n}/effective_affinity_list")
        for n in found
    }


def new_interrupts(root: str) -> Setting:
    """Return the affinity that new interrupts get."""
    return Setting(root, DEFAULT, mask=True)


def handler(root: str, n: int) -> str:
    """Return the handlers of an interrupt, as one word: joined by commas, with underscores for blanks; empty for none (or without SPARSE_IRQ)."""
    return one_word(text(f"{root}/sys/kernel/irq/{n}/actions"))


def one_word(name: str) -> str:
    """Return as one word names that the kernel shows, which may contain blanks."""
    return "_".join(split_words(name.replace(", ", ",")))


def away(cpus: CpuSet, off: CpuSet, others: CpuSet) -> CpuSet:
    """Return where something may go that could go to `cpus` and must stay off `off`: what is left, else all `others`."""
    return cpus - off or others - off


def keep_off(
    settings: Iterable[Setting], off: CpuSet, others: CpuSet, *, kept: Mapping[str, CpuSet] | None = None
) -> dict[Setting, OSError]:
    """Keep what the settings control off some CPUs. Return what the kernel said for those that it would not change and that do go there.

    `kept` has where something could go at first, by the setting's path: what was moved for other CPUs before is moved from there, and not from
    where it is now.
    """
    refused: dict[Setting, OSError] = {}
    for setting in settings:
        now = setting.read()
        could = kept.get(setting.path, now) if kept else now
        if not could & off or (then := away(could, off, others)) == now:
            continue
        try:
            setting.write(then)
        except OSError as error:
            if setting.goes() & off:
                refused[setting] = error
    return refused
