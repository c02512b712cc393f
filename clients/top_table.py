"""Figures as tables for people: columns as wide as what is in them, sizes and times in units that can be read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mk9p.stdio import printable


def columns(
    names: Sequence[str], table: Iterable[Mapping[str, Any]], *, marked: str = "", widest: int | None = None
) -> list[str]:
    """Return lines of a table: names and words to the left, numbers to the right. The name of the column `marked` has a star; names of kernels and
    users are cut to `widest`."""
    head = [f"{name.upper()}*" if name == marked else name.upper() for name in names]
    cells = [head, *([_cut(name, _cell(name, row[name]), widest) for name in names] for row in table)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    left = {"kernel", "state", "user", "name"}
    return [
        " ".join(
            cell.ljust(width) if name in left else cell.rjust(width)
            for name, cell, width in zip(names, row, widths, strict=True)
        ).rstrip()
        for row in cells
    ]


def _cut(name: str, cell: str, widest: int | None) -> str:
    return cell if widest is None or name not in ("kernel", "user") or len(cell) <= widest else f"{cell[: widest - 1]}…"


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name in ("up", "age"):
        return duration(value)
    if name in ("mem", "size", "in/s", "out/s"):
        return size(value)
    return printable(str(value))


def duration(seconds: int) -> str:
    """Return a time in its two largest units: `3d04h`, `2h05m`, `12m30s`."""
    minutes, s = divmod(seconds, 60)
    hours, mins = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    return f"{days}d{h:02}h" if days else f"{hours}h{mins:02}m" if hours else f"{mins}m{s:02}s"


def size(count: float) -> str:
    """Return bytes in the largest unit that leaves a number above 1."""
    for unit in ("", "K", "M", "G"):
        if count < 1000:
            return f"{count:.0f}{unit}" if unit == "" or count >= 10 else f"{count:.1f}{unit}"
        count /= 1024
    return f"{count:.1f}T"
