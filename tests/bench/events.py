"""`python -m tests.bench.events`: how long an event takes to its readers, by the server itself and through the composer.

One, a hundred and a thousand connections wait in `events` by unix sockets; an event is made by a write when all of them wait. What is printed is the
median, and the worst, of the first and of the last reader (events.c), in us. Server, composer and readers are on one core, as in the bench: what it
takes a thousand readers to read is in it.
"""

import argparse
import contextlib
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.bench.figures import note
from tests.bench.rivals import compiled
from tests.bench.thousand import first, program

GATES: Final = {("direct", 1000): 12_000, ("composed", 100): 2_000, ("composed", 1000): 25_000}  # us, of the last
MORE: Final = 100.0  # us that one reader may wait longer through the composer


def measure(readers: int, events: int) -> dict[str, list[float]]:
    """Return, of each way, median and worst of the first reader, and of the last."""
    found: dict[str, list[float]] = {}
    for way, directory in ("direct", ""), ("composed", "k/k1"):
        with contextlib.ExitStack() as stack:
            where = stack.enter_context(tempfile.TemporaryDirectory())
            script = Path(where, "script")
            script.write_text(f"mount unix!{where}/direct /k/k1\n")
            first(stack.enter_context(program("tests.bench.served", "events", f"unix!{where}/direct")))
            first(stack.enter_context(program("mk9p", "compose", "-l", f"unix!{where}/composed", str(script))))
            argv = [
                "taskset",
                "-c",
                "0",
                str(compiled("events")),
                f"{where}/{way}",
                directory,
                str(readers),
                str(events),
            ]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr.strip() or f"{way}, {readers} readers: {done.returncode}")
            found[way] = [float(word) for word in done.stdout.split()]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, nargs="+", default=[1, 100, 1000], help="how many readers")
    parser.add_argument("-e", type=int, default=100, help="how many events")
    parser.add_argument("-r", type=int, default=3, help="rounds: the best median counts")
    chosen = parser.parse_args()
    missed = 0
    for readers in chosen.n:
        best: dict[str, list[float]] = {}
        for _ in range(chosen.r):
            for way, row in measure(readers, chosen.e).items():
                best[way] = min(best.get(way, row), row, key=lambda row: row[2])
        for way, row in best.items():
            note(f"event, last of {readers}, {way}", row[2], "us", lower=True)
            gate = GATES.get((way, readers), 0.0)
            if readers == 1 and way == "composed":
                gate = best["direct"][2] + MORE
            verdict = "" if not gate else "ok" if row[2] <= gate else "MISSED"
            missed += verdict == "MISSED"
            print(
                f"{readers:5} readers {way:9} first {row[0]:8.0f} (worst {row[1]:8.0f})  last {row[2]:8.0f}"
                f" (worst {row[3]:8.0f}) us  gate {gate or 0:6.0f} {verdict}",
                flush=True,
            )
    return missed


if __name__ == "__main__":
    raise SystemExit(main())
