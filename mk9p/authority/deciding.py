"""`Authority`: decides, when somebody attaches, who they are and which tree they get; it knows the live sessions whose rights may end or change.

Theory
* The policy of the listener says who comes (mk9p/auth.py). The name of the tree may be a capability, which then says as whom, where and how much.
* Whoever shows a capability gets a guarded view of the tree (guard.py), and so does everybody where there are rules: then nobody has to attach again
  when the rules change. Everybody else gets the tree itself, so they pay nothing.
* A right that ends (revoked, expired) ends its sessions at once: what is open is closed, also at other servers, because the connection ends.
* When the rules for somebody change, they hold for all that is walked and opened from then on. What was left to another server comes back: the
  connection there is closed, and its fids are walked to again, and opened again, by the new rules.
"""

import errno
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol
from weakref import WeakKeyDictionary

import attrs
import trio

from mk9p.auth import Principal, Told
from mk9p.authority.audit import Audit
from mk9p.authority.book import Book
from mk9p.authority.guard import shown
from mk9p.authority.policy import Rules
from mk9p.authority.retold import Retold
from mk9p.authority.standing import Names, OneName, Standing
from mk9p.errors import NineError
from mk9p.scope import CAPABILITY, REFUSED, cleaned
from mk9p.tree import Maybe, Node, settle

LOOK: Final = 60.0  # seconds after which the wall clock is looked at again: somebody may have set it
LOST: Final = 1.0  # seconds after which lines that the audit log has lost are told


class Session(Protocol):
    """A connection, as far as a decision needs it."""

    @property
    def dead(self) -> bool:
        """Tell whether it has ended."""

    def hang_up(self, reason: str) -> None:
        """End it."""

    def draw_back(self, reason: str) -> None:
        """Take back from other servers what was left to them."""


class Verifier(Protocol):
    """Tells what a capability gives."""

    def verify(self, text: str, known: Principal, peer: Told) -> Maybe[Principal]:
        """Return the principal that a capability makes of whoever shows it, with `proof` "token" and a `scope`.

        `text` is what follows `cap!`, without a path; never log it. `known` is who the link says that they are, and `peer` what it tells. If root
        granted it, the principal has no number and `scope.as_root` is set; otherwise its number and groups are those of the one who granted it.
        Raises one NineError, EACCES with what is wrong in words.
        """


@attrs.frozen
class Decision:
    """What an attach gets: as whom, which tree, and the path in it at which the attach begins."""

    who: Principal
    root: Node
    path: str


