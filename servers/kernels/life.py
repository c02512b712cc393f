"""The life of a kernel: its settings, its state, and what happened to it.

States (the words are kerf's, and IHK's):

    empty    it has a name and nothing else
    ready    it was given settings
    loaded   its kernel is at hand (fetched, initramfs built); it is not running, or still booting
    active   it runs, and said that it serves its tree
    silent   it runs, and has not said so BOOT_SECONDS after its start, or said that its serving had failed; it may yet
    failed   it panicked, or ended while it was booting
    dead     it ended and nobody had asked for it: its process was killed

`halt` and `kill` lead back to `loaded`, and so does a guest that halts itself. A guest that reboots starts again. A word that does not fit the
state is refused, and a word that fails leaves everything as it was.
"""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Final, Literal, Protocol

import attrs
import trio

from mk9p.errors import NineError

from . import console

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .backend import Backend, Running, Spec

State = Literal["empty", "ready", "loaded", "active", "silent", "failed", "dead"]
Restart = Literal["never", "always", "on-failure"]

BOOT_SECONDS: Final = 60.0  # an emulated kernel takes 2 to 5, with Python 5 to 15; on a busy machine several times that
SERVE_ENDED: Final = b"mk9p: serve ended with status"  # guest/boot.sh
LONGEST_LINE: Final = 4096  # bytes of an unfinished line on the console in which words are still looked for
LONGEST_DIRECTORY: Final = 84  # characters: the names of sockets in it must stay below 108 (unix(7))


class Report(Protocol):
    """Gets what happens: a kernel's name, a word, and its arguments."""

    def __call__(self, name: str, what: str, *args: object) -> None: ...


