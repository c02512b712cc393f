"""What the server keeps for clients: bytes, fids and open files, counted for each connection and each user, with limits for a user and for all of
them.

Theory
* Whatever a client can make a server keep without an end is counted where it begins, and again where it ends: a fid and the names that lead to it,
  an open file, a listing that is being read, an attribute that is being written, locks, waiting requests and what came with them, what was
  received and what is to be sent. The charge in bytes is what was measured, a little more rather than less.
* An *account* is what one connection holds as one user. A user, the *holder*, has one for each of their connections, and there is a limit for all
  of these together: so more connections give nobody more. Before an attach, whoever is at the other end of the link is the holder; afterwards too,
  if nobody vouches for the user (shares.py).
* All holders together have a limit too, and a part of it is only for root (and the user who runs the server): so nobody else can take everything,
  and root can still look, and end it.
* A *meter* counts one thing for one account. It is granted some in advance: so counting is an addition and a comparison. The sum of all grants is
  kept, so that a new grant costs the same with ten connections and with 10,000. A refusal always comes from exact sums: it first takes back grants
  that others have not used. Grants become smaller as the room does, so that this is rarely needed.
* A fid notes what was charged for it, and the charge goes with it; charges for a connection alone go with the connection.
"""

import errno
import os
import resource
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from mk9p.auth import NONE, Policy, Principal
from mk9p.errors import NineError
from mk9p.server.limits import Limits
from mk9p.server.shares import owns, whose
from mk9p.session import Session

if TYPE_CHECKING:
    from mk9p.dial import Link
    from mk9p.tree import Open

BLOCK: Final = 1 << 16  # bytes granted at once
SPARE: Final = 16  # the part of a user's bytes that is for waiting requests, so a user who has much else can still ask
FEW: Final = 256  # fids, and files, granted at once
PART: Final = 16  # the part of what is left that is granted at once at most

# Bytes, as measured (tests/bench/memory.py).
# A fid, its number, and its place in a table. A table in which fids come and go is twice as large as one that only grew, and is there twice while
# Python makes it anew.
FID: Final = 304
PLACE: Final = 208  # a name that was walked, and its path; add its letters, and what its node takes
FILE: Final = 1024  # an open file
LOCK: Final = 768  # a locked range: what is noted here, and what the kernel keeps
# A file in a listing of 9P2000. Add its name twice, and what its node takes plus a half, because somebody has yet to walk to it.
ENTRY: Final = 192
WAITING: Final = 6400  # a request that waits: its task, its coroutines
FLUSH: Final = 512  # one that waits for the request that it flushes
RELAYED: Final = 512  # a fid, or a request, of another server
PLANNED: Final = 1536  # a walk that has crossed, whose way is kept (crossing.py)
CONNECTION: Final = 12288  # its tables; add its receive buffer


class Meter:
    """Counts one thing for one account: `used`, and how much may be used before it must ask `pool`."""

    __slots__ = ("granted", "pool", "used")

    def __init__(self, pool: "Pool") -> None:
        self.pool = pool
        self.used = self.granted = 0
        pool.meters[self] = None

    def take(self, n: int) -> None:
        """Use `n` more. Raises NineError, and uses nothing, if the user, or all users together, would have too much."""
        self.used += n
        if self.used > self.granted:
            try:
                self.pool.grant(self)
            except BaseException:
                self.used -= n
                raise

    @property
    def full(self) -> bool:
        """Tell whether its user, or all users together, have everything that they may have, including the spare part."""
        pool = self.pool
        if self.used > self.granted:  # it has come already, so limits do not matter
            pool.set(self, self.used)
        return pool.full

    def more(self) -> None:
        """Ask for what is used already; the caller takes it back if that is refused. Raises as `take`."""
        if self.used > self.granted:
            self.pool.grant(self)


