"""A program's own process: how it starts, what it tells, and its end. The server does not believe what it says: a program may have taken it over."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import attrs
import trio

import mk9p
from mk9p import cgroups
from mk9p.auth import GUEST, LOCAL, NO_ID, Principal
from mk9p.errors import NineError
from mk9p.itself import unique
from mk9p.ktext import split_words
from mk9p.said import from_json
from mk9p.servers.wasm.confine import ADMITTED

_LINE: Final = 8192  # bytes of what it tells at once
_ROOT: Final = str(Path(mk9p.__file__).parent.parent)
_TICKS: Final = os.sysconf("SC_CLK_TCK")
# with all its threads a program has as much of a processor as one process that is as nice(1) as its server: each step is so much less
_STEP: Final = 1.25
# a program is one process; the engine has a thread for each processor while it compiles
_TASKS: Final = 64 + 2 * (os.cpu_count() or 1)
PYTHON = sys.executable  # a test has one of another kind of machine here


def identity(who: Principal) -> dict[str, Any]:
    """Return as whom a process runs: root's as this server, everybody else's as that user, in the groups that they came with.

    Raises EPERM for a user who has no number here.
    """
    if who.uid == NO_ID:
        raise NineError(errno.EPERM, f"{who.name} has no number here, and a program runs as a user of this machine")
    if os.geteuid() != 0 or who.uid == 0:
        return {}
    groups = sorted(who.groups)
    group = who.gid if who.gid in who.groups else groups[0] if groups else 65534
    return {"user": who.uid, "group": group, "extra_groups": groups}


def require_local(who: Principal) -> None:
    """Raise EACCES for a user whose programs may not reach files as a user of this machine, who they are not."""
    if who.proof not in LOCAL or who.scope is not None or who.name.startswith(GUEST):
        words = "who came by a capability, a certificate or a guest's line serves what they grant, by `9p`"
        raise NineError(errno.EACCES, words)


def memfd(name: str, pieces: list[bytes] | None = None) -> int:
    """Return a file in memory with some bytes."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    for piece in pieces or ():
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(fd, rest) :]
    return fd


def group(memory: int) -> cgroups.Values:
    """Return what the control group of a process says that may have `memory` bytes."""
    part = 1 / _STEP ** os.getpriority(os.PRIO_PROCESS, 0)
    shares, weight = max(2, round(1024 * part)), max(1, round(100 * part))
    return {
        "memory": ({"memory.limit_in_bytes": str(memory)}, {"memory.max": str(memory)}),
        "cpu": ({"cpu.shares": str(shares)}, {"cpu.weight": str(weight)}),
        "pids": ({"pids.max": str(_TASKS)}, {"pids.max": str(_TASKS)}),
    }


def to_read(fd: int) -> int:
    """Return another descriptor of a file in memory, by which nobody can change it: whoever has it from a program cannot cut what we look at."""
    os.fchmod(fd, 0o400)
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


@attrs.define(eq=False)
class Process:
    """One process, from `start` to `reap`. Its descriptors are given to it and closed here."""

    child: subprocess.Popen[bytes]
    control: trio.socket.SocketType
    pidfd: int
    began: int
    held: cgroups.Held
    ended: trio.Event = attrs.field(factory=trio.Event)
    status: int = 0
    user_ms: int = 0
    system_ms: int = 0
    real_ms: int = 0
    gone: bool = False  # it has been waited for: there is no such process any more
    starved: bool = False  # the kernel ended it, for it wanted more memory than its group may have
    _rest: bytes = b""

    @classmethod
    async def start(
        cls, module: str, spec: Mapping[str, Any], fds: list[int], who: Principal, *, memory: int
    ) -> "Process":
        """Start `mk9p.servers.wasm.MODULE` as a user, in a control group that may have `memory` bytes, where there is one.

        `fds` are the descriptors that the spec names, which stay open here. It waits until it is in its group (confine.admitted). Raises OSError.
        """
        identity_ = identity(who)
        ours, theirs = socket.socketpair()
        paper = memfd("spec", [json.dumps(spec).encode()])
        os.lseek(paper, 0, os.SEEK_SET)
        words = [
            *(PYTHON, "-P", "-c"),
            f"import sys; sys.path.insert(0, {_ROOT!r}); from mk9p.servers.wasm.{module} import main; main()",
            *(str(paper), str(theirs.fileno())),
        ]

        def spawn() -> tuple[subprocess.Popen[bytes], cgroups.Held]:
            child = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[paper, theirs.fileno(), *fds],
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
                start_new_session=True,
                umask=0o077,
                **identity_,
            )
            held = cgroups.Held.of(child.pid, unique(f"wasm-{child.pid}"), group(memory))
            ours.sendall(ADMITTED)
            return child, held

        try:
            began = time.monotonic_ns()
            with trio.CancelScope(shield=True):
                child, held = await trio.to_thread.run_sync(spawn)
            return cls(child, trio.socket.from_stdlib_socket(ours), os.pidfd_open(child.pid), began, held)
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(paper)
            theirs.close()

    async def tell(self, word: str) -> None:
        """Say something to it, which may be gone; it waits while the process takes nothing."""
        with suppress(OSError, trio.ClosedResourceError):
            await self.control.send(word.encode() + b"\n")

    async def told(self) -> dict[str, Any] | None:
        """Wait for the next thing that it tells; None at its end, or if it tells nonsense."""
        while b"\n" not in self._rest:
            try:
                piece = await self.control.recv(_LINE)
            except OSError:
                return None
            if not piece or len(self._rest) > _LINE:
                return None
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            found = from_json(line)
        except ValueError:
            return None
        return found if isinstance(found, dict) and isinstance(found.get("say"), str) else None

    async def reap(self) -> None:
        """Wait for its end, once, and learn how it was."""
        await trio.lowlevel.wait_readable(self.pidfd)
        _, self.status, usage = os.wait4(self.child.pid, 0)  # noqa: ASYNC222  # it has ended: this does not wait
        self.child.returncode = 0
        self.gone = True
        os.close(self.pidfd)
        self.control.close()
        self.user_ms, self.system_ms = round(usage.ru_utime * 1000), round(usage.ru_stime * 1000)
        self.real_ms = (time.monotonic_ns() - self.began) // 1_000_000
        with trio.CancelScope(shield=True):
            self.starved = await trio.to_thread.run_sync(self._left)
        self.ended.set()

    def _left(self) -> bool:
        """End what it has left behind, and its group. Returns whether it was starved."""
        starved = self.held.starved()
        self.held.end()
        return starved

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it now, if it has not ended."""
        if not self.gone:
            signal.pidfd_send_signal(self.pidfd, number)

    def cpu_ms(self) -> int:
        """Return the processor time that it has used."""
        user, system, _ = self.times()
        return user + system

    def times(self) -> tuple[int, int, int]:
        """Return how many ms it has used: of a processor for itself, in the system, and by the clock."""
        if self.gone:
            return self.user_ms, self.system_ms, self.real_ms
        text = Path(f"/proc/{self.child.pid}/stat").read_text()
        user, system = (int(ticks) * 1000 // _TICKS for ticks in split_words(text.rpartition(")")[2])[11:13])
        return user, system, (time.monotonic_ns() - self.began) // 1_000_000


def failure(told: Mapping[str, Any]) -> NineError:
    """Return the error that a process tells in `failed`."""
    number, words = told.get("errno"), told.get("words")
    if not isinstance(number, int) or number not in errno.errorcode:
        number = errno.EIO
    return NineError(number, str(words)[:400].replace("\n", " ") or None)