@attrs.define(eq=False)
class Authority:
    """Decides for one server. `verifier` is None where capabilities are not taken, `book` where there are no rules.

    `names` tells which other names files have. `whole` is the server's own tree, in which a capability's path is: somebody who comes by a line with
    another tree, such as a guest, may have one.
    """

    verifier: Verifier | None = None
    book: Book | None = None
    names: Names = attrs.field(factory=OneName)
    audit: Audit = attrs.field(factory=Audit)
    watchers: list[Callable[[], Awaitable[None]]] = attrs.field(factory=list, init=False)
    """What runs as long as the server does, for those who add to it."""
    whole: Node | None = attrs.field(default=None, init=False)
    retold: Retold = attrs.field(factory=Retold, init=False)
    _sessions: "WeakKeyDictionary[Session, list[Standing]]" = attrs.field(factory=WeakKeyDictionary, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.audit.on_lost = self._wake
        if self.book is not None:
            self.book.on_change.append(self._learn)

    async def attach(self, session: Session, known: Principal, peer: Told, root: Node, aname: str) -> Decision:
        """Decide on an attach of `known`, who is who the listener's policy says. Raises EACCES, and what the verifier says."""
        who, path = known, aname
        if aname.startswith(CAPABILITY):
            text, _, below = aname.removeprefix(CAPABILITY).partition("/")
            who = await self._verified(text, known, peer)
            assert who.scope is not None
            path = who.scope.path + cleaned("/" + below)
            root = self.whole or root
        if who.scope is not None or self.book is not None:
            standing = Standing(who, peer.place, self.audit, self.book, self.names)
            if not standing.spot("").some:
                raise NineError(errno.EACCES)
            self._sessions.setdefault(session, []).append(standing)
            self._changed.set()
            root = shown(root, "", standing, acting(who))
        return Decision(who, root, path)

    def view(self, who: Principal, root: Node, place: str) -> Node:
        """Return a tree as a principal may use it now, for what is done in their name at a place. Raises EACCES for one who may do nothing."""
        if who.scope is None and self.book is None:
            return root
        standing = Standing(who, place, self.audit, self.book, self.names)
        if not standing.spot("").some:
            raise NineError(errno.EACCES)
        return shown(root, "", standing, acting(who))

    async def _verified(self, text: str, known: Principal, peer: Told) -> Principal:
        if self.verifier is None:
            raise NineError(errno.EACCES, "this server takes no capabilities")
        who = await settle(self.verifier.verify(text, known, peer))
        if who.scope is None or who.scope.expired(time.time_ns()):
            raise NineError(errno.EACCES, "the capability has expired")
        # a listener that refuses changes refuses them whatever somebody shows
        return attrs.evolve(who, readonly=who.readonly or known.readonly)

    def _wake(self) -> None:
        self._changed.set()

    def some(self, who: Principal) -> int:
        """Return the OPS that a principal has somewhere in their subtree."""
        standing = Standing(who, "", self.audit, self.book, self.names)
        return standing.verdict("" if who.scope is None else who.scope.path).some

    def refused(self, who: Principal, peer: Told, what: str, path: str, error: BaseException) -> None:
        """Write down that something was refused, once for each error."""
        if not getattr(error, "told", False):
            words = getattr(error, "ename", "")
            if words.startswith(
                REFUSED
            ):  # EACCES alone would be the same for one that is altered and one that has ended
                what += f":{words.removeprefix(REFUSED)}"
            self.audit.note(who, peer.place, what, path, error)
            if isinstance(error, NineError):
                error.told = True

    def renamed(self) -> None:
        """Judge anew for everybody: files may have other names now."""
        for standings in self._sessions.values():
            for standing in standings:
                standing.forget()

    def _learn(self, before: Rules) -> None:
        for session, standings in list(self._sessions.items()):
            changed = [standing for standing in standings if standing.learn()]
            if changed:
                session.draw_back("the rules have changed")

    def end(self, matches: Callable[[Principal], bool], reason: str) -> int:
        """End the live sessions of principals with limits; return how many there were. Waits for nothing."""
        ended = [session for session, some in list(self._sessions.items()) if any(matches(one.who) for one in some)]
        for session in ended:
            del self._sessions[session]
            session.hang_up(reason)
        return len(ended)

    @property
    def limited(self) -> bool:
        """Tell whether there is a live session of somebody with a capability."""
        return any(one.who.scope is not None for some in self._sessions.values() for one in some)

    def forget(self, session: Session) -> None:
        """Note that nobody is attached in a session any more."""
        self._sessions.pop(session, None)

    async def watch(self) -> None:
        """End the sessions of those whose right is over, until cancelled."""
        async with trio.open_nursery() as nursery:
            for watch in self.watchers:
                nursery.start_soon(watch)
            await self._watch_times()

    async def _watch_times(self) -> None:
        while True:
            now = time.time_ns()
            self.end(partial(_is_over, now=now), "the capability has expired")
            scopes = [one.who.scope for some in self._sessions.values() for one in some]
            left = [scope.until - now for scope in scopes if scope is not None and scope.until is not None]
            wait = min([LOOK, *(ns / 1e9 for ns in left)])
            with trio.move_on_after(min(wait, LOST) if self.audit.lossy else wait):
                await self._changed.wait()
            self._changed = trio.Event()
            self.audit.tell_lost()


def _is_over(who: Principal, now: int) -> bool:
    return who.scope is not None and who.scope.expired(now)


def acting(who: Principal) -> Principal | None:
    """Return as whom requests of a principal are made in the tree, if not as themselves."""
    if who.scope is None or not who.scope.as_root:
        return None
    return attrs.evolve(who, uid=0, groups=frozenset({0}), gid=None)
