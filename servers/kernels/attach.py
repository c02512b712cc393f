"""Kernels that somebody else started: a QEMU with a QMP socket (by hand, or a libvirt domain with a second monitor), a machine that serves its tree.

    dial ADDR       where its tree is
    qmp SOCKET      its QEMU's monitor: its state, freeze, reset, dump, memory and devices; halt presses its power button, kill ends it

It is not ours: when this server ends, it goes on. Without `qmp`, halt and kill only let it go.
"""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from mk9p.dial import dial as dialled
from mk9p.errors import NineError

from . import backend, bare, hardware, qmp
from .channel import received, send_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from . import agent

GREETING_SECONDS: Final = 5.0  # QEMU greets at once, unless somebody else has its monitor: it talks with one at a time
DIAL_SECONDS: Final = 10.0
MOST: Final = 255  # CPUs: how many there are places for, the kernel itself says
LET_GO: Final = "let go"
REASONS: Final = {
    "guest-shutdown": "halted",
    "guest-reset": "rebooted",
    "guest-panic": "panicked",
    "host-qmp-quit": "killed",
    "host-signal": "killed",
}


@attrs.define(eq=False)
class Monitor:
    """This side's end of a QMP socket (qmp.Line)."""

    ours: trio.socket.SocketType

    @classmethod
    async def open(cls, path: str) -> tuple[Monitor, bytes]:
        """Connect, and return the monitor with its greeting. Raises ETIMEDOUT if it does not greet, and as connect(2)."""
        end = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        monitor, said = cls(end), b""
        try:
            with trio.move_on_after(GREETING_SECONDS) as scope:
                try:
                    await end.connect(path)
                except OSError as error:
                    raise NineError(error.errno or errno.EIO, f"{path}: {error.strerror}") from None
                while b"\n" not in said and (data := await monitor.receive()):
                    said += data
            if scope.cancelled_caught:
                raise NineError(
                    errno.ETIMEDOUT, f"{path}: no greeting in {GREETING_SECONDS:.0f} s: has somebody else this monitor?"
                )
            if b'"QMP"' not in said:
                raise NineError(errno.EINVAL, f"{path}: that is no QMP monitor")
        except BaseException:
            end.close()
            raise
        return monitor, said

    def peer(self) -> int:
        """Return the process that has made the socket: QEMU's, if nobody made it for QEMU."""
        found: int = struct.unpack("iII", self.ours.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        return found

    async def receive(self) -> bytes:
        return await received(self.ours)

    async def send(self, data: bytes) -> None:
        await send_all(self.ours, data)


@attrs.define(eq=False)
class Attached:
    """A kernel that was attached (backend.Running). It has no console here: what it says is that it is attached."""

    dial: str
    machine: backend.Machine
    monitor: Monitor | None = None
    talk: qmp.Qmp | None = None
    listen: str = ""
    guest_dial: str = ""
    agent: agent.Agent | None = None
    pid: int = 0
    reason: str = ""
    heard: Callable[[bool], None] = backend.unheard
    _said: bool = False
    _over: trio.Event = attrs.Factory(trio.Event)

    def happens(self, name: str, data: dict[str, Any]) -> None:
        """Take an event of its QEMU."""
        if name == "GUEST_PANICKED":
            self.reason = "panicked"
        elif name == "SHUTDOWN" and not self.reason:
            self.reason = REASONS.get(str(data.get("reason")), "")
        elif name in ("STOP", "RESUME"):
            self.heard(name == "STOP")
        if isinstance(self.machine, hardware.Hardware):
            self.machine.happens(name, data)

    async def receive(self) -> bytes:
        if self._said:
            await self._over.wait()
            return b""
        self._said = True
        return f"mk9p: attached\n{backend.SERVES}{self.dial}\n".encode()

    async def send(self, data: bytes) -> None:
        raise NineError(errno.EOPNOTSUPP, "the console of an attached kernel is elsewhere")

    async def wait(self) -> str:
        if self.talk is None:
            await self._over.wait()
            return LET_GO
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.talk.follow)
            status = await self._status()
            if status not in ("running", ""):
                self.heard(True)
            await self.talk.over.wait()
        self._over.set()
        return self.reason or self.talk.broken or "its QEMU is gone"

    async def _status(self) -> str:
        assert self.talk is not None
        try:
            found = await self.talk.order("query-status")
        except NineError:  # it has just gone, and says so
            return ""
        return str(found.get("status", "")) if isinstance(found, dict) else ""

    async def halt(self) -> None:
        if self.talk is None:
            self._over.set()
            return
        with trio.move_on_after(backend.HALT_SECONDS):
            try:
                await self.talk.order("system_powerdown")
            except NineError:
                pass  # it has just gone
            else:
                await self.talk.over.wait()
        await self.kill()

    async def kill(self) -> None:
        if self.talk is None:
            self._over.set()
            return
        if not self.talk.over.is_set():
            with trio.move_on_after(backend.HALT_SECONDS):
                with suppress(NineError):  # it has just gone
                    await self.talk.line.send(b'{"execute": "quit"}\n')
                await self.talk.over.wait()
                return
            raise NineError(errno.ETIMEDOUT, f"its QEMU does not end in {backend.HALT_SECONDS:.0f} s: kill it yourself")

    async def leave(self) -> None:
        """Let it go on without us."""
        self._over.set()

    async def close(self) -> None:
        if self.monitor is not None:
            self.monitor.ours.close()


@attrs.frozen
class Attach:
    """Attach to kernels (backend.Backend)."""

    kernel: str = "attached"
    ground: None = None
    there: bool = True
    grows: bool = True

    async def prepare(self, spec: backend.Spec, *, report: Callable[[str], None]) -> None:
        """See that there is something to attach to."""
        if not spec.dial and not spec.qmp:
            raise NineError(errno.EINVAL, "an attached kernel has a tree or a monitor: dial ADDR, qmp SOCKET")
        if spec.devices or spec.agent:
            raise NineError(errno.EINVAL, "an attached kernel has the devices that it was started with")

    async def start(self, spec: backend.Spec, directory: Path) -> Attached:
        """Attach. Raises the error of its tree or monitor that cannot be reached."""
        await self.prepare(spec, report=lambda line: None)
        if spec.dial:
            with trio.move_on_after(DIAL_SECONDS) as scope:
                link = await dialled(spec.dial)
                link.close()
            if scope.cancelled_caught:
                raise NineError(errno.ETIMEDOUT, f"{spec.dial}: nobody answers in {DIAL_SECONDS:.0f} s")
        if not spec.qmp:
            return Attached(spec.dial, bare.Bare("a kernel that was attached without its monitor", MOST))
        monitor, greeting = await Monitor.open(spec.qmp)
        talk = qmp.Qmp(monitor, first=greeting)
        await talk.begin()
        attached = Attached(spec.dial, hardware.Hardware(talk, MOST), monitor, talk, pid=monitor.peer())
        talk.happens = attached.happens
        return attached
