"""`Line`: the way to another 9P server, and the connection to it, which comes back when it was lost.

Theory
* A server is dialled when somebody first uses it, and again after it died. There is one attempt at a time, with a deadline, and its failure is the
  answer for all who ask within the next half second: the branch of a dead kernel says EIO at once, and a listing of it does not dial once for each
  file.
* The user of each request attaches with their own name and number on the one connection, at their first request. The server at the other end
  decides whether to believe that.
"""

import errno
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from secrets import token_bytes
from typing import Any, Final, TypeVar

import attrs
import trio

from mk9p.auth import Principal
from mk9p.client.agreement import MSIZE, attach
from mk9p.client.calls import Call, Lost
from mk9p.client.connection import Connection, TrioCall
from mk9p.client.handshake import open_connection
from mk9p.dial import Link, dial, parse
from mk9p.errors import NineError
from mk9p.recovery.again import may_repeat, maybe_done
from mk9p.tree.later import hand
from mk9p.tree.qids import Foreign
from mk9p.wire import MAXWELEM, Qid
from mk9p.wire import messages as m

T = TypeVar("T")

log = logging.getLogger("mk9p.compose")

AGAIN: Final = 0.1  # seconds between attempts while somebody waits for the server
SETTLING: Final = (
    30.0  # seconds after its start in which a kernel finds its disks: an emulated one on a busy machine takes ten
)
FRESH: Final = token_bytes(32)  # the secret of a process that keeps none


