"""The files of a kernel as metrics: which file gives which family. Values are in Prometheus's base units: seconds, bytes, volts, ratios."""

import re
from collections.abc import Iterator
from typing import Final

from mk9p.client import Client
from mk9p.clients.figures import text_of, words_of
from mk9p.clients.listing import entries
from mk9p.clients.metric_families import Families
from mk9p.clients.together import together
from mk9p.ktext import split_lines

NS: Final = 1_000_000_000
_WHOLE: Final = re.compile(r"-?\d{1,20}", re.ASCII)
# included in `user` and `nice`
_AGAIN: Final = ("guest", "guest_nice")
# by the unit that sensors/status and power/status have: the family's name, what it is, what to divide by
_UNITS: Final = {
    "mC": ("mk9p_sensor_celsius", "A temperature.", 1000),
    "rpm": ("mk9p_sensor_rpm", "Turns of a fan a minute.", 1),
    "mV": ("mk9p_sensor_volts", "A voltage.", 1000),
    "mA": ("mk9p_sensor_amperes", "A current.", 1000),
    "uW": ("mk9p_sensor_watts", "A power.", 1_000_000),
    "uJ": ("mk9p_sensor_joules", "An energy.", 1_000_000),
    "m%": ("mk9p_sensor_humidity_ratio", "A humidity.", 100_000),
    "Hz": ("mk9p_sensor_hertz", "A frequency.", 1),
}


async def kernel(ns: Client, at: str, labels: dict[str, str], families: Families) -> None:
    """Add what the tree at a path tells of its kernel. Raises OSError if it does not answer; a part that it does not have is left out."""
    parts = {entry.name for entry in await entries(ns, at or "/")}
    readers = {"status": _status, "cpu": _cpu, "mem": _memory, "sensors": _sensors, "power": _power, "stats": _stats}
    async with together() as nursery:
        for part, reader in readers.items():
            if part in parts:
                nursery.start_soon(reader, ns, at, labels, families)


async def _rows(ns: Client, path: str) -> Iterator[list[str]]:
    """Return the words of each line of a file; none if it is gone, or not for this user."""
    try:
        text = await text_of(ns, path)
    except (FileNotFoundError, PermissionError):
        return iter(())
    return (words_of(line) for line in split_lines(text))


def _number(text: str) -> int | None:
    return int(text) if _WHOLE.fullmatch(text) else None


async def _status(ns: Client, at: str, labels: dict[str, str], families: Families) -> None:
    values = {row[0]: row[1:] for row in await _rows(ns, f"{at}status") if row}
    info: dict[str, str] = {key: " ".join(values[key]) for key in ("name", "release", "arch") if key in values}
    families.gauge("mk9p_kernel_info", "What a kernel is; always 1.", labels | info, 1)
    if (uptime := _number(" ".join(values.get("uptime", [])))) is not None:
        families.gauge("mk9p_kernel_uptime_seconds", "Time since a kernel's start.", labels, uptime / NS)
    for minutes, text in zip(("1", "5", "15"), values.get("load", []), strict=False):
        if re.fullmatch(r"\d{1,9}\.\d{1,3}", text, re.ASCII):
            about = f"Tasks that ran or waited to, on average over {minutes} min."
            families.gauge(f"mk9p_kernel_load{minutes}", about, labels, float(text))


async def _cpu(ns: Client, at: str, labels: dict[str, str], families: Families) -> None:
    async def times(n: str) -> None:
        for row in await _rows(ns, f"{at}cpu/{n}/stat"):
            if len(row) == 2 and row[0] not in _AGAIN and (value := _number(row[1])) is not None:
                about = "Time of a processor, by what it was for."
                families.counter("mk9p_cpu_seconds_total", about, labels | {"cpu": n, "mode": row[0]}, value / NS)

    async with together() as nursery:
        for row in await _rows(ns, f"{at}cpu/status"):
            if len(row) < 7 or _number(row[0]) is None:
                continue
            n, state, mhz, load = row[0], row[1], _number(row[5]), _number(row[6])
            of = labels | {"cpu": n}
            families.gauge("mk9p_cpu_state", "The state of a processor; always 1.", of | {"state": state}, 1)
            if mhz is not None:
                families.gauge("mk9p_cpu_hertz", "The present frequency of a processor.", of, mhz * 1_000_000)
            if load is not None:
                families.gauge(
                    "mk9p_cpu_load_ratio", "The part of the time in which a processor was busy.", of, load / 100
                )
            if state != "offline":
                nursery.start_soon(times, n)


async def _memory(ns: Client, at: str, labels: dict[str, str], families: Families) -> None:
    for row in await _rows(ns, f"{at}mem/status"):
        if len(row) == 2 and (value := _number(row[1])) is not None:
            of = labels | {"kind": row[0]}
            if row[0].startswith("HugePages_"):
                families.gauge(
                    "mk9p_memory_huge_pages", "Huge pages, by the kernel's names (proc_meminfo(5)).", of, value
                )
            else:
                families.gauge("mk9p_memory_bytes", "Memory, by the kernel's names (proc_meminfo(5)).", of, value)


async def _sensors(ns: Client, at: str, labels: dict[str, str], families: Families) -> None:
    for row in await _rows(ns, f"{at}sensors/status"):
        if len(row) < 6 or (value := _number(row[3])) is None:
            continue
        of = labels | {"device": row[0], "sensor": row[1], "chip": row[5], "label": " ".join(row[6:])}
        name, about, units = _UNITS.get(
            row[4], (f"mk9p_sensor_{_word(row[2])}", "A value, in the kernel's own unit.", 1)
        )
        families.gauge(name, about, of, value / units if units > 1 else value)


async def _power(ns: Client, at: str, labels: dict[str, str], families: Families) -> None:
    for row in await _rows(ns, f"{at}power/status"):
        if len(row) < 5 or (value := _number(row[2])) is None:
            continue
        of = labels | {"place": row[0], "kind": row[1], "state": row[4]}
        match row[3]:
            case "%":
                families.gauge("mk9p_power_charge_ratio", "The charge of a battery.", of, value / 100)
            case "uW":
                families.gauge("mk9p_power_cap_watts", "The limit of a zone.", of, value / 1_000_000)
            case "kHz":
                families.gauge("mk9p_power_hertz", "The frequency of a policy.", of, value * 1000)
            case _:
                families.gauge("mk9p_power_online", "Whether a supply supplies.", of, value)


async def _stats(ns: Client, at: str, labels: dict[str, str], families: Families) -> None:
    try:
        families.take(await text_of(ns, f"{at}stats/prometheus"), labels)
    except (FileNotFoundError, PermissionError):
        return


def _word(text: str) -> str:
    """Return a kind as a part of a metric's name."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", text)
