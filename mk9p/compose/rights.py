"""`Right`: what one grant allows now, and `Granted`: a file that is seen by it.

Theory
* A grant may change while files are open. So a node keeps no `ro` or `rw` of its own: it asks its right, which is one object for a path and a guest,
  at each request. Nothing is asked on the fast way: the whole connection there ends when its right does (`View.on_less`). A right has its own
  connection, so this ends no file that another grant gives.
* A right that was taken away is EACCES for the files that were walked to by it, and for those that are open: what waits in one ends, and it is closed
  at once, whatever its client does. If the same path is granted again, the files that were only walked to are there again.
"""

import errno
from collections.abc import Awaitable, Callable
from typing import Final, Literal, TypeVar

import attrs
import trio

from mk9p.auth import Principal
from mk9p.authority.acting import Directory
from mk9p.authority.judges import EVERYTHING, Spot, Verdict
from mk9p.authority.standing import KEPT
from mk9p.errors import NineError
from mk9p.scope import ALL, within
from mk9p.scope import R as READ
from mk9p.tree import Buffer, Change, Handle, Lock, Maybe, Node, Open, Stat, ThroughHandle, Way, settle
from mk9p.tree.shown import Question, Shown, T, Through
from mk9p.wire import QTDIR

R = TypeVar("R")
AUTH: Final = "/auth"
Mode = Literal["none", "ro", "rw"]
PLAIN: Final = (0, READ, ALL)  # OPS that need no look at the names of files


@attrs.frozen(cache_hash=True)
class Holder(Principal):
    """Root, by one grant: what it has on other servers is nobody else's, not even another grant's."""

    by: str = attrs.field(default="", kw_only=True)


@attrs.define(eq=False)
class Right:
    """What a guest may do at a path and below, as the user `who` there. `opened` are the files that are open by it.

    Of `ops`, a `Granted` knows whether there are any, and whether others than reading. Where that is not all (PLAIN), `Named` looks at each.
    """

    path: str
    who: Holder
    ops: int = 0
    opened: "set[Held]" = attrs.field(factory=set, init=False)
    named: "Named" = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.named = Named(self)

    @property
    def mode(self) -> Mode:
        return "none" if not self.ops else "ro" if self.ops == READ else "rw"

    def require(self) -> None:
        """Raise EACCES if it was taken away."""
        if self.mode == "none":
            raise NineError(errno.EACCES, f"{self.path or '/'} is no longer granted")

    def require_change(self) -> None:
        """Raise EACCES if it was taken away, EROFS if it is only for reading."""
        if self.mode != "rw":
            self.require()
            raise NineError(errno.EROFS)

    def become(self, ops: int) -> bool:
        """Allow these OPS; what waits for something that is no longer allowed ends now. Tell whether it allows less than before."""
        less = bool(self.ops & ~ops)
        self.ops = ops
        self.named.forget()
        if less:
            for handle in tuple(self.opened):
                handle.end(whole=ops != READ)
        return less


class Named:
    """The judge (mk9p/authority) of a right whose letters go by the names of files: a ctl file takes another than data."""

    hides = False

    def __init__(self, right: "Right") -> None:
        self.right = right
        self.spots: dict[str, Spot] = {}
        self.hows: dict[int, tuple[Open, Open]] = {}

    def spot(self, path: str) -> Spot:
        known = self.spots.get(path)
        if known is None:
            if len(self.spots) >= KEPT:
                self.forget()
            ops = self.right.ops if within(path, self.right.path) else 0
            found = Verdict(ops, 0, ops, ops)
            known = self.spots[path] = Spot(EVERYTHING if within(path, AUTH) else found, path)
        return known

    def forget(self) -> None:
        """Judge anew."""
        for spot in self.spots.values():
            spot.void()
        self.spots.clear()

    async def confirmed(self, path: str, ops: int) -> bool:
        return False

    def refused(self, path: str, what: str, error: NineError) -> None:
        """The server writes it down."""


class Changing(Through):
    """Shows what `now` returns when somebody asks."""

    qtype = QTDIR

    def now(self) -> Node:
        """Return the node."""
        raise NotImplementedError(type(self))

    @property
    def guards(self) -> bool:  # type: ignore[override]
        return self.now().guards

    def _ask(self, who: Principal, ask: Question[T]) -> Maybe[T]:
        return ask(self.now(), who)


