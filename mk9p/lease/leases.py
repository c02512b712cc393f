"""`Leases`: leases as users take, renew and give them, and as their terms end: the book, the store, and a clock.

Theory
* What somebody is told holds: a grant, a renewal and an end are in the store before anybody learns of them. One change goes on at a time (`_turn`);
  what it writes is written in a thread.
* A lease ends in two steps. First `fence` brings to an end what was written under it; then it is no longer in the way. Other changes go on
  meanwhile.
* A failed write to the store changes nothing: a request is refused, a renewal is refused, and an end is tried again until it succeeds, for the
  resource may not stay taken.
* Where several composers have one store, each decides with what it has heard of the others. If that was not all, the store says Changed, and it
  decides anew. Each ends its own leases by its own clock, and grants what its own users wait for.
"""

import errno
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol

import attrs
import trio

from mk9p.auth import Principal, unlimited
from mk9p.errors import NineError
from mk9p.lease.book import Book, Lease, busy
from mk9p.lease.near import Near
from mk9p.lease.stores import Changed, Store
from mk9p.lease.wish import SECOND, Wish
from mk9p.tree import Log

log = logging.getLogger("mk9p.lease")

AGAIN: Final = SECOND  # until an end or a grant that could not be written is tried again
SOON: Final = SECOND // 20  # between two questions whether a veto still holds
LOOK: Final = 3600 * SECOND  # no term is looked at more rarely


class Clock(Protocol):
    """The time, and waiting for one."""

    def now(self) -> int:
        """Return the time, ns since 1970. It never goes back, and no step of the system's clock changes it."""

    async def until(self, when: int) -> None:
        """Wait for a time."""


class Steady:
    """The time of 1970 at the start, and from then on what has passed, also while the machine slept: a step of the wall clock ends no lease, and
    prolongs none."""

    def __init__(self) -> None:
        self._since = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def now(self) -> int:
        return self._since + time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    async def until(self, when: int) -> None:
        await trio.sleep(max(when - self.now(), 0) / SECOND)


async def _nothing(lease: Lease) -> None:
    return


