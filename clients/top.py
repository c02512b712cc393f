"""`mk9p top`: all kernels of the namespace as they are now, their requests, and their busiest processes. It uses the files, and nothing else.

A task of its own looks at each kernel, and every interval shows what is known: a slow or silent kernel holds up nothing. Its row then has the age
of its figures, and its processes are left out. A figure "a second" is the difference of two looks divided by the time between them. A kernel's
figures include the requests of `top` itself.
"""

import argparse
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
import trio

from mk9p.client import Client
from mk9p.clients.common import no_kernel, with_namespace
from mk9p.clients.listing import entries
from mk9p.ktext import split_lines
from mk9p.stdio import printable
from mk9p.tree import split
from mk9p.usage import parsed

PATIENCE: Final = 5.0  # seconds for a kernel's answers: an emulated one on a busy machine takes one or two
# seconds that the first of several screens waits for kernels beyond its interval: a rate needs two looks
FIRST: Final = 2.0
OLD: Final = 1.0  # seconds beyond the interval after which the screen calls figures old
CLEAR: Final = "\x1b[H\x1b[J"

KERNEL: Final = (
    "kernel",
    "state",
    "age",
    "up",
    "load",
    "cpus",
    "cpu%",
    "mem",
    "used%",
    "ops/s",
    "err/s",
    "in/s",
    "out/s",
)
PROCESS: Final = ("kernel", "pid", "user", "state", "cpu%", "size", "name")


@attrs.frozen
class Process:
    """A process at one look: its time is ms of all its threads, user and kernel; its size is in KiB."""

    name: str
    user: str
    state: str
    time: int
    size: int


