"""`python -m mk9p.servers.wasm.runner SPEC CONTROL`: run one program here. SPEC and CONTROL are descriptors (process.py has the other side).

The program has a thread of its own, for its stack; this one listens to the server: `freeze`, `use` and `checkpoint`, a line each. What it tells is a
line of JSON: `running` when the program begins, then `ended` or `frozen`; or `failed`, with an errno and words, when it could not begin. `unfrozen`
tells, in the same way, why a program cannot be frozen now, and goes on.

For a `checkpoint` the program stands still: `snapshot` tells that it is written for the server, who makes a state of it and says `keep`. Then the
state is written to the namespace, `kept` or `unkept` tells how that went, and the program goes on.
"""

import errno
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from mk9p.errors import NineError, translate
from mk9p.servers.wasm.confine import admitted, confine

_NATIVE: Final = (
    32 << 20
)  # bytes of the stack of the program's thread: the engine's own part of it, and what Python needs on top
_INPUT: Final = 4 << 20  # bytes of input that a socket may hold
_LOOK: Final = 1.0  # seconds for a look at whether its open files are still there: who does not answer is not asked


def main() -> None:
    """Run the program and leave."""
    spec_fd, control_fd = map(int, sys.argv[1:3])
    with os.fdopen(spec_fd, "rb") as file:
        spec = json.load(file)
    control = socket.socket(fileno=control_fd)
    control.setblocking(True)
    admitted(control)
    confine(spec["limits"]["memory"])
    try:
        run = Run(spec)
    except (OSError, ValueError) as error:
        told = translate(error)
        _say(control, say="failed", errno=told.errno, words=told.ename)
    except MemoryError:
        _say(control, say="ended", how="limit memory")
    else:
        run.go(control)
    control.close()
    # the engine's threads, and what is left of the program, have nothing more to do
    os._exit(0)


def _say(control: socket.socket, **what: Any) -> None:
    control.sendall(json.dumps(what).encode() + b"\n")


