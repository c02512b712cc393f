"""One client: its link, its session, what is to be sent, and the tables of its dialect.

Nothing here waits. Replies are queued in `out` and leave together: one send for each batch. Joining is faster than sendmsg below 4 KiB, so small
replies are joined and big ones are sent from where they are.
"""

import time
from collections import deque
from collections.abc import Callable
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from mk9p.auth import Policy, Principal
from mk9p.authority.deciding import Authority
from mk9p.dial import Link
from mk9p.errors import NineError
from mk9p.lease.gate import Gate
from mk9p.server.accounts import CONNECTION, FID, LOCK, PLANNED, RELAYED, WAITING, Account, Books
from mk9p.server.beginning import Beginning
from mk9p.server.counts import Counts
from mk9p.server.fids import Fid, Place
from mk9p.server.hops import Far, Hop, Known, Patience
from mk9p.server.limits import SMALL, Limits
from mk9p.server.links import IN, OUT, Links
from mk9p.server.listings import Listings
from mk9p.server.shares import Shares, is_stranger
from mk9p.server.turns import LAST, STRIDE, Party, Slices, User
from mk9p.session import Request, Session
from mk9p.tree import Node, Stat
from mk9p.wire import IOHDRSZ, NOFID, Dialect, FrameBuffer, codec
from mk9p.wire import messages as m
from mk9p.wire.framing import CAPACITY, MOST

if TYPE_CHECKING:
    from mk9p.server.named import Moves
    from mk9p.server.plans import Plan

USERS: Final = 16  # names of users that a connection keeps, to show them
JOIN: Final = 4096  # a smaller buffer is cheaper to copy than to hand to the kernel separately

Reply = bytes | None
Call = tuple[Callable[..., Any], Callable[..., Any]]  # the function that unpacks a message, and the op that answers it

# of replies, filled when they are needed
_PACKERS: Final[dict[Dialect, list[Any]]] = {dialect: [None] * 256 for dialect in Dialect}


@attrs.define(eq=False)
class Common:
    """What the connections of one server have in common.

    `refuse` counts a refused connection, by the reason; `hang_up` ends one, for a reason; `draw_back` ends its links to other servers.
    """

    limits: Limits
    links: Links
    books: Books
    shares: Shares
    slices: Slices
    listings: Listings
    patience: Patience
    refuse: Callable[[str], None]
    authority: Authority
    gate: Gate | None
    hang_up: "Callable[[Connection, str], None]"
    draw_back: "Callable[[Connection, str], None]"
    orderly: set[tuple[str, str]] = attrs.field(factory=set, init=False)
    """Servers, by address and tree, that do what they are asked in its order (asking.py)."""


