"""Changes of several steps, whole or not at all.

Rules:
* A `Step` is two lines of words: what to do, and what undoes it once all is done. A `World` does them; it is all that knows what they mean.
* A transaction runs one step after the other. When one fails, it and those before it are put back as they were noted to be (`World.restore`), the
  last one first. Then the transaction is `failed`, and everything is as before.
* Only one runs at a time, so a plan, which is made when its turn has come, is still true when its steps run.
* Whoever asked may go away meanwhile: it goes to its end all the same.
* The journal knows of a step before it begins, with what the World says is to be put back if nobody knows how far it came. So when this process is
  killed in the middle, the next one finds the transaction: it is `interrupted`, and `resume` undoes it.
* When a step cannot be undone, the transaction is `stuck`, and says so; `undo` tries again.

States: `running`, `applied`, `failed` (all is undone), `undone` (somebody asked for it), `interrupted` (it waits for `resume`), `stuck`.
"""

from __future__ import annotations

import errno
import logging
import time
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeVar

import attrs
import trio

from mk9p.errors import NineError, translate
from mk9p.tree import join, split

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from .journal import Journal

log = logging.getLogger("mk9p.kernels")

T = TypeVar("T")
Words = tuple[str, ...]
State = Literal["running", "applied", "failed", "undone", "interrupted", "stuck"]
OPEN: Final = ("running", "interrupted", "stuck")  # states in which something is still to be done

STUCK: Final = "; and step "  # what follows the first error
KEPT: Final = 64  # transactions that are over: enough to look back on, and what a start reads
LONGEST: Final = 4096  # records after which the journal is written anew


@attrs.frozen
class Step:
    """What to do, and what undoes it when it is done."""

    do: Words
    undo: Words


class World(Protocol):
    """What steps change."""

    def own(self, words: Words) -> bool:
        """Say whether the words change only what this process itself keeps: then `replay` does them."""
        ...

    def replay(self, words: Words) -> None:
        """Do words of its own; also those that the journal says an earlier process has done. Raises OSError with the reason, and nothing is done."""
        ...

    def kept(self) -> Iterator[Words]:
        """Return the words that make what this process keeps, for the `replay` of a later one."""
        ...

    async def note(self, words: Words) -> str:
        """Return what `restore` needs, before other words are done."""
        ...

    async def perform(self, words: Words) -> None:
        """Do other words. Raises OSError with the reason; then a part may be done."""
        ...

    async def restore(self, words: Words, note: str) -> None:
        """Have it as the note says, however far the words came: all, a part, nothing. Twice is no harm."""
        ...


@attrs.define(eq=False)
class Tx:
    """One transaction. `done` is how many steps are done, `notes` are those of the steps that have begun."""

    number: int
    what: str
    steps: list[Step]
    state: State = "running"
    done: int = 0
    notes: list[str] = attrs.Factory(list)
    error: str = ""
    errno: int = errno.EIO
    began: int = attrs.field(factory=time.time_ns)
    ended: int = 0
    undoes: Tx | None = None
    """The one that is undone when this one is applied; not known any more after a restart."""


