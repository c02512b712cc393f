"""One program (its files are in files.py): its settings, its words, and its state: open, loaded, running, frozen, and at last done or failed."""

import errno
import logging
import math
import os
import time

import attrs
import trio

from mk9p import signals
from mk9p.auth import Principal
from mk9p.errors import INTERNAL, NineError, translate
from mk9p.servers.wasm import checkpointing
from mk9p.servers.wasm.common import Programs
from mk9p.servers.wasm.container import MODULE, State, packed, unpacked
from mk9p.servers.wasm.keeping import Stored
from mk9p.servers.wasm.line import Line
from mk9p.servers.wasm.looking import looked_at
from mk9p.servers.wasm.process import memfd, require_local
from mk9p.servers.wasm.queues import Input, Output
from mk9p.servers.wasm.running import Run
from mk9p.servers.wasm.settings import Limit, Settings
from mk9p.tree import Log, quote, split

# seconds that a program waits for somebody who serves its files: who moves one may have to be told first
LINE: float = 10.0


@attrs.define(eq=False)
class Program:
    """One program, which `who` opened and as whom it runs."""

    programs: Programs["Program"]
    number: int
    who: Principal
    state: str = "open"
    settings: Settings = attrs.field(factory=Settings)
    module: Stored = attrs.field(factory=lambda: Stored("module"))
    frozen: Stored = attrs.field(factory=lambda: Stored("state"))
    ready: int = -1  # the module that is run
    digest: str = ""  # of the module that was loaded
    reason: str = ""  # why it cannot be frozen
    snapshot: bytes | None = None
    run: Run | None = None
    how: str = ""
    used: dict[str, int] = attrs.field(factory=lambda: {"user": 0, "system": 0, "real": 0})
    pid: int = 0
    input: Input = attrs.field(factory=Input)
    output: Output = attrs.field(factory=Output)
    errors: Output = attrs.field(factory=Output)
    line: Line = attrs.field(factory=Line)
    events: Log = attrs.field(factory=lambda: Log(256))
    ended: trio.Event = attrs.field(factory=trio.Event)
    _busy: str = ""
    _turned: trio.Event = attrs.field(factory=trio.Event)
    _closed: bool = False
    _unsaved: NineError | None = None  # why it was not frozen, or there is no file of it

    # What is read

    async def status(self) -> str:
        """Render `N STATE ARG0 MEMORY FUEL CPU_MS`: `-` for fuel where there is no limit."""
        run, memory = self.run, 0
        if run is not None:
            memory = run.memory if self.state != "running" else await run.use()
        fuel = self.settings.limits.get("fuel", "-")
        cpu = self.used["user"] + self.used["system"]
        if run is not None and self.state == "running":
            cpu += run.process.cpu_ms()
        # a line is a line, whatever a program is called
        name = quote("".join(c if c.isprintable() else "_" for c in (self.settings.args or ["-"])[0]))
        return f"{self.number} {self.state} {name} {memory} {fuel} {cpu}\n"

    def told(self) -> str:
        """Render the line of `wait`: `pid utime stime rtime 'status'`, times in ms over all runs."""
        used = self.used
        return f"{self.pid} {used['user']} {used['system']} {used['real']} {quote(self.how)}\n"

    # Words before it starts

    def _fresh(self, what: str) -> None:
        if self.state not in ("open", "loaded") or self._busy:
            raise NineError(errno.EBUSY, f"{what}: the program has been started already")

    @property
    def held(self) -> int:
        """How many bytes are kept of its module and its state."""
        ready = os.fstat(self.ready).st_size if self.ready >= 0 else 0
        return self.module.size + self.frozen.size + ready + len(self.snapshot or b"")

    def may_write(self, more: int = 0) -> None:
        """Raise EBUSY if no other module may be written now, ENOSPC if this user has no room for so many bytes more."""
        if self.state != "open" or self._busy:
            raise NineError(errno.EBUSY, "the program has been loaded already")
        self.programs.require_room(self, more)

    def arg(self, *a: str) -> None:
        """Add arguments."""
        self._fresh("arg")
        self.settings.add_args(list(a))

    def env(self, words: list[str], who: Principal) -> None:
        """Add variables `K=V` to the environment."""
        self._fresh("env")
        self.settings.add_env(words)

    def set_args(self, text: str) -> None:
        """Take all arguments from a text."""
        self._fresh("args")
        self.settings.args = []
        self.settings.add_args(split(text))

    def set_env(self, text: str) -> None:
        """Take the whole environment from a text, a variable a line."""
        self._fresh("env")
        self.settings.env = {}
        if words := [line for line in text.split("\n") if line]:
            self.settings.add_env(words)

    def grant(self, words: list[str], who: Principal) -> None:
        """Let it see a directory of the namespace, and what is below, at a path of its own."""
        if self.state not in ("open", "loaded", "frozen"):
            raise NineError(errno.EBUSY, "grant: the program runs")
        self.settings.add_grant(words)

    def set_namespace(self, dial: str) -> None:
        """Say where the namespace is whose files are granted."""
        if self.state not in ("open", "loaded", "frozen"):
            raise NineError(errno.EBUSY, "namespace: the program runs")
        self.settings.set_namespace(dial)

    def checkpoint(self, words: list[str], who: Principal) -> None:
        """Write its state to a file of its namespace every so many seconds."""
        if self.state not in ("open", "loaded", "frozen"):
            raise NineError(errno.EBUSY, "checkpoint: the program runs")
        self.settings.set_checkpoint(words)

    def limit(self, what: Limit, n: int) -> None:
        """Limit what it uses."""
        self._fresh("limit")
        self.settings.set_limit(what, n)

    async def load(self) -> None:
        """Look at the module that was written, and make it freezable if that can be done. If it fails, everything is as before."""
        self.may_write()
        if not self.module.size:
            raise NineError(errno.EINVAL, "load: write the module first")
        self._busy = "load"
        out = memfd("ready")
        try:
            self.reason = await looked_at(self.module.fd, out, self.programs.cache(self.who), self.who)
            self.digest = await trio.to_thread.run_sync(self.module.digest)
            self.ready, out = out, -1
            self.state = "loaded"
            self.events.emit("loaded", self.reason)
        finally:
            self._busy = ""
            if out >= 0:
                os.close(out)
            self._tidy()

    # Words that start and stop it

    async def start(self) -> None:
        """Begin, or go on where it was frozen. If anything fails, this write gets the error, and everything is as before."""
        if self._busy or self.state == "running":
            raise NineError(errno.EBUSY, "the program runs")
        if self.state in ("done", "failed"):
            raise NineError(errno.ESRCH, "the program has ended")
        self._busy = "start"
        try:
            if self.state == "open":
                if not self.frozen.size:
                    raise NineError(errno.EINVAL, "start: load a module first, or write a state")
                await self._came()
            self.programs.admit(self.who)
            await self._begin()
        finally:
            self._busy = ""
            self._tidy()

    async def _came(self) -> None:
        """Become the program whose state was written."""
        state = await trio.to_thread.run_sync(self.frozen.through, unpacked)
        head, carried = state.head, state.head["carried"]
        self.settings.come(head)
        self.ready, self.digest, self.snapshot = memfd("ready", [state.module]), head["module"], state.snapshot
        for stream, data, name in ((self.output, state.stdout, "stdout"), (self.errors, state.stderr, "stderr")):
            stream.put(data)
            stream.total = max(carried.get(name, 0), len(data))
        self.input.data[:0] = state.stdin
        self.input.total += max(carried.get("stdin", 0), len(state.stdin))
        if head["ended"]:
            self.input.finish()
        self.used = {name: head["used"].get(name, 0) for name in self.used}
        self._held(True)
        self.state = "frozen"

    def _held(self, yes: bool) -> None:
        for stream in (self.input, self.output, self.errors):
            stream.hold(yes)

    async def _begin(self) -> None:
        settings, limits = self.settings, self.settings.limits
        settings.args = settings.args or ["program"]
        namespace, line = settings.namespace or self.programs.namespace, None
        kept = settings.checkpoint
        if kept is not None and self.reason:
            raise NineError(errno.EOPNOTSUPP, f"checkpoint: it cannot be frozen: {self.reason}")
        reaches = settings.grants or kept is not None
        if reaches and not settings.namespace and (self.line.holder is not None or not namespace):
            line = await self.line.take(LINE)
        elif reaches:
            require_local(self.who)
        spec = {
            **settings.carried(),
            "namespace": namespace,
            "limits": {what: n for what, n in limits.items() if what != "time"},
            "cache": self.programs.cache(self.who),
            "checkpoint": kept[1] if kept is not None else None,
        }
        run = await Run.begin(spec, self.ready, self.snapshot, line, self.who)
        self.run, self.pid, self.state = run, run.process.child.pid, "running"
        run.on_unfrozen = self._unfrozen
        self._turned = trio.Event()
        self._held(False)
        self.events.emit("running")
        self.programs.runs(self)
        self.programs.nursery.start_soon(self._watch, run)
        if kept is not None:
            self.programs.nursery.start_soon(checkpointing.keep, self, run, kept[0])

    async def _watch(self, run: Run) -> None:
        """Follow one run to its end. What keeps its state from being kept ends this program, and no other."""
        limits = self.settings.limits
        try:
            try:
                await run.go(self.input, self.output, self.errors, limits.get("time", math.inf * 1000) / 1000)
            finally:
                self.programs.ran(self)
            self.used, self.settings.limits = self._spent(run, run.fuel)
            if run.how is None:
                await self._freezes(run)
            else:
                self._end(run.how)
        except Exception:  # no memory for its state, or our bug
            logging.getLogger("mk9p.wasm").exception("internal error: program %d ends", self.number)
            self._end(f"lost {INTERNAL}")
        finally:
            self._turned.set()

    async def _freezes(self, run: Run) -> None:
        """Become frozen: what it is now is a file."""
        self._held(True)
        self.snapshot = run.snapshot
        self.input.data[:0] = run.unread
        streams = bytes(self.input.data), self.output.all(), self.errors.all()
        state = State(self._head(self.used, self.settings.limits), b"", run.snapshot, *streams)
        try:
            await trio.to_thread.run_sync(self.frozen.replace, state, self.ready, packed)
        except OSError as error:  # no descriptor, no room: it can go on here all the same
            self.frozen.close()
            self._unsaved = NineError(error.errno or 0, f"it is frozen, and has no state: {translate(error).ename}")
        self.state = "frozen"
        self.events.emit("frozen")
        self._tidy()

    def _spent(self, run: Run, fuel: int | None) -> tuple[dict[str, int], dict[str, int]]:
        """Return what it has used over all its runs, and what is left of its limits, with this run in it."""
        user, system, real = run.process.times()
        used = {name: self.used[name] + ms for name, ms in (("user", user), ("system", system), ("real", real))}
        return used, self.settings.left(real, user + system, fuel)

    def head(self, run: Run, fuel: int | None) -> dict[str, object]:
        """Return the head of a state of a program that runs."""
        return self._head(*self._spent(run, fuel))

    def made(self) -> bytes:
        """Return the module that is run."""
        return os.pread(self.ready, MODULE, 0)

    def _head(self, used: dict[str, int], limits: dict[str, int]) -> dict[str, object]:
        return {
            **self.settings.carried(),
            "limits": limits,
            "used": used,
            "module": self.digest,
            "ended": self.input.closed or self.input.left,
            "carried": {
                name: each.total
                for name, each in (("stdin", self.input), ("stdout", self.output), ("stderr", self.errors))
            },
            "from": self.programs.system,
            "time": time.time_ns(),
        }

    def _end(self, how: str) -> None:
        self.how = how
        self.state = "done" if how == "" or how.startswith(("exit ", "moved ")) else "failed"
        self.output.end()
        self.errors.end()
        self.input.end()
        self.snapshot = None
        self.events.emit(self.state, how)
        self.ended.set()
        self._tidy()

    async def freeze(self) -> None:
        """Stop it where it is, and make a file of it. Raises EOPNOTSUPP with the reason if that cannot be done."""
        run = self._runs()
        if not run.freezable:
            raise NineError(
                errno.EOPNOTSUPP, f"it cannot be frozen: {self.reason or 'its module was not made freezable'}"
            )
        turned, self._unsaved = self._turned, None
        # what came to the program after it has told what it has not read would be nowhere
        self.input.hold(True)
        await run.process.tell("freeze")
        await turned.wait()
        if self._unsaved is not None:
            raise self._unsaved
        if self.state != "frozen":
            raise NineError(errno.ESRCH, f"it has ended: {self.how or 'with success'}")

    def _unfrozen(self, why: NineError) -> None:
        """Note that it cannot be frozen, and goes on."""
        self._unsaved = why
        self.input.hold(False)
        self._turned.set()
        self._turned = trio.Event()

    def _runs(self) -> Run:
        if self.state != "running" or self.run is None:
            raise NineError(errno.ESRCH, "the program has ended" if self.ended.is_set() else "the program does not run")
        return self.run

    def kill(self, signal_: str = "KILL") -> None:
        """End it, as by a signal."""
        how = f"signal {signals.name(signals.number(signal_))}"
        if self.state == "frozen" and not self._busy:
            self._end(how)
        else:
            self._runs().kill(how)

    def closein(self) -> None:
        """End its input."""
        if self.ended.is_set():
            raise NineError(errno.ESRCH, "the program has ended")
        self.input.finish()

    def going(self, where: str) -> None:
        """Tell those who follow it that it is to go on elsewhere."""
        self.events.emit("going", where)

    def moved(self, where: str) -> None:
        """Forget it: it goes on elsewhere."""
        if self.state != "frozen" or self._busy:
            raise NineError(errno.EBUSY, "moved: it is not frozen")
        for stream in (self.output, self.errors):
            stream.clear()
        self._end(f"moved {where}")

    def close(self) -> None:
        """End it: nobody has a file of it open."""
        self._closed = True
        if self.run is not None and self.state == "running":
            self.run.kill(self.programs.end)
        elif not self.ended.is_set() and not self._busy:
            self._end("signal SIGKILL")

    def _tidy(self) -> None:
        """Let go what it no longer needs."""
        if self._closed and self.state == "frozen":
            self._end("signal SIGKILL")
        elif self._closed and self.state == "running" and self.run is not None:
            self.run.kill("signal SIGKILL")
        if self.ended.is_set() or (self._closed and self.state != "running" and not self._busy):
            self.module.close()
            self.frozen.close()
            if self.ready >= 0:
                os.close(self.ready)
                self.ready = -1
