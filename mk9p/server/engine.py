"""The server: its connections, from their beginning to their end. leader.py says how their requests are served.

A client that does not attach in time, breaks the protocol, or does not take its replies cannot stay. When a client goes, for whatever reason, the
server cancels its requests and closes its files, and then its link.
"""

import contextlib
import errno
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic_ns
from typing import Any, Final

import trio

from mk9p.auth import Policy, Principal
from mk9p.authority.deciding import Authority
from mk9p.dial import Link, Listener
from mk9p.errors import NineError
from mk9p.lease.gate import Gate
from mk9p.lease.wish import Wish
from mk9p.server.accounts import Books
from mk9p.server.beginning import NONE, STALE, Beginning
from mk9p.server.closing import close_all, end, free
from mk9p.server.connection import Call, Common, Connection
from mk9p.server.dispatch import calls
from mk9p.server.halves import Halves
from mk9p.server.hops import Patience
from mk9p.server.leader import Leader
from mk9p.server.leased import changing, writer
from mk9p.server.limits import MIN_MSIZE, Limits
from mk9p.server.links import IN, Links
from mk9p.server.listings import Listings
from mk9p.server.owed import PATIENCE
from mk9p.server.passing import draw_back, drop, lost, tell
from mk9p.server.refusals import line, origin, refuse, refuse_peer
from mk9p.server.shares import Shares
from mk9p.server.tally import Tally
from mk9p.server.turns import SLICE, Slices
from mk9p.server.workers import Workers
from mk9p.tree import Handle, Node
from mk9p.wire import Dialect, codec
from mk9p.wire import messages as m

log = logging.getLogger("mk9p.server")

# requests that are cancelled at once: they end in the same round of the scheduler, before anybody has a turn
CANCELLED: Final = 32


