"""A task that is a program of a kernel's `wasm` (Work). It is prepared when its module is loaded, and sees no files.

It can be moved while it runs: frozen, copied, started elsewhere, and only then forgotten where it was. Whoever reads or writes it meanwhile goes on
with the same program there: a stream of a frozen program stands still, and what waits in it is in its state. So a read that ends, or a write that is
refused, while the program moves says nothing yet.
"""

import errno
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

import attrs
import trio

from mk9p.errors import NineError
from mk9p.servers.tf.graph import Task
from mk9p.servers.tf.reach import File, Space, words
from mk9p.servers.tf.work import InKernel, ended
from mk9p.tree.words import join

T = TypeVar("T", bytes, str)

LARGEST: Final = 256 << 20  # bytes of a module, or of a state: as much memory as a program has by default
SOME: Final = 1 << 20  # bytes of it at a time: a thousand programs may be prepared together
STARTED: Final = 120.0  # seconds to load or to start one: an emulated processor compiles the module
ROLES: Final = (("in", "stdin", False), ("out", "stdout", True), ("err", "stderr", True), ("wait", "wait", True))


@attrs.define(eq=False)
class Program(InKernel):
    """A program of a kernel's `wasm`."""

    space: Space | None = None
    _moving: trio.Event | None = None  # it is just being moved; set when that is done, or given up
    _over: set[str] = attrs.field(factory=set)  # streams that we have ended
    _closed: bool = False

    @classmethod
    async def prepare(cls, space: Space, task: Task, kernel: str) -> "Program":
        """Load a module in a kernel: the file of the namespace that the task names. Raises what is in the way."""
        name = task.command[0].rpartition("/")[2]

        async def load(made: "Program") -> None:
            made.space = space
            await made._fill(space, "module", module)
            await made.ctl.order("load", STARTED)
            await made.ctl.order(join(["arg", name, *task.command[1:]]))
            await made.take(space, ROLES)

        async with space.opened(task.command[0].strip("/")) as module:
            return await cls.begun(space, kernel, "wasm", load)

    async def _fill(self, space: Space, name: str, source: File) -> None:
        """Write one of its files: what a file of the namespace has. Raises OSError, EFBIG."""
        file = await space.open(f"{self.path}/{name}", read=False, write=True)
        try:
            while data := await source.read(SOME):
                if source.at > LARGEST:
                    raise NineError(errno.EFBIG, f"{source.path} has more than {LARGEST} bytes")
                await file.put(data)
        finally:
            with trio.CancelScope(shield=True):
                await file.close()

    async def go(self) -> None:
        """Start it."""
        await self.ctl.order("start", STARTED)

    async def read(self) -> bytes:
        return await self._through("out", File.read)

    async def errors(self) -> bytes:
        return await self._through("err", File.read)

    async def wait(self) -> str:
        return await self._through("wait", ended)

    async def _through(self, role: str, ask: Callable[[File], Awaitable[T]]) -> T:
        """Ask a file of it; and the one where it goes on, if it has been moved meanwhile."""
        while True:
            file = self.files[role]
            try:
                said = await ask(file)
            except OSError:
                if await self._stays(role, file):
                    raise
            else:
                if (said and role != "wait") or await self._stays(role, file):
                    return said

    async def _stays(self, role: str, file: File) -> bool:
        """Wait while it is being moved, and tell whether a file is still the program's."""
        while self._moving is not None:
            await self._moving.wait()
        return self.files[role] is file

    async def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            file = self.files["in"]
            try:
                rest = rest[await file.some(rest) :]
            except OSError:
                if await self._stays("in", file):
                    raise

    async def end_input(self) -> None:
        await self._end("in")

    async def end_output(self) -> None:
        await self._end("out")

    async def _end(self, role: str) -> None:
        """End a stream; of a program that is being moved, where it goes on."""
        self._over.add(role)
        while self._moving is not None:
            await self._moving.wait()
        await self.files[role].close()

    def may_move(self, kernel: str) -> None:
        if self._moving is not None:
            raise NineError(errno.EBUSY, "it is just being moved")

    async def move(self, kernel: str) -> None:
        """Go on in another kernel. Raises what is in the way; then it goes on where it was."""
        self.may_move(kernel)
        assert self.space is not None
        self._moving = trio.Event()
        try:
            there = await self.begun(self.space, kernel, "wasm", self._goes)
            if self._closed:
                with trio.CancelScope(shield=True):
                    await there.close()
                raise NineError(errno.ESRCH, "it was ended while it moved")
            old, over = [*self.files.values()], self.ctl
            self.kernel, self.path, self.ctl, self.files = there.kernel, there.path, there.ctl, there.files
            with trio.CancelScope(shield=True):
                # where its kernel is gone there is nothing to be forgotten
                with suppress(OSError):
                    await over.order(f"moved {self.path}")
                for file in [*old, over, *(self.files[role] for role in self._over)]:
                    await file.close()
        finally:
            moving, self._moving = self._moving, None
            moving.set()

    async def close(self) -> None:
        self._closed = True
        await super().close()

    async def _goes(self, there: "Program") -> None:
        """Freeze it, and let another one go on with its state. If that cannot be, it goes on here."""
        assert self.space is not None
        await self.ctl.order("freeze")
        try:
            async with self.space.opened(f"{self.path}/state") as state:
                await there._fill(self.space, "state", state)
            await there.take(self.space, ROLES)
            await there.ctl.order("start", STARTED)
        except BaseException as error:
            with trio.CancelScope(shield=True):
                try:
                    await self.ctl.order("start", STARTED)
                except OSError as second:
                    if isinstance(error, OSError):
                        why = f"{words(error)}; and it does not go on where it was: {words(second)}"
                        raise NineError(error.errno or errno.EIO, why) from None
            raise
