"""`mk9p wasm run [-g PATH[:AT]:ro|rw]… KERNEL FILE [ARG…]`: a program in a kernel, with this process's input, output, signals and exit status.

FILE is a module, or the state of one that was frozen. The files that it is granted are served from here, as this user. If somebody moves the program,
this process follows it with `--follow`, and with grants in any case: it serves them where the program goes on.
"""

import errno
import os
import signal
from typing import Any, Final

import attrs
import trio

from mk9p.client import Client, File
from mk9p.clients.common import kernel, say_to, with_namespace
from mk9p.clients.run import NOT_RUN, NOT_THERE, Talk
from mk9p.clients.wasm.again import STREAMS, Again, Begun, read
from mk9p.clients.wasm.clone import begin
from mk9p.clients.wasm.granted import AGAIN, Grant, Granted, granting
from mk9p.clients.wasm.keyboard import Keyboard
from mk9p.errors import NineError
from mk9p.ktext import split_words
from mk9p.servers.wasm.container import MAGIC
from mk9p.signals import exit_code
from mk9p.stdio import complain, told
from mk9p.tree import join, split

TRAPPED: Final = 134  # as a command that abort(3) ends
LIMITED: Final = 124  # as timeout(1) says it
LOST: Final = 1
GOING: Final = 15.0  # seconds for a program to go on elsewhere whose kernel has gone just when it was moved
_BLOCK: Final = 1 << 20


def run(chosen: Any) -> int:
    """Run the program and return its exit status."""
    try:
        with open(chosen.file, "rb") as file:
            data = file.read()
    except OSError as error:
        complain(f"mk9p wasm: {told(error)}")
        return NOT_THERE if isinstance(error, FileNotFoundError) else NOT_RUN

    async def work(ns: Client) -> int:
        restart, checkpoint = read(chosen)
        tree = await kernel(ns, chosen.kernel)
        chosen.grant = [Grant(*each) for each in chosen.grant]
        first = Begun.of(data) if data.startswith(MAGIC) else Begun(data)
        if checkpoint is not None and f"{checkpoint.path}/".startswith(f"/{tree.strip('/')}/"):
            raise NineError(errno.EINVAL, f"checkpoint {checkpoint.path}: it would be gone with {tree}")
        async with granting(ns, chosen.grant, checkpoint.path if checkpoint else "") as granted:
            again = Again(ns, first, restart, chosen.to, checkpoint)
            try:
                return await Running(ns, granted, chosen, again).program(tree)
            except* NotRun as group:
                complain(f"mk9p wasm: {chosen.file}: {group.exceptions[0]}")
        return NOT_RUN

    return with_namespace(work)


@attrs.define(eq=False)
class Spoken:
    """How far the output of a program has been passed on, and where in it the next piece is: what was passed on before is not passed on again."""

    said: dict[int, int]
    at: dict[int, int]

    def begin(self, at: dict[int, int]) -> None:
        """Go on with a program that is at such places. Tells what nobody has got."""
        for number, place in at.items():
            if place > self.said[number]:
                complain(f"mk9p wasm: {place - self.said[number]} bytes of its {STREAMS[number]} are lost")
                self.said[number] = place
        self.at = dict(at)

    def passed(self, number: int, data: bytes) -> bytes:
        """Return what is new of a piece."""
        old = min(max(self.said[number] - self.at[number], 0), len(data))
        self.at[number] += len(data)
        self.said[number] = max(self.said[number], self.at[number])
        return data[old:]


@attrs.define(eq=False)
class Attached(Talk):
    """What goes on between this process and a program, while it is where it is."""

    keyboard: Keyboard = attrs.field(factory=Keyboard)
    spoken: Spoken = attrs.field(kw_only=True)
    words: str | None = None  # how it ended, when that is known

    async def wait(self, file: File) -> None:
        found = split((await file.pread(4096, 0)).decode(errors="replace"))
        self.words = found[4] if len(found) > 4 else "lost"
        self.ended.set()

    def passed(self, descriptor: int, data: bytes) -> bytes:
        return self.spoken.passed(descriptor, data)

    async def feed(self, data: File, no_input: bool) -> None:
        try:
            while not no_input and (piece := await self.keyboard.next()):
                await data.write(piece)
                self.keyboard.took(len(piece))
            await self.send("closein")
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ESRCH, errno.EIO, errno.EBADF):
                raise