@attrs.define(eq=False)
class Line:
    """The way to another 9P server: its address, and the connection to it, made when it is first needed and again when it was lost.

    The tasks of its connections run in `nursery`. `name` identifies it: the paths of its files are made from it and `secret` (secret.py), so it
    should stay the same when the address changes. Errors show it, or what `called` gives. `on_change` is called with the server, whether it is up,
    and why it went down ("" if up), each time that changes, and `on_failure` with why there is no connection, each time that it cannot be reached;
    they may not wait and may not raise. `deadline` is how many seconds dialling, and attaching, may take; for `backoff` seconds after a failure there
    is no new attempt. Requests wait `wait` seconds for a server that is down, or that does not let them attach.
    `dialler` dials an address that is no dial string.
    """

    address: str
    nursery: trio.Nursery
    aname: str = attrs.field(default="", kw_only=True)
    name: str = attrs.field(default="", kw_only=True)
    called: Callable[[], str] | None = attrs.field(default=None, kw_only=True, repr=False)
    secret: bytes = attrs.field(default=FRESH, kw_only=True, repr=False)
    version: str = attrs.field(default="9P2000.L", kw_only=True)
    msize: int = attrs.field(default=MSIZE, kw_only=True)
    dialler: Callable[[str], Awaitable[Link]] = attrs.field(default=dial, kw_only=True)
    deadline: float = attrs.field(default=1.0, kw_only=True)
    backoff: float = attrs.field(default=0.5, kw_only=True)
    silence: float = attrs.field(default=10.0, kw_only=True)
    wait: float = attrs.field(default=0.0, kw_only=True)
    on_change: list[Callable[[Any, bool, str], None]] = attrs.field(factory=list, kw_only=True)
    on_failure: list[Callable[[str], None]] = attrs.field(factory=list, kw_only=True)

    connection: Connection | None = attrs.field(default=None, init=False)  # while it is up
    reason: str = attrs.field(default="it was not used yet", init=False)  # why there is none
    came: float = attrs.field(default=float("-inf"), init=False)  # when it was up last, on trio's clock
    _failed: float = attrs.field(default=float("-inf"), init=False)
    _dialling: trio.Event | None = attrs.field(default=None, init=False)
    # by user; an Event means that the attach is running
    _roots: dict[tuple[str, int], tuple[int, Qid] | trio.Event] = attrs.field(factory=dict, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    paths: Foreign = attrs.field(init=False, repr=False)  # of its files, as clients here see them
    # calls, and how long they may take
    _due: deque[tuple[float, TrioCall]] = attrs.field(factory=deque, init=False, repr=False)
    _expires: bool = attrs.field(default=False, init=False, repr=False)  # one task gives them up
    _expiring: trio.CancelScope | None = attrs.field(default=None, init=False, repr=False)
    moves: int = attrs.field(default=0, init=False)  # how often a file was renamed from here
    # it can be dialled any number of times: a serial line and given descriptors cannot
    many: bool = attrs.field(default=False, init=False)

    # who reaches the server by another connection says so here
    heard: Callable[[bool, str], None] = attrs.field(init=False, repr=False)
    _told: bool | None = attrs.field(default=None, init=False)  # what was said of it last

    def __attrs_post_init__(self) -> None:
        self.name, self.heard = self.name or self.address, self._heard
        self.paths = Foreign(blake2b(self.name.encode(), key=self.secret).digest())
        self.many = self.dialler is dial and parse(self.address).transport.redial
        self.waits(self.wait)

    def waits(self, seconds: float) -> None:
        """Let requests wait so long for a server that is down."""
        self.wait = seconds
        if seconds:
            # what is asked again must be known here: so who waits goes the general way (docs/recovery.md)
            self.many = False
            self.silence = max(self.silence, seconds)

    @property
    def shown(self) -> str:
        """Return its name for people."""
        return self.called() if self.called is not None else self.name

    @property
    def up(self) -> bool:
        """Tell whether there is a connection now."""
        return self.connection is not None

    @property
    def seen(self) -> bool:
        """Tell whether it was there when it was last heard of, by its connection or by another (`heard`)."""
        return bool(self._told)

    def close(self) -> None:
        """End the connection and never make one again."""
        self._closed = True
        self.reason = "it was closed here"
        if self.connection is not None:
            self.connection.end(self.reason)
        # which has raised all calls' errors
        if self._expiring is not None:
            self._expiring.cancel()

    async def connected(self) -> Connection:
        """Return the connection, and dial if there is none. Raises NineError(EIO) if there can be none now, or as long as there is to be waited."""
        until = trio.current_time() + self.wait
        while True:
            await self._attempt()
            if self.connection is not None:
                return self.connection
            left = until - trio.current_time()
            if left <= 0 or self._closed:
                raise NineError(errno.EIO, f"{self.shown} is down: {self.reason}")
            await trio.sleep(min(AGAIN, left))

    def outlast(self, lost: Lost, until: float | None, *, placed: bool = False) -> float:
        """Return until when a request may be made again that met the end of the connection, at first with None. Raises what its client gets if it
        may not. `placed`: it is about a file whose bytes have places."""
        if lost.type is not None and not may_repeat(lost.type, placed=placed):
            raise maybe_done(self.shown) from None
        now = trio.current_time()
        until = now + self.wait if until is None else until
        if now >= until or self._closed:
            raise NineError(errno.EIO, f"{self.shown} is down: {self.reason}") from None
        return until

    def settles(self) -> bool:
        """Tell whether what is not there may still come: the server is there again only for a moment, and there is to be waited."""
        return bool(self.wait) and trio.current_time() < self.came + min(self.wait, SETTLING)

    async def _attempt(self) -> None:
        """Dial if there is no connection, and no attempt has just failed; or wait for the attempt that runs."""
        if self.connection is not None:
            return
        resting = self._dialling is None and trio.current_time() < self._failed + (
            min(self.backoff, AGAIN) if self.wait else self.backoff
        )
        if not self._closed and not resting:
            # A task of its own dials: the first caller may be flushed while others wait for the same.
            if self._dialling is None:
                done = trio.Event()
                self.nursery.start_soon(self._dial, done)
                self._dialling = done
            await self._dialling.wait()

    async def _dial(self, done: trio.Event) -> None:
        try:
            connection = await open_connection(
                self.address,
                self.nursery,
                msize=self.msize,
                version=self.version,
                deadline=self.deadline,
                dialler=self.dialler,
            )
        except OSError as error:
            self._failed = trio.current_time()
            self._failing(str(error))
        except Exception:  # our bug must not end everything in the nursery
            log.exception("internal error: dialling %s", self.address)
            self._failed = trio.current_time()
            self._failing("internal error")
        else:
            if self._closed:
                connection.end(self.reason)
                return
            self.connection, self._roots, self.came = connection, {}, trio.current_time()
            connection.on_end.append(self._lost)
            self._tell(True, "")
        finally:
            self._dialling = None
            done.set()

    def _lost(self, reason: str) -> None:
        self.connection, self.reason = None, reason
        self._tell(False, reason)

    def _heard(self, up: bool, reason: str) -> None:
        if self.connection is None:
            self._tell(up, reason)
            if not up:
                self._failing(reason)

    def _failing(self, reason: str) -> None:
        self.reason = reason
        for tell in self.on_failure:
            tell(reason)

    def _tell(self, up: bool, reason: str) -> None:
        if up is self._told or (not up and self._told is None):
            return
        self._told = up
        for tell in self.on_change:
            tell(self, up, reason)

    async def soon(self, answer: Awaitable[T]) -> T:
        """Return an answer for which the other server need not wait; raises EIO if that server is silent."""
        with trio.move_on_after(self.silence):
            return await answer
        raise NineError(errno.EIO, f"{self.shown} does not answer")

    async def walk(self, connection: Connection, fid: int, names: tuple[str, ...]) -> tuple[int | None, Sequence[Qid]]:
        """Walk by names, at most MAXWELEM in a message. Return the new fid (None if the walk did not go all the way) and the qids.

        Raises what the server says of the first name, and EIO if it is silent.
        """
        at, found = fid, list[Qid]()
        try:
            while True:
                some = names[len(found) : len(found) + MAXWELEM]
                new = connection.new_fid()
                (qids,) = await self._prompt(connection.call(m.Twalk, at, new, some))
                if at != fid:
                    connection.clunk_nowait(at)
                at = new
                found += qids
                if len(qids) < len(some):
                    # walk(5) makes no fid then, but diod 1.0.24 does: this ends it. Other servers answer with an error
                    connection.clunk_nowait(new)
                    return None, found
                if len(found) == len(names):
                    return new, found
        except NineError:
            if not found:
                raise
            if at != fid:
                connection.clunk_nowait(at)
            return None, found

    async def _prompt(self, call: Call) -> tuple[Any, ...]:
        """Return the answer to a call that waits for nothing at the far end; raises EIO if the server is silent."""
        if not hand().now or not isinstance(call, TrioCall):
            return await self.soon(call.reply())
        due, now = self._due, trio.current_time()
        while due and due[0][1].left:
            due.popleft()
        due.append((now + self.silence, call))
        if not self._expires:
            self._expires = True
            self.nursery.start_soon(self._expire)
        reply = await call.kept()
        if reply is None:
            raise NineError(errno.EIO, f"{self.shown} does not answer")
        return reply

    async def _expire(self) -> None:
        """Give up calls that the server does not answer in time."""
        due = self._due
        with trio.CancelScope() as self._expiring:
            while due and not self._closed:
                until, call = due[0]
                if not call.left:
                    await trio.sleep_until(until)
                    call.expire()
                if due and due[0][1] is call:
                    due.popleft()
        self._expiring, self._expires = None, False

    async def root(self, who: Principal) -> tuple[Connection, int, Qid]:
        """Return the connection, and the fid (never clunk it) and the qid of the tree's root as a user sees it. Raises as `connected` and
        `attach`."""
        connection = await self.connected()
        roots, key = self._roots, (who.name, who.uid)
        while isinstance(found := roots.get(key), trio.Event):
            await found.wait()
        if found is None:
            event = roots[key] = trio.Event()
            try:
                # who waits for a server that is down waits for one that has just come up, too: an emulated one takes seconds
                with trio.move_on_after(max(self.deadline, self.wait)):
                    found = roots[key] = await attach(connection, who.name, who.uid, self.aname)
            finally:
                if found is None:
                    del roots[key]
                event.set()
        if found is None:
            raise NineError(errno.EIO, f"{self.shown} does not answer")
        return connection, *found