class Granted(Shown):
    """Shows a node and everything below it to a guest: every request is made there as root, so it guards itself.

    `edge`: it is the granted path itself. Operations on its name happen in a directory that is not granted, so only files below it may be left
    entirely to another server.
    """

    def __init__(self, node: Node, right: Right, *, edge: bool = False) -> None:
        super().__init__(node)
        self.right, self.edge, self.guards = right, edge, True
        self._there: Way | None = None
        self._way: Way | None = None

    @property
    def way(self) -> Way | None:  # type: ignore[override]
        """Return where the file is; requests there are made as root. What may only be read is not left to another server."""
        if self.right.mode != "rw":
            return None
        there = self.node.way
        if there is not self._there and there != self._there:
            self._there, self._way = there, None
            if there is not None:
                self._way = attrs.evolve(there, who=self.right.who, whole=there.whole and not self.edge)
        return self._way

    def stat(self) -> Maybe[Stat]:
        if self.right.mode == "none":
            self.right.require()
        return self.node.stat()

    def _ask(self, who: Principal, ask: Question[T]) -> Maybe[T]:
        """Ask as root there, with the group that new files get."""
        right = self.right
        if right.mode == "none":
            right.require()
        return ask(self.node, right.who if who.gid is None else attrs.evolve(right.who, gid=who.gid))

    def _alter(self, who: Principal, ask: Question[T]) -> Maybe[T]:
        self.right.require_change()
        return self._ask(who, ask)

    def _show(self, node: Node) -> Node:
        return Granted(node, self.right)

    def _theirs(self, node: Node) -> Node:
        """Return what a second file is; raises EXDEV for one that is not granted, such as a directory that only leads to something."""
        if isinstance(node, Changing):
            node = node.now()
        if not isinstance(node, Granted):
            raise NineError(errno.EXDEV)
        node.right.require_change()
        return node.node

    async def open(self, how: Open) -> Handle:
        if how.write or how.truncate or how.remove:
            self.right.require_change()
        if self.qtype & QTDIR and not self.node.guards:
            self.right.require()
            return Held(Directory(self.node, self.right.who), self.right)
        return await held(await settle(super().open(how)), self.right, changes=how.write)

    async def create(self, name: str, perm: int, how: Open) -> tuple[Node, Handle]:
        made, handle = await super().create(name, perm, how)
        return made, await held(handle, self.right, changes=True)


async def held(handle: Handle, right: Right, *, changes: bool) -> "Held":
    """Return an open file of a right. Raises, and closes it, if the right allows it no longer: opening may have taken long."""
    try:
        right.require_change() if changes else right.require()
    except OSError:
        await settle(handle.close())
        raise
    return Held(handle, right)


class Held(ThroughHandle):
    """An open file of a right: it is open as long as the right allows it."""

    def __init__(self, handle: Handle, right: Right) -> None:
        super().__init__(handle)
        self.prompt = False
        self.right = right
        # what waits in it, and whether it changes something
        self._waits: dict[trio.CancelScope, bool] = {}
        self._over = False  # the right was taken away
        self._closed = False
        self._idle = trio.Event()  # nothing waits in it any more, and nothing may begin
        right.opened.add(self)

    def end(self, *, whole: bool) -> None:
        """End what waits in it: all of it, or only what would change something."""
        self._over = self._over or whole
        for scope, changes in tuple(self._waits.items()):
            if whole or changes:
                scope.cancel()
        self._note_idle()

    def _note_idle(self) -> None:
        if self._over and not self._waits:
            self._idle.set()

    async def close_ended(self) -> None:
        """Close what it shows, after its right was taken away, as soon as nothing runs in it any more: its client may keep it for ever."""
        await self._idle.wait()
        await settle(self.close())

    def ended_by(self, right: Right) -> bool:
        """Tell whether it is no longer open because this right was taken away."""
        return self._over and self.right is right

    def _require(self, *, changes: bool) -> None:
        if self._over:
            raise NineError(errno.EACCES, f"{self.right.path or '/'} is no longer granted")
        if changes:
            self.right.require_change()

    def _do(self, changes: bool, ask: Callable[[], Maybe[R]]) -> Maybe[R]:
        self._require(changes=changes)
        done = ask()
        return self._wait(done, changes) if isinstance(done, Awaitable) else done

    async def _wait(self, done: Awaitable[R], changes: bool) -> R:
        with trio.CancelScope() as scope:
            self._waits[scope] = changes
            try:
                return await done
            finally:
                del self._waits[scope]
                self._note_idle()
        self._require(changes=changes)
        raise NineError(errno.EACCES)

    def read(self, offset: int, count: int) -> Maybe[Buffer]:
        return self._do(False, lambda: self.handle.read(offset, count))

    def write(self, offset: int, data: memoryview) -> Maybe[int]:
        return self._do(True, lambda: self.handle.write(offset, data))

    def stat(self) -> Maybe[Stat] | None:
        self._require(changes=False)
        return self.handle.stat()

    def change(self, change: Change) -> Maybe[None] | None:
        return self._do(True, lambda: self.handle.change(change))

    def lock(self, lock: Lock) -> Maybe[bool]:
        return self._do(False, lambda: self.handle.lock(lock))

    def locked(self, lock: Lock) -> Maybe[Lock | None]:
        return self._do(False, lambda: self.handle.locked(lock))

    def sync(self, *, data: bool = False) -> Maybe[None]:
        return self._do(False, lambda: self.handle.sync(data=data))

    def close(self) -> Maybe[None]:
        self.right.opened.discard(self)
        if self._closed:
            return None
        self._closed = True
        return self.handle.close()
