"""A task that runs somewhere: `Work`, and `Command`, a command of a kernel's `cmd`.

A force starts together or not at all, so a task is started in two steps. `prepare` takes all that it needs, and says why it cannot run; it has run
nothing of the task yet. `go` lets it run. A command waits between the two in a shell of three lines, which has descriptor 3 for that (cmd's `line`).
"""

import errno
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, Self

import attrs
import trio

from mk9p.errors import NineError
from mk9p.servers.tf.graph import Task
from mk9p.servers.tf.reach import KERNELS, PIECE, File, Space, words
from mk9p.tree.words import join, split

# It says whether there is such a program, and waits for a line. When the force is not started, it gets the end instead.
GATE: Final = (
    'command -v -- "$1" >/dev/null || { echo "no program $1" >&3; exit 127; }; '
    'echo >&3; read -r go <&3 && exec "$@" 3>&-'
)
LOST: Final = "lost"  # how the status of a task begins whose kernel is gone


class Work(Protocol):
    """A task in a kernel. What reads and writes raises OSError when the kernel is gone."""

    kernel: str
    pid: str

    async def go(self) -> None:
        """Let the prepared task run."""

    async def read(self) -> bytes:
        """Return what it printed next, b"" at the end."""

    async def errors(self) -> bytes:
        """Return what it said on its standard error next, b"" at the end."""

    async def write(self, data: bytes) -> None:
        """Give it input."""

    async def end_input(self) -> None:
        """Tell it that no more comes."""

    async def end_output(self) -> None:
        """Tell it that nobody reads what it prints."""

    async def wait(self) -> str:
        """Return how it ended: "" with success, else as cmd's `wait` says it, or `lost: WHY`."""

    def may_move(self, kernel: str) -> None:
        """Raise EOPNOTSUPP where it cannot move while it runs."""

    async def move(self, kernel: str) -> None:
        """Go on in another kernel. Raises what is in the way; then it goes on where it was."""

    async def close(self) -> None:
        """End it if it runs, and leave nothing of it there. May be called again."""


@attrs.define(eq=False)
class InKernel:
    """What a command of `cmd` and a program of `wasm` have in common (Work): they are files of a kernel, held open."""

    kernel: str
    path: str
    ctl: File
    files: dict[str, File] = attrs.field(factory=dict)
    pid: str = "-"

    @classmethod
    async def begun(cls, space: Space, kernel: str, server: str, fill: Callable[[Self], Awaitable[None]]) -> Self:
        """Open a new one of a kernel's server, and prepare it by `fill`; if that raises, nothing is left of it."""
        place = f"{KERNELS}/{kernel}/{server}"
        try:
            ctl = await space.open(f"{place}/clone", write=True)
        except FileNotFoundError:
            raise NineError(errno.ENOENT, f"{kernel} has no {server}") from None
        made = cls(kernel, place, ctl)
        try:
            made.path = f"{place}/{await made.ctl.number()}"
            await fill(made)
        except BaseException:
            with trio.CancelScope(shield=True):
                await made.close()
            raise
        return made

    async def take(self, space: Space, roles: Sequence[tuple[str, str, bool]]) -> None:
        """Open files for their roles: (role, name, whether it is read)."""
        for role, name, read in roles:
            self.files[role] = await space.open(f"{self.path}/{name}", read=read, write=not read)

    async def read(self) -> bytes:
        """Return what it printed next."""
        return await self.files["out"].read()

    async def errors(self) -> bytes:
        """Return what it said on its standard error next."""
        return await self.files["err"].read()

    async def write(self, data: bytes) -> None:
        """Write to its standard input."""
        await self.files["in"].write(data)

    async def end_input(self) -> None:
        """End its standard input."""
        await self.files["in"].close()

    async def end_output(self) -> None:
        """Let its next write be an error."""
        await self.files["out"].close()

    async def wait(self) -> str:
        """Wait until it has ended."""
        return await ended(self.files["wait"])

    async def close(self) -> None:
        """Close its files: the kernel ends what nobody has open."""
        for file in [*self.files.values(), self.ctl]:
            await file.close()


ROLES: Final = (
    ("in", "data", False),
    ("out", "data", True),
    ("err", "stderr", True),
    ("say", "line", False),
    ("hear", "line", True),
    ("wait", "wait", True),
)


@attrs.define(eq=False)
class Command(InKernel):
    """A command of a kernel's `cmd`."""

    @classmethod
    async def prepare(cls, space: Space, task: Task, kernel: str) -> "Command":
        """Take what a command needs in a kernel; return it when only `go` is missing. Raises what is in the way."""
        return await cls.begun(space, kernel, "cmd", lambda made: made._prepare(space, task))

    async def _prepare(self, space: Space, task: Task) -> None:
        await self.take(space, ROLES)
        await self.ctl.order(join(["exec", "sh", "-c", GATE, "sh", *task.command]))
        said = b""
        with trio.move_on_after(PREPARED) as scope:
            while not said.endswith(b"\n"):
                if not (more := await self.files["hear"].read()):
                    raise NineError(errno.EIO, "it ended before it was started")
                said += more
                if len(said) > PIECE:
                    raise NineError(errno.EIO, "it says other things than its shell does")
        if scope.cancelled_caught:
            raise NineError(errno.ETIMEDOUT, f"it is not ready after {PREPARED:.0f} s")
        if said != b"\n":
            raise NineError(errno.ENOENT, said.decode(errors="replace").strip("\n"))
        async with space.opened(f"{self.path}/status") as file:
            line = split((await file.read()).decode(errors="replace"))
        self.pid = line[-1] if line else "-"

    async def go(self) -> None:
        """Let the shell become the command."""
        await self.files["say"].order("go\n")
        for key in ("say", "hear"):
            await self.files.pop(key).close()

    def may_move(self, kernel: str) -> None:
        """Refuse it: nobody can freeze a process of Linux."""
        raise NineError(errno.EOPNOTSUPP, f"a command: only a program of wasm moves to {kernel} while it runs")

    async def move(self, kernel: str) -> None:
        """Refuse it."""
        self.may_move(kernel)


PREPARED: Final = 60.0  # seconds until a shell has begun: an emulated kernel that starts many takes ten


async def ended(wait: File) -> str:
    """Wait for the line of a `wait`, and return how it says that something ended; `lost: WHY` where its kernel is gone."""
    try:
        line = split((await wait.read()).decode(errors="replace"))
    except OSError as error:
        return f"{LOST}: {words(error)}"
    return line[4] if len(line) > 4 else f"{LOST}: no answer"
