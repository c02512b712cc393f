"""Kernels on a made-up backend: what the tests of their states and files share."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from mk9p.auth import ROOT
from mk9p.servers.kernels import backend, bare, files, inside, journal, life
from mk9p.testing import SOON
from mk9p.tree import Dir, Handle, Node, Open, settle
from tests.servers import trees

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from mk9p.servers.kernels import agent


@attrs.define(eq=False)
class MadeMachine(bare.Bare):
    """A made-up machine: what was done to it."""

    what: str = "a made-up kernel"
    done: list[str] = attrs.Factory(list)

    async def freeze(self) -> None:
        self.done.append("freeze")

    async def thaw(self) -> None:
        self.done.append("thaw")

    async def dump(self, file: int) -> None:
        self.done.append("dump")
        os.write(file, b"\x7fELF and more")


@attrs.define(eq=False)
class Made:
    """A made-up guest: its console is a channel, its end an event."""

    says: trio.MemorySendChannel[bytes]
    hears: trio.MemoryReceiveChannel[bytes]
    dial: str = "unix!/nowhere"
    listen: str = "unix!/nowhere"
    guest_dial: str = "char!/dev/hvc1"
    agent: agent.Agent | None = None
    machine: backend.Machine = attrs.Factory(MadeMachine)
    pid: int = 4321
    heard: Callable[[bool], None] = backend.unheard
    reason: str = ""
    typed: bytes = b""
    over: trio.Event = attrs.Factory(trio.Event)

    async def receive(self) -> bytes:
        try:
            return await self.hears.receive()
        except trio.EndOfChannel:
            return b""

    async def send(self, data: bytes) -> None:
        self.typed += data

    async def wait(self) -> str:
        await self.over.wait()
        return self.reason

    def end(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.says.close()
        self.over.set()

    async def halt(self) -> None:
        self.end("halted")

    async def kill(self) -> None:
        self.end("killed")

    async def leave(self) -> None:
        self.end("killed")

    async def close(self) -> None:
        self.hears.close()


@attrs.define(eq=False)
class MadeUp:
    """A backend of such guests; `refuse` is what goes wrong next."""

    kernel: str = "made-up"
    there: bool = False
    grows: bool = True
    ground: backend.Ground | None = None
    guests: list[Made] = attrs.Factory(list)
    refuse: OSError | None = None
    trees: dict[str, Node] = attrs.Factory(dict)
    born: Callable[[backend.Spec, Made], None] | None = None

    def find(self, name: str) -> Node | None:
        return self.trees.get(name)

    async def prepare(self, spec: backend.Spec, *, report: Callable[[str], None]) -> None:
        report(f"preparing {spec.kernel}")
        self._refuse()

    async def start(self, spec: backend.Spec, directory: Path) -> Made:
        self._refuse()
        self.guests.append(Made(*trio.open_memory_channel[bytes](100)))
        if self.born is not None:
            self.born(spec, self.guests[-1])
        return self.guests[-1]

    def _refuse(self) -> None:
        error, self.refuse = self.refuse, None
        if error:
            raise error


@attrs.define(eq=False)
class Lab:
    """Kernels on the made-up backend, and their files."""

    kernels: files.Kernels
    top: Dir
    backend: MadeUp

    async def open(self, path: str, *, records: bool = False) -> Handle:
        return await settle((await trees.walk(self.top, path)).open(Open(ROOT, write=True, records=records)))

    async def read(self, path: str) -> str:
        return await trees.read(self.top, path)

    async def write(self, path: str, text: str) -> None:
        await trees.send(self.top, path, text)

    def kernel(self, name: str = "k1") -> life.Kernel:
        return self.kernels.entries[name].kernel

    def state(self) -> str:
        return self.kernel().state

    @property
    def guest(self) -> Made:
        return self.backend.guests[-1]

    async def boot(self, name: str = "k1") -> None:
        await self.write(f"{name}/ctl", "start\n")
        await self.guest.says.send(b"noise mk9p: list")
        await self.guest.says.send(b"ening on char!/dev/hvc0\r\n")
        with trio.fail_after(SOON):
            await self.kernel(name).ready()

    def happened(self, name: str = "k1") -> list[str]:
        return [line.decode().split()[2] for line in self.kernels.entries[name].events.lines]


@asynccontextmanager
async def lab(home: Path) -> AsyncIterator[Lab]:
    book = journal.Journal.open(home / "journal")
    try:
        async with trio.open_nursery() as nursery:
            chosen = MadeUp()
            backends: dict[str, backend.Backend] = {"qemu": chosen, "uml": chosen}
            reach = inside.Reach(chosen.find)
            kernels = files.Kernels(home, nursery, backends=backends, journal=book, reach=reach)
            one = Lab(kernels, kernels.tree(), chosen)
            await one.write("ctl", "create k1")
            yield one
            nursery.cancel_scope.cancel()
    finally:
        book.close()
