"""The life of a kernel: its settings, its state, and what happened to it.

States (the words are kerf's, and IHK's):

    empty    it has a name and nothing else
    ready    it was given settings
    loaded   its kernel is at hand (fetched, initramfs built); it is not running, or still booting
    active   it runs, and said that it serves its tree
    silent   it runs, and has not said so BOOT_SECONDS after its start, or said that its serving had failed; it may yet
    frozen   it stands still: its CPUs and its clock are stopped
    failed   it panicked, or ended while it was booting
    dead     it ended and nobody had asked for it: its process was killed

`halt` and `kill` lead back to `loaded`, and so does a guest that halts itself. A guest that reboots starts again. One that ended and is to start
again (restart.py) stays in its state while it waits for that. A word that does not fit the state is refused, and a word that fails leaves everything
as it was.
"""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Final, Literal, Protocol

import attrs
import trio

from mk9p.errors import NineError
from mk9p.restart import Restart, Starts

from . import console, dump, watching
from .policy import Watch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from .backend import Backend, Running, Spec
    from .device import Device

State = Literal["empty", "ready", "loaded", "active", "silent", "frozen", "failed", "dead"]

BOOT_SECONDS: Final = 120.0  # an emulated kernel takes 2 to 15; over 60 where ten programs wait for each CPU
LONGEST_DIRECTORY: Final = 84  # characters: the names of sockets in it must stay below 108 (unix(7))


class Report(Protocol):
    """Gets what happens: a kernel's name, a word, and its arguments."""

    def __call__(self, name: str, what: str, *args: object) -> None: ...