@attrs.frozen
class Look:
    """A kernel at one look, `at` seconds of this machine's clock. A mapping is empty if the kernel does not have the file."""

    name: str
    state: str
    at: float
    status: Mapping[str, str] = attrs.field(factory=dict)
    memory: Mapping[str, str] = attrs.field(factory=dict)
    stats: Mapping[str, str] = attrs.field(factory=dict)
    busy: int | None = None  # percent, of all CPUs that are online
    processes: Mapping[int, Process] = attrs.field(factory=dict)


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p top`."""
    chosen = parsed(arguments)

    async def work(ns: Client) -> int:
        board = Board(ns, chosen.kernels, chosen.delay)
        shown = 0
        async with trio.open_nursery() as nursery:
            board.nursery = nursery
            await board.find()
            due = trio.current_time() + chosen.delay
            await trio.sleep_until(due)
            with trio.move_on_at(due + (PATIENCE if chosen.n == 1 else FIRST)):
                await board.complete()
            while True:
                show(chosen, board.rows(), board.processes()[: chosen.processes], first=not shown)
                shown += 1
                if shown == chosen.n:
                    break
                due = max(due + chosen.delay, trio.current_time())
                await trio.sleep_until(due)
                await board.find()
            nursery.cancel_scope.cancel()
        return 0

    return with_namespace(work)


# looking


@attrs.define(eq=False)
class Board:
    """What is known of the kernels, by name: their last two looks, in their order. `find` starts and ends the tasks that look."""

    ns: Client
    wanted: Sequence[str]
    delay: float
    nursery: trio.Nursery = attrs.field(init=False)
    # of the machines, as `kernels` tells them; "up" where it does not
    states: dict[str, str] = attrs.field(factory=dict)
    before: dict[str, Look] = attrs.field(factory=dict)
    now: dict[str, Look] = attrs.field(factory=dict)
    failing: dict[str, str] = attrs.field(factory=dict)  # for the kernels whose last attempt failed: how it failed
    _watched: dict[str, trio.CancelScope] = attrs.field(factory=dict)
    _looked: trio.Condition = attrs.field(factory=trio.Condition)

    async def find(self) -> None:
        """Find the kernels, all or those that are wanted; a tree without `k` is that of one kernel.

        It asks none of them. Raises ENOENT for a wanted kernel that does not exist.
        """
        names = [entry.name for entry in await entries(self.ns, "/")]
        if "k" not in names:
            name = (await values(self.ns, "status")).get("name", "-")
            if self.wanted and list(self.wanted) != [name]:
                raise no_kernel(" ".join(self.wanted), [name])
            self._watch({name: ""}, {name: "up"})
            return
        there = [entry.name for entry in await entries(self.ns, "k")]
        for name in self.wanted:
            if name not in there:
                raise no_kernel(name, there)
        machines = dict(line[:2] for line in await table(self.ns, "kernels/status")) if "kernels" in names else {}
        chosen = list(self.wanted or there)
        self._watch({name: f"k/{name}/" for name in chosen}, {name: machines.get(name, "up") for name in chosen})

    def _watch(self, places: Mapping[str, str], states: dict[str, str]) -> None:
        self.states = states
        for name in [name for name in self._watched if name not in places]:
            self._watched.pop(name).cancel()
            for known in (self.before, self.now, self.failing):
                known.pop(name, None)
        for name, at in places.items():
            if name not in self._watched:
                scope = self._watched[name] = trio.CancelScope()
                self.nursery.start_soon(self._look, name, at, scope)

    async def _look(self, name: str, at: str, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                begun = trio.current_time()
                failed = "silent"
                with trio.move_on_after(PATIENCE):
                    try:
                        seen = await look(self.ns, name, at)
                        failed = ""
                    except OSError:
                        if self.ns.closed.is_set():
                            raise
                        failed = "away"
                async with self._looked:
                    if failed:
                        self.failing[name] = failed
                    else:
                        self.failing.pop(name, None)
                        if name in self.now:
                            self.before[name] = self.now[name]
                        self.now[name] = seen
                    self._looked.notify_all()
                await trio.sleep_until(begun + self.delay)

    async def complete(self) -> None:
        """Wait until each kernel was looked at twice, or failed."""
        async with self._looked:
            while not all(name in self.before or name in self.failing for name in self.states):
                await self._looked.wait()

    def rows(self) -> list[dict[str, Any]]:
        """Return the known figures of each kernel; `age` is their age in seconds if they are old."""
        return [self._row(name, state) for name, state in self.states.items()]

    def _row(self, name: str, state: str) -> dict[str, Any]:
        seen, time = self.now.get(name), trio.current_time()
        if state in ("up", "active"):
            state = self.failing.get(name, state if seen is not None else "silent")
        if self.failing.get(name) == "away" or seen is None:
            return _row(None, Look(name, state, time))
        age = time - seen.at
        old = age > self.delay + OLD
        return _row(self.before.get(name), attrs.evolve(seen, state=state)) | {"age": round(age) if old else None}

    def processes(self) -> list[dict[str, Any]]:
        """Return the processes of the kernels whose figures are not old."""
        fresh = {row["kernel"] for row in self.rows() if row["age"] is None}
        return processes(self.before, {name: look for name, look in self.now.items() if name in fresh})


async def look(ns: Client, name: str, at: str) -> Look:
    """Look at one kernel whose tree is at a path; leave out what it does not have. Raises OSError if it does not exist at all."""
    parts = {entry.name for entry in await entries(ns, at)}
    loads = [int(line[6]) for line in await table(ns, f"{at}cpu/status") if line[6:7] and line[6].isdecimal()]
    return Look(
        name,
        "",
        trio.current_time(),
        await values(ns, f"{at}status"),
        await values(ns, f"{at}mem/status") if "mem" in parts else {},
        await values(ns, f"{at}stats/status") if "stats" in parts else {},
        round(sum(loads) / len(loads)) if loads else None,
        await running(ns, f"{at}proc") if "proc" in parts else {},
    )


async def values(ns: Client, path: str) -> dict[str, str]:
    """Return the `key value` lines of a file; none if it does not exist."""
    try:
        lines = split_lines(await ns.read(path))
    except FileNotFoundError:
        return {}
    return {key: value for key, _, value in (line.partition(" ") for line in lines)}


async def table(ns: Client, path: str) -> list[list[str]]:
    """Return the words of the lines of a file; none if it does not exist."""
    try:
        return [split(line) for line in split_lines(await ns.read(path))]
    except FileNotFoundError:
        return []


async def running(ns: Client, path: str) -> dict[int, Process]:
    """Return the processes in a kernel's `proc`; leave out those that end meanwhile."""
    found: dict[int, Process] = {}

    async def one(pid: str) -> None:
        try:
            words = split(await ns.read(f"{path}/{pid}/status"))
        except (FileNotFoundError, ProcessLookupError):
            return
        if len(words) >= 10:
            name, user, state, utime, stime = words[:5]
            found[int(pid)] = Process(name, user, state, int(utime) + int(stime), int(words[9]))

    async with trio.open_nursery() as nursery:
        for entry in await entries(ns, path):
            if entry.name.isdecimal():
                nursery.start_soon(one, entry.name)
    return dict(sorted(found.items()))


# what two looks tell


def _row(before: Look | None, now: Look) -> dict[str, Any]:
    """Return the figures of a kernel; None for what is not known."""
    total, free = (_number(now.memory, key) for key in ("MemTotal", "MemAvailable"))
    uptime = _number(now.status, "uptime")
    return {
        "kernel": now.name,
        "state": now.state,
        "age": None,
        "up": uptime and uptime // 1_000_000_000,
        "load": now.status.get("load", "").partition(" ")[0] or None,
        "cpus": _number(now.status, "cpus"),
        "cpu%": now.busy,
        "mem": total,
        "used%": round(100 * (total - free) / total) if total and free is not None else None,
        "ops/s": _rate(before, now, "ops"),
        "err/s": _rate(before, now, "errors"),
        "in/s": _rate(before, now, "in_bytes"),
        "out/s": _rate(before, now, "out_bytes"),
    }


def _number(values: Mapping[str, str], key: str) -> int | None:
    text = values.get(key, "")
    return int(text) if text.isdecimal() else None


def _rate(before: Look | None, now: Look, key: str) -> int | None:
    """Return how much a count grew in a second; None if it began again at 0 meanwhile."""
    if before is None or before.stats.get("since") != now.stats.get("since"):
        return None
    one, two = _number(before.stats, key), _number(now.stats, key)
    return None if one is None or two is None else round((two - one) / max(now.at - before.at, 0.001))


def processes(before: Mapping[str, Look], now: Mapping[str, Look]) -> list[dict[str, Any]]:
    """Return all processes that existed at both looks, the busiest first."""
    found = [(share, row) for look in now.values() for share, row in _busy(before.get(look.name), look)]
    return [row for _, row in sorted(found, key=lambda pair: -pair[0])]


def _busy(before: Look | None, now: Look) -> Iterator[tuple[float, dict[str, Any]]]:
    for pid, process in now.processes.items():
        old = before.processes.get(pid) if before is not None else None
        if before is None or old is None or old.time > process.time:
            continue  # it is new, or another process with an old number
        share = (process.time - old.time) / 10 / max(now.at - before.at, 0.001)
        values = (now.name, pid, process.user, process.state, round(share, 1), process.size * 1024, process.name)
        yield share, dict(zip(PROCESS, values, strict=True))


# showing


def show(
    chosen: argparse.Namespace, kernels: list[dict[str, Any]], busiest: list[dict[str, Any]], *, first: bool
) -> None:
    """Print one screen: over the last one on a terminal, after it elsewhere."""
    if chosen.json:
        import json

        print(json.dumps({"kernels": kernels, "processes": busiest}), flush=True)
        return
    lines = [*columns(KERNEL, kernels), "", *columns(PROCESS, busiest)]
    if sys.stdout.isatty() and chosen.n != 1:
        width, height = shutil.get_terminal_size()
        print(CLEAR + "\n".join(line[:width] for line in lines[: height - 1]), flush=True)
    else:
        print("" if first else "\n", *(line + "\n" for line in lines), sep="", end="", flush=True)


def columns(names: Sequence[str], table: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return lines of a table: names and words to the left, numbers to the right."""
    cells = [[name.upper() for name in names], *([_cell(name, row[name]) for name in names] for row in table)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    left = {"kernel", "state", "user", "name"}
    return [
        " ".join(
            cell.ljust(width) if name in left else cell.rjust(width)
            for name, cell, width in zip(names, row, widths, strict=True)
        ).rstrip()
        for row in cells
    ]


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
