"""exec: the standard input and output of a command are the line."""

import errno
import os
import subprocess
import threading
from contextlib import ExitStack
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

import attrs

from mk9p.dial.address import Dial
from mk9p.dial.link import FdLink, Peer

if TYPE_CHECKING:
    import trio

STARTS: Final = 16  # commands that may be starting at once
GRACE: Final = 2.0  # s that a command has to end by itself after it was told to; ssh takes a few ms


async def dial(where: Dial) -> FdLink:
    """Start the command and return the link that is its standard input and output. Raises OSError; if cancelled, nothing runs."""
    import trio

    start = Start.of(where)
    try:
        await trio.to_thread.run_sync(start.run, abandon_on_cancel=True, limiter=_limiter())
    except trio.Cancelled:
        start.give_up()
        raise
    return start.link()


def dial_now(where: Dial, deadline: float) -> FdLink:
    start = Start.of(where)
    start.run()
    return start.link()


@attrs.define(eq=False)
class Start:
    """The start of a command. Another thread may give it up at any time: execve(2) reads the program, whose file system may never answer.

    `run` it, then take its `link`.
    """

    _dial: Dial
    _words: list[str]
    _stdin: int
    _stdout: int
    _ends: ExitStack  # closes these
    _rfd: int
    _wfd: int
    _ours: ExitStack  # closes these
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _begun: bool = attrs.field(default=False, init=False)
    _given_up: bool = attrs.field(default=False, init=False)
    _process: "subprocess.Popen[bytes] | None" = attrs.field(default=None, init=False)

    @classmethod
    def of(cls, dial: Dial) -> "Start":
        """Return the start of the command in a dial string. Raises NineError."""
        import shlex

        try:
            words = shlex.split(dial.rest)
        except ValueError as error:
            raise dial.refuse(errno.EINVAL, f"{error}: quote as in sh") from None
        if not words:
            raise dial.refuse(errno.EINVAL, "want exec!COMMAND")
        # Two pipes and no socketpair: bash takes a socket as its standard input for rshd's and reads ~/.bashrc. Only this end has O_NONBLOCK: the
        # ends of a pipe are two open files.
        with ExitStack() as theirs, ExitStack() as ours:
            stdin, wfd = os.pipe2(os.O_CLOEXEC)
            theirs.callback(os.close, stdin)
            ours.callback(os.close, wfd)
            rfd, stdout = os.pipe2(os.O_CLOEXEC)
            theirs.callback(os.close, stdout)
            ours.callback(os.close, rfd)
            os.set_blocking(rfd, False)
            os.set_blocking(wfd, False)
            return cls(dial, words, stdin, stdout, theirs.pop_all(), rfd, wfd, ours.pop_all())

    def run(self) -> None:
        """Start it. Raises NineError, after which nothing is left of it."""
        with self._lock:
            if self._given_up:
                raise ProcessLookupError
            self._begun = True
        try:
            with self._ends:
                # With vfork(2) all threads would wait for execve, because the interpreter is locked meanwhile, and this very process may serve the
                # file of the program. The argument `group`, with the present group, makes Python use fork(2).
                process = subprocess.Popen(self._words, stdin=self._stdin, stdout=self._stdout, group=os.getegid())
        except OSError as error:
            with self._lock:
                self._ours.close()
            if isinstance(error, FileNotFoundError):
                raise self._dial.refuse(errno.ENOENT, f"no such command {self._words[0]!r}") from None
            raise
        with self._lock:
            self._process = process
            if self._given_up:
                _end(process)

    def link(self) -> FdLink:
        """Return the link to the running command; closing the link ends the command."""
        process = self._process
        assert process is not None
        self._ours.pop_all()
        peer = Peer(self._dial.transport, f"pid {process.pid}", pid=process.pid, loopback=True)
        return FdLink(self._rfd, self._wfd, peer=peer, on_close=[partial(_end, process)])

    def give_up(self) -> None:
        """Leave nothing of it, now or as soon as it has started."""
        with self._lock:
            self._given_up = True
            self._ours.close()
            if not self._begun:
                self._ends.close()
            if self._process is not None:
                _end(self._process)


@cache
def _starting() -> "trio.lowlevel.RunVar[trio.CapacityLimiter]":
    import trio

    return trio.lowlevel.RunVar("mk9p commands being started")


def _limiter() -> "trio.CapacityLimiter":
    """Return the limiter of starting commands: a command that never starts keeps its thread."""
    import trio

    try:
        return _starting().get()
    except LookupError:
        _starting().set(limiter := trio.CapacityLimiter(STARTS))
        return limiter


def _end(process: "subprocess.Popen[Any]") -> None:
    """End a command without waiting for it, in a thread: that works outside trio.run and while it ends, and keeps this process until it is done."""
    if process.poll() is None:
        threading.Thread(target=_reap, args=(process,), name=f"mk9p-reap-{process.pid}").start()


def _reap(process: "subprocess.Popen[Any]") -> None:
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
