"""What a kernel's files say now, as the page shows it. A kernel that does not have a file lacks that part, and nothing else."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import attrs
import trio

from mk9p.client import Client
from mk9p.clients.figures import figure, text_of, words_of
from mk9p.ktext import split_lines
from mk9p.tree import split
from mk9p.tree.words import lines as whole_lines

T = TypeVar("T")

BUSES: Final = ("block", "tty", "pci", "usb")
_COUNTS: Final = ("ops", "errors", "in_bytes", "out_bytes")
# seconds for one file: one that an operator must allow first (`ask` in a policy) holds up no other
_EACH: Final = 2.0
# seconds for which the page leaves such a file alone: an operator is not to be asked at every look
REST: Final = 30.0
# seconds: a refusal that takes longer was an operator's
_SAID: Final = 0.5
_DEVICES: Final = 256  # of a bus: more are not seen on a screen


@attrs.define(eq=False)
class Eyes:
    """What looks: a client, and the files that it leaves alone, with until when."""

    ns: Client
    resting: dict[str, float] = attrs.field(factory=dict)

    async def look(self, path: str, read: Callable[[], Awaitable[T]]) -> T | None:
        """Return what a file or directory has; None if it does not exist, may not be read, does not answer in time, or is left alone."""
        begun = trio.current_time()
        if self.resting.get(path, begun) > begun:
            return None
        with trio.move_on_after(_EACH) as scope:
            try:
                return await read()
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                pass
        now = trio.current_time()
        if scope.cancelled_caught or now > begun + _SAID:
            self.resting = {path: until for path, until in self.resting.items() if until > now} | {path: now + REST}
        return None


async def values(eyes: Eyes, path: str) -> dict[str, str]:
    """Return the `key value` lines of a file; none if it does not exist, or may not be read."""
    lines = await _lines(eyes, path)
    return {key: value for key, _, value in (line.partition(" ") for line in lines)}


async def table(eyes: Eyes, path: str) -> list[list[str]]:
    """Return the words of the lines of a file; none if it does not exist."""
    return [words_of(line) for line in await _lines(eyes, path)]


async def _lines(eyes: Eyes, path: str) -> list[str]:
    return split_lines(await eyes.look(path, lambda: text_of(eyes.ns, path)) or "")


async def names(eyes: Eyes, path: str) -> list[str]:
    """Return the names in a directory; none if it does not exist."""
    return [entry.name for entry in await eyes.look(path, lambda: eyes.ns.listdir(path)) or ()]


async def kernel(eyes: Eyes, at: str) -> dict[str, Any]:
    """Return what a kernel whose tree is at a path says of itself. Raises OSError if it does not answer."""
    parts = {entry.name for entry in await eyes.ns.listdir(at or "/")}
    status = await values(eyes, f"{at}status")
    memory = await values(eyes, f"{at}mem/status") if "mem" in parts else {}
    stats = await values(eyes, f"{at}stats/status") if "stats" in parts else {}
    return {
        "release": status.get("release", ""),
        "arch": status.get("arch", ""),
        "up": figure(status.get("uptime")),
        "load": status.get("load", "").partition(" ")[0],
        "cpus": [
            {"n": words[0], "state": words[1], "node": words[2], "load": figure(words[6])}
            for words in await table(eyes, f"{at}cpu/status")
            if len(words) >= 7
        ],
        "memory": {
            "total": figure(memory.get("MemTotal")),
            "available": figure(memory.get("MemAvailable")),
        },
        "counts": {"since": stats.get("since", ""), **{key: figure(stats.get(key)) for key in _COUNTS}},
    }


async def devices(eyes: Eyes, at: str) -> list[dict[str, str]]:
    """Return a kernel's devices: their bus, name, and path."""
    there = set(await names(eyes, f"{at}dev"))
    found = []
    for bus in BUSES:
        if bus in there:
            some = [name for name in await names(eyes, f"{at}dev/{bus}") if not _about(name)]
            found += [{"bus": bus, "name": name, "path": f"/{at}dev/{bus}/{name}"} for name in some[:_DEVICES]]
    return found


def _about(name: str) -> bool:
    """Tell whether a name beside devices is no device: a file about all of them, or about one (dev(5)'s `ttyS0ctl`)."""
    return name in ("ctl", "error", "status", "events") or name.endswith(("ctl", "status"))


async def machines(eyes: Eyes) -> dict[str, dict[str, str]]:
    """Return the lives of kernels: their states and what they are made of."""
    found = {}
    for words in await table(eyes, "kernels/status"):
        if len(words) >= 6:
            found[words[0]] = dict(zip(("state", "backend", "cpus", "memory", "kernel"), words[1:6], strict=True))
    return found


async def life(eyes: Eyes, name: str) -> dict[str, Any]:
    """Return why a kernel is as it is, how often it ended, and what it was given: devices, grants."""
    status = await values(eyes, f"kernels/{name}/status")
    config = whole_lines("\n".join(await _lines(eyes, f"kernels/{name}/config")))
    given = [line for line in config if line.partition(" ")[0] in ("device", "grant")]
    given += [f"device {each} from the pool" for each in split(status.get("devices", ""))]
    return {"reason": status.get("reason", ""), "ends": figure(status.get("ends")), "given": given}


async def pool(eyes: Eyes) -> dict[str, str]:
    """Return what kernels can still be given."""
    return await values(eyes, "kernels/pool/status")


async def leases(eyes: Eyes) -> list[dict[str, str]]:
    """Return the leases that are held or waited for."""
    names = ("n", "state", "path", "mode", "holder", "token", "until")
    return [dict(zip(names, words, strict=False)) for words in await table(eyes, "lease/status") if len(words) >= 7]


async def mounts(eyes: Eyes) -> list[dict[str, str]]:
    """Return the mount table: each line's word, flags, what is there, and where."""
    found = []
    for kind, *rest in filter(None, await table(eyes, "ns")):
        flags = ""
        while rest and rest[0].startswith("-"):
            flag = rest.pop(0)
            flags += flag[1:]
            if flag.endswith("w") and rest:
                flags += " " + rest.pop(0)
        if kind in ("mount", "bind") and len(rest) >= 2:
            found.append({"kind": kind, "flags": flags, "what": rest[0], "at": rest[1]})
    return found


async def traffic(eyes: Eyes) -> dict[str, Any]:
    """Return what the server of the tree counts of its own requests."""
    status = await values(eyes, "stats/status")
    rows = [
        {"name": words[0], "count": figure(words[1]), "errors": figure(words[2]), "p50": words[5], "p99": words[6]}
        for words in await table(eyes, "stats/messages")
        if len(words) >= 8
    ]
    rows.sort(key=lambda row: -(row["count"] or 0))  # type: ignore[operator]
    counts = {key: figure(status.get(key)) for key in ("connections", "refused", "fids", *_COUNTS)}
    return {"counts": counts | {"since": status.get("since", "")}, "messages": rows[:12]}


def rates(before: dict[str, Any] | None, now: dict[str, Any], seconds: float) -> dict[str, int | None]:
    """Return how much counts grew in a second; None where that is not known, or a count began again at 0."""
    if before is None or seconds <= 0 or before.get("since") != now.get("since"):
        return dict.fromkeys(_COUNTS)
    pairs = {key: (before.get(key), now.get(key)) for key in _COUNTS}
    return {
        key: None if one is None or two is None or two < one else round((two - one) / seconds)
        for key, (one, two) in pairs.items()
    }
