"""What the tests of kernels share: guests that are gone after the test, whatever it did."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from mk9p.servers.kernels import backend, qemu, uml
from mk9p.testing import SOON

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

BACKENDS: dict[str, backend.Backend] = {"qemu": qemu.Qemu(), "uml": uml.Uml()}
BOOT = 180  # s; 2 to 5 on an idle machine


@attrs.define(eq=False)
class Guest:
    """A running guest, what its console has said so far, and why it ended."""

    running: backend.Running
    said: bytes = b""
    reason: str = ""
    over: trio.Event = attrs.Factory(trio.Event)
    more: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    async def drain(self) -> None:
        while data := await self.running.receive():
            self.said += data
            self.more.unpark_all()

    async def wait(self) -> None:
        self.reason = await self.running.wait()
        self.over.set()

    async def until(self, words: bytes) -> None:
        while words not in self.said:
            await self.more.park()

    async def run(self, script: str) -> tuple[int, str]:
        assert self.running.agent is not None
        return await self.running.agent.run(script)


@asynccontextmanager
async def booted(kind: str, directory: Path, *, seconds: float = BOOT, **settings: object) -> AsyncIterator[Guest]:
    """Boot a guest with an agent and the host's /, and kill it at the end if it still runs; fails if all takes longer than `seconds`."""
    chosen = BACKENDS[kind]
    settings = {"kernel": chosen.kernel, **settings}
    spec = backend.Spec(name="t1", serve=None, agent=True, **settings)  # type: ignore[arg-type]
    with trio.fail_after(4 * BOOT):  # the first time, the kernel is downloaded
        await chosen.prepare(spec, report=print)
    with trio.fail_after(seconds):
        guest = Guest(await chosen.start(spec, directory / "t1"))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(guest.drain)
                nursery.start_soon(guest.wait)
                yield guest
                if not guest.over.is_set():
                    await guest.running.kill()
        finally:
            with trio.CancelScope(shield=True):
                await guest.running.kill()
                await guest.running.close()


def can(kind: str) -> str:
    """Return why this machine cannot run such guests, "" if it can."""
    if kind == "qemu":
        return "" if shutil.which("qemu-system-x86_64") else "no qemu-system-x86_64: apt-get install qemu-system-x86"
    if os.geteuid() != 0:
        return "user-mode Linux needs root"
    return "" if os.path.exists("/dev/net/tun") else "no /dev/net/tun"


def require(*kinds: str) -> None:
    """Skip the test where guests of these kinds cannot run."""
    for kind in kinds:
        if why := can(kind):
            pytest.skip(why)
    if not shutil.which("busybox") or not shutil.which("apt-get"):
        pytest.skip("no busybox or no apt-get: apt-get install busybox-static")


def processes_of(path: Path) -> list[int]:
    """Return the processes whose command lines name a path, but for ourselves: what runs for a guest in it."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and directory.name != str(os.getpid()):
            try:
                line = (directory / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(path) in line:
                found.append(int(directory.name))
    return found


@contextmanager
def watched(pids: Iterable[int]) -> Iterator[list[int]]:
    """Give descriptors that become readable when the processes end, whoever's children they are (pidfd_open(2))."""
    descriptors = [os.pidfd_open(pid) for pid in pids]
    try:
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


async def ended(descriptors: Iterable[int]) -> None:
    """Wait until all that is watched has ended."""
    with trio.fail_after(SOON):
        for descriptor in descriptors:
            await trio.lowlevel.wait_readable(descriptor)


@asynccontextmanager
async def owner(script: str, *args: object, lines: int) -> AsyncIterator[trio.Process]:
    """Run a Python script until it has printed some lines, and kill it with SIGKILL at the end of the block."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, args)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        said = b""
        with trio.fail_after(BOOT):
            while said.count(b"\n") < lines:
                data = await process.stdout.receive_some()
                assert data, "the owner ended"
                said += data
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()
