"""`Shared`: the store on etcd, which composers of several machines have together.

Theory
* A decision rests on what was heard up to a revision. The transaction that writes it compares that nothing near it has been written since; so of two
  who decide at once, one is Changed. What has ended since only makes room. The revision of a grant is its token.
* No wall clock plays a part. The holder's composer counts a term from before it asks; every other counts from when it hears of it, and a little more
  (SLACK), because clocks do not go equally fast. So a holder has stopped before anybody else may begin.
* As long as a composer is there (etcd/session.py), only it ends its leases: it may still wait for a write. When it is gone, any other does, once the
  term is over. A lease lasts although its composer is gone: its holder may come again with the next one.
* Who waits, and an entry that does not persist, are bound to their composer's session, and go with it.
"""

import errno
import logging
from collections.abc import Callable
from contextlib import suppress
from secrets import token_hex
from typing import Final

import attrs
import trio

from mk9p.errors import NineError
from mk9p.etcd.records import Record, delete, get, newest, put, same, unchanged, untouched
from mk9p.etcd.session import HOMES
from mk9p.lease.book import Book, Lease
from mk9p.lease.leases import Clock, Steady
from mk9p.lease.places import MOMENT, Places
from mk9p.lease.registry import Entry
from mk9p.lease.stores import Changed, nobody
from mk9p.lease.turns import turn
from mk9p.lease.wish import SECOND, Wish
from mk9p.lease.written import (
    LEASE,
    MARK,
    REGISTRY,
    Written,
    boottime,
    entry_value,
    life,
    marks,
    near,
    note_of,
    owner_of,
    place,
    read_entry,
)

log = logging.getLogger("mk9p.lease")

SLACK: Final = 500
"""One part in so many: two clocks that ntpd slews differ by no more than 1 in 1000."""
LOOK: Final = 0.2  # seconds between two looks for leases that nobody ends


