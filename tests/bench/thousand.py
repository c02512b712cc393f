"""`python -m tests.bench.thousand`: a namespace of 1,000 kernels beside one of ten.

The rig is one process that serves a small tree on a unix socket for each kernel, and a composer in which all of them are mounted. Each has a `cpu` of
5 entries and a `proc` of 20. Of each namespace it is printed: how long until the composer answers, a listing of `k`, `all/cpu` and `all/proc` by
`mk9p ls`, the first and the next; requests one at a time, through `k` and through `all`; what a mounted kernel costs the composer, in KiB, before
anybody used it and after. With `--silent N` so many kernels take connections and never answer, and as many are not there.
"""

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from mk9p.auth import Policy
from mk9p.dial import listen
from mk9p.server import Server
from mk9p.tree import Dir, Node, Text
from mk9p.wire import messages as m
from tests.bench.figures import note
from tests.bench.floods import Line

CPUS: Final = 4  # and a status: 5 entries
PROCS: Final = 20
SOCKETS: Final = 20_000  # descriptors that the rig may have
ROUNDS: Final = 300
FID: Final = 7


def kernel(number: int) -> Dir:
    """Return the tree of a small kernel."""
    cpus: dict[str, Node] = {str(cpu): Dir({"online": Text("1\n")}) for cpu in range(CPUS)}
    procs: dict[str, Node] = {str(pid): Dir({"status": Text(f"{pid}\n")}) for pid in range(1, PROCS + 1)}
    return Dir({"cpu": Dir({"status": Text(f"{number}\n"), **cpus}), "proc": Dir(procs), "dev": Dir({"block": Dir()})})


async def rig(directory: str, kernels: int, silent: int) -> None:
    """Serve that many kernels; the first `silent` take connections and never answer, as many after them are not there."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (SOCKETS, SOCKETS))
    async with trio.open_nursery() as nursery:
        for number in range(kernels):
            address = f"unix!{directory}/k{number}"
            if silent <= number < 2 * silent:
                continue
            listener = await listen(address)
            if number >= silent:
                server = Server(kernel(number))
                await nursery.start(server.run)
                nursery.start_soon(server.listen, listener, Policy(trust=True))
        print("ready", flush=True)


def resident(pid: int) -> int:
    """Return the resident memory of a process, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.split("\n") if line.startswith("VmRSS"))


@contextlib.contextmanager
def program(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """Run a Python module until the block ends; the body waits for its first line."""
    with subprocess.Popen(
        ["taskset", "-c", "0", sys.executable, "-m", *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def first(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@attrs.define
class Row:
    """What was measured, of how many kernels, and what it may be at most (0: nothing is asked)."""

    name: str
    unit: str
    found: dict[int, float] = attrs.field(factory=dict)


class Table:
    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def put(self, kernels: int, name: str, value: float, unit: str) -> None:
        self.rows.setdefault(name, Row(name, unit)).found[kernels] = value
        note(f"{kernels} kernels, {name}", value, unit, lower=True)

    def print(self, columns: list[int]) -> None:
        print(f"{'kernels':36}" + "".join(f"{n:>12}" for n in columns))
        for row in self.rows.values():
            figures = "".join(f"{row.found[n]:>12.1f}" if n in row.found else f"{'-':>12}" for n in columns)
            print(f"{row.name:36}{figures} {row.unit}", flush=True)


def once(what: Callable[[], object]) -> float:
    begun = time.perf_counter()
    what()
    return (time.perf_counter() - begun) * 1e3


def each(what: Callable[[], object]) -> float:
    """Return the microseconds that one of many takes: the best of five rounds."""
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(ROUNDS):
            what()
        best = min(best, (time.perf_counter() - begun) / ROUNDS * 1e6)
    return best


def walk(line: Line, *names: str) -> None:
    line.ask(m.Twalk, 0, FID, names)
    line.ask(m.Tclunk, FID)


def ls(address: str, path: str, lines: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mk9p", "-a", address, "ls", path], capture_output=True, text=True, check=False
    )
    if done.returncode or done.stdout.count("\n") != lines:
        raise SystemExit(f"ls {path}: {done.stdout.count(chr(10))} lines, not {lines}; {done.stderr.strip()}")


def measure(table: Table, kernels: int, silent: int) -> None:
    """Measure one namespace."""
    there = kernels - 2 * silent
    with contextlib.ExitStack() as stack:
        where = stack.enter_context(tempfile.TemporaryDirectory())
        script, address = Path(where, "script"), f"unix!{where}/ns"
        script.write_text("".join(f"mount unix!{where}/k{number} /k/k{number}\n" for number in range(kernels)))
        first(stack.enter_context(program("tests.bench.thousand", "--rig", where, str(kernels), str(silent))))
        begun = time.perf_counter()
        composer = stack.enter_context(program("mk9p", "compose", "-l", address, str(script)))
        said = first(composer)
        if "listening" not in said:
            raise SystemExit(said)
        line = Line(f"{where}/ns", "root")
        table.put(kernels, "ready", (time.perf_counter() - begun) * 1e3, "ms")
        unused = resident(composer.pid)
        table.put(kernels, "ls k", once(lambda: ls(address, "k", kernels)), "ms")
        for part, entries in ("cpu", 1 + CPUS), ("proc", PROCS):
            for time_ in "first", "next", "after that":
                took = once(partial(ls, address, f"all/{part}", there * entries))
                table.put(kernels, f"ls all/{part}, {time_}", took, "ms")
        if not silent:
            k = f"k{kernels - 1}"
            table.put(kernels, "walk k/kN/proc/1", each(lambda: walk(line, "k", k, "proc", "1")), "us")
            table.put(kernels, "walk all/proc/kN.1", each(lambda: walk(line, "all", "proc", f"{k}.1")), "us")
            line.ask(m.Twalk, 0, FID, ("k", k, "cpu", "status"))
            line.ask(m.Tlopen, FID, 0)
            table.put(kernels, "getattr k/kN/cpu/status", each(lambda: line.ask(m.Tgetattr, FID, 0x7FF)), "us")
            table.put(kernels, "read k/kN/cpu/status", each(lambda: line.ask(m.Tread, FID, 0, 64)), "us")
        table.put(kernels, "a kernel, unused and used", (resident(composer.pid) - unused) / kernels, "KiB more")
        table.put(kernels, "the composer, before", unused, "KiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, nargs="+", default=[10, 1000], help="how many kernels")
    parser.add_argument("--silent", type=int, default=0, help="how many never answer, and how many are not there")
    parser.add_argument("--rig", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.rig:
        trio.run(rig, chosen.rig[0], int(chosen.rig[1]), int(chosen.rig[2]))
        return
    table = Table()
    for kernels in chosen.n:
        measure(table, kernels, chosen.silent)
    table.print(chosen.n)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
