"""What a way of running kernels must do.

A `Backend` turns a `Spec` into a `Running`. The contract:
* `start` returns as soon as the guest's process has started. Its console shows that it serves (`READY`).
* Nothing made for a guest outlives the guest, its Running, or this server: a keeper holds it (keeper.py). When `wait` returns, all of it is gone.
* A Running has no tasks of its own: whoever starts a kernel keeps one task in `wait` and one that drains `receive`. A console that nobody drains
  never stops the guest: what does not fit is lost.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path  # noqa: TC003 - attrs fields
from typing import TYPE_CHECKING, Final, Literal, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from . import agent

# The guest's words on its console when somebody can use it: its tree is served, or, if it serves none, its scripts are done.
SERVES: Final = "mk9p: listening on "
BOOTED: Final = "has booted"

# Why a kernel ended. Anything else is words that say what was wrong.
Reason = Literal["halted", "rebooted", "panicked", "killed"]

HALT_SECONDS: Final = 10.0  # a guest that is still there so long after it was asked to go is killed


@attrs.frozen(kw_only=True)
class Spec:
    """What to start. `memory` is in bytes.

    `serve` has the arguments of `mk9p serve` in the guest after its `-l`; None is a guest that serves nothing. `hostroot` gives the guest the
    host's programs read-only under a tmpfs (emulator.py); without it there is only busybox. `initrd` is used instead of ours, and then it must do
    all this itself. `cmdline` is added to the kernel's, `devices` (raw arguments) to the emulator's. The guest can load `modules` (sh
    /run/guest/load NAME). `shown` are more paths of this machine that the guest sees, with `hostroot`. `grants` are paths of the namespace that it
    may use, each with ro or rw; the Spec keeps them for whoever admits the guest.
    """

    name: str = attrs.field()
    kernel: str
    cpus: int = 1
    memory: int = 512 << 20
    initrd: Path | None = None
    cmdline: str = ""
    serve: tuple[str, ...] | None = ()
    python: str = sys.executable
    hostroot: bool = True
    agent: bool = False
    modules: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    shown: tuple[Path, ...] = ()
    grants: tuple[tuple[str, str], ...] = ()

    @name.validator
    def _name(self, _: object, value: str) -> None:
        """The name becomes a host name, a file name, and a word of a command line."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}", value):
            raise ValueError(f"a kernel's name is letters, digits, - and .: {value!r}")

    @property
    def ready(self) -> bytes:
        """Return the words on the console that say that the guest can be used."""
        return (f"mk9p: {self.name} {BOOTED}" if self.serve is None else SERVES).encode()

    def parameters(self, own: str) -> str:
        """Return the words of the command line that `guest/init.sh` reads, and the user's; `own` is the guest's own place, as the guest sees it."""
        return f"mk9p.name={self.name} mk9p.dir={own} {self.cmdline}"

    def lay(self, own: Path, dial: str, *options: str) -> list[list[str]]:
        """Return the commands that put into the guest's own place what it takes from there: what it runs to serve its tree on `dial`.

        The keeper runs them, because it makes the run directory. `options` of the serving are those that the backend's kind of link needs.
        """
        if self.serve is None:
            return []
        command = shlex.join([self.python, "-m", "mk9p", "serve", "-l", dial, *options, *self.serve])
        # write no bytecode: it would vanish with the guest
        script = f"cd /; export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1; exec {command}\n"
        file = str(own / "serve.sh")
        return [["sh", "-c", 'printf %s "$1" >"$2" && chmod 644 "$2"', "sh", script, file]]


class Running(Protocol):
    """A kernel that was started (guest.py has the one class that does this)."""

    dial: str
    """Where the guest's tree is reached from the host."""
    listen: str
    """Where to listen on the host, so the guest reaches the host (the composed namespace) at `guest_dial`."""
    guest_dial: str
    agent: agent.Agent | None

    @property
    def pid(self) -> int:
        """Return the process that holds the guest, 0 when there is none."""
        ...

    async def receive(self) -> bytes:
        """Return what comes from the console, b"" after the guest's end. If cancelled, it loses nothing. Only one task may call it."""
        ...

    async def send(self, data: bytes) -> None:
        """Type on the console. Raises NineError (EIO) after the guest's end."""
        ...

    async def wait(self) -> str:
        """Wait until the guest has ended and everything is undone, and return a `Reason` or words that say what was wrong. Only one task may call
        it."""
        ...

    async def halt(self) -> None:
        """Ask the guest to go down in order, kill it after HALT_SECONDS, and wait until everything is undone. If cancelled, the request still
        holds."""
        ...

    async def kill(self) -> None:
        """Kill the guest, and wait until everything is undone."""
        ...

    async def close(self) -> None:
        """Close this side's ends of its channels, after its end."""
        ...


class Backend(Protocol):
    """A way of running kernels, without state of its own."""

    @property
    def kernel(self) -> str:
        """Return the kernel to use when nobody names one."""
        ...

    async def prepare(self, spec: Spec, *, report: Callable[[str], None]) -> None:
        """Fetch and build everything that `start` will use, or raise the NineError that says what to do."""
        ...

    async def start(self, spec: Spec, directory: Path) -> Running:
        """Start a kernel whose run directory is `directory`: made now, removed at its end, absolute and short (it holds sockets).

        Raises NineError when it cannot start: a missing tool, a kernel of the wrong kind, no root, a number of CPUs that it cannot have.
        """
        ...