@attrs.define(eq=False)
class Shared(Places):
    """The store of the composers that have one etcd. `run` keeps it, until cancelled."""

    clock: Clock = attrs.field(factory=Steady)
    told: Callable[[int, Lease | Wish | None], None] = nobody
    entered: Callable[[str, Entry | None], None] = nobody
    _mine: dict[int, tuple[str, int]] = attrs.field(
        factory=dict, init=False
    )  # by number: the place, and since which revision
    _waiting: dict[int, Wish] = attrs.field(factory=dict, init=False)
    _entries: dict[str, Entry] = attrs.field(factory=dict, init=False)  # ours that do not persist
    _theirs: dict[str, Lease] = attrs.field(factory=dict, init=False)  # by place
    _numbers: dict[str, int] = attrs.field(factory=dict, init=False)
    _homes: set[str] = attrs.field(factory=set, init=False)  # the composers that are there
    _numbered: int = attrs.field(default=0, init=False)
    _life: str = attrs.field(factory=life, init=False)

    def __attrs_post_init__(self) -> None:
        self.mirror.heard.append(self._heard)
        self.session.restored.append(self._bind)

    # what others do, and what etcd has of ours

    def _heard(self, key: str, one: Record | None) -> None:
        at = key.removeprefix(self.prefix)
        if at.startswith(HOMES):
            (self._homes.discard if one is None else self._homes.add)(at.removeprefix(HOMES))
            return
        try:
            if at.startswith(LEASE) and not at.endswith(f"/{MARK}"):
                home, number = owner_of(at)
                if home == self.session.name:
                    self._heard_own(at, number, one)
                else:
                    self._heard_other(at, home, number, one)
            elif at.startswith(REGISTRY):
                name = at.removeprefix(REGISTRY)
                self.entered(name, None if one is None else self._entry(name, one))
        except (ValueError, NineError) as error:
            log.error("what etcd has at %r is not understood: %s", key, error)

    def _entry(self, name: str, one: Record) -> Entry:
        entry = read_entry(one.value, name)
        return attrs.evolve(entry, home="") if entry.home == self.session.name else entry

    def _heard_own(self, at: str, number: int, one: Record | None) -> None:
        mine, made = self._mine.get(number, ("", 0))
        if at in self._writing:
            return
        if mine != at:
            if one is not None:
                self._doubt(at)
        elif one is None and self.mirror.revision >= made:  # an older end is that of one with the same number before
            del self._mine[number]
            if number not in self._waiting:
                self.told(number, None)

    def _heard_other(self, at: str, home: str, there: int, one: Record | None) -> None:
        if one is None:
            self._theirs.pop(at, None)
            if (known := self._numbers.pop(at, None)) is not None:
                self.told(known, None)
            return
        if at not in self._numbers:
            self._numbered -= 1
            self._numbers[at] = self._numbered
        number = self._numbers[at]
        written = Written.read(one.value, number, home, there)
        if not written.held:
            self.told(number, written.wish)
            return
        term = written.wish.term
        until = self.clock.now() + term + term // SLACK + MOMENT
        self._theirs[at] = Lease(written.wish, written.token or one.written, until)
        self.told(number, self._theirs[at])

    def load(self) -> Book:
        book = Book()
        for key, one in sorted(self.mirror.kept.items(), key=lambda item: item[1].made):
            at = key.removeprefix(self.prefix)
            if not at.startswith(LEASE):
                continue
            with suppress(ValueError, NineError):
                home, number = owner_of(at)
                if home == self.session.name:
                    self._restore(book, at, number, one)
                elif at in self._theirs:
                    book.hear(self._numbers[at], self._theirs[at])
                else:
                    written = Written.read(one.value, self._numbers[at], home, number)
                    book.hear(self._numbers[at], written.wish)
        self._loaded.set()
        return book

    def _restore(self, book: Book, at: str, number: int, one: Record) -> None:
        """Take a lease of an earlier life of this composer, which ends when it did then."""
        written = Written.read(one.value, number, "")
        if not written.held:
            return
        left = written.end - boottime() if written.life == self._life else 0
        book.leases[number] = Lease(written.wish, written.token or one.written, self.clock.now() + left)
        book.token = max(book.token, written.token or one.written)
        self._mine[number] = at, one.made
        self._doubtful.discard(at)

    # leases

    def _written(self, wish: Wish, lease: Lease | None) -> Written:
        end = 0 if lease is None else boottime() + lease.until - self.clock.now()
        token = 0 if lease is None or wish.number not in self._mine or wish.number in self._waiting else lease.token
        return Written(wish, lease is not None, token, self._life, max(end, 0), token_hex(8))

    async def grant(self, lease: Lease) -> Lease:
        written = self._written(lease.wish, lease)
        outcome, made = await self._decide(lease.wish, written, 0)
        self._waiting.pop(lease.number, None)
        self._mine[lease.number] = place(lease.wish.key, self.session.name, lease.number), made
        return attrs.evolve(lease, token=outcome)

    async def queue(self, wish: Wish) -> None:
        _, made = await self._decide(wish, self._written(wish, None), self.session.lease)
        self._waiting[wish.number] = wish
        self._mine[wish.number] = place(wish.key, self.session.name, wish.number), made

    async def _decide(self, wish: Wish, written: Written, bound: int) -> tuple[int, int]:
        """Write what was decided; return the revision of that, and the one since which there is something at its place. Raises Changed, EAGAIN."""
        since = self.mirror.revision
        at, prefixes = place(wish.key, self.session.name, wish.number), [self.prefix + one for one in near(wish)]
        key = self.prefix + at
        _, made = self._mine.get(wish.number, ("", 0))
        compare = [same(key, made), *(unchanged(one, since) for one in prefixes)]
        changes = [put(key, written.value(), bound)]
        changes += [put(self.prefix + one, "", self.session.lease) for one in marks(wish)]
        outcome = await self._write(at, compare, changes, [newest(one) for one in prefixes])
        if outcome.done:
            return outcome.revision, made or outcome.revision
        there, *others = outcome.found[1:]
        if there and note_of(there[0].value) == written.note:
            return there[0].written, there[0].made
        latest = max((one[0].written for one in others if one), default=0)
        if latest > since:
            await self.mirror.reached(latest)
        else:
            await trio.sleep(MOMENT / SECOND)
        raise Changed

    async def renew(self, lease: Lease) -> None:
        at, made = self._mine[lease.number]
        key, written = self.prefix + at, self._written(lease.wish, lease)
        outcome = await self._write(at, [same(key, made)], [put(key, written.value())], [])
        if not outcome.done and not (outcome.found[1] and note_of(outcome.found[1][0].value) == written.note):
            self._mine.pop(lease.number, None)
            self.told(lease.number, None)
            raise NineError(errno.ESTALE, "others have ended it: take it again")

    async def drop(self, lease: Lease) -> None:
        if lease.number in self._mine:
            at, made = self._mine[lease.number]
            self.session.require()
            with trio.CancelScope(shield=True):
                await self.client.txn([same(self.prefix + at, made)], [delete(self.prefix + at)], [])
            self._mine.pop(lease.number, None)

    async def withdraw(self, number: int) -> None:
        self._waiting.pop(number, None)
        if number in self._mine:
            self._doubt(self._mine.pop(number)[0])

    async def clear(self, lease: Lease) -> None:
        at = next((at for at, one in self._theirs.items() if one.number == lease.number), None)
        if at is not None:
            await self._clear(at)

    async def stands(self, number: int) -> bool:
        at = next((at for at, one in self._numbers.items() if one == number), "")
        key = self.prefix + at
        before = self.mirror.kept.get(key)
        if before is None:
            return False
        self.session.require()
        (found,) = (await self.client.txn([], [get(key)], [])).found
        if found and found[0].made == before.made:
            return True
        await self.mirror.differs(key, before)
        return False

    async def _clear(self, at: str) -> None:
        """End a lease of a composer that is gone, if it has not been renewed since its end was heard of."""
        name = self._theirs[at].wish.home
        key, home = self.prefix + at, f"{self.prefix}{HOMES}{name}"
        one = self.mirror.kept.get(key)
        if one is not None and name not in self._homes:
            self.session.require()
            outcome = await self.client.txn([untouched(key, one.written), same(home, 0)], [delete(key)], [get(key)])
            if outcome.done:
                await self.mirror.reached(outcome.revision)

    # the registry

    def entries(self) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for key, one in self.mirror.kept.items():
            at = key.removeprefix(self.prefix)
            if at.startswith(REGISTRY):
                with suppress(ValueError, NineError):
                    found[at.removeprefix(REGISTRY)] = self._entry(at.removeprefix(REGISTRY), one)
        return found

    async def enter(self, entry: Entry, instead: Entry | None) -> None:
        at = f"{REGISTRY}{entry.name}"
        if at in self._doubtful:
            await self._take_away(at)
            self._doubtful.discard(at)
        before = self.mirror.kept.get(self.prefix + at)
        try:
            await self._enter(at, entry, before.written if before is not None and instead is not None else 0)
        except BaseException:
            self._doubt(at)  # it may be written although nobody knows, or nobody waits any more
            raise
        if entry.persists:
            self._entries.pop(entry.name, None)
        else:
            self._entries[entry.name] = entry

    async def _enter(self, at: str, entry: Entry, since: int) -> None:
        key, note = self.prefix + at, token_hex(8)
        value = entry_value(entry, self.session.name, note)
        change = put(key, value, 0 if entry.persists else self.session.lease)
        outcome = await self._write(at, [untouched(key, since)], [change], [])
        there = outcome.found[1] if not outcome.done else ()
        if outcome.done or (there and note_of(there[0].value) == note):
            await self.mirror.reached(outcome.revision if outcome.done else there[0].written)
            return
        if there:
            other = self._entry(entry.name, there[0])
            raise NineError(errno.EEXIST, f"{entry.name} is entered already, by {other.by}")
        raise NineError(errno.ENOENT, f"others have removed {entry.name}")

    async def remove(self, entry: Entry) -> None:
        self._entries.pop(entry.name, None)
        self.session.require()
        with trio.CancelScope(shield=True):
            await self.client.txn([], [delete(f"{self.prefix}{REGISTRY}{entry.name}")], [])

    def leave(self, entry: Entry) -> None:
        if self._entries.pop(entry.name, None) is not None:
            self._doubt(f"{REGISTRY}{entry.name}")

    # what is left to do

    def _wanted(self, at: str) -> bool:
        return any(at == mine for mine, _ in self._mine.values()) or at.removeprefix(REGISTRY) in self._entries

    def _is_ours(self, at: str, one: Record) -> bool:
        if at.startswith(LEASE):
            return True
        try:
            return not self._entry(at.removeprefix(REGISTRY), one).home and one.lease == self.session.lease
        except (ValueError, NineError):
            return False

    async def _bind(self) -> None:
        """Let others know again who waits here and what is entered here, after a session that was lost."""
        for number, wish in tuple(self._waiting.items()):
            at = place(wish.key, self.session.name, number)
            key, value = self.prefix + at, self._written(wish, None).value()
            self._writing.add(at)
            try:
                outcome = await self.client.txn([same(key, 0)], [put(key, value, self.session.lease)], [get(key)])
            finally:
                self._writing.discard(at)
            if not outcome.done and not outcome.found[0]:
                raise NineError(errno.EPROTO, f"etcd has nothing at {key}, and yet has it")
            made = outcome.revision if outcome.done else outcome.found[0][0].made
            if number in self._waiting:
                self._mine[number] = at, made
            else:
                self._doubt(at)
        for name, entry in tuple(self._entries.items()):
            try:
                await self._enter(f"{REGISTRY}{name}", entry, 0)
            except FileExistsError as error:
                log.warning("%s", error)
                if self._entries.get(name) is entry:
                    del self._entries[name]

    async def _reap(self) -> None:
        """End the leases of composers that are gone, when their terms are over, until cancelled."""
        while True:
            await trio.sleep(LOOK)
            now = self.clock.now()
            over = [(at, one) for at, one in self._theirs.items() if one.until <= now]
            after = {home: self._after(home) for home in {one.wish.home for _, one in over}}
            for at, lease in over:
                late = after[lease.wish.home]
                if late is not None and lease.until + late <= now and at in self._theirs:
                    with suppress(OSError):
                        await self._clear(at)

    def _after(self, home: str) -> int | None:
        """Return how long after their terms this composer ends the leases of one that is gone, ns; None if that is there."""
        if home in self._homes:
            return None
        return 0 if self._waiting else turn(home, self.session.name, self._homes)

    async def run(self) -> None:
        """Keep up with etcd until cancelled."""
        async with trio.open_nursery() as nursery:
            for task in (self.mirror.run, self.session.run, self._tidy, self._reap):
                nursery.start_soon(task)