class Connection(Party):
    """The state of one client's conversation."""

    def __init__(self, link: Link, root: Node, policy: Policy, common: Common, user: User) -> None:
        super().__init__(user, STRIDE)
        self.link, self.root, self.policy, self.common = link, root, policy, common
        limits = self.limits = common.limits
        self.links, self.slices, self.listings = common.links, common.slices, common.listings
        self.session: Session[Fid] = Session(max_fids=0, max_requests=limits.requests)
        self.frames = FrameBuffer(min(SMALL, limits.msize), CAPACITY)
        self.frames.put_away()  # it takes one when something comes (warm.py)
        self.beginning = Beginning(self.frames) if link.lossy else None
        self.msize = limits.msize
        self.dialect = Dialect.P9
        self.versioned = False
        self.packers = _PACKERS[Dialect.P9]
        self.calls: list[Call | None]  # by the type of message; others have the same list
        self.out: list[bytes | memoryview] = []
        self.out_size = 0
        # The fid that the request just before this one walked to, in the same buffer, and its status: nothing has come in between.
        self.walked: tuple[Fid, Stat] | None = None
        self.run = 0, 0, 0  # the last answered run: the kind of message, how many, and where the first begins
        self.gone = 0  # bytes that were in `out` and are no longer
        self.counts = Counts()
        self.quiet = trio.lowlevel.ParkingLot()  # tasks that wait for requests to finish
        self.held = False  # no further frame is read: a Tversion waits for the requests before it
        self.dead = False
        # A peer to whom nobody gave this line may not be silent for ever; an emulator's line is there long before somebody uses it.
        self.stranger = is_stranger(link.peer, policy) and not link.lossy
        self.greeted = False  # somebody has attached
        self.encoded: deque[int] = deque()  # fids whose encoded attributes are kept (ops_linux.py)
        self.attached = False  # the same, since the last Tversion
        self.users: dict[str, None] = {}  # the first few of them
        self.capability = ""  # what was shown on it last (ops_auth.py)
        self.carried = False  # it was shown in the conversation before this one
        self.refused = False  # and the log says so
        self.told: set[object] = set()  # what the log has said of its requests (failures.py)
        self.account: Account  # the account that the connection itself is on: that of the first who attached
        self.accounts: dict[Principal, Account]  # what it holds as each user who attached
        self.most = limits.out  # bytes of replies that may be queued before they are sent
        self.max_relays = 0  # how many fids of other servers it may have, as far as was granted
        self.room = len(self.frames.buf)  # bytes of its receive buffer, as counted
        self.narrow = False  # at some other server it may not do all (narrow.py)
        self.crowded = False  # its user had too much when that was last counted, once for each batch
        self.kept = link.kept  # bytes that its link keeps
        self.extra = 0  # bytes that are kept for it and not for a fid, on that account
        self.number = 0  # the number of this connection among all that this server has had
        self.came = time.time_ns()
        self.moves: Moves = {}
        self.locked = 0  # ranges that files of other servers have locked, at most (told.py)
        self.relays: dict[int, Hop] = {}  # fids of another server (relay.py)
        self.backends: dict[object, Far] = {}
        self.plans: dict[tuple[Place, bytes], Plan] = {}  # walks that have crossed
        self.asks: dict[tuple[Place, bytes], Plan] = {}  # those that go through nodes, all names at once
        self.asked: dict[int, Known] = {}  # what was passed on, by tag (blocks.py)
        self.choked: set[Far] = set()  # those of its servers that take no more bytes: no further frame is read
        self.ready: deque[Request] = deque()  # requests that waited for others, and may run now
        self.hung_up = False  # its peer is known to be gone
        self.last_turns = LAST  # turns that it has after that
        self.blocked = False  # the kernel takes no more bytes: wait for writable, and read nothing meanwhile

    def speak(self, dialect: Dialect) -> None:
        """Answer in a dialect from now on."""
        self.dialect, self.packers, self.versioned = dialect, _PACKERS[dialect], True

    def enter(self, number: int, f: Fid, account: Account) -> None:
        """Enter a new fid, and charge for it. Raises EEXIST, EMFILE, ENOMEM, EBADF, and then does not enter it."""
        session = self.session
        fids = session.fids
        if number in fids or number == NOFID or len(fids) >= session.max_fids:
            if number not in fids:
                account.fids.more()
            session.check(number)
        f.account = account
        place = f.place
        if place.uses:
            place.uses += 1
            account.used += FID
        elif (parent := place.parent).uses:  # one name behind a place in use: nearly always
            place.uses = 1
            parent.uses += 1
            account.used += FID + place.cost
        else:
            account.used += FID + place.hold()
        if account.used > account.granted:
            try:
                account.more()
            except BaseException:
                f.release()
                raise
        # only now: a table that refused fids have been in has grown by them
        fids[number] = f

    # the account for what is kept for it

    def open_account(self) -> None:
        """Begin to count what is kept for it: as the peer's, until somebody attaches."""
        self.account, self.extra = self.common.books.stranger(self), 0
        self.accounts = {}
        self.account.used += CONNECTION
        self.count()

    def account_of(self, who: Principal) -> Account:
        """Return what this connection holds as a user."""
        account = self.accounts.get(who)
        if account is None:
            account = self.accounts[who] = self.common.books.account(self, who)
        return account

    def move(self, who: Principal) -> None:
        """Count the connection for the first user who attaches, if somebody vouches for them. Raises EMFILE if they have too many."""
        peer = self.link.peer
        if not self.greeted and self.policy.knows(peer) and peer.uid != who.uid:
            self.common.shares.move((self, *self.backends.values()), self.user, peer, who)

    def greet(self, account: Account) -> None:
        """Note that somebody has attached: what is kept for the connection is on the account of the first who does."""
        self.greeted, self.refused = True, False
        self.frames.limit, self.frames.most, self.attached = self.msize, MOST, True
        if self.account not in self.accounts.values():
            self._belongs(account)
        if len(self.users) < USERS:
            self.users[account.who.name] = None

    def carry(self) -> None:
        """Keep a capability that was shown for the conversation that follows, and for no further one: another program may have the line then."""
        self.capability = "" if self.carried else self.capability
        self.carried = bool(self.capability)

    def part(self) -> None:
        """Forget who attached, whose fids are gone: the conversation begins anew, and what is kept for it counts for the peer."""
        self.frames.limit, self.frames.most, self.attached = min(self.msize, SMALL), CAPACITY, False
        if self.account in self.accounts.values():
            self._belongs(self.common.books.stranger(self))
        for account in self.accounts.values():
            self.common.books.leave(account)
        self.accounts = {}
        self.common.authority.forget(self)
        self.count()

    def close_account(self) -> None:
        """Forget what was kept for it: it has ended."""
        self.part()
        self.common.books.leave(self.account)

    def _belongs(self, account: Account) -> None:
        was, self.account = self.account, account
        mine = CONNECTION + self.extra
        account.used += mine
        was.used -= mine
        if was not in self.accounts.values():
            self.common.books.leave(was)

    def count(self) -> None:
        """Count what is kept for the connection and not for a fid, after it has changed. Limits do not matter here: it has come already."""
        session = self.session
        extra = self.room + self.kept + session.held + WAITING * len(session.tags)
        extra += self.out_size if self.blocked else 0
        if self.backends:
            extra += LOCK * self.locked + RELAYED * (len(self.relays) + len(self.asked)) + PLANNED * len(self.plans)
            extra += sum(len(b.frames.buf) for b in self.backends.values())
        if self.asks:
            extra += PLANNED * len(self.asks)
        self.account.used += extra - self.extra
        self.extra = extra
        full = self.crowded = self.full
        self.most = JOIN if full else self.limits.out
        if self.attached:
            self.frames.most = CAPACITY if full else MOST

    def forget_plans(self) -> None:
        """Forget how walks to other servers went."""
        self.plans.clear()
        self.asks.clear()

    @property
    def full(self) -> bool:
        """Tell whether the user of the connection has more than they may have."""
        return self.account.full

    def shrink(self) -> None:
        """Give back what its link receives into, if nothing is in it."""
        if not self.dead and self.frames.can_shrink:
            self.end_runs()
            self.frames.shrink()
            self.room = len(self.frames.buf)
            self.count()

    def cool(self) -> bool:
        """Leave the receive buffer to others, if nothing is in it; return whether it has none now (warm.py)."""
        if self.dead:
            return True
        if self.frames.pending or any(b.out or b.run[1] for b in self.backends.values()):
            return False
        self.frames.shrink()
        self.frames.put_away()
        self.takes_room(0)
        return True

    def takes_room(self, room: int) -> None:
        """Count a receive buffer that was taken or left."""
        more = room - self.room
        self.room = room
        self.extra += more
        self.account.used += more

    def make_room(self) -> bool:
        """Give back empty receive buffers of all the connections of one user; tell whether they have room now."""
        for account in self.account.holder.accounts:
            if account.connection.account is account:
                account.connection.shrink()
        return not self.full

    @property
    def open_fids(self) -> int:
        """How many fids it has, including those of other servers."""
        fids = self.session.fids
        return len(fids) + sum(number not in fids for number in self.relays)

    @property
    def in_flight(self) -> int:
        """How many of its requests wait, here or for other servers."""
        return len(self.session.tags) + len(self.asked)

    # replies

    def reply(self, message: type[m.Message], tag: int, *fields: Any) -> bytes:
        """Return a complete reply."""
        pack = self.packers[message.type]
        if pack is None:
            pack = self.packers[message.type] = codec(self.dialect, message.type).pack
        packed: bytes = pack(tag, *fields)
        return packed

    def error(self, tag: int, error: NineError) -> bytes:
        """Return the reply that says an error in this dialect."""
        if self.dialect is Dialect.L:
            return self.reply(m.Rlerror, tag, error.errno)
        most = min(self.msize - 13, 255)  # ERRMAX of Plan 9 is 128, of Linux 8192
        # Words that quote a client may contain what no 9P string may: a NUL, half a surrogate.
        ename = error.ename[:most].encode(errors="backslashreplace").decode().replace("\0", "\\0")[:most]
        while len(ename.encode()) > most:
            ename = ename[:-1]
        if self.dialect is Dialect.U:
            return self.reply(m.Rerror, tag, ename, error.errno)
        return self.reply(m.Rerror, tag, ename)

    def queue(self, data: bytes | memoryview) -> None:
        self.out.append(data)
        self.out_size += len(data)

    def send(self) -> None:
        """Send what is queued; when the kernel takes no more, wait for writable instead of readable. Raises OSError when the link is broken."""
        was, out = self.blocked, self.out
        self.blocked = False
        while out:
            try:
                if len(out) == 1:
                    count = self.link.send(out[0])
                elif self.out_size < JOIN * len(out):
                    out[:] = [joined] = [b"".join(out)]
                    count = self.link.send(joined)
                else:
                    count = self.link.sendmsg(out)
            except BlockingIOError:
                self.blocked = True
                break
            self.out_size -= count
            self.gone += count
            if not self.out_size:
                out.clear()
                break
            done = 0
            for piece in out:
                if count < len(piece):
                    break
                count -= len(piece)
                done += 1
            del out[:done]
            if count:
                out[0] = memoryview(out[0])[count:]
        if self.counts.runs:
            self.counts.batch()
        if self.blocked != was:
            self.wait()
            self.count()

    # its link, and those to other servers

    def wait(self) -> None:
        """Wait for what its links can do now. If a client does not read, nothing is read from it, or from other servers for it."""
        link, links = self.link, self.links
        idle = self.blocked or self.held or bool(self.choked)
        for b in self.backends.values():
            b.wait(receive=not self.blocked)
        if link.rfd == link.wfd:
            links.wait_for(link.rfd, self, OUT if self.blocked else 0 if idle else IN)
            return
        links.wait_for(link.rfd, self, 0 if idle else IN)
        if self.blocked:
            links.wait_for(link.wfd, self, OUT)
        else:
            links.forget(link.wfd)

    def again(self) -> None:
        """Read a link again that was not read for a while: its next requests may have been received already."""
        if not self.dead:
            self.counts.since = monotonic_ns()
            self.wait()
            self.links.call(self)

    def hang_up(self, reason: str) -> None:
        """End the connection: cancel its requests, close its files, then its link."""
        self.common.hang_up(self, reason)

    def draw_back(self, reason: str) -> None:
        """End its connections to other servers: what it has there is walked to again when it is next used."""
        self.common.draw_back(self, reason)

    def end_runs(self) -> None:
        """End the runs of frames in its buffer, which is about to change."""
        for b in self.backends.values():
            b.end_run(self.frames.buf)

    def limit(self, count: int) -> int:
        """Return how many bytes a Rread or Rreaddir may have at most."""
        return min(count, self.msize - IOHDRSZ)
