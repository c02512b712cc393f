"""The files of a conversation that wait, and the count of who has them open.

Each is the source of one open stream (tree/waiting.py): `Data` is the command's input and output, `Errors` what it writes to stderr, `Wait` its
end.
"""

import errno
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

import attrs
import trio

from mk9p.errors import NineError
from mk9p.tree import Ctl, Handle, Maybe, Open, ThroughHandle, settle

if TYPE_CHECKING:
    from mk9p.servers.cmd.pipes import Pipe, Stderr, Terminal
    from mk9p.servers.cmd.running import Running


class Command(Protocol):
    """The command that the files belong to: its pipes, and how many of each file are open."""

    opens: Counter[str]
    started: trio.Event

    @property
    def stdin(self) -> "Pipe | Terminal | None": ...

    @property
    def stdout(self) -> "Pipe | Terminal | None": ...

    @property
    def stderr(self) -> "Stderr | None": ...

    @property
    def terminal(self) -> "Terminal | None": ...

    @property
    def line(self) -> "Terminal | None": ...

    @property
    def running(self) -> "Running | None": ...

    def closed(self, name: str) -> None:
        """Do what the last close of a kind of file brings."""


def _begun(pipe: "Pipe | Terminal | None") -> "Pipe | Terminal":
    if pipe is None:
        raise NineError(errno.EIO, "no command has been started")
    return pipe


class Data:
    """One open `data`: counted as a reader of stdout, a writer of stdin, or both."""

    def __init__(self, command: Command, how: Open) -> None:
        self.command = command
        self.counted = [name for name, used in (("stdout", how.read), ("stdin", how.write)) if used]
        command.opens.update(["data", *self.counted])

    async def receive(self) -> bytes:
        return await _begun(self.command.stdout).receive()

    async def send(self, data: bytes) -> int:
        return await _begun(self.command.stdin).send(data)

    def close(self) -> None:
        opens = self.command.opens
        opens.subtract(["data", *self.counted])
        for name in self.counted:
            if not opens[name]:
                self.command.closed(name)


class Line:
    """One open `line`: the other end of the command's descriptor 3. It waits for the command to start."""

    def __init__(self, command: Command) -> None:
        self.command = command
        command.opens["line"] += 1

    async def receive(self) -> bytes:
        return await (await self._begun()).receive()

    async def send(self, data: bytes) -> int:
        return await (await self._begun()).send(data)

    async def _begun(self) -> "Terminal":
        await self.command.started.wait()
        return cast("Terminal", _begun(self.command.line))

    def close(self) -> None:
        self.command.opens["line"] -= 1
        if not self.command.opens["line"]:
            self.command.closed("line")


class Errors:
    """One open `stderr`. A terminal has none: what a command writes there comes with `data`."""

    def __init__(self, command: Command) -> None:
        self.command = command
        command.opens["stderr"] += 1
        if command.stderr:
            command.stderr.listen()

    async def receive(self) -> bytes:
        if self.command.terminal:
            return b""
        return await _begun(self.command.stderr).receive()

    def send(self, data: bytes) -> None:
        raise NineError(errno.EACCES)

    def close(self) -> None:
        self.command.opens["stderr"] -= 1
        if not self.command.opens["stderr"]:
            self.command.closed("stderr")


@attrs.define(eq=False)
class Wait:
    """One open `wait`: the line, when the command has ended, and the end."""

    command: Command
    told: bool = False

    def __attrs_post_init__(self) -> None:
        self.command.opens["wait"] += 1

    async def receive(self) -> bytes:
        if self.told:
            return b""
        await self.command.started.wait()
        running = self.command.running
        assert running is not None
        await running.ended.wait()
        self.told = True
        return running.line.encode()

    def send(self, data: bytes) -> None:
        raise NineError(errno.EACCES)

    def close(self) -> None:
        self.command.opens["wait"] -= 1


class CountedCtl(Ctl):
    """A ctl that reports when its last open was closed."""

    def __init__(
        self,
        words: Mapping[str, Callable[..., Any]],
        read: Callable[[], str],
        opens: Counter[str],
        closed: Callable[[str], None],
    ) -> None:
        super().__init__(words, read, mode=0o600)
        self.opens, self.closed = opens, closed

    def open(self, how: Open) -> Maybe[Handle]:
        handle = super().open(how)
        assert isinstance(handle, Handle)
        self.opens["ctl"] += 1
        return _Counted(handle, self)


class _Counted(ThroughHandle):
    def __init__(self, handle: Handle, ctl: CountedCtl) -> None:
        super().__init__(handle)
        self.ctl = ctl

    async def close(self) -> None:
        await settle(super().close())
        self.ctl.opens["ctl"] -= 1
        if not self.ctl.opens["ctl"]:
            self.ctl.closed("ctl")
