"""`Booking`: takes what claims want (claims.py), and paths beside it, in one lease: together or not at all.

Theory
* What there is, kernels tell, and that takes a while. So the choice is made from what they said, and the book has the last word: if somebody else was
  faster, it refuses, and the choice is made again. Each time one of the two has got something, so this ends.
* Who waits is served in the order in which they came, as long as they want of the same kernels: a claim for a few CPUs does not overtake one for many
  that waits. A claim that all kernels together could not meet, were they free, is in nobody's way. Takes of a path do not wait for claims.
"""

import errno
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import attrs
import trio

from mk9p.auth import Principal, unlimited
from mk9p.errors import NineError
from mk9p.lease.book import Lease, busy
from mk9p.lease.claims import Claim, Offer, choose, free_in
from mk9p.lease.leases import Leases
from mk9p.lease.wish import MOST, Resource, Wish
from mk9p.tree.slices import in_slices

WAITING: Final = 16  # claims of one user: whenever something ends, each that waits asks all kernels
LOOK: Final = 5.0  # seconds until one who waits looks again, where nothing tells that something has changed


Find = Callable[[str, Principal], Awaitable[Resource]]
"""Finds what a path leads to for a user; raises ENOENT, EINVAL, EACCES."""
Offers = Callable[[Sequence[Claim], Principal], Awaitable[list[Offer]]]
"""Returns what there is of each kernel that will do for one of some claims, as far as a user may see it."""


@attrs.define(eq=False)
class Booked:
    """A request: what is wanted, in this order, and the wish that it becomes when that is found."""

    wanted: Sequence[str | Claim]
    wish: Wish
    who: Principal
    kernels: frozenset[str] | None = None
    """The kernels from which it may get something; None until they are known."""

    @property
    def claims(self) -> list[Claim]:
        return [one for one in self.wanted if isinstance(one, Claim)]


@attrs.define(eq=False)
class Booking:
    """The requests of one composer. `stir` tells them that something may be free now."""

    leases: Leases
    find: Find
    offers: Offers
    waiting: list[Booked] = attrs.field(factory=list)
    _stirred: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.leases.ended.append(self._ended)

    async def _ended(self, lease: Lease) -> None:
        self.stir()

    def stir(self) -> None:
        """Let those who wait look again."""
        self._stirred.set()
        self._stirred = trio.Event()

    async def take(self, booked: Booked, wait: float | None) -> Lease:
        """Take what is wanted, after waiting for at most `wait` seconds.

        Raises EBUSY if it is not free, ENOENT if there is no such kernel, EAGAIN if no place was found, ETIMEDOUT after waiting. If cancelled, it is
        not taken.
        """
        if wait is None:
            return await self._try(booked)
        # from here on a task runs this: what is asked of other servers inside the scope must not leave it (mk9p/tree/later.py)
        await trio.lowlevel.checkpoint()
        said = busy(booked.wish)
        wait_already = sum(other.wish.user == booked.wish.user for other in self.waiting)
        if wait_already >= WAITING and not unlimited(booked.who):
            raise NineError(errno.EAGAIN, f"{WAITING} claims of {booked.who.name} wait already")
        self.waiting.append(booked)
        try:
            for path, _ in booked.wish.resources:
                self.leases.events.emit("waits", booked.wish.number, path, booked.wish.mode, booked.wish.holder)
            with trio.move_on_after(wait):
                while True:
                    stirred = self._stirred
                    try:
                        return await self._try(booked)
                    except NineError as error:
                        if error.errno not in (errno.EBUSY, errno.EAGAIN, errno.ENOENT):
                            raise
                        said = error
                    with trio.move_on_after(LOOK):
                        await stirred.wait()
        finally:
            self.waiting.remove(booked)
            self.stir()  # it may have been in the way of others
        raise NineError(errno.ETIMEDOUT, f"{said}, still")

    async def _try(self, booked: Booked) -> Lease:
        offers = await self.offers(booked.claims, booked.who)
        paths = {one: await self.find(one, booked.who) for one in booked.wanted if isinstance(one, str)}
        refused: set[Resource] = set()
        able = await in_slices(choose(booked.claims, offers, lambda resource: True)) is not None
        booked.kernels = frozenset(offer.entry.name for offer in offers) if able else frozenset()
        if not able:
            raise NineError(errno.ENOENT, f"no kernel that is up has {booked.wish.path}")
        while True:
            self._in_order(booked)
            free = free_in(self.leases.book, booked.wish.mode)
            left = lambda resource: resource not in refused and free(resource)  # noqa: B023, E731 - called before the next round
            found = await in_slices(choose(booked.claims, offers, left))
            if found is None:
                raise NineError(errno.EBUSY, f"{booked.wish.path} is not free")
            if sum(map(len, found)) + len(paths) > MOST:
                raise NineError(errno.ENOSPC, f"a lease is for {MOST} resources at most")
            there: dict[Resource, Resource] = {}
            for resource in (resource for part in found for resource in part):
                now = await self._now(resource, booked)
                if (
                    now is None
                    or not free(now)
                    or self.leases.vetoed(attrs.evolve(booked.wish, path=now.path, key=now.key))
                ):
                    refused.add(resource)
                else:
                    there[resource] = now
            if len(there) < sum(len(part) for part in found):
                continue
            parts = iter(found)
            first, *more = [
                resource
                for one in booked.wanted
                for resource in ([paths[one]] if isinstance(one, str) else [there[some] for some in next(parts)])
            ]
            wish = attrs.evolve(booked.wish, path=first.path, key=first.key, more=tuple(more))
            try:
                return await self.leases.take(wish)
            except NineError as error:
                still = free_in(self.leases.book, wish.mode)
                if error.errno != errno.EBUSY or all(still(now) for now in there.values()):
                    raise  # not because of what was chosen: a path is taken, or this one holds a lease

    def _in_order(self, booked: Booked) -> None:
        """Raise EBUSY while an earlier request waits for the same kernels."""
        for other in self.waiting:
            if other is booked:
                return
            if other.kernels is None or other.kernels & (booked.kernels or frozenset()):
                raise busy(other.wish)

    async def _now(self, resource: Resource, booked: Booked) -> Resource | None:
        """Return what was chosen as the namespace has it now; None if it is gone, or its kernel is, or the user may not write there."""
        try:
            return await self.find(resource.path, booked.who)
        except OSError:
            return None
