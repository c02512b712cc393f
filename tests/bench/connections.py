"""`python -m tests.bench.connections`: what 10,000 connections of forty users cost one server, and what an honest client notices of them.

Two servers are on one core, one with ten connections and one with as many as are asked for. Printed are: what making a connection takes, with its
attach, and what an idle one takes of the server's memory (resident) and of the kernel (Slab of /proc/meminfo, the client's end included). Then a
thousand become slow: half of them have sent half a frame, half do not read their replies. An honest client asks each server in turn, and each time a
slow one sends one more byte: how long the answer takes, as p50 and p99, of both. The best of the rounds counts.
"""

import argparse
import contextlib
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mk9p.wire import messages as m
from tests.bench.figures import note
from tests.bench.floods import Line, pack
from tests.bench.served import BIG
from tests.bench.thousand import first, program, resident

FEW: Final = 10
USERS: Final = 40
IDLE, RATIO = 20.0, 1.5  # the gates: KiB, and how many times as long the honest client may wait
UNREAD: Final = 5  # replies of LARGE bytes that nobody reads: more than the socket takes
LARGE: Final = 60_000
FID: Final = 1


def slab() -> int:
    """Return what the kernel keeps in its own small pieces, in KiB."""
    return next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().split("\n") if line[:5] == "Slab:")


class Crowd:
    """A server with its connections."""

    def __init__(self, stack: contextlib.ExitStack, where: str, connections: int, slow: int) -> None:
        self.address = f"{where}/{connections}"
        self.server = stack.enter_context(program("tests.bench.served", "plain", f"unix!{self.address}"))
        first(self.server)
        self.honest = Line(self.address, "root")
        self.honest.ask(m.Twalk, 0, FID, ("small",))
        self.honest.ask(m.Tlopen, FID, 0)
        self.lines = [Line(self.address, "u0") for _ in range(FEW)]
        before, kernel, begun = resident(self.server.pid), slab(), time.perf_counter()
        each = max(1, connections // USERS)
        self.lines += [Line(self.address, f"u{number // each}") for number in range(connections - FEW)]
        more = max(1, connections - FEW)
        self.making = (time.perf_counter() - begun) / more * 1e6
        self.idle, self.kernel = (resident(self.server.pid) - before) / more, (slab() - kernel) / more
        self.slow = self._slow(slow)

    def _slow(self, slow: int) -> list[Line]:
        """Make so many slow; return those that have sent half a frame."""
        half = self.lines[:slow:2]
        for line in half:
            line.sock.sendall(pack(m.Twrite, 1, FID, 0, bytes(LARGE))[:20])
        for line in self.lines[1:slow:2]:
            line.ask(m.Twalk, 0, FID, ("big",))
            line.ask(m.Tlopen, FID, 0)
            line.sock.sendall(b"".join(pack(m.Tread, tag, FID, tag * LARGE % BIG, LARGE) for tag in range(UNREAD)))
        return half

    def ask(self, number: int) -> float:
        """Return how many us an answer takes, while a slow connection goes on."""
        slow = self.slow[number % len(self.slow)].sock
        begun = time.perf_counter()
        slow.send(b"\0")
        self.honest.ask(m.Tgetattr, FID, 0x7FF)
        return (time.perf_counter() - begun) * 1e6


def rounds(crowds: list[Crowd], count: int, asked: int) -> Iterator[list[tuple[float, float]]]:
    """Give p50 and p99 of each crowd, of each round."""
    for _ in range(count):
        times: list[list[float]] = [[] for _ in crowds]
        for number in range(asked):
            for crowd, took in zip(crowds, times, strict=True):
                took.append(crowd.ask(number))
        yield [(statistics.median(took), statistics.quantiles(took, n=100)[98]) for took in times]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=10_000, help="connections")
    parser.add_argument("-s", type=int, default=1000, help="of which so many are slow")
    parser.add_argument("-r", type=int, default=5, help="rounds")
    parser.add_argument("-q", type=int, default=2000, help="requests of a round")
    chosen = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as stack:
        where = stack.enter_context(tempfile.TemporaryDirectory())
        few, many = Crowd(stack, where, FEW, 2), Crowd(stack, where, chosen.n, chosen.s)
        results = [(few_ms, many_ms) for few_ms, many_ms in rounds([few, many], chosen.r, chosen.q)]
    found = min(results, key=lambda row: row[1][1] / row[0][1])
    ratio = found[1][1] / found[0][1]
    missed = 0
    for name, value, unit, gate in (
        ("connections: idle, resident", many.idle, "KiB", IDLE),
        ("connections: idle, in the kernel", many.kernel, "KiB", 0.0),
        ("connections: made and attached", many.making, "us", 0.0),
        ("connections: honest, p99 to that beside ten", ratio, "", RATIO),
    ):
        note(name, value, unit, lower=True)
        missed += bool(gate) and value > gate
        verdict = "" if not gate else "ok" if value <= gate else "MISSED"
        print(f"{name:45} {value:9.2f} {unit:3}  gate {gate:5.1f} {verdict}")
    for crowd, (middle, late) in zip(("ten", f"{chosen.n}"), found, strict=True):
        print(f"honest beside {crowd:31} p50 {middle:7.0f}  p99 {late:7.0f} us")
    return missed


if __name__ == "__main__":
    raise SystemExit(main())
