"""What `mk9p top` knows of the kernels: what their files said at the last two looks, and the figures that follow from these.

A task of its own looks at each kernel. A figure "a second" is the difference of two looks divided by the time between them. A kernel's figures
include the requests of `top` itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
import trio

from mk9p.client import Client
from mk9p.clients.figures import figure, text_of, words_of
from mk9p.clients.hints import no_kernel
from mk9p.clients.listing import entries
from mk9p.clients.together import together
from mk9p.ktext import split_lines

PATIENCE: Final = 5.0  # seconds for a kernel's answers: an emulated one on a busy machine takes one or two
OLD: Final = 1.0  # seconds beyond the interval after which figures are called old

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


@attrs.define(eq=False)
class Board:
    """What is known of the kernels, by name: their last two looks, in their order. `find` starts and ends the tasks that look."""

    ns: Client
    wanted: Sequence[str]
    delay: float
    nursery: trio.Nursery = attrs.field(init=False)
    # of the machines, as `kernels` tells them; "up" where it does not
    states: dict[str, str] = attrs.field(factory=dict)
    places: dict[str, str] = attrs.field(factory=dict)  # the paths of their trees
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
        told = await table(self.ns, "kernels/status") if "kernels" in names else []
        machines = {line[0]: line[1] for line in told if len(line) > 1}
        chosen = list(self.wanted or there)
        self._watch({name: f"k/{name}/" for name in chosen}, {name: machines.get(name, "up") for name in chosen})

    def _watch(self, places: Mapping[str, str], states: dict[str, str]) -> None:
        self.states, self.places = states, dict(places)
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
    told = [figure(line[6]) for line in await table(ns, f"{at}cpu/status") if line[6:7]]
    loads = [load for load in told if load is not None]
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
        lines = split_lines(await text_of(ns, path))
    except FileNotFoundError:
        return {}
    return {key: value for key, _, value in (line.partition(" ") for line in lines)}


async def table(ns: Client, path: str) -> list[list[str]]:
    """Return the words of the lines of a file; none if it does not exist."""
    try:
        return [words_of(line) for line in split_lines(await text_of(ns, path))]
    except FileNotFoundError:
        return []


async def running(ns: Client, path: str) -> dict[int, Process]:
    """Return the processes in a kernel's `proc`; leave out those that end meanwhile."""
    found: dict[int, Process] = {}

    async def one(pid: int) -> None:
        try:
            words = words_of(await text_of(ns, f"{path}/{pid}/status"))
        except (FileNotFoundError, ProcessLookupError):
            return
        utime, stime, size = (figure(word) for word in (*words[3:5], *words[9:10], "", "", "")[:3])
        if utime is not None and stime is not None and size is not None:
            name, user, state = words[:3]
            found[pid] = Process(name, user, state, utime + stime, size)

    async with together() as nursery:
        for entry in await entries(ns, path):
            # 007 is no name of a process, and would be a second 7
            if (pid := figure(entry.name)) is not None and str(pid) == entry.name:
                nursery.start_soon(one, pid)
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
    return figure(values.get(key))


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
