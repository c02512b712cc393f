"""A process that holds a guest and lives a moment longer than this server, to undo what the server made.

Rules:
* A keeper makes whatever must not outlive its owner, or learns its name. It is a shell in a session of its own whose standard input is a pipe from
  this server. When the server ends, even by SIGKILL and in the middle of a boot, the pipe ends. Then the keeper kills the guest, removes mounts
  and the network namespace, and removes the run directory (`keeper.sh`).
* Nothing here sets PR_SET_PDEATHSIG on the server's own children: the signal comes when the *thread* that started them ends. The keeper has one
  thread, and sets it on the guest.
* The keeper's exit means that everything is undone; its status is that of the guest.
"""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
from typing import TYPE_CHECKING, Final

import attrs
import trio

from mk9p.errors import NineError

from . import limits, tools
from .brought import brought

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

SCRIPT: Final = "keeper.sh"


@attrs.define(eq=False)
class Keeper:
    """A running keeper. It removes `directory`; `process` is the shell, whose output is the guest's standard output and error."""

    directory: Path
    process: trio.Process
    _undo: tuple[str, ...] = ()

    @property
    def pid(self) -> int:
        """Return the process that holds the guest: killing it ends the guest. 0 before it has begun and after it is gone."""
        try:
            return int((self.directory / "pid").read_text())
        except (OSError, ValueError):
            return 0

    async def unmount_at_end(self, mount_point: str | Path) -> None:
        """Name a mount to undo at the end, whoever made it. Raises OSError (EINVAL) for a name with a newline, EPIPE after the end."""
        if "\n" in str(mount_point):
            raise NineError(errno.EINVAL, "a mount point's name cannot contain a newline")
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
        """Wait until the guest has ended and everything is undone; return its status as a shell gives it: 137 is SIGKILL. Any number of tasks may
        wait."""
        status = await self.process.wait()
        if status >= 0:
            return status
        # somebody killed the keeper itself: the guest has died with it, the shell that reads the orders does not know, and this server must undo
        # everything
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        await trio.run_process(self._undo, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return 128 - status

    async def end(self) -> None:
        """Kill the guest, and wait until everything is undone. After the order, a cancelled wait changes nothing."""
        stdin = self.process.stdin
        assert stdin is not None
        # closing only closes a pipe, and must happen even in a cancelled task
        with trio.CancelScope(shield=True):
            await stdin.aclose()
        await self.process.wait()

    async def close(self) -> None:
        """Close the pipes of a keeper that has ended."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            await pipe.aclose()


async def keep(
    directory: Path,
    command: Sequence[str] = (),
    *,
    crowd: bool = False,
    group: limits.Group | None = None,
    before: Iterable[Sequence[str]] = (),
    after: Iterable[Sequence[str]] = (),
    descriptors: Sequence[int] = (),
) -> Keeper:
    """Start a keeper of `directory` (made 0700 if it does not exist, removed at the end) and of a command, if there is one.

    `before` commands run first, in the keeper, so that nothing is made which nobody would undo; when one fails, the command does not start.
    `after` commands run at the end, whatever came before. `crowd` runs the command in a PID namespace, for a guest of many processes (root only).
    `group` holds all of it. The command inherits `descriptors` under their own numbers. Without a command the keeper waits for this server's end.
    When this returns, the directory and everything that `before` made are there, and the command runs. Raises NineError (EIO, in the words of the
    command that failed).
    If cancelled, nothing stays.
    """
    tools.need("setpriv")
    if crowd:
        # the shell in between is PID 1: it reaps, and the guest gets the signals that PID 1 does not get
        command = [
            tools.need("unshare"),
            *["--pid", "--fork", "--kill-child", "--", "/bin/sh", "-c"],
            '"$@"; exit $?',
            "sh",
            *command,
        ]
    if group is not None:
        command, before, after = group.holding(command), [*before, *group.before], [*after, *group.after]
    run = ["/bin/sh", str(brought(SCRIPT)), str(directory), "1" if crowd else ""]
    undo = _script(after, "; ")
    process = await trio.lowlevel.open_process(
        [*run, _script(before, " && "), undo, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=tuple(descriptors),
        env={**os.environ, "PATH": tools.path()},
    )
    keeper = Keeper(directory, process, (*run, "false", undo))
    said = b""
    try:
        while b"held\n" not in said:
            data = await keeper.receive()
            if not data:
                await keeper.end()
                words = said.decode(errors="replace").strip().rpartition("\n")[2]
                raise NineError(errno.EIO, words or f"{directory} cannot be made")
            said += data
    except trio.Cancelled:
        with trio.CancelScope(shield=True):
            await keeper.end()
        raise
    return keeper


def _script(commands: Iterable[Sequence[str]], join: str) -> str:
    return join.join(shlex.join(command) for command in commands) or ":"
