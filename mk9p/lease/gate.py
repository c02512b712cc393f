"""`Gate`: keeps leases where files are opened and changed.

Theory
* The server asks before it opens a file for writing, makes, changes, renames or removes one: only the holder of an exclusive lease may do that to
  what is leased, and to the ctl beside it, whose words change it too: `ctl` of its directory, NAMEctl, and what `beside` says. While there is no
  exclusive lease, that costs one look at a number.
* What the holder opens for writing is `Fenced`: it writes as long as the lease lasts. When it ends, writes that are under way are waited for, and all
  later ones are EIO. So nothing of the holder arrives after the first write of the next one. A fenced file is never left to another server
  (relay.py), which would not know.
* A lease is not granted while somebody has it open for writing already, whoever that is: they would not know of the lease, and write on.
* What was asked before a grant, and may change something where the resource is, is waited for before anybody is told of the grant: nobody else's
  write or change arrives after the holder's first, though its file is closed by then.
"""

import errno
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import chain
from typing import Final

import attrs
import trio

from mk9p.errors import NineError
from mk9p.lease.book import Lease, busy
from mk9p.lease.leases import Leases
from mk9p.lease.near import Spot
from mk9p.lease.wish import Key, Wish
from mk9p.status import Change
from mk9p.tree import Handle, Maybe, Node, ThroughHandle

CTL: Final = "ctl"
SETTLING: Final = 2.0  # seconds that a grant waits for what was sent before it
STEP: Final = 0.002  # seconds between two looks
ENDED: Final = "the lease of {} has ended"


def reaching(top: Spot, key: Key) -> Iterator[Iterable[int]]:
    """Give the numbers of those who cover a file: what they have, what is below it, and the ctl beside it."""
    spot: Spot | None = top
    for at, name in enumerate(key):
        assert spot is not None
        yield spot.here
        if at == len(key) - 1 and name.endswith(CTL):
            beside = spot.names.values() if name == CTL else filter(None, [spot.names.get(name.removesuffix(CTL))])
            yield from (one.here for one in beside)
        spot = spot.names.get(name)
        if spot is None:
            return
    assert spot is not None
    yield spot.here


def covering(wish: Wish) -> Callable[[Key], bool]:
    """Return what tells whether a wish covers a file."""
    top = Spot()
    for _, key in wish.resources:
        top.add(key, wish.number)
    return lambda key: any(reaching(top, key))


