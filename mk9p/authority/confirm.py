"""`auth/confirm`: opens that wait for an operator's word (`ask` in a policy).

Theory
* An ask is `N WHO OPS PATH`, and stands in the file as long as somebody waits for it. All who wait for the same thing share one. The operator writes
  `allow N once`, `allow N always` or `deny N`. When nobody has answered in the policy's time, the answer is no.
* A reader gets what stands there, then what comes. What was answered meanwhile is left out, and nothing else is.
* Nobody can bury an operator in asks: `EACH` of one principal, `MOST` in all. Beyond that the answer is no, at once.
"""

import errno
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import attrs
import trio

from mk9p.authority.audit import printable
from mk9p.errors import NineError
from mk9p.scope import letters
from mk9p.tree import Ctl, Handle, Maybe, Open, StreamHandle, Waiters, decoded, join
from mk9p.tree.files import File
from mk9p.tree.words import lines, run, table

EACH: Final = 4  # asks of one principal at a time: a person opens few files at once
MOST: Final = 64  # in all: more than an operator can look at in a minute

Key = tuple[str, int, str]
"""Who asks, for which OPS, at which path."""


@attrs.define(eq=False)
class Ask:
    """Something that waits for an answer; `waiting` is how many opens wait for it."""

    number: int
    key: Key
    answered: trio.Event = attrs.field(factory=trio.Event)
    answer: bool = False
    waiting: int = 0

    @property
    def line(self) -> str:
        """As it stands in the file."""
        who, ops, path = self.key
        return f"{self.number} {join([printable(who), letters(ops), printable(path or '/')])}\n"


class Confirm(File):
    """The file, and those who wait for it. `always` is called with the key of an `allow N always`; what it raises is the writer's error."""

    def __init__(self, always: Callable[[Key], Maybe[None]]) -> None:
        super().__init__(0o600)
        self.pending: dict[int, Ask] = {}
        self.waiters = Waiters()
        self.next = 1
        self.said = Ctl({})
        self._always = always
        self._words = table({"allow": self.allow, "deny": self.deny})

    async def ask(self, who: str, ops: int, path: str, patience: float) -> bool:
        """Return the operator's answer, False if there is none in `patience` seconds. If cancelled, this open waits no more."""
        key = who, ops, path
        ask = next((ask for ask in self.pending.values() if ask.key == key), None)
        if ask is None:
            mine = sum(ask.key[0] == who for ask in self.pending.values())
            if mine >= EACH or len(self.pending) >= MOST:
                return False
            ask = self.pending[self.next] = Ask(self.next, key)
            self.next += 1
            self.waiters.wake_all()
        ask.waiting += 1
        try:
            with trio.move_on_after(patience):
                await ask.answered.wait()
        finally:
            ask.waiting -= 1
            if not ask.waiting:
                self.pending.pop(ask.number, None)
        return ask.answer

    def allow(self, n: int, how: Literal["once", "always"]) -> Maybe[None]:
        """Let those who wait for an ask open the file, now or always."""
        ask = self._asked(n)
        if how == "always":
            done = self._always(ask.key)
            if isinstance(done, Awaitable):
                return self._later(done, ask)
        self._settle(ask, answer=True)
        return None

    def deny(self, n: int) -> None:
        """Refuse an ask."""
        self._settle(self._asked(n), answer=False)

    async def _later(self, done: Awaitable[None], ask: Ask) -> None:
        await done
        self._settle(ask, answer=True)

    def _asked(self, n: int) -> Ask:
        ask = self.pending.get(n)
        if ask is None:
            raise NineError(errno.ENOENT, f"nobody waits for {n} any more")
        return ask

    def _settle(self, ask: Ask, *, answer: bool) -> None:
        self.pending.pop(ask.number, None)
        ask.answer = answer
        ask.answered.set()

    def open(self, how: Open) -> Maybe[Handle]:
        return StreamHandle.of(_Reader(self, how), how)


class _Reader:
    """One reader: the last ask that it has seen (waiting.Store). What is written to the file comes here too."""

    def __init__(self, confirm: Confirm, how: Open) -> None:
        self.confirm, self.how, self.seen = confirm, how, 0

    def wait(self) -> Awaitable[None]:
        return self.confirm.waiters.wait()

    def take(self, room: int) -> bytes | None:
        new = [ask for number, ask in self.confirm.pending.items() if number > self.seen]
        if not new:
            return None
        self.seen = new[-1].number
        return "".join(ask.line for ask in new).encode(errors="backslashreplace")

    def untake(self, message: bytes) -> None:
        self.seen = 0  # they stand there until they are answered

    def send(self, data: bytes) -> Maybe[int | None]:
        return self._run(lines(decoded(data)))

    async def _run(self, words: list[str]) -> None:
        with self.confirm.said.remembering(self.how.who):
            for line in words:
                done = run(self.confirm._words, line, self.how.who)
                if isinstance(done, Awaitable):
                    await done

    def close(self) -> None:
        return None