class Server:
    """A served tree. `add` links by hand, or let `serve` listen; `run` does the work and ends only when it is cancelled."""

    def __init__(
        self,
        root: Node,
        *,
        limits: Limits | None = None,
        tally: Tally | None = None,
        authority: Authority | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.root = root
        self.authority = authority or Authority()
        self.authority.whole = root
        self.limits = limits or Limits()
        self.tally = tally or Tally()
        self.connections = self.tally.connections
        self.links, self.books, self.slices = Links(), Books(self.limits), Slices()
        self.shares = Shares(self.limits, self.links.turns)
        self.common = Common(
            self.limits,
            self.links,
            self.books,
            self.shares,
            self.slices,
            Listings(self.slices),
            Patience(PATIENCE),
            refuse=self.tally.refuse,
            authority=self.authority,
            gate=gate,
            hang_up=self.hang_up,
            draw_back=draw_back,
        )
        if gate is not None:
            gate.writers = partial(self._writer, gate)
            gate.sent = partial(self._sent, gate)
        self.halves = Halves()
        self.workers = Workers(Leader(self.links, self.halves, self._begin_anew).lead)
        self.deserted = trio.Event()  # set when the last client of all has left; a new one makes a new event
        self._nursery: trio.Nursery | None = None
        # clients that have not attached yet, and until when they may take their time
        self._strangers: dict[Connection, float] = {}
        self._knock = trio.Event()  # a stranger came where there was none
        self._calls: dict[Dialect | None, list[Call | None]] = {}  # None: before the first Tversion

    # life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve all links until cancelled; then close every link and every open file."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self.links.start = nursery.start_soon
                nursery.start_soon(self.workers.run)
                nursery.start_soon(self._watch_strangers)
                nursery.start_soon(self.common.patience.watch)
                nursery.start_soon(self.authority.watch)
                nursery.start_soon(self.halves.watch, self.limits.partial)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            with trio.CancelScope(shield=True):
                await self._give_up()
            for c in list(self.connections):
                self._unlink(c)
                c.link.close()
                with trio.CancelScope(shield=True):
                    await close_all(c)
                c.close_account()
            self.links.close()

    async def listen(
        self, listener: Listener, policy: Policy | None = None, *, lossy: bool = False, root: Node | None = None
    ) -> None:
        """Serve all clients of a listener, until cancelled. `lossy`: their links do not report when another program is at the other end.

        `root` is their tree, if it is not the server's own.
        """
        while True:
            link = await listener.accept()
            link.lossy = link.lossy or lossy
            with contextlib.suppress(NineError):
                self.add(link, policy, root=root)

    def add(self, link: Link, policy: Policy | None = None, *, root: Node | None = None) -> Connection:
        """Serve one more link; without a policy, only by the rules of auth.py. Raises EMFILE, after closing the link, if there are too many."""
        try:
            user = self.shares.enter(link.peer)
        except NineError as error:
            refuse_peer(self.tally, link.peer, "connections", str(error))
            link.close()
            raise
        c = Connection(link, root or self.root, policy or Policy(), self.common, user)
        if link.lossy:
            c.frames.resync(m.Tversion.type)
        try:
            self.links.wait_for(link.rfd, c, IN)
        except OSError:
            self.shares.leave(user)
            link.close()
            raise
        c.open_account()
        c.number = self.tally.enter(c)
        if c.stranger:
            self._strangers[c] = trio.current_time() + self.limits.handshake
            self._knock.set()
        if self.deserted.is_set():
            self.deserted = trio.Event()
        c.calls = self._calls_of(None)
        if log.isEnabledFor(logging.INFO):
            log.info(line("connected", number=c.number, **origin(link.peer)))
        return c

    def withdraw(self, root: Node, who: Principal, ended: Callable[[Handle], Awaitable[None] | None]) -> None:
        """End what the clients of the tree `root` have by a right that is less now.

        Their links to other servers as `who` end at once, and then their open files here, in turn. `ended` returns what waits until an open file is
        closed; None if it stays open.
        """
        for c in [c for c in self.connections if c.root is root]:
            for b in tuple(c.backends.values()):
                if b.way.who == who and not b.dead:
                    lost(c, b, "it is no longer granted")
            if self._nursery is not None:
                self._nursery.start_soon(self._end_files, c, ended)

    async def _end_files(self, c: Connection, ended: Callable[[Handle], Awaitable[None] | None]) -> None:
        ends = monotonic_ns() + SLICE // 4
        for f in list(c.session.fids.values()):
            if f.how is not None:
                await end(f, ended)
            if monotonic_ns() > ends:
                ends = await self.slices.next(c.user)

    def _writer(self, gate: Gate, wish: Wish) -> str | None:
        """Return who has something open for writing that a lease would cover."""
        covers = gate.covers(wish)
        return next((who for c in self.connections if (who := writer(c, gate, covers)) is not None), None)

    def _sent(self, gate: Gate, wish: Wish) -> Callable[[], bool]:
        """Take note of what was asked and may change what a lease is for; return what tells whether some of it is not answered yet."""
        some = [(c, *one) for c in self.connections for one in changing(c, gate, wish)]
        return lambda: any(not c.dead and table.get(tag) == what for c, table, tag, what in some)

    async def _watch_strangers(self) -> None:
        """Hang up on clients that do not attach in time. All have the same time, so the first to come is the first to go."""
        while True:
            self._knock = trio.Event()
            while self._strangers:
                c, until = next(iter(self._strangers.items()))
                if not c.greeted:
                    await trio.sleep_until(until)
                if self._strangers.pop(c, None) is not None and not c.greeted:
                    refuse(c, "handshake", f"it did not attach within {self.limits.handshake:g} s")
                    c.hang_up("it did not attach in time")
            await self._knock.wait()

    def _begin_anew(self, c: Connection, beginning: Beginning, size: int) -> None:
        """Begin anew with a Tversion that came in the middle of a frame, or say that there is no conversation, if nothing comes after it."""

        async def listen() -> None:
            if not await beginning.silence() or c.dead:
                return
            if size == STALE:
                if c.frames.sought is not None:
                    c.queue(NONE)
                    tell(c)
            else:
                log.warning(line("garbled", **origin(c.link.peer), text="half a frame, and a new conversation"))
                beginning.begin(size)
                c.again()

        assert self._nursery is not None
        self._nursery.start_soon(listen)

    def hang_up(self, c: Connection, reason: str) -> None:
        """End a connection: cancel its requests, close its files, then its link."""
        if c.dead:
            return
        if log.isEnabledFor(logging.INFO) and not c.refused:
            users = ",".join(c.users) or "-"
            log.info(line("ended", number=c.number, **origin(c.link.peer), user=users, text=reason))
        old = self._unlink(c)
        assert self._nursery is not None
        self._nursery.start_soon(self._bury, c, old)

    def _unlink(self, c: Connection) -> list[dict[int, Any]]:
        c.dead = True
        c.out.clear()
        c.gone += c.out_size
        c.out_size = 0
        c.ready.clear()
        self.links.warm.forget(c)
        self._strangers.pop(c, None)
        for fd in {c.link.rfd, c.link.wfd}:
            self.links.forget(fd)
        return drop(c)

    async def _bury(self, c: Connection, old: list[dict[int, Any]]) -> None:
        with trio.CancelScope(shield=True):
            await self._end_requests(c)
            await close_all(c)
            for table in old:
                await free(c, table)
        c.link.close()
        self.tally.leave(c)
        self.shares.leave(c.user)
        c.close_account()
        if not self.connections:
            self.deserted.set()

    async def _give_up(self) -> None:
        """Give up the requests that wait without a task, of all clients, and wait for their end."""
        async with trio.open_nursery() as nursery:
            self.links.start = nursery.start_soon
            for c in self.connections:
                for request in list(c.session.tags.values()):
                    if request.cancel is not None:
                        request.cancel()

    async def _end_requests(self, c: Connection) -> None:
        """Cancel what runs; drop what has not run yet, the last first, so that this starts nothing. Wait for the end of all.

        Leave out a Tversion that asks for it.
        """
        session = c.session
        for number, request in enumerate(reversed(list(session.tags.values())), 1):
            if session.tags.get(request.tag) is not request:
                continue
            if request.cancel is not None:
                request.cancel()
            elif request.type != m.Tflush.type:
                session.drop(request)
            if number % CANCELLED == 0:
                await self.slices.next(c.user)
        while any(request.cancel is not None and request.type != m.Tversion.type for request in session.tags.values()):
            await c.quiet.park()

    # Tversion

    def _calls_of(self, dialect: Dialect | None) -> list[Call | None]:
        """Return what answers each type of message; all connections of a dialect have the same list."""
        table = self._calls.get(dialect)
        if table is None:
            table = self._calls[dialect] = [None] * 256 if dialect is None else [*calls(dialect)]
            table[m.Tversion.type] = codec(Dialect.P9, m.Tversion.type).unpack, self._version
        return table

    async def _version(self, c: Connection, tag: int, msize: int, version: str) -> bytes:
        """Start a conversation anew: earlier requests are cancelled, all fids clunked (version(5))."""
        if msize < MIN_MSIZE:
            refuse(c, "version", f"msize {msize} is too small")
            raise NineError(errno.EINVAL, f"msize {msize} is too small: {MIN_MSIZE} at least")
        old = drop(c)
        if c.session.tags or c.session.fids:
            c.held = True  # nothing that comes after may overtake it
            c.wait()
            try:
                await self._end_requests(c)
                await close_all(c)
                for table in old:
                    await free(c, table)
            finally:
                c.held = False
                c.again()
        dialect = Dialect.of(version)
        if dialect is None:
            refuse(c, "version", f"it speaks {version}")
            return c.reply(m.Rversion, tag, msize, "unknown")
        c.speak(dialect)
        c.msize = min(msize, self.limits.msize)
        c.part()
        c.carry()
        c.calls = self._calls_of(dialect)
        return c.reply(m.Rversion, tag, c.msize, dialect.version)
