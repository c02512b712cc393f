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
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import attrs

from mk9p.itself import itself

if TYPE_CHECKING:
    from collections.abc import Callable

    from . import agent
    from .device import Device
    from .tx import Step, Words

# The guest's words on its console when somebody can use it: its tree is served, or, if it serves none, its scripts are done.
SERVES: Final = "mk9p: listening on "
BOOTED: Final = "has booted"
BEGUN: Final = "/run/guest/begun"  # there when the guest has begun its `boot`: its serving may end and begin again

Kind = Literal["qemu", "uml", "multikernel", "attach"]

# Why a kernel ended. Anything else is words that say what was wrong.
Reason = Literal["halted", "rebooted", "panicked", "killed"]

HALT_SECONDS: Final = 10.0  # a guest that is still there so long after it was asked to go is killed


@attrs.frozen(kw_only=True)
class Spec:
    """What to start. `memory` is in bytes. It may have `most_cpus` later, where the backend can do that; 0 is the backend's choice.

    `serve` has the arguments of `mk9p serve` in the guest after its `-l`; None is a guest that serves nothing. `hostroot` gives the guest the
    host's programs read-only under a tmpfs (emulator.py); without it there is only busybox. `initrd` is used instead of ours, and then it must do
    all this itself. `cmdline` is added to the kernel's, `devices` (raw arguments) to the emulator's. The guest can load `modules` (sh
    /run/guest/load NAME). `shown` are more paths of this machine that the guest sees, with `hostroot`; `whole` shows all that root can read.
    `boot` is a script that the guest runs before it serves, once. Requests wait `wait` seconds for its tree while that is down.
    `grants` are paths of the namespace that it may use, each with ro, rw or OPS; the Spec keeps them for whoever admits the guest,
    and also whether its tree is `trusted`.
    """

    name: str = attrs.field()
    kernel: str
    cpus: int = 1
    most_cpus: int = 0
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
    whole: bool = False
    boot: str = ""
    wait: int = 0
    trusted: bool = False
    dial: str = ""
    qmp: str = ""

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
        command = shlex.join([*itself(self.python), "serve", "-l", dial, *options, *self.serve])
        # write no bytecode: it would vanish with the guest
        first = f"if mkdir {BEGUN} 2>/dev/null; then (\n{self.boot}\n) </dev/null; fi\n" if self.boot else ""
        script = f"cd /\n{first}export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1; exec {command}\n"
        file = str(own / "serve.sh")
        return [["sh", "-c", 'printf %s "$1" >"$2" && chmod 644 "$2"', "sh", script, file]]


def unheard(stands_still: bool) -> None:
    """Hear nothing."""


def unseen(device: str) -> None:
    """See nothing go."""


class Machine(Protocol):
    """The machine under a running kernel, and what can be done to it. Each method raises EOPNOTSUPP with the reason where the backend cannot do it,
    and EIO when the machine is gone."""

    most: int
    """How many CPUs the kernel may have online."""
    lost: Callable[[str], None]
    """Gets the name of a device that has gone though nobody here unplugged it: the kernel has let it go by itself, or late."""

    async def freeze(self) -> None:
        """Stop it where it is: its CPUs, and its clock."""
        ...

    async def thaw(self) -> None:
        """Let it go on."""
        ...

    async def reset(self) -> None:
        """Reset it, as its button does: what the kernel had not written is lost."""
        ...

    async def dump(self, file: int) -> None:
        """Write its memory to a descriptor, as an ELF core file. It stands still meanwhile."""
        ...

    async def memory(self) -> int:
        """Return how many bytes are plugged in beside those that it began with."""
        ...

    async def set_memory(self, wanted: int) -> None:
        """Have so many bytes plugged in. Raises EBUSY if the guest does not take or give them."""
        ...

    async def plugged(self) -> frozenset[str]:
        """Return the names of the devices that were plugged in."""
        ...

    async def plug(self, device: Device) -> None:
        """Plug a device in, or raise with nothing of it there."""
        ...

    async def unplug(self, device: Device) -> None:
        """Unplug a device. Raises EBUSY if the guest does not let it go."""
        ...

    async def forget(self, device: Device) -> None:
        """Take back what is behind a device that was lost."""
        ...


@attrs.frozen
class Parts:
    """What a kernel has of the machine itself: how many CPUs, bytes of memory, and its devices by name."""

    cpus: int
    memory: int
    devices: tuple[str, ...] = ()


class Ground(Protocol):
    """What kernels have that are beside this one on the same machine: real CPUs, memory and devices, and a pool of them that is no book-keeping.

    A kernel has them from `load` to `delete`. Its moves are steps of their own words, which this does (tx.World has the contract of the last three).
    Every method raises ENODEV where the machine can do no such thing.
    """

    async def parts(self, name: str) -> Parts:
        """Return what a kernel has. Raises ENOENT if it has nothing."""
        ...

    async def unload(self, name: str) -> None:
        """Forget the kernel that was loaded. What it has of the machine stays its own."""
        ...

    async def remove(self, name: str) -> None:
        """Take back all that a kernel has that does not run."""
        ...

    async def plan(self, kind: str, given: Any, source: str, target: str) -> list[Step]:
        """Return the steps of a move; `given` are numbers of CPUs, bytes, or the name of a device."""
        ...

    async def plan_baseline(self, cpus: list[int], memory: int) -> list[Step]:
        """Return the step that makes the pool."""
        ...

    async def plan_pool(self, kind: str, do: str, given: Any, alias: str = "") -> list[Step]:
        """Return the steps of a change between the pool and this kernel."""
        ...

    async def status(self) -> str:
        """Return what is in the pool, as key value lines."""
        ...

    async def note(self, words: Words) -> str: ...

    async def perform(self, words: Words) -> None: ...

    async def restore(self, words: Words, note: str) -> None: ...


class Running(Protocol):
    """A kernel that was started (guest.py has the one class that does this)."""

    dial: str
    """Where the guest's tree is reached from the host."""
    listen: str
    """Where to listen on the host, so the guest reaches the host (the composed namespace) at `guest_dial`."""
    guest_dial: str
    agent: agent.Agent | None
    machine: Machine
    heard: Callable[[bool], None]
    """Gets True when somebody else has stopped its machine, False when somebody let it go on."""

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

    async def leave(self) -> None:
        """Leave it at the end of this server: kill what was started for it, and let go what was there before."""
        ...

    async def close(self) -> None:
        """Close this side's ends of its channels, after its end."""
        ...


class Backend(Protocol):
    """A way of running kernels, without state of its own."""

    @property
    def ground(self) -> Ground | None:
        """Return what its kernels have of the machine itself; None if that is emulated, or another's."""
        ...

    @property
    def kernel(self) -> str:
        """Return the kernel to use when nobody names one."""
        ...

    @property
    def there(self) -> bool:
        """Say whether its kernels are there already: nothing is to be loaded."""
        ...

    @property
    def grows(self) -> bool:
        """Say whether its kernels can have more than they began with."""
        ...

    async def prepare(self, spec: Spec, *, report: Callable[[str], None]) -> None:
        """Fetch and build everything that `start` will use, or raise the NineError that says what to do."""
        ...

    async def start(self, spec: Spec, directory: Path) -> Running:
        """Start a kernel whose run directory is `directory`: made now, removed at its end, absolute and short (it holds sockets).

        Raises NineError when it cannot start: a missing tool, a kernel of the wrong kind, no root, a number of CPUs that it cannot have.
        """
        ...
