"""`Book`: who has which lease, and who waits for one. Pure: no I/O, no clock; every method that needs the time gets it, in ns.

Rules
* A lease is for a resource, or for several that are had together, and for all that is below them. Two are in each other's way if a resource of one is
  the other's, or lies below it, unless both are shared.
* Whoever waits is served in the order in which they came: a request is granted when no lease is in its way, and no earlier request that waits. So
  shared ones that come later never starve an exclusive one.
* A lease ends when its holder gives it back, or at the end of its term, and not before; whether the holder is still there plays no part. While it
  ends, what was written under it is brought to an end (`ending`). Until that is done it is in the way of others.
* Each grant has a token that is greater than that of all grants before it, also of those before a restart. Whoever keeps the greatest token that they
  have seen can refuse a late word of an earlier holder.
"""

import errno
from collections.abc import Container, Iterable
from typing import Final

import attrs

from mk9p.errors import NineError
from mk9p.lease.near import Near, meeting
from mk9p.lease.wish import Wish

SHARE: Final = 2048
"""Resources of one user, in all leases that they have and wait for."""


@attrs.frozen
class Lease:
    """A lease that was granted."""

    wish: Wish
    token: int
    until: int

    @property
    def number(self) -> int:
        """The conversation that it belongs to."""
        return self.wish.number


@attrs.define
class Book:
    """The leases by number, the requests that wait in their order, and the last token."""

    leases: Near[Lease] = attrs.field(factory=Near)
    waiting: Near[Wish] = attrs.field(factory=Near)
    ending: set[int] = attrs.field(factory=set)
    granting: set[int] = attrs.field(factory=set, eq=False)
    """Leases that are in the way already, but that nobody has yet: they are just being written."""
    token: int = 0

    def blocks(self, wish: Wish) -> Lease | Wish | None:
        """Return what is in the way of a request: a lease, or an earlier request that waits; None if nothing is."""
        return self.leases.first(wish) or self.waiting.first(wish)

    def take(self, wish: Wish, now: int, *, wait: bool, veto: NineError | None = None) -> Lease | None:
        """Grant a request, or let it wait if `wait`, and then return None. `veto` says what else is in its way.

        Raises EBUSY, which names the holder, if it cannot be had now and does not wait, or if this conversation holds or waits for one already.
        """
        if (mine := self.leases.get(wish.number)) is not None:
            raise NineError(errno.EBUSY, f"this one holds {mine.wish.path}: give it back first")
        if wish.number in self.waiting:
            raise NineError(errno.EBUSY, "this one waits already")
        blocker = self.blocks(wish)
        if blocker is None and veto is None:
            return self._grant(wish, now)
        if not wait:
            raise veto if blocker is None and veto is not None else busy(blocker or wish, wish)
        self.waiting[wish.number] = wish
        return None

    def require_share(self, wish: Wish) -> None:
        """Raise ENOSPC if a user would have, and wait for, too many resources with these."""
        if self.leases.count[wish.user] + self.waiting.count[wish.user] + len(wish.resources) > SHARE:
            raise NineError(
                errno.ENOSPC, f"{wish.holder} may have {SHARE} resources, and wait for them, in all leases together"
            )

    def _grant(self, wish: Wish, now: int) -> Lease:
        self.token += 1
        lease = self.leases[wish.number] = Lease(wish, self.token, now + wish.term)
        return lease

    def withdraw(self, number: int) -> bool:
        """Let a request no longer wait; tell whether it did."""
        return self.waiting.pop(number, None) is not None

    def held(self, number: int, now: int) -> Lease:
        """Return the lease of a conversation. Raises ESTALE if it has none, or none any more."""
        lease = self.leases.get(number)
        if lease is None or number in self.ending or number in self.granting or now >= lease.until:
            raise NineError(errno.ESTALE, "it holds no lease, or none any more: take it again")
        return lease

    def renew(self, number: int, now: int, term: int | None = None) -> Lease:
        """Let a lease last for its term, or another one, from now on. Raises ESTALE after its end: others may have had it since."""
        lease = self.held(number, now)
        wish = lease.wish if term is None else attrs.evolve(lease.wish, term=term)
        renewed = self.leases[number] = attrs.evolve(lease, wish=wish, until=now + wish.term)
        return renewed

    def begin_end(self, number: int) -> Lease | None:
        """Begin to end a lease; None if there is none, or if it ends already."""
        if number not in self.leases or number in self.ending:
            return None
        self.ending.add(number)
        return self.leases[number]

    def end(self, number: int) -> None:
        """Note that a lease has ended."""
        self.ending.remove(number)
        self.forget(number)

    def forget(self, number: int) -> None:
        """Take a lease out."""
        del self.leases[number]

    def over(self, now: int) -> list[Lease]:
        """Return the leases of this composer whose term is over, and that do not end yet; the first that was over first."""
        found = [lease for lease in self._own() if lease.until <= now]
        return sorted(found, key=lambda lease: lease.until)

    def grantable(self, but: Container[int] = ()) -> Wish | None:
        """Return the first request of this composer that waits for nothing any more, without those of some numbers."""
        some = (wish for wish in self.waiting.values() if wish.number not in but and wish.number >= 0)
        return next((wish for wish in some if self.blocks(wish) is None), None)

    def promote(self, number: int, now: int) -> Lease:
        """Grant a request that waits for nothing any more."""
        return self._grant(self.waiting.pop(number), now)

    def next_end(self) -> int | None:
        """Return when the next term is over, of those leases that do not end yet."""
        return min((lease.until for lease in self._own()), default=None)

    def _own(self) -> Iterable[Lease]:
        others = self.ending | self.granting
        return (lease for number, lease in self.leases.items() if number >= 0 and number not in others)

    # what other composers do

    def hear(self, number: int, what: Lease | Wish | None) -> None:
        """Note what another composer has, or what its user waits for; None: that it has neither."""
        if isinstance(what, Wish):
            self.waiting.setdefault(number, what)
        else:
            self.waiting.pop(number, None)
        if isinstance(what, Lease):
            self.leases[number] = what
            self.token = max(self.token, what.token)
        elif number in self.leases:
            self.forget(number)


def busy(blocker: Lease | Wish, wanted: Wish | None = None) -> NineError:
    """Return the error for what somebody else has: of several resources, it names the first that is wanted too."""
    wish = blocker if isinstance(blocker, Wish) else blocker.wish
    meets = meeting(() if wanted is None else (mine.key for mine in wanted.resources))
    path = next((its.path for its in wish.resources if meets(its.key)), wish.path)
    if isinstance(blocker, Wish):
        return NineError(errno.EBUSY, f"{path} is waited for by {wish.who}")
    how = "has a shared lease of" if wish.mode == "shared" else "has leased"
    return NineError(errno.EBUSY, f"{wish.who} {how} {path}")
