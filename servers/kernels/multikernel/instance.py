"""The backend `multikernel`, and an instance that runs.

An instance belongs to that kernel, not to this server: when this server ends, it goes on, and a later one finds it. kerf asks for its state again and
again, and so does `wait` here: that kernel tells nobody.

    load     makes the instance, if there is none, and loads a kernel into it; without a name it takes what is loaded there, or runs
    console  is /dev/mktty, where that is
    dial     is where its tree will be, as `vsock!mk3!564`: 3 is the instance's number
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import trio

from mk9p.dial import dial as dialled
from mk9p.errors import NineError
from mk9p.ktext import split_words

from .. import backend, bare, images
from . import calls
from .door import CHANGE_SECONDS
from .ground import Ground
from .trees import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from .. import agent

THERE: Final = "instance"  # the name of the kernel that is loaded there already
MKTTY: Final = Path("/dev/mktty")
CONSOLE: Final = "mktty0"  # as kerf names it on the command line
STEP: Final = 0.25  # s between two looks at a state
DIAL_STEP: Final = 1.0  # s between two tries to reach its tree
BOOT_SECONDS: Final = 10.0  # until it is active: the call returns when its first CPU was started
LOST_SECONDS: Final = 30.0  # of states that cannot be read
HELD: Final = 64  # pieces of the console that nobody has read yet
PIECE: Final = 4096
OVER: Final = {"loaded": "halted", "ready": "halted", "empty": "halted", "failed": "panicked"}


@attrs.define(eq=False)
class Instance:
    """An instance that runs (backend.Running)."""

    ground: Ground
    name: str
    number: int
    dial: str
    mktty: Path = MKTTY
    machine: backend.Machine = attrs.Factory(lambda: bare.Bare("a multikernel kernel"))
    listen: str = ""
    guest_dial: str = ""
    agent: agent.Agent | None = None
    pid: int = 0
    heard: Callable[[bool], None] = backend.unheard
    _killed: bool = False
    _over: trio.Event = attrs.Factory(trio.Event)
    _line: int = -1
    _reader: trio.CapacityLimiter = attrs.Factory(lambda: trio.CapacityLimiter(1))
    _says: trio.MemorySendChannel[bytes] = attrs.field(init=False)
    _hears: trio.MemoryReceiveChannel[bytes] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._says, self._hears = trio.open_memory_channel[bytes](HELD)

    async def receive(self) -> bytes:
        try:
            return await self._hears.receive()
        except trio.EndOfChannel:
            return b""

    async def send(self, data: bytes) -> None:
        if self._line < 0:
            raise NineError(errno.EOPNOTSUPP, f"{self.name} has no console here: {self.mktty} is not there")
        await self.ground.door.ask(partial(os.write, self._line, data))

    async def wait(self) -> str:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._console)
                nursery.start_soon(self._expect)
                reason = await self._watch()
                nursery.cancel_scope.cancel()
        finally:
            self._says.close()
            if self._line >= 0:
                os.close(self._line)
                self._line = -1
        self._over.set()
        return "killed" if self._killed and reason == "halted" else reason

    async def _watch(self) -> str:
        """Return why it runs no more."""
        lost = trio.current_time() + LOST_SECONDS
        while not self._over.is_set():
            try:
                state = await self.state()
                if state != "active":
                    return OVER[state]
                lost = trio.current_time() + LOST_SECONDS
            except FileNotFoundError:
                return "its instance is gone"
            except OSError as error:
                if trio.current_time() > lost:
                    return f"its state cannot be read: {error}"
            with trio.move_on_after(STEP):
                await self._over.wait()
        return "let go"

    async def state(self) -> str:
        """Return the state that kernel tells."""
        return await self.ground.door.ask(lambda: self.ground.door.status(self.name))

    def _say(self, data: bytes) -> None:
        with suppress(trio.WouldBlock):  # nobody drains it: what does not fit is lost
            self._says.send_nowait(data)

    async def _expect(self) -> None:
        """Say that it can be used: when its tree answers, or, if nobody has said where that is, now."""
        while self.dial:
            with trio.move_on_after(DIAL_STEP), suppress(OSError):
                link = await dialled(self.dial)
                link.close()
                break
            await trio.sleep(DIAL_STEP)
        self._say(f"mk9p: attached\n{backend.SERVES}{self.dial}\n".encode())

    async def _console(self) -> None:
        """Read its console, as kerf does: the first line that is written names the instance."""
        try:
            self._line = os.open(self.mktty, os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
            os.write(self._line, f"{self.number}\n".encode())
            while True:
                if data := await self._more():
                    self._say(data)
                else:  # it hung up, and may come back: a state tells of the end
                    await trio.sleep(STEP)
        except FileNotFoundError:
            return
        except OSError as error:
            self._say(f"mk9p: {self.mktty}: {plain(str(error.strerror))}\n".encode())

    async def _more(self) -> bytes:
        while True:
            try:
                await trio.lowlevel.wait_readable(self._line)
                return await trio.to_thread.run_sync(
                    os.read, self._line, PIECE, abandon_on_cancel=True, limiter=self._reader
                )
            except BlockingIOError:
                continue

    async def _call(self, *, force: bool) -> None:
        """Ask that kernel to halt it, or stop it."""
        try:
            await self.ground.door.ask(lambda: calls.halt(self.number, force=force), CHANGE_SECONDS)
        except OSError as error:
            if await self.state() == "active":
                raise calls.told(error, f"{self.name} does not {'stop' if force else 'halt'}") from None

    async def halt(self) -> None:
        with trio.move_on_after(backend.HALT_SECONDS):
            try:
                await self._call(force=False)
            except NineError:
                pass  # it does not answer, and is stopped
            else:
                await self._over.wait()
        if not self._over.is_set():
            await self.kill()

    async def kill(self) -> None:
        self._killed = True
        await self._call(force=True)
        with trio.move_on_after(backend.HALT_SECONDS):
            await self._over.wait()
        if not self._over.is_set():
            raise NineError(errno.ETIMEDOUT, f"{self.name} was stopped, and its state is {await self.state()}")

    async def leave(self) -> None:
        """Let it go on without us."""
        self._over.set()

    async def close(self) -> None:
        self._hears.close()


@attrs.frozen
class Multikernel:
    """Kernels of this machine's multikernel (backend.Backend)."""

    ground: Ground = attrs.Factory(Ground)
    mktty: Path = MKTTY
    kernel: str = THERE
    there: bool = True
    grows: bool = True

    async def prepare(self, spec: backend.Spec, *, report: Callable[[str], None]) -> None:
        """Make the instance and load a kernel into it, or see that it has one. Raises EBUSY if another is loaded, and what that kernel says; then an
        instance that was made for this is gone again."""
        door = self.ground.door
        await door.ask(door.need)
        if spec.devices or spec.agent:
            raise NineError(errno.EINVAL, "a multikernel kernel has the devices that dev add gives")
        state = await door.ask(lambda: door.status(spec.name) if door.has(spec.name) else "")
        if spec.kernel == THERE:
            if state not in ("loaded", "active"):
                raise NineError(errno.EINVAL, f"kernel {spec.name}: nothing is loaded: load KERNEL")
            return
        if state in ("loaded", "active"):
            words = "unload it first" if state == "loaded" else "start takes it as it is"
            raise NineError(errno.EBUSY, f"instance {spec.name} is {state}: {words}")
        image = await images.get(spec.kernel, report=report)
        if image.uml:
            raise NineError(errno.EINVAL, f"kernel {spec.kernel} is a user-mode Linux: backend uml runs it")
        if not state:
            report(f"making instance {spec.name}")
            await self.ground.create(spec.name, spec.cpus, spec.memory)
        try:
            await self._load(spec, image.file)
        except BaseException:
            if not state:
                with trio.CancelScope(shield=True), suppress(NineError):  # the first error is the one to tell
                    await self.ground.remove(spec.name)
            raise

    async def _load(self, spec: backend.Spec, image: Path) -> None:
        words = split_words(spec.cmdline)
        cmdline = " ".join(words if any(w.startswith("console=") for w in words) else [*words, f"console={CONSOLE}"])

        def work() -> None:
            number = self.ground.door.instance(spec.name).id
            try:
                calls.load(number, image, spec.initrd, cmdline)
            except OSError as error:
                raise calls.told(error, f"{spec.name} cannot be loaded") from None

        await self.ground.door.ask(work, CHANGE_SECONDS)

    async def start(self, spec: backend.Spec, directory: Path) -> Instance:
        """Boot the instance, or take one that runs as it is."""
        door = self.ground.door
        await door.ask(door.need)
        says = await door.ask(lambda: door.instance(spec.name))
        made = Instance(self.ground, spec.name, says.id, spec.dial, self.mktty)
        state = await made.state()
        if state == "failed":  # its CPUs have not been stopped yet
            await made._call(force=True)
            state = await made.state()
        if state == "active":
            return made
        if state != "loaded":
            raise NineError(errno.EINVAL, f"instance {spec.name} is {state}: load KERNEL")
        try:
            await door.ask(lambda: calls.boot(says.id), CHANGE_SECONDS)
        except OSError as error:
            raise calls.told(error, f"{spec.name} cannot be booted") from None
        with trio.move_on_after(BOOT_SECONDS):
            while await made.state() != "active":  # noqa: ASYNC110 - that kernel tells nobody
                await trio.sleep(STEP)
            return made
        raise NineError(errno.ETIMEDOUT, f"instance {spec.name} is not active {BOOT_SECONDS:.0f} s after its start")