@attrs.define(eq=False)
class Kernel:
    """One kernel, from its first setting to its deletion. `nursery` has the task that watches it while it runs; the end of the nursery ends the
    kernel."""

    spec: Spec
    backends: Mapping[str, Backend]
    directory: Path
    nursery: trio.Nursery
    report: Report
    backend: str = "qemu"
    restart: Restart = "never"
    state: State = "empty"
    reason: str = ""
    ends: int = 0
    started: int = 0
    running: Running | None = None
    console: console.History = attrs.Factory(console.History)
    _asked: bool = False
    _busy: bool = False
    _booted: bool = False
    _over: trio.Event = attrs.Factory(trio.Event)
    _change: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    @property
    def name(self) -> str:
        """Return its name."""
        return self.spec.name

    def set(self, **values: object) -> None:
        """Change settings (fields of Spec) of a kernel that is not running. Raises EBUSY for one that is, EINVAL for an impossible value."""
        self._idle()
        try:
            self.spec = attrs.evolve(self.spec, **values)  # type: ignore[arg-type]  # the fields are named by our own words
        except ValueError as error:
            raise NineError(errno.EINVAL, str(error)) from None
        self._set(values)

    def use(self, name: str) -> None:
        """Choose the backend. A kernel that was loaded for another backend must be loaded again."""
        self._idle()
        if name not in self.backends:
            raise NineError(errno.EINVAL, f"no backend {name}: one of {' '.join(self.backends)}")
        if name != self.backend:
            self.backend = name
            self.spec = attrs.evolve(self.spec, kernel="")
            self.state = "ready"
        self._set({"backend": name})

    def _set(self, values: Mapping[str, object]) -> None:
        if self.state == "empty":
            self.state = "ready"
        for key, value in values.items():
            self.report(self.name, "set", key, value)

    async def load(self, kernel: str = "", *, initrd: Path | None = None, cmdline: str = "") -> None:
        """Get a kernel: fetch it if necessary, and build its initramfs. "" is the backend's own choice.

        Raises NineError that says what to do when it cannot be had; then everything is as before, and so it is if cancelled.
        """
        self._idle()
        chosen = self.backends[self.backend]
        spec = attrs.evolve(self.spec, kernel=kernel or chosen.kernel, initrd=initrd, cmdline=cmdline)
        self._busy = True
        try:
            await chosen.prepare(spec, report=self._progress)
        finally:
            self._busy = False
        self.spec, self.state = spec, "loaded"
        self.report(self.name, "loaded", spec.kernel)

    def _progress(self, line: str) -> None:
        self.report(self.name, "progress", line)

    async def start(self) -> None:
        """Start the kernel. Returns when its process has started; `active` comes when it serves.

        Raises EINVAL if nothing is loaded, EBUSY if it runs, and the backend's own errors; after any of them everything is as it was.
        """
        self._idle()
        if not self.spec.kernel:
            raise NineError(errno.EINVAL, f"kernel {self.name}: nothing is loaded: load KERNEL")
        await self._start()

    async def _start(self) -> None:
        if len(str(self.directory)) > LONGEST_DIRECTORY:
            raise NineError(errno.ENAMETOOLONG, f"{self.directory}: the path is too long for the sockets in it")
        self._busy = True
        try:
            running = await self.backends[self.backend].start(self.spec, self.directory)
        finally:
            self._busy = False
        self.running, self.state, self.reason, self.started = running, "loaded", "", time.time_ns()
        self._asked, self._booted, self._over = False, False, trio.Event()
        self.report(self.name, "started", running.pid)
        self.nursery.start_soon(self._mind, running)

    async def halt(self) -> None:
        """Ask the guest for an orderly end, kill it if that takes too long, and return when it is gone. Raises EINVAL if it is not running."""
        running, over = self._up(), self._over
        self._asked = True
        await running.halt()
        await over.wait()

    async def kill(self) -> None:
        """End the guest at once, and return when it is gone. Raises EINVAL if it is not running."""
        running, over = self._up(), self._over
        self._asked = True
        await running.kill()
        await over.wait()

    async def send(self, data: bytes) -> None:
        """Type on its console. Raises EIO if it is not running."""
        if self.running is None:
            raise NineError(errno.EIO, f"kernel {self.name} is not running")
        await self.running.send(data)

    async def ready(self) -> None:
        """Wait until the started kernel serves.

        Raises NineError, with the reason: EIO if it ends instead or is not running, ETIMEDOUT if it is silent.
        """
        while self.state != "active":
            if self.running is None and not self._busy:
                raise NineError(errno.EIO, f"kernel {self.name} is not running: {self.reason or 'it was not started'}")
            if self.state == "silent":
                raise NineError(errno.ETIMEDOUT, f"kernel {self.name} is silent: {self.reason}")
            await self._change.park()

    async def ended(self, after: int) -> str:
        """Wait until it has ended more than `after` times, and return why it ended last."""
        while self.ends <= after and not self.console.closed:
            await self._change.park()
        return self.reason

    def forget(self) -> None:
        """Mark the kernel as deleted, and tell those who wait for it. Raises EBUSY if it runs."""
        self._idle()
        self.console.close()
        self._change.unpark_all()

    def _idle(self) -> None:
        if self.running is not None or self._busy:
            raise NineError(errno.EBUSY, f"kernel {self.name} is running: halt or kill it first")

    def _up(self) -> Running:
        if self.running is None:
            raise NineError(errno.EINVAL, f"kernel {self.name} is not running")
        return self.running

    def _enter(self, state: State, what: str, *args: object) -> None:
        self.state = state
        self.report(self.name, what, *args)
        self._change.unpark_all()

    async def _mind(self, running: Running) -> None:
        """Follow one life of the kernel to its end, and start the next one if there is to be one."""
        try:
            async with trio.open_nursery() as nursery:
                boot = trio.CancelScope()
                nursery.start_soon(self._drain, running, boot)
                nursery.start_soon(self._expect, boot)
                reason = await running.wait()
                boot.cancel()
        finally:
            with trio.CancelScope(shield=True):  # this takes limited time: a keeper kills at once
                await running.kill()
                await running.close()
            self.running = None
            self._over.set()
        self._end(reason)
        # a kernel that ends before it serves would only end again
        if self._booted and not self._asked and (reason == "rebooted" or self.restart == "always" or self._mends()):
            try:
                await self._start()
            except OSError as error:
                self.reason = str(error)
                self._enter("failed", "failed", self.reason)

    def _end(self, reason: str) -> None:
        """Note why a life ended."""
        self.ends += 1
        self.reason = reason
        if self._asked or (reason == "halted" and self._booted):
            self._enter("loaded", "killed" if reason == "killed" else "halted")
        elif reason == "rebooted" and self._booted:
            self._enter("loaded", "rebooted")
        elif reason == "panicked":
            self._enter("failed", "panicked")
        elif not self._booted:
            self._enter("failed", "failed", reason)
        else:
            self._enter("dead", "dead", reason)

    def _mends(self) -> bool:
        return self.restart == "on-failure" and self.state in ("failed", "dead")

    async def _drain(self, running: Running, boot: trio.CancelScope) -> None:
        """Keep the console, and look in it for the words that say that the kernel can be used, or that its serving has failed."""
        words, line = self.spec.ready, b""
        while data := await running.receive():
            self.console.add(data)
            if self._booted:
                continue
            *lines, line = (line + data).split(b"\n")
            if any(words in each for each in (*lines, line)):
                self._booted = True
                boot.cancel()
                self.reason = ""
                self._enter("active", "active", running.dial)
            elif any(SERVE_ENDED in each for each in lines):
                self._keep_silent("mk9p serve has ended in it: see its console")
            line = line[-LONGEST_LINE:]

    async def _expect(self, boot: trio.CancelScope) -> None:
        """Call the kernel silent when it has not booted in time."""
        with boot:
            await trio.sleep(BOOT_SECONDS)
            self._keep_silent(f"not serving {BOOT_SECONDS:.0f} s after its start")

    def _keep_silent(self, reason: str) -> None:
        if self.state != "silent":  # it tries to serve again every second, and fails again
            self.reason = reason
            self._enter("silent", "silent", reason)
