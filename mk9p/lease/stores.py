"""`Store`: where the leases of a composer and the entries of its registry are kept, and what it hears of other composers. One interface, two stores:

Local     a file of this composer (store.py); nobody else has it
Shared    etcd (shared.py), which composers of several machines have together

Rules
* What a method has done holds when it returns. If it raises, nothing has changed: Changed says that another composer was faster, and EAGAIN that
  nobody can tell now; a grant that nobody answered is taken back as soon as somebody does.
* What others do is heard in the order in which it happened, and before any decision that rests on it is written: a decision that does not know all
  is Changed, and is made anew.
"""

import logging
from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from mk9p.errors import NineError
from mk9p.lease.book import Book, Lease
from mk9p.lease.registry import Entry
from mk9p.lease.store import Disk
from mk9p.lease.wish import Wish
from mk9p.tree.words import split

log = logging.getLogger("mk9p.lease")


class Changed(Exception):
    """Another composer was faster. What it did has been heard by now: decide anew."""


class Store(Protocol):
    """Keeps leases and entries. Its methods are not interrupted by cancelling."""

    told: Callable[[int, Lease | Wish | None], None]
    """Is told of each lease or wish of another composer, by a number below 0, and None when it is gone; and of one of ours that others have ended."""
    entered: Callable[[str, Entry | None], None]
    """Is told of each entry that is new or changed, by its name, and None when it is gone."""

    def load(self) -> Book:
        """Return all leases, what is waited for elsewhere, and the last token."""

    async def grant(self, lease: Lease) -> Lease:
        """Keep a new lease; return it with its token. Raises Changed, EAGAIN, EIO."""

    async def renew(self, lease: Lease) -> None:
        """Keep a lease that was renewed. Raises ESTALE if others have ended it, EAGAIN, EIO."""

    async def drop(self, lease: Lease) -> None:
        """Forget a lease. Raises EAGAIN, EIO."""

    async def queue(self, wish: Wish) -> None:
        """Let others know that somebody waits. Raises Changed, EAGAIN."""

    async def withdraw(self, number: int) -> None:
        """Let others know that somebody waits no more; if nobody can be told now, they are later."""

    async def clear(self, lease: Lease) -> None:
        """End a lease of another composer that is over, if that composer is gone. Raises EAGAIN."""

    async def stands(self, number: int) -> bool:
        """Tell whether what another composer has under a number is still there; if not, what became of it has been heard by then. Raises EAGAIN."""

    def entries(self) -> dict[str, Entry]:
        """Return the entries of the registry, by name."""

    async def enter(self, entry: Entry, instead: Entry | None) -> None:
        """Keep an entry, maybe instead of another of that name. Raises EEXIST if others have entered it, EAGAIN, EIO."""

    async def remove(self, entry: Entry) -> None:
        """Forget an entry. Raises EAGAIN, EIO."""

    def leave(self, entry: Entry) -> None:
        """Forget an entry that does not persist, soon."""


def nobody(what: object, change: object) -> None:
    """Hear nothing."""


@attrs.define(eq=False)
class Local:
    """A store that nobody else has: a file, or the memory of this process. Each call of it runs in a thread."""

    disk: Disk
    told: Callable[[int, Lease | Wish | None], None] = nobody
    entered: Callable[[str, Entry | None], None] = nobody
    _doubtful: set[int] = attrs.field(factory=set, init=False)
    """Numbers of grants that failed, and may be in the file in spite of it: before the next grant they are taken out."""

    async def _do(self, work: Callable[..., None], *args: object) -> None:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(work, *args)

    def load(self) -> Book:
        return self.disk.load()

    async def grant(self, lease: Lease) -> Lease:
        for number in tuple(self._doubtful):
            await self._do(self.disk.drop, number)
            self._doubtful.discard(number)
        try:
            await self._do(self.disk.put, lease)
        except OSError:
            self._doubtful.add(lease.number)
            raise
        return lease

    async def renew(self, lease: Lease) -> None:
        await self._do(self.disk.put, lease)

    async def drop(self, lease: Lease) -> None:
        await self._do(self.disk.drop, lease.number)

    async def queue(self, wish: Wish) -> None:
        return

    async def withdraw(self, number: int) -> None:
        return

    async def clear(self, lease: Lease) -> None:
        return

    async def stands(self, number: int) -> bool:
        return True

    def entries(self) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for name, (owner, line) in self.disk.entries().items():
            try:
                found[name] = Entry.parse([name, *split(line)[1:], "persist", "1"], owner)
            except NineError as error:  # one that nobody could enter now keeps nobody from the others
                log.error("the entry %r of %s is left out: %s", name, owner, error)
        return found

    async def enter(self, entry: Entry, instead: Entry | None) -> None:
        if entry.persists:
            await self._do(self.disk.enter, entry.name, entry.owner, entry.line)
        elif instead is not None and instead.persists:
            await self._do(self.disk.remove, entry.name)

    async def remove(self, entry: Entry) -> None:
        if entry.persists:
            await self._do(self.disk.remove, entry.name)

    def leave(self, entry: Entry) -> None:
        return