@attrs.define(eq=False)
class Kernel:
    """One kernel, from its first setting to its deletion. `nursery` has the task that watches it while it runs; the end of the nursery ends the
    kernel. `probe` asks the kernel of a name for anything, and returns when it has answered."""

    spec: Spec
    backends: Mapping[str, Backend]
    directory: Path
    nursery: trio.Nursery
    report: Report
    backend: str = "qemu"
    restart: Restart = attrs.Factory(Restart)
    watch: Watch = attrs.Factory(Watch)
    probe: Callable[[str], Awaitable[None]] | None = None
    extra_cpus: int = 0  # of spec.cpus: those that it got from others, less those that it gave
    extra_memory: int = 0  # bytes beside spec.memory
    devices: dict[str, Device] = attrs.Factory(dict)
    state: State = "empty"
    reason: str = ""
    ends: int = 0
    started: int = 0
    running: Running | None = None
    console: console.History = attrs.Factory(console.History)
    dumped: dump.Dump = attrs.Factory(dump.Dump)
    _asked: bool = False
    _busy: bool = False
    _booted: bool = False
    _served: bool = False  # since somebody started it
    _again: str = ""  # why it starts again, whatever its policy says
    _was: State = "loaded"  # before it was frozen
    _starts: Starts = attrs.Factory(Starts)
    _over: trio.Event = attrs.Factory(trio.Event)
    _change: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    @property
    def name(self) -> str:
        """Return its name."""
        return self.spec.name

    def set(self, **values: object) -> None:
        """Change settings (fields of Spec) of a kernel that is not running. Raises EBUSY for one that is, EINVAL for an impossible value."""
        self.idle()
        try:
            self.spec = attrs.evolve(self.spec, **values)  # type: ignore[arg-type]  # the fields are named by our own words
        except ValueError as error:
            raise NineError(errno.EINVAL, str(error)) from None
        self._set(values)

    def grant(self, grants: tuple[tuple[str, str], ...], what: str, *args: str) -> None:
        """Report what the kernel may use of the namespace from now on, and set it, also while it runs. Who hears of it may refuse it."""
        self.report(self.name, what, *args)
        if self.state == "empty":
            self.state = "ready"
        self.spec = attrs.evolve(self.spec, grants=grants)

    def more_cpus(self, count: int) -> None:
        """Note that it has so many more CPUs, also at its next start."""
        self.spec = attrs.evolve(self.spec, cpus=self.spec.cpus + count)
        self.extra_cpus += count

    def use(self, name: str) -> None:
        """Choose the backend. A kernel that was loaded for another backend must be loaded again."""
        self.idle()
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
        self.idle()
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
        self.idle()
        if not self.spec.kernel and self.backends[self.backend].there:
            await self.load()
        if not self.spec.kernel:
            raise NineError(errno.EINVAL, f"kernel {self.name}: nothing is loaded: load KERNEL")
        self._starts.begin()
        self._served = False
        await self._start()

    async def _start(self) -> None:
        if len(str(self.directory)) > LONGEST_DIRECTORY:
            raise NineError(errno.ENAMETOOLONG, f"{self.directory}: the path is too long for the sockets in it")
        self._starts.stop()
        self._busy = True
        try:
            running = await self.backends[self.backend].start(self.spec, self.directory)
        finally:
            self._busy = False
        running.heard = lambda stands_still: self.froze() if stands_still else self.thawed()
        running.machine.lost = self._lost
        self.running, self.state, self.reason, self.started = running, "loaded", "", time.time_ns()
        self._asked, self._booted, self._again, self._over = False, False, "", trio.Event()
        self.report(self.name, "started", running.pid)
        self.nursery.start_soon(self._mind, running)

    async def halt(self) -> None:
        """Ask the guest for an orderly end, kill it if that takes too long, and return when it is gone; one that is frozen goes on for that. Raises
        EINVAL if it is not running and does not wait to start again."""
        if self.state == "frozen":
            await self.thaw()
        await self._ask(lambda running: running.halt())

    async def kill(self) -> None:
        """End the guest at once, and return when it is gone. Raises EINVAL if it is not running and does not wait to start again."""
        await self._ask(lambda running: running.kill())

    async def _ask(self, end: Callable[[Running], Awaitable[None]]) -> None:
        """Have it end because somebody wants that. Raises why it does not."""
        if self._starts.stop():
            return
        running, over, self._asked = self._up(), self._over, True
        try:
            await end(running)
        except NineError:
            self._asked = False
            raise
        await over.wait()

    async def freeze(self) -> None:
        """Stop it where it is. Raises EINVAL if it is not running, EBUSY if it is frozen, and what its machine says."""
        if self.state == "frozen":
            raise NineError(errno.EBUSY, f"kernel {self.name} is frozen")
        await self._up().machine.freeze()
        self.froze()

    def froze(self) -> None:
        """Note that it stands still, whoever stopped it."""
        if self.running is not None and self.state != "frozen":
            self._was = self.state
            self._enter("frozen", "frozen")

    async def thaw(self) -> None:
        """Let it go on where it stopped. Raises EINVAL if it is not frozen."""
        machine = self._up().machine
        if self.state != "frozen":
            raise NineError(errno.EINVAL, f"kernel {self.name} is not frozen")
        await machine.thaw()
        self.thawed()

    def thawed(self) -> None:
        """Note that it goes on, whoever let it."""
        if self.state == "frozen":
            self._enter(self._was, "thawed")

    def _lost(self, device: str) -> None:
        if device in self.devices:
            self.report(self.name, "lost", device)

    async def reset(self) -> None:
        """Reset it, as its button does. Raises EINVAL if it is not running, and what its machine says."""
        await self._up().machine.reset()

    async def dump(self) -> None:
        """Keep its memory as it is now. Raises EINVAL, ENOSPC, and what its machine says; then the earlier dump is still there."""
        running = self._up()
        await self.dumped.make(running.machine, self.spec.memory + await running.machine.memory())
        self.report(self.name, "dumped", self.dumped.size)

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

    @property
    def may_be_started(self) -> bool:
        """Say whether somebody else than a user may start it: it does not run, does not wait for its own start, and is in no crash loop."""
        return self.running is None and not self._busy and not self._starts.waits and not self._starts.looped

    def forget(self) -> None:
        """Mark the kernel as deleted, and tell those who wait for it. Raises EBUSY if it runs."""
        self.idle()
        self._starts.stop()
        self.dumped.close()
        self.console.close()
        self._change.unpark_all()

    def idle(self) -> None:
        """See that it does not run, nor is about to. Raises EBUSY."""
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
                nursery.start_soon(watching.ask, self)
                reason = await running.wait()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):  # this takes limited time: a keeper kills at once
                await running.leave()
                await running.close()
            self.running = None
            self._over.set()
        self._end(self._again or reason)
        if self._asked or not self._served:  # one that never served would only end again
            return
        if reason == "rebooted" and self._booted:
            await self._start_again()
        elif self._again or self.restart.wants(failed=self.state in ("failed", "dead")):
            await self._start_later()

    async def _start_later(self) -> None:
        """Start again when it is time, or say that it is in a crash loop."""
        if await self._starts.wait(self.restart, lambda wait: self.report(self.name, "waiting", f"{wait:g}")):
            await self._start_again()
        elif self._starts.looped:
            self.reason = f"{self.reason}; started again {self.restart.most} times in {self.restart.within:g} s"
            self._enter("failed", "crash-loop", self.reason)

    async def _start_again(self) -> None:
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
        elif reason == "panicked" and not self._again:
            self._enter("failed", "panicked")
        elif not self._booted:
            self._enter("failed", "failed", reason)
        else:
            self._enter("dead", "dead", reason)

    async def _drain(self, running: Running, boot: trio.CancelScope) -> None:
        """Keep the console, and look in it for the words that say that the kernel can be used, or that its serving has failed."""
        boots = console.Boots(self.spec.ready)
        while data := await running.receive():
            self.console.add(data)
            if self._booted:
                continue
            said = boots.take(data)
            if said == "ready":
                self._booted = self._served = True
                boot.cancel()
                self.reason = ""
                self._found("active", "active", running.dial)
            elif said == "ended":
                self._keep_silent("mk9p serve has ended in it: see its console")

    async def _expect(self, boot: trio.CancelScope) -> None:
        """Call the kernel silent when it has not booted in time."""
        with boot:
            await trio.sleep(BOOT_SECONDS)
            self._keep_silent(f"not serving {BOOT_SECONDS:.0f} s after its start")

    def _keep_silent(self, reason: str) -> None:
        # it tries again every second, and fails again
        if "silent" not in (self.state, self._was if self.state == "frozen" else ""):
            self.reason = reason
            self._found("silent", "silent", reason)

    def _found(self, state: State, what: str, *args: object) -> None:
        """Enter a state that its console told of, which may be late: then it is frozen meanwhile."""
        if self.state == "frozen":
            self._was = state
            self.report(self.name, what, *args)
        else:
            self._enter(state, what, *args)

    @property
    def should_answer(self) -> bool:
        """Say whether it has served its tree, and is not frozen (watching.Watched)."""
        return self._booted and self.state != "frozen"

    def answers(self) -> None:
        """Note that it has answered."""
        if self.state == "silent" and self.running is not None:
            self.reason = ""
            self._enter("active", "active", self.running.dial)

    async def no_answer(self, why: str) -> None:
        """Do what is to be done when it does not answer."""
        self._keep_silent(why)
        if self.watch.then != "tell" and self.running is not None:
            self._again = why if self.watch.then == "restart" else ""
            await self.running.kill()
