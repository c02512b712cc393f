"""One run of a program: its process with its streams, from `begin` to its end or to the next snapshot."""

import errno
import os
import signal
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import attrs
import trio

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.servers.wasm.confine import RUNTIME
from mk9p.servers.wasm.container import LARGEST
from mk9p.servers.wasm.process import Process, failure, memfd, to_read
from mk9p.servers.wasm.queues import Input, Output
from mk9p.servers.wasm.snapshot_head import altered, head_of, packed
from mk9p.signals import name

_LEAVING: Final = 5.0  # seconds that a process has to leave after its last word
_CHECKPOINT: Final = ("snapshot", "kept", "unkept")  # what it says when it makes one
_ANSWER: Final = 0.5  # seconds that a process has to say how much it uses


@attrs.define(eq=False)
class Run:
    """A process that runs a program. `how` tells how it ended; None: it is frozen, and `snapshot` is what it is now."""

    process: Process
    out: int
    streams: tuple[socket.socket, socket.socket, socket.socket]
    kept: int = -1  # where its process gets a checkpoint from, to write it
    freezable: bool = True
    how: str | None = ""
    doom: str = ""  # why it was killed
    on_unfrozen: Callable[[NineError], None] = lambda _: None  # is told why it cannot be frozen, and goes on
    memory: int = 0
    fuel: int | None = None
    snapshot: bytes = b""
    unread: bytes = b""  # input that it had not taken
    ended: trio.Event = attrs.field(factory=trio.Event)
    _answers: trio.MemorySendChannel[dict[str, Any]] | None = None  # to who makes a checkpoint
    _used: trio.Event = attrs.field(factory=trio.Event)

    @classmethod
    async def begin(
        cls, spec: Mapping[str, Any], module: int, snapshot: bytes | None, line: socket.socket | None, who: Principal
    ) -> "Run":
        """Start a process, and return when the program runs. Raises what kept it from running: then nothing is left of it.

        `checkpoint` of the spec is where it writes checkpoints, or None.
        """
        module = to_read(module)
        pairs = [socket.socketpair() for _ in range(3)]
        out = memfd("snapshot")
        kept = memfd("checkpoint") if spec["checkpoint"] is not None else -1
        state = memfd("state", [snapshot]) if snapshot is not None else None
        fds = [module, out, *(theirs.fileno() for _, theirs in pairs)]
        fds += [kept] if kept >= 0 else []
        fds += [state] if state is not None else []
        fds += [line.fileno()] if line is not None else []
        mine: dict[str, Any] = {
            "module": module,
            "state": state,
            "out": out,
            "streams": [theirs.fileno() for _, theirs in pairs],
            "checkpoint": (spec["checkpoint"], kept) if kept >= 0 else None,
        }
        if line is not None:
            mine["namespace"] = f"fd!{line.fileno()}!{line.fileno()}"
        process: Process | None = None
        try:
            # a state is as large as the program's memory, and lies in memory too: one when it is frozen, and a checkpoint
            memory = 3 * spec["limits"]["memory"] + RUNTIME
            process = await Process.start("runner", {**spec, **mine}, fds, who, memory=memory)
            told = await process.told()
            if told is not None and told["say"] == "failed":
                raise failure(told)
            if told is None or told["say"] not in ("running", "ended"):
                raise NineError(errno.EIO, "its process ended before the program began")
            run = cls(process, out, (pairs[0][0], pairs[1][0], pairs[2][0]), kept)
            run.freezable = bool(told.get("freezable"))
            if told["say"] == "ended":  # it wants more than it may have from the beginning
                run.doom = _words(told.get("how"))
            return run
        except BaseException:
            for ours, _ in pairs:
                ours.close()
            os.close(out)
            if kept >= 0:
                os.close(kept)
            if process is not None:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.reap()
            raise
        finally:
            os.close(module)
            for _, theirs in pairs:
                theirs.close()
            if state is not None:
                os.close(state)
            if line is not None:
                line.close()

    async def go(self, input_: Input, output: Output, errors: Output, seconds: float) -> None:
        """Move what it reads and writes until its end, and learn how that was. At most `seconds` long."""
        told: dict[str, Any] | None = None
        async with trio.open_nursery() as nursery:
            feeding = trio.CancelScope()

            async def feed() -> None:
                with feeding:
                    await input_.pump(self.streams[0])

            nursery.start_soon(feed)
            nursery.start_soon(output.pump, self.streams[1])
            nursery.start_soon(errors.pump, self.streams[2])
            with trio.move_on_after(seconds) as time:
                while (said := await self.process.told()) is not None:
                    if said["say"] in _CHECKPOINT:
                        if self._answers is not None:
                            with suppress(trio.WouldBlock):  # nobody has asked for so much
                                self._answers.send_nowait(said)
                        continue
                    if said["say"] == "unfrozen":
                        self.on_unfrozen(failure(said))
                        continue
                    if said["say"] != "use":
                        told = said
                        break
                    self.memory = _number(said.get("memory")) or 0
                    self._used.set()
            if time.cancelled_caught:
                self.kill("limit time")
            elif told is None or told["say"] != "frozen":
                self.process.kill()  # it has nothing more to say
            with trio.move_on_after(_LEAVING):
                await trio.lowlevel.wait_readable(self.process.pidfd)
            self.process.kill()
            await self.process.reap()
            output.let_go()
            errors.let_go()
            feeding.cancel()
        try:
            await self._judge(told)
        finally:
            self._used.set()
            self.ended.set()
            if self._answers is not None:
                self._answers.close()
            else:
                self._let_go()

    async def _judge(self, told: dict[str, Any] | None) -> None:
        said = told["say"] if told else ""
        if told is not None:
            self.memory, self.fuel = _number(told.get("memory")) or 0, _number(told.get("fuel"))
        if said == "frozen" and not self.doom:
            try:
                self.snapshot, self.unread = await trio.to_thread.run_sync(_taken, self.out)
                self.how = None
            except NineError as error:
                self.how = f"lost {error.ename}"
        elif self.doom:
            self.how = self.doom
        elif told is not None and said == "ended":
            self.how = _words(told.get("how"))
        elif told is not None and said == "failed":
            self.how = f"lost {failure(told).ename}"
        else:
            self.how = self._by_status()

    def _by_status(self) -> str:
        """Return how a process ended that could not tell it."""
        status = self.process.status
        if not os.WIFSIGNALED(status):
            return "lost its process ended by itself"
        number = os.WTERMSIG(status)
        if number == signal.SIGKILL and self.process.starved:
            return "limit memory"
        if number in (signal.SIGPROF, signal.SIGXCPU):
            return "limit cpu"
        return f"signal {name(number)}"

    async def checkpoint(self, made: Callable[[bytes, bytes, int | None], Awaitable[list[bytes]]]) -> int:
        """Let its process write a checkpoint, while the program stands still; return its size. One at a time, and not after its end.

        `made` returns the state that is written, of a snapshot, the input that the program has not taken, and its fuel. It is called when nothing
        moves in the streams. Raises what was in the way, ESRCH when the program has ended or was frozen meanwhile.
        """
        self._answers, answers = trio.open_memory_channel[dict[str, Any]](1)
        try:
            await self.process.tell("checkpoint")
            said = await answers.receive()
            if said["say"] != "snapshot":
                raise failure(said)
            try:
                taken = await trio.to_thread.run_sync(_taken, self.out)
                pieces = await made(*taken, _number(said.get("fuel")))
                size = await trio.to_thread.run_sync(_put, self.kept, pieces)
            except OSError:
                await self.process.tell("go")
                raise
            await self.process.tell("keep")
            said = await answers.receive()
            if said["say"] != "kept":
                raise failure(said)
            return size
        except trio.EndOfChannel:
            raise NineError(errno.ESRCH) from None
        finally:
            self._answers = None
            answers.close()
            if self.ended.is_set():
                self._let_go()

    def _let_go(self) -> None:
        """Close what its process wrote to, when it has gone and nobody reads that."""
        for fd in (self.out, self.kept):
            if fd >= 0:
                os.close(fd)

    def kill(self, why: str) -> None:
        """End it; `why` is how it then has ended."""
        self.doom = self.doom or why
        self.process.kill()

    async def use(self) -> int:
        """Return how many bytes of memory it has."""
        self._used = trio.Event()
        with trio.move_on_after(_ANSWER):
            await self.process.tell("use")
            await self._used.wait()
        return self.memory


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and 0 <= value < 1 << 64 else None


def _put(fd: int, pieces: list[bytes]) -> int:
    """Have some bytes in a file in memory, and nothing else; return how many."""
    os.ftruncate(fd, 0)
    at = 0
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            done = os.pwrite(fd, rest, at)
            at, rest = at + done, rest[done:]
    return at


def _words(how: object) -> str:
    """Return what a process says of the end, on one line."""
    return " ".join(str(how)[:300].split("\n"))


def _taken(fd: int) -> tuple[bytes, bytes]:
    """Return the snapshot that a process wrote, and the input that it had not taken, which was in the snapshot's head."""
    if not stat.S_ISREG(os.fstat(fd).st_mode) or os.fstat(fd).st_size > LARGEST:
        raise NineError(errno.EFBIG)
    data = bytearray()
    while piece := os.pread(fd, 1 << 24, len(data)):
        data += piece
        if len(data) > LARGEST:  # whoever has it from its process may make it longer meanwhile
            raise NineError(errno.EFBIG)
    head, pages = head_of(bytes(data))
    try:
        unread = bytes.fromhex(head.pop("stdin"))
    except (KeyError, TypeError, ValueError):
        altered("its input")
    return packed(head, pages), unread
