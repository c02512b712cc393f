"""`mk9p logs [-f] [KERNEL...]` and `mk9p events [-f] [PATH...]`: logs of kernels, and event files, as lines with local time and where they are from.

Times are of this machine's clock. A record of a kernel's own log (`dev/kmsg`) has its time since the boot, so its line has the time that this machine
had then, by the kernel's uptime. A kernel that does not serve a tree has its console's log (kernels/NAME/log), whose lines have no time.

Without `-f` each file is over when nothing comes for `QUIET` seconds; then all lines stand in order of time. With `-f` lines stand as they come.
"""

import argparse
import json
import math
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Final, NamedTuple

import trio

from mk9p.client import Client, File
from mk9p.clients.common import say, with_namespace
from mk9p.clients.figures import figure
from mk9p.clients.hints import words
from mk9p.clients.listing import PATIENCE, entries, silent
from mk9p.errors import NineError
from mk9p.ktext import split_lines
from mk9p.stdio import coloured, printable
from mk9p.usage import parsed

QUIET: Final = 1.0
NS: Final = 1_000_000_000
_RECORD: Final = re.compile(r"(\d{1,20}),\d+,(\d{1,17}),[^;]*;(.*)", re.ASCII)
_EVENT: Final = re.compile(r"\d+ (\d{1,20}) (.*)", re.ASCII)
_COLOURS: Final = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
_LEVELS: Final = ("emergency", "alert", "critical", "error", "warning")


class Line(NamedTuple):
    """A line to show: its time in ns since 1970, None if it has none; where it is from, and its words."""

    at: int | None
    source: str
    words: str


Source = Callable[[], Awaitable[AsyncIterator[Line]]]
"""Opens a file, and returns its lines as they come. Raises NineError for one that cannot be opened."""


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p logs` or `mk9p events`."""
    chosen = parsed(arguments)
    find = _logs if arguments[0] == "logs" else _events

    async def work(ns: Client) -> int:
        board = _Board(ns, chosen, await find(ns, chosen))
        return await board.run()

    return with_namespace(work)


async def _logs(ns: Client, chosen: argparse.Namespace) -> dict[str, Source]:
    """Return the log of each kernel: its own, or its console's where it serves no tree."""
    there = await _names(ns, "k")
    machines = await _names(ns, "kernels")
    if not there and not machines:  # a single kernel's tree
        return {"": partial(_kmsg, ns, "", "")}
    kernels = chosen.kernels or sorted({*there, *machines})
    return {name: partial(_kernel, ns, name, name in machines) for name in kernels}


async def _kernel(ns: Client, name: str, has_machine: bool) -> AsyncIterator[Line]:
    try:
        return await _kmsg(ns, f"k/{name}/", name)
    except NineError:
        if not has_machine:
            raise
        return _each(split_lines(await ns.read(f"kernels/{name}/log")), name)


async def _each(lines: Iterable[str], name: str) -> AsyncIterator[Line]:
    for line in lines:
        yield Line(None, name, line.rstrip("\r"))


async def _kmsg(ns: Client, top: str, name: str) -> AsyncIterator[Line]:
    status = dict(line.partition(" ")[::2] for line in split_lines(await ns.read(f"{top}status")))
    boot = time.time_ns() - (figure(status.get("uptime")) or 0)
    return _records(await ns.open(f"{top}dev/kmsg"), name, boot)


async def _records(file: File, name: str, boot: int) -> AsyncIterator[Line]:
    async for raw in file:
        text = raw.decode(errors="surrogateescape").removesuffix("\n")
        if (found := _RECORD.fullmatch(text)) is not None:
            level = int(found[1]) & 7
            word = f"{_LEVELS[level]}: " if level < len(_LEVELS) - 1 else ""
            yield Line(boot + int(found[2]) * 1000, name, word + found[3])
        elif (found := _EVENT.fullmatch(text)) is not None:
            yield Line(int(found[1]), name, found[2])


async def _events(ns: Client, chosen: argparse.Namespace) -> dict[str, Source]:
    """Return the named event files, else those at the top, of the machines and of each kernel."""
    paths = chosen.paths
    if not paths:
        paths = [path for path in ("events", "kernels/events") if await _exists(ns, path)]
        paths += [f"k/{name}/events" for name in await _names(ns, "k")]
    return {path: partial(_event_file, ns, path) for path in paths}


async def _event_file(ns: Client, path: str) -> AsyncIterator[Line]:
    source = path.strip("/").removesuffix("/events").removeprefix("k/")
    return _event_lines(await ns.open(path), source)


async def _event_lines(file: File, source: str) -> AsyncIterator[Line]:
    async for raw in file:
        text = raw.decode(errors="surrogateescape").removesuffix("\n")
        found = _EVENT.fullmatch(text)
        yield Line(int(found[1]), source, found[2]) if found else Line(None, source, text)


async def _names(ns: Client, path: str) -> list[str]:
    try:
        return [entry.name for entry in await entries(ns, path) if entry.is_dir]
    except (FileNotFoundError, NotADirectoryError):
        return []


async def _exists(ns: Client, path: str) -> bool:
    try:
        await ns.walk(path)
    except FileNotFoundError:
        return False
    return True


class _Board:
    """Reads all sources at once, and prints their lines."""

    def __init__(self, ns: Client, chosen: argparse.Namespace, sources: dict[str, Source]) -> None:
        self.ns, self.chosen, self.sources = ns, chosen, sources
        self.kept: list[Line] = []
        self.failed = 0
        self.width = max((len(name) for name in sources), default=0)
        self.colour = coloured(sys.stdout)

    async def run(self) -> int:
        async with trio.open_nursery() as nursery:
            for name, source in self.sources.items():
                nursery.start_soon(self._read, name, source)
        lines = sorted(self.kept, key=lambda line: line.at or 0)
        for line in lines[-self.chosen.n :] if self.chosen.n else lines:
            self.show(line)
        return self.failed

    async def _read(self, name: str, source: Source) -> None:
        """Read one file to its end, or as far as it goes without a pause; say what is wrong with it."""
        try:
            with trio.move_on_after(PATIENCE) as scope:
                lines = await source()
            if scope.cancelled_caught:
                raise silent()
            while True:
                # a cancelled read is flushed and loses nothing, but its iterator ends: then this file is over
                with trio.move_on_after(math.inf if self.chosen.follow else QUIET):
                    line = await anext(lines, None)
                    if line is None:
                        return
                    if self.chosen.follow:
                        self.show(line)
                    else:
                        self.kept.append(line)
                    continue
                return
        except NineError as error:
            said = await words(self.ns, error)
            say(f"{name}: {said}" if name else said)
            self.failed = 1

    def show(self, line: Line) -> None:
        """Print a line: local time, where it is from, words."""
        if self.chosen.json:
            at = None if line.at is None else str(line.at)
            print(json.dumps({"time_ns": at, "source": line.source, "words": line.words}), flush=True)
            return
        stamp = " " * 19
        if line.at is not None:
            stamp = f"{time.strftime('%m-%d %H:%M:%S', time.localtime(line.at // NS))}.{line.at % NS // 1_000_000:03}"
        source = f"{line.source:<{self.width}}"
        if self.colour and line.source:
            source = f"\x1b[{_COLOURS[sum(map(ord, line.source)) % len(_COLOURS)]}m{source}\x1b[m"
        print(
            f"{stamp} {source} {printable(line.words)}".rstrip() if line.source else f"{stamp} {printable(line.words)}",
            flush=True,
        )