@attrs.define(eq=False)
class Gate:
    """The gate of a server: `writers` tells who has something open for writing that a wish covers, None for nobody."""

    leases: Leases
    key_of: Callable[[Node, str], Key]
    """Returns what a node is that was walked to by a path."""
    beside: Callable[[Key], Callable[[Key], bool] | None] = attrs.field(default=lambda key: None)
    """Returns what tells whether the words of a file change a leased resource; None where they change none."""
    writers: Callable[[Wish], str | None] = attrs.field(default=lambda wish: None)
    sent: Callable[[Wish], Callable[[], bool]] = attrs.field(default=lambda wish: lambda: False)
    """Takes note of what was asked and may change what a wish is for; returns what tells whether some of it is not answered yet."""
    _fenced: dict[int, "set[Fenced]"] = attrs.field(factory=dict, init=False)  # by token

    def __attrs_post_init__(self) -> None:
        self.leases.fences.append(self._fence)
        self.leases.vetoes.append(self._veto)
        self.leases.settles.append(self._settle)

    @property
    def active(self) -> bool:
        """Tell whether there is an exclusive lease."""
        top = self.leases.book.leases.exclusive
        return bool(top.below or top.here)

    def lease_of(self, key: Key, *, above: bool = False) -> Lease | None:
        """Return the exclusive lease that covers a file; `above`: or something below that file."""
        if not self.active:
            return None
        leases = self.leases.book.leases
        found = leases.earliest(
            chain(reaching(leases.exclusive, key), leases.exclusive.overlapping(key) if above else ())
        )
        if found is None and (changes := self.beside(key)) is not None:
            exclusive = (lease for lease in leases.values() if lease.wish.mode == "exclusive")
            return next((one for one in exclusive if any(changes(mine) for _, mine in one.wish.resources)), None)
        return found

    def require(self, key: Key, who: str, *, above: bool = False) -> None:
        """Raise EBUSY, which names the holder, if somebody else has leased a file, or if a lease of it is just ending."""
        lease = self.lease_of(key, above=above)
        if lease is not None:
            self._require_holder(lease, who)

    def _require_holder(self, lease: Lease, who: str) -> None:
        if lease.wish.home or lease.wish.holder != who or not self._lasts(lease):
            raise busy(lease)

    def _lasts(self, lease: Lease) -> bool:
        leases = self.leases
        now = leases.book.leases.get(lease.number)
        return (
            now is not None
            and now.token == lease.token
            and lease.number not in leases.book.ending
            and lease.number not in leases.book.granting
            and leases.clock.now() < now.until
        )

    def opened(self, key: Key, handle: Handle, who: str) -> Handle:
        """Return a file that was opened for writing as it is to be used: fenced, if it is leased. Raises EBUSY if somebody else has leased it
        meanwhile."""
        lease = self.lease_of(key)
        if lease is None:
            return handle
        self._require_holder(lease, who)
        fenced = Fenced(self, lease, handle)
        self._fenced.setdefault(lease.token, set()).add(fenced)
        return fenced

    def covers(self, wish: Wish) -> Callable[[Key], bool]:
        """Return what tells whether what is written to a file changes what a wish is for."""
        plain, keys = covering(wish), [key for _, key in wish.resources]

        def covered(key: Key) -> bool:
            changes = None if plain(key) else self.beside(key)
            return plain(key) if changes is None else any(map(changes, keys))

        return covered

    def forget(self, fenced: "Fenced") -> None:
        """Note that a fenced file is closed."""
        of_lease = self._fenced.get(fenced.lease.token)
        if of_lease is not None:
            of_lease.discard(fenced)
            if not of_lease:
                del self._fenced[fenced.lease.token]

    def _veto(self, wish: Wish) -> NineError | None:
        """Return why a lease cannot be granted although no other is in its way."""
        who = self.writers(wish) if wish.mode == "exclusive" else None
        return None if who is None else NineError(errno.EBUSY, f"{who} has {wish.path} open for writing")

    async def _settle(self, wish: Wish) -> None:
        """Wait for what was sent before, now that nothing more of that kind is. Raises EBUSY for what takes too long."""
        if wish.mode != "exclusive":
            return
        left = self.sent(wish)
        with trio.move_on_after(SETTLING):
            while left():  # noqa: ASYNC110 - it ends in many places, none of which is to know of this
                await trio.sleep(STEP)
            return
        raise NineError(errno.EBUSY, f"{wish.path} is being changed, for {SETTLING:.0f} s already")

    async def _fence(self, lease: Lease) -> None:
        """Let nothing more be written under a lease, and wait for what is under way."""
        for fenced in tuple(self._fenced.get(lease.token, ())):
            await fenced.end()


class Fenced(ThroughHandle):
    """A file that is open for writing under a lease."""

    def __init__(self, gate: Gate, lease: Lease, handle: Handle) -> None:
        super().__init__(handle)
        self.gate, self.lease = gate, lease
        self.over = False
        self.prompt = False
        self._running = 0
        self._idle = trio.Event()

    async def end(self) -> None:
        """Refuse all writes from now on, and wait for those that are under way."""
        self.over = True
        if self._running:
            await self._idle.wait()

    def _begin(self) -> None:
        if self.over or not self.gate._lasts(self.lease):
            raise NineError(errno.EIO, ENDED.format(self.lease.wish.path))

    async def _wait(self, done: Awaitable[int]) -> int:
        self._running += 1
        try:
            return await done
        finally:
            self._finished()

    async def _wait_change(self, done: Awaitable[None]) -> None:
        self._running += 1
        try:
            await done
        finally:
            self._finished()

    def _finished(self) -> None:
        self._running -= 1
        if not self._running:
            self._idle.set()
            self._idle = trio.Event()

    def write(self, offset: int, data: memoryview) -> Maybe[int]:
        self._begin()
        done = self.handle.write(offset, data)
        return done if isinstance(done, int) else self._wait(done)

    def change(self, change: Change) -> Maybe[None] | None:
        self._begin()
        done = self.handle.change(change)
        return None if done is None else self._wait_change(done)

    def close(self) -> Maybe[None]:
        self.gate.forget(self)
        return self.handle.close()
