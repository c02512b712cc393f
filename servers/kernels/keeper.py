"""A process that holds a guest and outlives us by a moment, to undo what we made.

Rules:
* Whatever must not survive its owner is made by, or named to, a keeper: a shell in a session of its own whose standard input is a pipe that we hold.
  When we end, even by SIGKILL and in mid-boot, the pipe ends, and the keeper kills the guest, takes down mounts and network namespace, and
  removes the run directory (`keeper.sh`).
* PR_SET_PDEATHSIG is never set on our own children: it fires when the *thread* that started them ends. The keeper has one thread, and sets it on the guest.
* The keeper's exit means that everything is undone; its status is the guest's.
"""

import errno
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import trio

from mk9p.errors import NineError

from . import tools

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SCRIPT: Final = Path(__file__).with_name("keeper.sh")


@attrs.define(eq=False)
class Keeper:
    """A running keeper: `directory` is its to remove, `process` the shell, whose output is the guest's standard output and error."""

    directory: Path
    process: trio.Process

    @property
    def pid(self) -> int:
        """Return the process that holds the guest: killing it ends the guest. 0 when it has not begun or is gone."""
        try:
            return int((self.directory / "pid").read_text())
        except (OSError, ValueError):
            return 0

    async def unmount_at_end(self, mount_point: str | Path) -> None:
        """Name a mount to undo at the end, whoever made it. Raises OSError (EINVAL) for a name with a newline, EPIPE after the end."""
        if "\n" in str(mount_point):
            raise NineError(errno.EINVAL, "a mount point's name cannot hold a newline")
        stdin = self.process.stdin
        assert stdin is not None
        try:
            await stdin.send_all(f"{mount_point}\n".encode())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise NineError(errno.EPIPE) from None

    async def receive(self) -> bytes:
        """Return what the guest's process printed on its standard output and error; b"" at the end."""
        stdout = self.process.stdout
        assert stdout is not None
        return bytes(await stdout.receive_some())

    async def wait(self) -> int:
        """Wait until the guest has ended and all is undone; return its status as a shell has it: 137 is SIGKILL. Any number of tasks may wait."""
        status = await self.process.wait()
        return 128 - status if status < 0 else status

    async def end(self) -> None:
        """Kill the guest, and wait until all is undone. Once the order is given a cancelled wait changes nothing."""
        stdin = self.process.stdin
        assert stdin is not None
        with trio.CancelScope(shield=True):  # closing only closes a pipe; it must happen even on the way out of a cancelled task
            await stdin.aclose()
        await self.process.wait()


async def keep(
    directory: Path,
    command: Sequence[str] = (),
    *,
    crowd: bool = False,
    before: Iterable[Sequence[str]] = (),
    after: Iterable[Sequence[str]] = (),
    descriptors: Sequence[int] = (),
    environ: Mapping[str, str] | None = None,
) -> Keeper:
    """Start a keeper of `directory` (made 0700 if it is not there, removed at the end) and of a command, if one is given.

    `before` commands run first, in the keeper, so that nothing is made which nobody would undo; when one fails the command is not started, and the
    status is 125. `after` commands run at the end whatever came before. `crowd` runs the command as the first process of a PID namespace, for a
    guest of many processes (root only). `descriptors` are inherited under their own numbers. Without a command the keeper waits for our end.
    """
    if crowd:
        # the shell between is PID 1: it reaps, and its default signal handling is nobody else's
        inner = [tools.need("unshare"), "--pid", "--fork", "--kill-child", "--", "/bin/sh", "-c", '"$@"; exit $?', "sh", *command]
    else:
        inner = list(command)
    tools.need("setpriv")
    process = await trio.lowlevel.open_process(
        ["/bin/sh", str(SCRIPT), str(directory), "1" if crowd else "", _script(before, " && "), _script(after, "; "), *inner],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=tuple(descriptors),
        env=None if environ is None else dict(environ),
    )
    keeper = Keeper(directory, process)
    if not command:  # there is no guest's output to read: the shell's first line says that the directory is its own now
        await keeper.receive()
    return keeper


def _script(commands: Iterable[Sequence[str]], join: str) -> str:
    return join.join(shlex.join(command) for command in commands) or ":"