@attrs.define(eq=False)
class Leases:
    """The leases of one composer. `run` ends those whose term is over, until cancelled. `events` is told of everything."""

    store: Store
    clock: Clock = attrs.field(factory=Steady)
    events: Log = attrs.field(factory=Log)
    fences: list[Callable[[Lease], Awaitable[None]]] = attrs.field(factory=list)
    """Each brings to an end what was written under a lease; it may raise OSError, and is asked again then."""
    vetoes: list[Callable[[Wish], NineError | None]] = attrs.field(factory=list)
    """Each tells what else is in the way of a request now; while something is, it is asked again and again."""
    settles: list[Callable[[Wish], Awaitable[None]]] = attrs.field(factory=list)
    """Each waits until what was begun before a grant, and is in its way, is done; it may raise OSError: then there is no grant."""
    ended: list[Callable[[Lease], Awaitable[None]]] = attrs.field(factory=list)
    """Each is told of a lease that has ended."""
    book: Book = attrs.field(init=False)
    _turn: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _answers: dict[int, trio.Event] = attrs.field(factory=dict, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _vetoed: set[int] = attrs.field(factory=set, init=False)  # who waits for something else than a lease
    _look: bool = attrs.field(default=False, init=False)  # whether others have made room
    _unended: list[tuple[Lease, str]] = attrs.field(factory=list, init=False)  # what `run` is to end, and why
    _again: int = attrs.field(default=0, init=False)  # when to grant what could not be written; 0 for never
    _over: dict[int, trio.Event] = attrs.field(factory=dict, init=False)  # by number, of leases that end

    def __attrs_post_init__(self) -> None:
        self.book = self.store.load()
        self.store.told = self._told

    def _told(self, number: int, what: Lease | Wish | None) -> None:
        """Hear what another composer has done."""
        mine = self.book.leases.get(number)
        if number < 0:
            self.book.hear(number, what)
        elif what is None and mine is not None:  # others have ended one of ours
            self.book.leases[number] = attrs.evolve(mine, until=min(mine.until, self.clock.now()))
        if not isinstance(what, Wish):
            self._look = True
            self._changed.set()

    # what users do

    async def take(self, wish: Wish, wait: float | None = None) -> Lease:
        """Take a lease, after waiting for at most `wait` seconds.

        Raises EBUSY, which names the holder, ETIMEDOUT after waiting, ENOSPC for a user who would have too much. If cancelled, it is not taken; if it
        was granted just then, it is given back.
        """
        async with self._turn:
            if not unlimited(Principal(wish.holder, wish.uid)):
                self.book.require_share(wish)
            lease = await self._decided(wish, wait is not None)
            if lease is not None:
                return lease
            answer = self._answers[wish.number] = trio.Event()
            for path, _ in wish.resources:
                self.events.emit("waits", wish.number, path, wish.mode, wish.holder)
            if self.book.blocks(wish) is None:
                self._vetoed.add(wish.number)
                self._changed.set()
        try:
            with trio.move_on_after(wait or 0):
                await answer.wait()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await self._give_up(wish.number)
            raise
        if not answer.is_set():
            # half a withdrawal would leave it in the way for ever, or grant it to nobody
            with trio.CancelScope(shield=True):
                await self._withdraw(wish)
        del self._answers[wish.number]
        return self.book.held(wish.number, self.clock.now())

    async def _withdraw(self, wish: Wish) -> None:
        """Forget a request that has waited for long enough. Raises ETIMEDOUT, unless it was granted just then."""
        async with self._turn:
            blocker = self.book.blocks(wish)
            if self.book.withdraw(wish.number):
                del self._answers[wish.number]
                await self.store.withdraw(wish.number)
                await self._promote()  # it may have been in the way of others
                veto = self._veto(wish) if blocker is None else busy(blocker, wish)
                words = str(veto) if veto is not None else f"{wish.path} could not be had"
                raise NineError(errno.ETIMEDOUT, f"{words}, still")

    async def _decided(self, wish: Wish, wait: bool) -> Lease | None:
        """Grant a request, or queue it; None says that it waits. Raises EBUSY, and what the store says."""
        while True:
            blocker = self.book.blocks(wish)
            if isinstance(blocker, Lease) and blocker.number < 0 and blocker.until <= self.clock.now():
                await self.store.clear(blocker)
            elif (
                blocker is not None and blocker.number < 0 and not wait and not await self.store.stands(blocker.number)
            ):
                continue
            with suppress(Changed):
                lease = self.book.take(wish, self.clock.now(), wait=wait, veto=self._veto(wish))
                if lease is not None:
                    return await self._granted(lease)
                try:
                    await self.store.queue(wish)
                except BaseException:
                    self.book.withdraw(wish.number)
                    raise
                return None

    async def _give_up(self, number: int) -> None:
        """Forget a request that waits, or give back what it got."""
        async with self._turn:
            self._answers.pop(number, None)
            waited = self.book.withdraw(number)
            if waited:
                await self.store.withdraw(number)
                await self._promote()
        if not waited:
            with suppress(NineError):
                self.book.held(number, self.clock.now())
                await self._begin_end(number, "given")  # whoever gives up does not wait for a store that fails

    async def renew(self, number: int, term: int | None = None) -> Lease:
        """Let a lease last for its term, or for `term` ns, from now on. Raises ESTALE after its end."""
        async with self._turn:
            before = self.book.held(number, self.clock.now())
            lease = self.book.renew(number, self.clock.now(), term)
            try:
                await self.store.renew(lease)
            except BaseException:
                # it may have been done: then others believe in its new end
                self.book.leases[number] = attrs.evolve(before, until=min(before.until, self.book.leases[number].until))
                raise
            for path, _ in lease.wish.resources:
                self.events.emit("renewed", number, path, lease.wish.holder, lease.token, lease.until)
            self._changed.set()
            return lease

    async def give(self, number: int) -> None:
        """End a lease. It has ended when this returns, and what was written under it too. Raises ESTALE if it has ended already."""
        self.book.held(number, self.clock.now())
        await self._end(number, "given")

    # how they end

    async def run(self) -> None:
        """End the leases whose term is over, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                self._changed = trio.Event()
                for lease in self.book.over(self.clock.now()):
                    self._over.setdefault(lease.number, trio.Event())
                    self.book.begin_end(lease.number)
                    self._unended.append((lease, "ended"))
                while self._unended:
                    nursery.start_soon(self._finish, *self._unended.pop())
                if self._vetoed or self._look or 0 < self._again <= self.clock.now():
                    self._look, self._again = False, 0
                    async with self._turn:
                        await self._promote()
                    if self._look or self._unended:
                        continue
                    self._changed = trio.Event()
                latest = self.clock.now() + (SOON if self._vetoed else LOOK)
                latest = min(latest, self._again or latest)
                until = self.book.next_end()
                async with trio.open_nursery() as pause:
                    pause.start_soon(self._sleep, latest if until is None else min(until, latest), pause.cancel_scope)
                    await self._changed.wait()
                    pause.cancel_scope.cancel()

    async def _sleep(self, until: int, scope: trio.CancelScope) -> None:
        await self.clock.until(until)
        scope.cancel()

    async def _end(self, number: int, why: str) -> None:
        """End a lease, or wait until it has ended."""
        over = await self._begin_end(number, why)
        if not over.is_set():
            await over.wait()

    async def _begin_end(self, number: int, why: str) -> trio.Event:
        """End a lease if that can be written now, else have `run` go on; return what is set when it has ended."""
        over = self._over.setdefault(number, trio.Event())
        lease = self.book.begin_end(number)
        if lease is not None:
            with trio.CancelScope(shield=True):  # half an end would leave it in the way for ever
                done = await self._try_end(lease, why)
            if not done:
                self._unended.append((lease, why))
                self._changed.set()
        return over

    async def _finish(self, lease: Lease, why: str) -> None:
        while not await self._try_end(lease, why):
            await self.clock.until(self.clock.now() + AGAIN)

    async def _try_end(self, lease: Lease, why: str) -> bool:
        """End a lease; tell whether that is written."""
        wish = lease.wish
        try:
            for fence in self.fences:
                await fence(lease)
            async with self._turn:
                await self.store.drop(lease)
                self.book.end(lease.number)
                for tell in self.ended:
                    await tell(lease)
                for path, _ in wish.resources:
                    self.events.emit(why, lease.number, path, wish.holder, lease.token)
                self._over.pop(lease.number).set()
                await self._promote()
        except OSError as error:
            log.error("the lease of %s cannot end yet: %s", wish.path, error)
            return False
        return True

    def vetoed(self, wish: Wish) -> bool:
        """Tell whether something else than a lease is in the way of a request now."""
        return self._veto(wish) is not None

    def _veto(self, wish: Wish) -> NineError | None:
        return next((veto for ask in self.vetoes if (veto := ask(wish)) is not None), None)

    async def _promote(self) -> None:
        """Grant what can be granted now to those who wait."""
        self._vetoed = set()
        while (wish := self.book.grantable(self._vetoed)) is not None:
            if self._veto(wish) is not None:
                self._vetoed.add(wish.number)
                self._changed.set()
                continue
            before = dict(self.book.waiting)
            lease = self.book.promote(wish.number, self.clock.now())
            try:
                await self._granted(lease)
            except (OSError, Changed) as error:
                others = {number: other for number, other in self.book.waiting.items() if number not in before}
                left = {
                    number: other for number, other in before.items() if number in self.book.waiting or other is wish
                }
                self.book.waiting = Near(left | others)
                if isinstance(error, Changed):
                    continue
                log.error("the lease of %s cannot be granted yet: %s", wish.path, error)
                self._again = self.clock.now() + AGAIN
                self._changed.set()
                return
            self._answers[wish.number].set()

    async def _granted(self, lease: Lease) -> Lease:
        """Write a grant, and tell it; return it with its token. If that fails, it was none."""
        self.book.granting.add(lease.number)
        try:
            for settle in self.settles:
                await settle(lease.wish)
            kept = await self.store.grant(lease)
        except BaseException:
            self.book.forget(lease.number)
            raise
        finally:
            self.book.granting.discard(lease.number)
        self.book.leases[lease.number] = kept
        self.book.token = max(self.book.token, kept.token)
        wish = kept.wish
        for path, _ in wish.resources:
            self.events.emit("taken", kept.number, path, wish.mode, wish.holder, kept.token, kept.until)
        self._changed.set()
        return kept
