"""What the tests of kernels share: guests that are gone after the test, whatever it did."""

from __future__ import annotations

import os
import shutil
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from servers.kernels import backend, qemu, uml

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BACKENDS = {"qemu": qemu.Qemu(), "uml": uml.Uml()}
BOOT = 60  # s; 2 to 5 on an idle machine


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
async def booted(kind: str, directory: Path, **settings: object) -> AsyncIterator[Guest]:
    """Boot a guest with an agent and the host's /, and kill it at the end if it still runs."""
    chosen = BACKENDS[kind]
    spec = backend.Spec(name="t1", kernel=chosen.kernel, serve=None, agent=True, **settings)  # type: ignore[arg-type]
    with trio.fail_after(4 * BOOT):  # the first time, the kernel is downloaded
        await chosen.prepare(spec, report=print)
    with trio.fail_after(BOOT):
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


def processes_of(path: Path) -> list[str]:
    """Return the command lines that name a path: what a guest in it has left running."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and directory.name != str(os.getpid()):
            try:
                line = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(path) in line:
                found.append(f"{directory.name} {line}")
    return found