@attrs.define(eq=False)
class Transactions:
    """All transactions of one World. Their tasks are in `nursery`; `report` gets `tx NUMBER STATE WHAT`."""

    world: World
    journal: Journal
    nursery: trio.Nursery
    report: Callable[..., None]
    txs: dict[int, Tx] = attrs.field(factory=dict, init=False)
    next: int = attrs.field(default=1, init=False)
    _one: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _records: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        strange = 0
        for words in self.journal.read:
            try:
                self._replay(words)
            except (OSError, ValueError, IndexError):
                strange += 1
        if strange:
            why = f"{strange} lines say nothing to this version"
            self.report("damaged", f"{self.journal.path}: {why}; the file as it was is {self.journal.copy()}")
        if self.journal.damage:
            self.report("damaged", self.journal.damage)
        for tx in self.txs.values():
            if tx.state == "running":
                tx.state, tx.error = "interrupted", "interrupted by the end of the server"
                self.report("tx", tx.number, tx.state, tx.what)
        self._records = len(self.journal.read)
        self._try_compact()

    async def run(self, what: str, plan: Callable[[], Awaitable[Sequence[Step]]]) -> Tx:
        """Run a transaction: `plan` gives its steps when its turn has come, or raises what is wrong with it; no steps are no transaction.

        Raises the NineError of the step that failed, with everything as before. If cancelled, the transaction goes on.
        """

        async def go() -> Tx:
            tx = await self._begin(what, list(await plan()))
            if tx.state != "applied":
                raise NineError(tx.errno, tx.error)
            return tx

        return await self.alone(what, go)

    async def undo(self, number: int) -> None:
        """Undo an applied transaction, or what is left of one that is interrupted or stuck; forget one that is undone. Raises ENOENT for none,
        and the error of the step that could not be undone. If cancelled, it goes on."""

        async def go() -> None:
            tx = self.txs.get(number)
            if tx is None:
                raise NineError(errno.ENOENT)
            if tx.state in ("failed", "undone"):
                await self._record(("gone", number))
                del self.txs[number]
            elif tx.state == "applied":
                await self._undo_applied(tx)
            else:
                failed = await self._back(tx, "undone")
                if failed is not None:
                    raise failed

        await self.alone(f"undo {number}", go)

    async def resume(self, concerned: Callable[[Words], bool]) -> None:
        """Undo the interrupted transactions whose steps, as far as something of them is left, all satisfy `concerned` or are the World's own."""

        async def go() -> None:
            for tx in sorted(self.txs.values(), key=lambda tx: -tx.number):
                left = [step.do for step in tx.steps[: len(tx.notes)]]
                if tx.state == "interrupted" and all(self.world.own(words) or concerned(words) for words in left):
                    await self._back(tx, "failed")

        await self.alone("resume", go)

    async def alone(self, what: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do some work while no transaction runs, in a task that the caller's end does not end. Raises its error as a NineError."""
        over = trio.Event()
        outcome: list[T] = []
        failure: list[NineError] = []

        async def go() -> None:
            try:
                async with self._one:
                    outcome.append(await work())
            except Exception as error:
                failure.append(_told(what, error))
            finally:
                over.set()

        self.nursery.start_soon(go)
        await over.wait()
        if outcome:
            return outcome[0]
        raise failure[0] if failure else NineError(errno.EIO, f"{what}: interrupted by the end of the server")

    async def _begin(self, what: str, steps: list[Step], undoes: Tx | None = None) -> Tx:
        tx = Tx(self.next, what, steps, undoes=undoes)
        if not steps:
            tx.state = "applied"
            return tx
        tx.notes.append(await self._note(steps[0]))
        await self._record(*_lines_of(tx), ("doing", tx.number, 0, tx.notes[0]))
        self.next += 1
        self.txs[tx.number] = tx
        await self._forward(tx)
        return tx

    async def _note(self, step: Step) -> str:
        return "" if self.world.own(step.do) else await self.world.note(step.do)

    async def _forward(self, tx: Tx) -> None:
        """Do the steps, of which the first has its note."""
        try:
            while True:
                step = tx.steps[tx.done]
                if self.world.own(step.do):
                    self.world.replay(step.do)
                else:
                    await self.world.perform(step.do)
                tx.done += 1
                if tx.done == len(tx.steps):
                    break
                note = await self._note(tx.steps[tx.done])
                await self._record(("done", tx.number, tx.done), ("doing", tx.number, tx.done, note))
                tx.notes.append(note)
            await self._end(tx, "applied", ("done", tx.number, tx.done))
        except Exception as error:
            told = _told(tx.what, error)
            tx.error, tx.errno = told.ename, told.errno
            await self._back(tx, "failed")

    async def _undo_applied(self, tx: Tx) -> None:
        """Undo an applied transaction by another: all or nothing."""
        steps = [Step(step.undo, step.do) for step in reversed(tx.steps)]
        other = await self._begin(f"undo {tx.number}", steps, tx)
        if other.state != "applied":
            raise NineError(other.errno, other.error)

    async def _back(self, tx: Tx, state: State) -> NineError | None:
        """Undo the steps that have begun, the last one first, and end in this state; or be stuck, and return why."""
        try:
            while tx.notes:
                at = len(tx.notes) - 1
                step = tx.steps[at]
                if not self.world.own(step.do):
                    await self.world.restore(step.do, tx.notes[at])
                elif at < tx.done:
                    self.world.replay(step.undo)
                tx.notes.pop()
                tx.done = min(tx.done, at)
                await self._try_record(("back", tx.number, at))
        except Exception as error:
            told = _told(tx.what, error)
            first = tx.error.partition(STUCK)[0]
            tx.error = f"{first}{STUCK}{len(tx.notes)} ({join(step.do)}) cannot be undone: {told.ename}"
            tx.state = "stuck"
            self.report("tx", tx.number, tx.state, tx.what, tx.error)
            await self._try_record(("end", tx.number, tx.state, tx.errno, tx.error, 0))
            return told
        await self._end(tx, state)
        return None

    async def _end(self, tx: Tx, state: State, *before: Sequence[object]) -> None:
        """End a transaction. Raises the OSError of a disk that does not take it as applied."""
        ended = time.time_ns()
        line = ("end", tx.number, state, tx.errno, tx.error, ended)
        undone = tx.undoes if state == "applied" else None
        if state == "applied":
            # in one go, or a start between the two would let somebody undo it twice
            also = [] if undone is None else [("end", undone.number, "undone", undone.errno, undone.error, ended)]
            await self._record(*before, line, *also)
        else:
            await self._try_record(line)
        tx.state, tx.ended = state, ended
        self.report("tx", tx.number, state, tx.what, *([tx.error] if tx.error else []))
        if undone is not None:
            undone.state, undone.ended, undone.done = "undone", ended, 0
            self.report("tx", undone.number, undone.state, undone.what)
        over = [number for number, other in self.txs.items() if other.state not in OPEN]
        for number in over[:-KEPT]:
            del self.txs[number]
        if self._records > LONGEST:
            self._try_compact()

    async def _record(self, *lines: Sequence[object]) -> None:
        await trio.to_thread.run_sync(self.journal.add, *lines)
        self._records += len(lines)

    async def _try_record(self, *lines: Sequence[object]) -> None:
        """Record what is true whether it can be written or not: a full disk does not stop the undoing. A later start may undo it once more."""
        try:
            await self._record(*lines)
        except OSError as error:
            self.report("unwritten", str(error))

    def _replay(self, words: list[str]) -> None:
        """Take one line of the journal. The checksum says that we wrote it, so its words need no other check. Raises ValueError, IndexError, and what
        the World says, for a line of a later version."""
        match words:
            case ["keep", *rest]:
                self.world.replay(tuple(rest))
            case ["tx", number, began, what]:
                self.txs[int(number)] = Tx(int(number), what, [], began=int(began))
                self.next = max(self.next, int(number) + 1)
            case ["next", number]:
                self.next = int(number)
            case ["gone", number]:
                self.txs.pop(int(number), None)
            case ["step" | "doing" | "done" | "was" | "back" | "end" as word, number, *rest]:
                if int(number) in self.txs:
                    self._replay_tx(self.txs[int(number)], word, rest)
            case _:
                raise ValueError("no line of ours")

    def _replay_tx(self, tx: Tx, word: str, rest: list[str]) -> None:
        """Take a line about a transaction. Its counts are absolute, so a line that could not be written before it is no harm."""
        match word, rest:
            case "step", [do, undo]:
                tx.steps.append(Step(tuple(split(do)), tuple(split(undo))))
            case "doing", [at, note]:
                tx.notes[int(at) :] = [note]
            case "done", [done]:
                for step in tx.steps[tx.done : int(done)]:
                    if self.world.own(step.do):
                        self.world.replay(step.do)
                tx.done = int(done)
            case "was", [done]:  # and `keep` has what that did
                tx.done = int(done)
            case "back", [at]:
                self._replay_back(tx, int(at))
            case "end", [state, number, error, ended]:
                if state == "undone" and tx.state == "applied":  # another one undid it
                    tx.done = 0
                elif state in ("failed", "undone"):
                    self._replay_back(tx, 0)
                tx.state, tx.errno, tx.error, tx.ended = state, int(number), error, int(ended)  # type: ignore[assignment]
            case _:
                raise ValueError("no line of ours")

    def _replay_back(self, tx: Tx, at: int) -> None:
        for step in reversed(tx.steps[at : tx.done]):
            if self.world.own(step.do):
                self.world.replay(step.undo)
        tx.done = min(tx.done, at)
        del tx.notes[at:]

    def _try_compact(self) -> None:
        try:
            self._compact()
        except OSError as error:  # the old one is as good
            self.report("unwritten", str(error))

    def _compact(self) -> None:
        """Write the journal anew: what the world keeps, and the transactions that are kept."""
        lines: list[Sequence[object]] = [("next", self.next), *(("keep", *words) for words in self.world.kept())]
        for tx in self.txs.values():
            lines += [*_lines_of(tx), ("was", tx.number, tx.done)]
            lines += [("doing", tx.number, at, note) for at, note in enumerate(tx.notes)]
            if tx.state != "running":  # undoing is no news here: done is 0 then
                lines.append(("end", tx.number, tx.state, tx.errno, tx.error, tx.ended))
        self.journal.rewrite(lines)
        self._records = len(lines)


def _lines_of(tx: Tx) -> list[Sequence[object]]:
    steps = [("step", tx.number, join(step.do), join(step.undo)) for step in tx.steps]
    return [("tx", tx.number, tx.began, tx.what), *steps]


def _told(what: str, error: BaseException) -> NineError:
    """Return an error as its user sees it; one that is our bug is logged."""
    if isinstance(error, OSError | ValueError):
        return translate(error)
    log.error("%s: a bug", what, exc_info=error)
    return NineError(errno.EIO, "internal error")
