"""A client of the namespace writes to a file of `mk9p serve` while that is killed by SIGKILL and started again, again and again.

Every answered and synced byte must be right. The gaps are printed: `pytest -s`; MK9P_LONG=1 kills a hundred times.
"""

import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from mk9p.client import File, connect
from mk9p.composing import namespace
from mk9p.testing import Host, hear, until

BLOCKS, BLOCK = 64, 512


class Served:
    """`mk9p serve` of a directory, which can be killed and started again."""

    def __init__(self, address: str, home: Path) -> None:
        self.command = [sys.executable, "-m", "mk9p", "serve", "-l", address, f"fs:{home}", "cpu"]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stderr=subprocess.PIPE, text=True)
        hear(self.process, "listening on")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


@asynccontextmanager
async def lab(path: Path, flags: str) -> AsyncIterator[tuple[Served, str, Path]]:
    home = path / "home"
    home.mkdir()
    (home / "f").write_bytes(bytes(BLOCKS * BLOCK))
    address = f"unix!{path}/far"
    served = Served(address, home)
    async with trio.open_nursery() as nursery:
        ns = namespace(nursery)
        await ns.run(f"mount {flags} {address} /k/k1\n")
        host = Host(nursery, f"unix!{path}/ns", ns.root)
        await host.start()
        await trio.to_thread.run_sync(served.start)
        try:
            yield served, host.address, home / "f"
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(served.kill)
        nursery.cancel_scope.cancel()


class Writer:
    """Writes blocks, syncs each, and knows what must be there."""

    def __init__(self, seed: int, f: File) -> None:
        self.random, self.f = random.Random(seed), f
        self.synced = [bytes(BLOCK)] * BLOCKS
        self.done = 0
        self.errors = 0
        self.longest = 0.0

    async def go_on(self, stop: trio.Event) -> None:
        while not stop.is_set():
            at = self.random.randrange(BLOCKS)
            block = self.random.randbytes(BLOCK)
            begun = time.monotonic()
            while True:
                try:
                    await self.f.pwrite(block, at * BLOCK)
                    await self.f.sync()
                    break
                except OSError:
                    self.errors += 1
                    await trio.sleep(0.02)
            self.longest = max(self.longest, time.monotonic() - begun)
            self.synced[at] = block
            self.done += 1
            assert await self._read(at) == block

    async def writes(self, more: int) -> None:
        """Wait until so many more blocks are written."""
        then = self.done + more
        await until(lambda: self.done >= then)

    async def _read(self, at: int) -> bytes:
        while True:
            try:
                return await self.f.pread(BLOCK, at * BLOCK)
            except OSError:
                self.errors += 1
                await trio.sleep(0.02)


@pytest.mark.parametrize("flags", ["-c", "-c -w 60"])
async def test_every_synced_byte_is_right_whoever_kills_the_server(tmp_path: Path, flags: str, long: bool) -> None:
    gaps: list[float] = []
    async with lab(tmp_path, flags) as (served, address, file), connect(address) as client:
        async with await client.open("k/k1/fs/home/f", "r+") as f, trio.open_nursery() as nursery:
            writer, stop = Writer(1, f), trio.Event()
            nursery.start_soon(writer.go_on, stop)
            for _ in range(100 if long else 3):
                with trio.fail_after(60):
                    await writer.writes(20)
                    await trio.to_thread.run_sync(served.kill)
                    await trio.to_thread.run_sync(served.start)
                    back = time.monotonic()
                    await writer.writes(1)
                    gaps.append(time.monotonic() - back)
            stop.set()
        assert "-w" not in flags or not writer.errors
        assert file.read_bytes() == b"".join(writer.synced)
    gaps.sort()
    print(
        f"{flags}: {writer.done} synced writes, {writer.errors} errors told, first answer after the server is back: "
        f"p50 {gaps[len(gaps) // 2] * 1000:.0f} ms, worst {gaps[-1] * 1000:.0f} ms; longest write {writer.longest:.2f} s"
    )