class Pool:
    """One thing that the accounts of a user have together: `most` of it, and `spare` beyond that for what has come already and waits.

    `granted` is the sum of what its meters were granted, which is never less than what they use.
    """

    __slots__ = ("granted", "meters", "most", "refusal", "spare", "whole")

    def __init__(self, most: int, whole: "Whole", refusal: Callable[[int], NineError], spare: int = 0) -> None:
        self.most, self.whole, self.refusal, self.spare = most - spare, whole, refusal, spare
        self.meters: dict[Any, None] = {}
        self.granted = 0

    @property
    def used(self) -> int:
        used: int = sum(meter.used for meter in self.meters)
        return used

    @property
    def full(self) -> bool:
        """Tell whether they have all of it, or all users together do, including the spare part."""
        most = self.most + self.spare
        if self.granted > most:
            self.take_back()
        return self.granted > most or self.whole.room(self) < 0

    def set(self, meter: Any, granted: int) -> None:
        """Grant a meter so much in all."""
        more = granted - meter.granted
        meter.granted = granted
        self.granted += more
        self.whole.granted += more

    def take_back(self, asks: Any = None) -> None:
        """Take back what was granted and is not used, except from the meter that asks for more."""
        was = self.granted
        for meter in self.meters:
            if meter is not asks:
                meter.granted = meter.used
        self.granted = sum(meter.granted for meter in self.meters)
        self.whole.granted += self.granted - was

    def grant(self, meter: Any, least: int = 0) -> None:
        """Let a meter that has used up its grant go on, with `least` more if there is so much. Raises NineError if it may not."""
        used = meter.used
        room = self.most - self.granted + meter.granted - used
        if room < least:
            self.take_back(meter)
            room = self.most - self.granted + meter.granted - used
        if room < 0:
            raise self.refusal(self.most)
        wanted = least + used - meter.granted
        left = self.whole.room(self, meter, wanted) + meter.granted - used
        if left < 0:
            raise self.whole.refusal(self.whole.most)
        ahead = min(self.whole.block, room // PART, left // PART)
        self.set(meter, used + max(ahead, min(least, room, left)))


@attrs.define(eq=False)
class Whole:
    """One thing that all users have together. `kept` of it is for the users whose pools are in `roots`. `granted`: the sum of all that was."""

    most: int
    kept: int
    block: int
    refusal: Callable[[int], NineError]
    pools: dict[Pool, None] = attrs.field(factory=dict)
    roots: dict[Pool, None] = attrs.field(factory=dict)
    granted: int = 0

    @property
    def used(self) -> int:
        used: int = sum(pool.used for pool in (*self.pools, *self.roots))
        return used

    def bounds(self) -> tuple[int, int]:
        """Return how much there is, and how much of it is for root."""
        return self.most, self.kept

    def room(self, pool: Pool, asks: Any = None, wanted: int = 0) -> int:
        """Return how much more than was granted the users of a pool may have; negative if they have too much already.

        If that is less than what a meter wants, it is an exact number: what others do not use was taken back.
        """
        most, kept = self.bounds()
        if pool not in self.roots:
            most -= kept
        if most - self.granted < wanted:
            for other in (*self.pools, *self.roots):
                other.take_back(asks)
        return most - self.granted


class Descriptors(Whole):
    """All open files that take a descriptor; a process has only so many."""

    def bounds(self) -> tuple[int, int]:
        most = min(self.most, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        return most, self.kept * most // self.most


@attrs.define(eq=False)
class Holder:
    """The owner of accounts: what they hold, together."""

    key: Hashable
    bytes: Pool
    fids: Pool
    files: Pool
    accounts: dict["Account", None] = attrs.field(factory=dict)


class Keeps(Protocol):
    """The parts of a connection that accounts need: what it has, and how many fids its tables may have."""

    account: "Account"
    accounts: dict[Principal, "Account"]
    session: Session[Any]
    relays: dict[int, Any]
    max_relays: int
    limits: Limits
    link: "Link"
    policy: Policy

    @property
    def open_fids(self) -> int:
        """How many fids it has, those of other servers included."""

    def shrink(self) -> None:
        """Give back what its link receives into, if nothing is in it."""


class Account(Meter):
    """What one connection holds as one user; as a meter it counts bytes."""

    __slots__ = ("connection", "fids", "files", "holder", "hows", "who")

    def __init__(self, connection: Keeps, holder: Holder, who: Principal) -> None:
        super().__init__(holder.bytes)
        self.connection, self.holder, self.who = connection, holder, who
        self.fids, self.files = Fids(self, holder.fids), Meter(holder.files)
        self.hows: dict[int, Open] = {}  # by the flags that they open files with
        holder.accounts[self] = None


class Fids:
    """The meter of the fids of an account: the session's table counts them, and grows as far as was granted."""

    __slots__ = ("_granted", "account", "pool")

    def __init__(self, account: Account, pool: "Pool") -> None:
        self.account, self.pool, self._granted = account, pool, 0
        pool.meters[self] = None

    @property
    def used(self) -> int:
        c, account = self.account.connection, self.account
        if len(c.accounts) < 2:
            return c.open_fids if c.account is account else 0
        mine = sum(f.account is account for f in c.session.fids.values())
        return mine + (c.open_fids - len(c.session.fids) if c.account is account else 0)

    @property
    def granted(self) -> int:
        return self._granted

    @granted.setter
    def granted(self, granted: int) -> None:
        c, ahead = self.account.connection, granted - self.used
        self._granted = granted
        c.session.max_fids = min(c.limits.fids, len(c.session.fids) + ahead)
        c.max_relays = min(c.limits.fids, len(c.relays) + ahead)

    def more(self) -> None:
        """Let the tables have one more. Raises EMFILE if its user, or the connection, has as many as it may."""
        c = self.account.connection
        self.pool.grant(self, 1)
        if len(c.session.fids) >= c.session.max_fids or len(c.relays) >= c.max_relays:
            most = c.limits.fids
            raise _connection_fids(most) if c.open_fids >= most else self.pool.refusal(self.pool.most)


def holder_of(c: Keeps, who: Principal) -> Hashable:
    """Return the holder of what a connection keeps as a user: a user by number, or by the name if they have none, if somebody vouches for them."""
    peer = c.link.peer
    if not c.policy.knows(peer):
        return whose(peer)
    return "uid" if who.uid != NONE.uid else "name", who.uid if who.uid != NONE.uid else who.name


def _is_root(who: Hashable) -> bool:
    return who in (("uid", 0), ("uid", os.geteuid()))


class Books:
    """The accounts of a server's clients."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.holders: dict[Hashable, Holder] = {}
        self.bytes = Whole(limits.bytes, limits.bytes // 4, BLOCK, _all_bytes)
        self.fids = Whole(limits.bytes // FID, 0, FEW, _all_fids)
        self.files = Descriptors(limits.files, limits.files // 4, FEW, _all_files)

    def holder(self, key: Hashable, *, root: bool) -> Holder:
        """Return a holder, old or new. `root`: what is kept for root is for them too."""
        holder = self.holders.get(key)
        if holder is None:
            limits = self.limits
            most = limits.user_bytes
            holder = self.holders[key] = Holder(
                key,
                Pool(most, self.bytes, _bytes, most // SPARE),
                Pool(limits.user_fids, self.fids, _fids),
                Pool(limits.user_files, self.files, _files),
            )
            for whole, pool in self._pools(holder):
                (whole.roots if root else whole.pools)[pool] = None
        return holder

    def _pools(self, holder: Holder) -> Iterable[tuple[Whole, Pool]]:
        """Return bytes, fids and files, as `leave` wants them."""
        return (self.bytes, holder.bytes), (self.fids, holder.fids), (self.files, holder.files)

    def stranger(self, c: Keeps) -> Account:
        """Return a new account of a connection on which nobody has attached."""
        peer = c.link.peer
        key = whose(peer)
        return Account(c, self.holder(key, root=owns(peer)), NONE)

    def account(self, c: Keeps, who: Principal) -> Account:
        """Return a new account of a connection and a user."""
        key = holder_of(c, who)
        return Account(c, self.holder(key, root=_is_root(key)), who)

    def leave(self, account: Account) -> None:
        """Close an account; with the last one forget its holder."""
        holder = account.holder
        del holder.accounts[account]
        meters: tuple[Any, ...] = account, account.fids, account.files
        for (whole, pool), meter in zip(self._pools(holder), meters, strict=True):
            del pool.meters[meter]
            pool.granted -= meter.granted
            whole.granted -= meter.granted
            if not holder.accounts:
                del (whole.roots if pool in whole.roots else whole.pools)[pool]
        if not holder.accounts:
            del self.holders[holder.key]


def _bytes(most: int) -> NineError:
    return NineError(errno.ENOMEM, f"this user has {most} bytes here already")


def _fids(most: int) -> NineError:
    return NineError(errno.EMFILE, f"all {most} fids of this user are in use")


def _connection_fids(most: int) -> NineError:
    return NineError(errno.EMFILE, f"all {most} fids of this connection are in use")


def _files(most: int) -> NineError:
    return NineError(errno.EMFILE, f"this user has {most} files open already")


def _all_bytes(most: int) -> NineError:
    return NineError(errno.ENOMEM, f"all users together have as much of {most} bytes as may be had")


def _all_fids(most: int) -> NineError:
    return NineError(errno.ENFILE, f"all {most} fids of this server are in use")


def _all_files(most: int) -> NineError:
    return NineError(errno.ENFILE, "all users together have as many files open as may be")
