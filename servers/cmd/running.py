"""A running command: signals to it, and its end. A task of the server waits for the end, so no zombie stays.

The command's pid names the process group, and stays its own until somebody waits for the command. So signals go out only before that, and never
hit a number that Linux has given again. What a finished command left running in the background is therefore left alone, as a shell does.
"""

import errno
import os
import signal
import time
from contextlib import suppress

import attrs
import trio

from mk9p.errors import NineError
from mk9p.servers.cmd.pipes import Pipe
from mk9p.signals import ending
from mk9p.tree import quote


@attrs.define(eq=False)
class Running:
    """One child process, by pid and pidfd, which was begun at `began` (monotonic, in ns).

    `line` is what `wait` gives when `ended` is set; `last` is a pipe to close with it.
    """

    pid: int
    pidfd: int
    began: int
    ended: trio.Event = attrs.field(factory=trio.Event)
    line: str = ""
    doomed: bool = False
    last: Pipe | None = None

    async def reap(self) -> None:
        """Wait for the end and take the exit status, once. If cancelled, call it again."""
        await trio.lowlevel.wait_readable(self.pidfd)
        if self.doomed:
            self.kill_group(signal.SIGKILL)  # kill the rest of the group, whose number the dead leader still keeps
        _, status, usage = os.wait4(self.pid, 0)  # noqa: ASYNC222  # it has ended: this does not wait
        os.close(self.pidfd)
        if self.last:
            self.last.close()
        user, system = (round(seconds * 1000) for seconds in (usage.ru_utime, usage.ru_stime))
        real = (time.monotonic_ns() - self.began) // 1_000_000
        said = ending(status)
        self.line = f"{self.pid} {user} {system} {real} {quote(said)}\n"
        self.ended.set()

    def send(self, number: int) -> None:
        """Send a signal to the whole process group; raises ESRCH after the end."""
        if self.ended.is_set():
            raise NineError(errno.ESRCH, "the command has ended")
        os.killpg(self.pid, number)

    def renice(self, n: int) -> None:
        """Set the nice value of the whole process group; raises ESRCH after the end."""
        if self.ended.is_set():
            raise NineError(errno.ESRCH, "the command has ended")
        os.setpriority(os.PRIO_PGRP, self.pid, n)

    def kill_group(self, number: int) -> None:
        """Signal the group for its end. A server that is not root may not signal a set-uid program; nobody is left to tell about that."""
        with suppress(PermissionError):
            os.killpg(self.pid, number)

    def hang_up(self) -> None:
        """Begin the end: send SIGHUP now. What is left of the group dies with its leader."""
        self.doomed = True
        self.kill_group(signal.SIGHUP)

    async def end(self, grace: float) -> None:
        """Wait `grace` seconds for a command that was hung up, then kill its group."""
        with trio.move_on_after(grace):
            await self.ended.wait()
        if not self.ended.is_set():
            self.kill_group(signal.SIGKILL)


@attrs.define(eq=False)
class Commands:
    """All running commands, the nursery of the tasks that wait for their ends, and how many seconds a command may go on after it was hung up."""

    nursery: trio.Nursery
    grace: float
    running: set[Running]

    def watch(self, command: Running) -> None:
        """Start a task that waits for a command's end."""
        self.running.add(command)
        self.nursery.start_soon(self._reap, command)

    async def _reap(self, command: Running) -> None:
        await command.reap()
        self.running.discard(command)

    def hang_up(self, command: Running) -> None:
        """End a command: with SIGHUP at once, with SIGKILL after the grace. Do nothing if it has ended."""
        if not (command.doomed or command.ended.is_set()):
            command.hang_up()
            self.nursery.start_soon(command.end, self.grace)


async def finish(running: set[Running], grace: float) -> None:
    """End all running commands, when nobody else waits for them any more. This takes at most twice the grace, whatever the commands do."""
    left = list(running)
    for command in left:
        command.hang_up()
    for last in (False, True):
        with trio.move_on_after(grace):
            for command in [c for c in left if not c.ended.is_set()]:
                if last:
                    command.kill_group(signal.SIGKILL)
                await command.reap()
    running.difference_update(left)
