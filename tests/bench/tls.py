"""What TLS costs beside a unix socket and tcp: `python -m tests.bench.tls`, part of `make slower`.

One server process and one client in Python, both on one core, in turn; the best of the rounds counts, because noise only slows down. A handshake is
a whole connection: dial, agree, attach, hang up.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import trio

from mk9p.certificates import Authority
from mk9p.client import Client, connect
from mk9p.dial.keys import tell
from mk9p.testing import child, hear
from tests.bench.figures import note

ROUNDS: Final = 5
SECONDS: Final = 0.3
READ: Final = 1 << 16
PLACES: Final = ("unix", "tcp", "tls")


async def rate(work: Callable[[], Awaitable[object]], side_by_side: int = 1) -> float:
    """Return how often work is done in a second."""
    done, until, begun = 0, time.perf_counter() + SECONDS, time.perf_counter()

    async def many() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await work()
            done += 1

    async with trio.open_nursery() as nursery:
        for _ in range(side_by_side):
            nursery.start_soon(many)
    return done / (time.perf_counter() - begun)


async def one(address: str) -> dict[str, float]:
    """Measure a server once."""
    async with connect(address) as client:
        found = {
            "stat w=1": await rate(lambda: client.stat("small")),
            "stat w=16": await rate(lambda: client.stat("small"), 16),
            "read 64 KiB w=1": await reading(client),
        }

    async def hello() -> None:
        async with connect(address):
            pass

    found["handshakes"] = await rate(hello)
    return found


async def reading(client: Client) -> float:
    """Return how many reads of 64 KiB there are in a second."""
    async with await client.open("big") as file:
        return await rate(lambda: file.pread(READ, 0))


async def measure(addresses: dict[str, str]) -> None:
    """Measure all in turn and print the table."""
    best: dict[str, dict[str, float]] = {place: {} for place in addresses}
    for _ in range(ROUNDS):
        for place, address in addresses.items():
            for name, value in (await one(address)).items():
                best[place][name] = max(best[place].get(name, 0.0), value)
    for name in best["tcp"]:
        values = {place: best[place][name] for place in best}
        if name.startswith("read"):
            text = " ".join(f"{place} {value * READ / 1e6:7.0f} MB/s" for place, value in values.items())
        else:
            text = " ".join(f"{place} {1e6 / value:7.1f} us {value:8.0f} /s" for place, value in values.items())
        ratio = values["tls"] / values["tcp"]
        note(f"tls: {name}, tls / tcp", ratio)
        print(f"{name:16} {text}   tls / tcp {ratio:.2f}", flush=True)


def main() -> None:
    """Run the servers and measure."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        authority = Authority.make(Path(folder, "ca"))
        tell(authority.issue("bench", Path(folder), ["127.0.0.1"]))
        addresses = {}
        for place, where in zip(PLACES, (f"unix!{folder}/s", "tcp!127.0.0.1!0", "tls!127.0.0.1!0"), strict=True):
            words = [sys.executable, "-m", "tests.bench.served", "plain", where]
            process = stack.enter_context(child(words, stderr=subprocess.PIPE))
            addresses[place] = hear(process, "listening on ").strip().rpartition(" ")[2]
        trio.run(measure, addresses)


if __name__ == "__main__":
    main()