class Run:
    """One run of a program: from its beginning or from a snapshot, to its end or to the next snapshot."""

    def __init__(self, spec: dict[str, Any]) -> None:
        # wasmtime takes 0.1 s, and the process is confined before
        from mk9p.servers.wasm.host import link
        from mk9p.servers.wasm.machine import Ended, Machine, compiled
        from mk9p.servers.wasm.snapshot import Snapshot, put_back
        from mk9p.servers.wasm.snapshot_head import altered, head_of
        from mk9p.servers.wasm.space import Grant
        from mk9p.servers.wasm.wasi.descriptors import Table
        from mk9p.servers.wasm.wasi.polling import Polling
        from mk9p.servers.wasm.written import Writer

        self.spec = spec
        self.freezes = False  # the server wants it frozen
        limits = spec["limits"]
        snapshot = Snapshot(*head_of(_whole(spec["state"]))) if spec["state"] is not None else None
        head = snapshot.head if snapshot else {}
        fuel = limits.get("fuel")
        engine, module = compiled(_whole(spec["module"]), fuel=fuel is not None, cache=spec["cache"])
        self.machine = Machine(engine, module, limits["memory"], fuel)
        grants = [Grant(*each) for each in spec["grants"]]
        reaches = grants or spec["checkpoint"] is not None
        self.space = _connect(spec["namespace"], self.machine.wake[0]) if reaches else None
        streams = tuple(spec["streams"])
        for fd in streams:
            os.set_blocking(fd, False)
        self.table = Table(self.machine.wake[0], self.space, limits.get("files"))
        self.writer: Writer | None = None
        if self.space is not None and spec["checkpoint"] is not None:
            self.writer = Writer(self.space.client, self.table, *spec["checkpoint"])
            self.writer.look()
        # a state of before there was `cpu` has none
        clock, cpu = head.get("clock", 0), head.get("cpu", 0)
        self.world = Polling(self.machine, self.table, spec["args"], spec["env"], limits.get("output"), clock, cpu)
        link(self.machine, self.world)
        self.early = ""
        try:
            self.machine.begin()
        except Ended as error:
            if snapshot is not None:
                raise NineError(errno.ENOMEM, f"it has more memory than its limit, {limits['memory']} bytes") from None
            self.early = str(error)
            return
        if snapshot is None:
            self.table.begin(streams, grants)
            return
        if not self.machine.freezable:
            altered("its module was not made freezable")
        try:
            put_back(self.machine, snapshot)
        except struct.error:
            altered("a global of another size")
        self.table.restore(head["open"], streams, grants)
        self.world.began = head.get("began")
        self.machine.rewind()

    def go(self, control: socket.socket) -> None:
        """Run, and do what the server says meanwhile."""
        if self.early:
            _say(control, say="ended", how=self.early, memory=0, fuel=None)
            return
        _say(control, say="running", freezable=self.machine.freezable)
        left = self.spec["limits"].get("cpu")
        if left is not None:
            # its default action ends the process, whatever the program does
            signal.setitimer(signal.ITIMER_PROF, max(left, 1) / 1000)
        done, self.finished = os.pipe2(os.O_CLOEXEC)
        threading.stack_size(_NATIVE)
        self._begin("running", self.machine.run)
        poll = select.poll()
        poll.register(done, select.POLLIN)
        poll.register(control, select.POLLIN)
        over = False
        while not over:
            ready = {fd for fd, _ in poll.poll()}
            if done in ready:
                os.read(done, 1)
                over = self._turn(control)
                continue
            words = control.recv(64)
            if not words:
                return
            for word in words.decode().split("\n"):
                over = over or self._told(word, control)

    def _begin(self, what: str, work: Callable[[], str | None]) -> None:
        """Let a thread work; `_turn` is called when it has ended."""
        self.what = what
        self.result: str | None = None
        self.failure: BaseException | None = None

        def thread() -> None:
            try:
                self.result = work()
            except BaseException as error:
                self.failure = error
            finally:
                os.write(self.finished, b"x")

        threading.Thread(target=thread, daemon=True).start()

    def _told(self, word: str, control: socket.socket) -> bool:
        """Do what the server says. Return whether all is over."""
        if word == "use":
            _say(control, say="use", memory=self.machine.used())
        elif word == "freeze":
            self.freezes = True
            if self.what == "standing":
                return self._freeze(control)
            self.machine.ask()
        elif word == "checkpoint" and self.what == "running":
            self.machine.ask()
        elif word == "keep" and self.what == "standing" and self.writer is not None:
            self._begin("writing", self.writer.write)
        elif word == "go" and self.what == "standing":
            self._go_on()
        return False

    def _turn(self, control: socket.socket) -> bool:
        """Do what follows when the program stands still or has ended, or when a checkpoint is written. Return whether all is over."""
        if self.what == "writing":
            self._kept(control)
        elif self.failure is not None:
            signal.setitimer(signal.ITIMER_PROF, 0)
            raise self.failure
        elif self.result is not None:
            signal.setitimer(signal.ITIMER_PROF, 0)
            _say(control, say="ended", how=self.result, memory=self.machine.used(), fuel=self.machine.fuel_left())
            return True
        elif not self.freezes:
            try:
                self._snapshot()
            except NineError as error:
                _say(control, say="unkept", errno=error.errno, words=error.ename)
            else:
                self.what = "standing"
                _say(control, say="snapshot", memory=self.machine.used(), fuel=self.machine.fuel_left())
                return False
        if self.freezes:
            return self._freeze(control)
        self._go_on()
        return False

    def _kept(self, control: socket.socket) -> None:
        if self.failure is None:
            _say(control, say="kept")
        elif isinstance(self.failure, OSError):
            told = translate(self.failure)
            _say(control, say="unkept", errno=told.errno, words=told.ename)
        else:
            raise self.failure

    def _go_on(self) -> None:
        self.machine.ask(False)
        self.machine.hear()
        self.machine.go_on()
        self._begin("running", self.machine.run)

    def _freeze(self, control: socket.socket) -> bool:
        """Write what it is, and tell that. Return whether all is over: if it cannot be frozen, it goes on."""
        left, _ = signal.setitimer(signal.ITIMER_PROF, 0)
        try:
            self._snapshot()
        except NineError as error:
            self.freezes = False
            signal.setitimer(signal.ITIMER_PROF, left)
            _say(control, say="unfrozen", errno=error.errno, words=error.ename)
            if self.what != "standing":
                self._go_on()
            return False
        _say(control, say="frozen", memory=self.machine.used(), fuel=self.machine.fuel_left())
        return True

    def _snapshot(self) -> None:
        """Write the snapshot, with the input that the program has not taken. Raises ENOMEM, and ESTALE for what could not go on anywhere."""
        from mk9p.servers.wasm.snapshot import take
        from mk9p.servers.wasm.snapshot_head import packed

        if self.space is not None:
            self.machine.hear()
            with self.space.within(_LOOK):
                self.table.require_there()
        head = {
            "clock": self.world.clock(),
            "cpu": self.world.cpu(),
            "began": self.world.began,
            "open": self.table.dump(),
            "fuel": self.machine.fuel_left(),
            "output": self.world.output,
            "stdin": _unread(self.spec["streams"][0]).hex(),
        }
        try:
            taken = take(self.machine, head)
            with open(self.spec["out"], "wb", closefd=False) as file:
                file.seek(0)
                file.truncate()
                file.write(packed(taken.head, taken.pages))
        except (MemoryError, OSError) as error:
            raise NineError(errno.ENOMEM, f"no room for its state: {error}") from None
        self.machine.hear()


def _whole(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        return file.read()


def _unread(fd: int) -> bytes:
    """Return what waits in a socket, which keeps it: the program may go on here."""
    with socket.socket(fileno=os.dup(fd)) as sock:
        try:
            return sock.recv(_INPUT, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        except BlockingIOError:
            return b""


def _connect(address: str, wake: int) -> Any:
    from mk9p import sync
    from mk9p.servers.wasm.space import Space

    if not address:
        raise NineError(errno.ENOTCONN, "nobody serves what was granted: say `namespace DIAL`, or serve it by `9p`")
    client = sync.connect(address, n_uname=os.geteuid())
    client.stop_by(wake)
    return Space(client, wake)


if __name__ == "__main__":
    main()
