"""`python -m tests.bench.wasm_beside`: what an honest client of a daemon notices of programs that run beside it, in the daemon's care.

The daemon serves `wasm` and a directory. In turn there are no programs, and as many of each kind as the machine has processors: they compute,
take memory and give it back, write to a file of that same daemon, print what nobody reads, or are begun and ended all the time, which is the
nearest to a fork that there is. Meanwhile the honest client asks for a status (getattr), and reads a small file (walk, open, read, clunk), one
after the other: p50 and p99 in us, and p99 to that without programs; the least of the rounds, because other work of the machine only slows
things down. With `--no-groups` there are no control groups, and a program has the share of a processor that everybody has. No figure is
asserted: it prints a table.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import trio

from mk9p import connect
from mk9p.testing import child
from mk9p.wire import messages as m
from tests.bench.figures import note
from tests.bench.floods import Line
from tests.wasm.foreign import SOURCES, compiled
from tests.wasm.programs_of import Kernel

KINDS: Final = ("none", "spin", "allocate", "write", "print", "begun and ended")
FID: Final = 1
FILE: Final = 2
DAEMON: Final = """
import sys
from mk9p import cgroups
from mk9p.__main__ import main
if sys.argv[1] == "no":
    cgroups.planned = lambda own, values: {}
sys.exit(main(sys.argv[2:]))
"""


async def neighbours(kind: str, socket: str, module: bytes) -> None:
    """Have programs of a kind run until standard input ends."""
    async with connect(f"unix!{socket}") as ns, trio.open_nursery() as nursery:
        kernel = Kernel(ns, "wasm/")
        words = [f"namespace unix!{socket}", "grant /fs/data /d rw", f"arg busy {kind}"]

        async def one(begun: trio.Event) -> None:
            while True:
                async with kernel.program(*words, "start", module=module) as p:
                    begun.set()
                    if kind in KINDS[1:5]:
                        await trio.sleep_forever()
                    await p.order("kill")

        for _ in range(os.cpu_count() or 1):
            ready = trio.Event()
            nursery.start_soon(one, ready)
            await ready.wait()
        print("they run", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


def honest(line: Line, times: int) -> dict[str, list[float]]:
    """Return how many us each of the two kinds of question took."""
    took: dict[str, list[float]] = {"getattr": [], "cat": []}
    for _ in range(times):
        begun = time.perf_counter()
        line.ask(m.Tgetattr, FID, 0x7FF)
        middle = time.perf_counter()
        line.ask(m.Twalk, 0, FILE, ("fs", "data", "small"))
        line.ask(m.Tlopen, FILE, 0)
        line.ask(m.Tread, FILE, 0, 4096)
        line.ask(m.Tclunk, FILE)
        took["getattr"].append((middle - begun) * 1e6)
        took["cat"].append((time.perf_counter() - middle) * 1e6)
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=500, help="questions of each kind in a round")
    parser.add_argument("-r", type=int, default=7, help="rounds")
    parser.add_argument("--no-groups", action="store_true", help="make no control groups")
    parser.add_argument("--neighbours", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.neighbours:
        kind, socket, module = chosen.neighbours
        trio.run(neighbours, kind, socket, Path(module).read_bytes())
        return 0
    with tempfile.TemporaryDirectory(prefix="mk9p-bench-", dir="/run") as name:
        folder, socket = Path(name), f"{name}/s"
        compiled(folder, "busy.wasm", str(SOURCES / "busy.c"))
        (folder / "data").mkdir()
        (folder / "data/small").write_text("small\n")
        groups = "no" if chosen.no_groups else "yes"
        serve = ["serve", "-l", f"unix!{socket}", f"wasm?cache={name}/cache", f"fs:{folder}/data"]
        first: dict[str, float] = {}
        with child([sys.executable, "-c", DAEMON, groups, *serve], "listening"):
            for kind in KINDS:
                with contextlib.ExitStack() as stack:
                    if kind != "none":
                        words = [
                            sys.executable,
                            "-m",
                            __spec__.name,
                            "--neighbours",
                            kind,
                            socket,
                            f"{folder}/busy.wasm",
                        ]
                        stack.enter_context(child(words, "they run", stdin=subprocess.PIPE, stdout=subprocess.PIPE))
                    line = Line(socket, "root")
                    line.ask(m.Twalk, 0, FID, ("fs", "data", "small"))
                    rounds = [honest(line, chosen.n) for _ in range(chosen.r)]
                    for what in rounds[0]:
                        middle = min(statistics.median(each[what]) for each in rounds)
                        late = min(statistics.quantiles(each[what], n=100)[98] for each in rounds)
                        times = late / first.setdefault(what, late)
                        note(f"wasm beside: {kind}: {what}, p99 to that alone", times, lower=True)
                        print(
                            f"{kind:16} {what:8} p50 {middle:7.0f}  p99 {late:7.0f} us  {times:5.1f} times", flush=True
                        )
                    line.sock.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