class NotRun(NineError):
    """What was to be run is no program."""


@attrs.define(eq=False)
class Running:
    """One `mk9p wasm run`."""

    ns: Client
    granted: Granted | None
    chosen: Any
    again: Again
    keyboard: Keyboard = attrs.field(init=False)
    spoken: Spoken = attrs.field(init=False)
    at: str = ""  # where it is
    asked: bool = False  # somebody here wanted its end
    going: str = ""  # where it is to go on, if it is just being moved
    unkept: str = ""  # why the last checkpoint was not written

    def __attrs_post_init__(self) -> None:
        self.keyboard = Keyboard(self.again.restart.when != "never")
        self.keyboard.begin(self.again.first.taken)
        self.spoken = Spoken(dict(self.again.first.said), dict(self.again.first.said))

    async def program(self, tree: str) -> int:
        """Begin the program in a kernel's tree, and go with it, from kernel to kernel, to its end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.keyboard.read)
            words = await self._life(tree, self.again.first)
            while words is not None and self.again.wants(words, asked=self.asked):
                complain(f"mk9p wasm: {self.at}: {words}")
                next_ = await self._next(words)
                if next_ is None:
                    break
                words = next_
            nursery.cancel_scope.cancel()
        return _status(self.chosen.file, words)

    async def _next(self, words: str) -> str | None:
        """Go with the next life of a program that ended so, and return how that ended; None: there is none."""
        if self.granted is not None:
            self.granted.leave(self.at)
        gone = self.at.rpartition("/wasm/")[0]
        while await self.again.turn():
            try:
                begun = await self.again.state(words)
                tree = await self.again.place(gone)
                self.keyboard.back(begun.taken)
                self.spoken.begin(begun.said)
                complain(
                    f"mk9p wasm: it goes on in {tree} from its {'last checkpoint' if self.again.kept else 'beginning'}"
                )
                return await self._life(tree, begun)
            except OSError as error:
                if self.ns.connection.gone is not None:
                    raise
                complain(f"mk9p wasm: {told(error)}")
        return None

    async def _life(self, tree: str, begun: Begun) -> str:
        """Begin the program in a kernel's tree, and go with it; return how it ended. Raises what is in the way of its beginning."""
        ns = self.ns
        ctl, talk = await begin(ns, tree)
        async with ctl:
            for line in self._words():
                await say_to(ns, ctl, f"{talk}/ctl", line)
            await self._load(ctl, talk, begun.data)
            return await self._go(ctl, talk)

    def _words(self) -> list[str]:
        chosen = self.chosen
        lines = [join(["env", *chosen.env])] if chosen.env else []
        lines += [join(["grant", each.path, each.at, "ro" if each.readonly else "rw"]) for each in chosen.grant]
        kept = self.again.checkpoint
        lines += [join(["checkpoint", "every", kept.seconds, "to", kept.path])] if kept else []
        return lines + [join(["limit", *limit.split("=", 1)]) for limit in chosen.limit]

    async def _load(self, ctl: File, talk: str, data: bytes) -> None:
        """Give it its module, or its state. Raises NotRun for what is none."""
        state = data.startswith(MAGIC)
        async with await self.ns.open(f"{talk}/{'state' if state else 'module'}", "w") as file:
            for at in range(0, len(data), _BLOCK):
                await file.write(data[at : at + _BLOCK])
        if state:
            return
        await say_to(self.ns, ctl, f"{talk}/ctl", join(["arg", os.path.basename(self.chosen.file)]))
        if self.chosen.args:
            await say_to(self.ns, ctl, f"{talk}/ctl", join(["arg", *self.chosen.args]))
        try:
            await say_to(self.ns, ctl, f"{talk}/ctl", "load")
        except NineError as error:
            raise NotRun(error.errno, error.ename) from None

    async def _go(self, ctl: File, talk: str) -> str:
        """Go with the program wherever it is moved, and return how it ended."""
        first: File | None = ctl
        while True:
            self.at, self.going = talk, ""
            try:
                words = await self._attached(talk, first)
            except OSError as error:  # where it went on nobody answers
                if first is not None or self.ns.connection.gone is not None:
                    raise
                words = f"lost {error.strerror}"
            if words.startswith("lost") and self.going and await self._went(self.going):
                words = f"moved {self.going}"
            if not words.startswith("moved "):
                return words
            talk, first = words.partition(" ")[2], None
            if not talk.rpartition("/")[0].endswith("/wasm"):
                complain(f"mk9p wasm: {talk}")
                return ""
            if self.granted is None and not self.chosen.follow and self.again.restart.when == "never":
                complain(f"mk9p wasm: it has been moved to {talk}")
                return ""

    async def _went(self, talk: str) -> bool:
        """Tell whether it goes on there: its kernel was gone when it was just being moved, and who moves it has its state."""
        with trio.move_on_after(GOING):
            while True:
                try:
                    if split(await self.ns.read(f"{talk}/status"))[1:2] == ["running"]:
                        return True
                except OSError:
                    return False
                await trio.sleep(AGAIN)
        return False

    async def _attached(self, talk: str, ctl: File | None) -> str:
        """Be the terminal of the program at a path until it ends there, and return how that was. `ctl` is open if it is to be started."""
        ns = self.ns
        start = ctl is not None
        mine = ctl or await ns.open(f"{talk}/ctl", "r+")
        if self.granted is not None:
            self.granted.serve(talk)
        async with (
            await ns.open(f"{talk}/stdout") as output,
            await ns.open(f"{talk}/stderr") as errors,
            await ns.open(f"{talk}/wait") as wait,
            await ns.open(f"{talk}/stdin", "w") as data,
            await ns.open(f"{talk}/events") as events,
        ):
            talking = Attached(mine, False, keyboard=self.keyboard, spoken=self.spoken)
            await say_to(ns, mine, f"{talk}/ctl", "start" if start else "unkeep")
            lost = ""
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._hear, events)
                    await talking.carry(data, output, errors, wait, no_input=self.chosen.no_input)
                    nursery.cancel_scope.cancel()
            except* OSError as group:
                if ns.connection.gone is not None:
                    raise
                lost = f"lost {_first(group)}"
            finally:
                if talking.silent:
                    ns.connection.end("it does not answer")
                if not start:
                    await mine.aclose()
        self.asked = self.asked or talking.asked.is_set()
        if talking.words is None and lost:
            return lost
        if talking.words is None:  # this process was told to end, and nobody takes its output
            return f"signal {signal.Signals(talking.status - 128).name}"
        return talking.words

    async def _hear(self, events: File) -> None:
        """Serve the program where it is to go on, before it does; and know of its checkpoints."""
        async for line in events:
            words = split(line.decode(errors="replace").strip())[2:]
            match words:
                case ["going", where]:
                    self.going = where
                    if self.granted is not None:
                        self.granted.serve(where)
                case ["checkpoint", _, _, taken] if taken.isascii() and taken.isdecimal() and len(taken) < 20:
                    self.again.kept, self.unkept = True, ""
                    self.keyboard.forget(int(taken))
                case ["nocheckpoint", why] if why != self.unkept:
                    self.unkept = why
                    complain(f"mk9p wasm: {why}")


def _first(group: BaseExceptionGroup[OSError]) -> str:
    """Return the words of the first error of a group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, OSError)
    return " ".join(split_words(str(error.strerror)))


def _status(file: str, words: str) -> int:
    """Return the exit status for how a program ended, and say on stderr what no exit status says."""
    kind = words.partition(" ")[0]
    if kind not in ("", "exit", "signal"):
        complain(f"mk9p wasm: {file}: {words}")
    return {"trap": TRAPPED, "limit": LIMITED, "lost": LOST}.get(kind, exit_code(words))
