"""`Guard`: a tree in which a judge decides, by the path that was walked, what may be done.

Theory
* A guard is made once, at an attach, and shows the whole tree. A walk makes a guard for what it found, which knows its path. So there is no check to
  forget: a file is only reached by a walk, and what a fid may do is asked where it is walked, opened, created in, removed from, changed.
* What every message does is not slower for it. The status comes from the shown node itself, an open file is the shown node's own, and where the same
  is allowed at a path and everywhere below, another server gets the requests as they come (`way`, `route`).
* `..` never arrives here: the server follows the places of the walk, whose nodes are guards.
* Moving must not widen. A file that gets a second name, or another, gets no OPS by that which it did not have: else the answer is EXDEV, and mv(1)
  copies, by the same rules.
* `acts`: requests to the shown tree are made as that principal, whoever asks here. Then the tree's own bits say nothing about who asks here, and the
  guard guards itself.
"""

import errno
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import attrs

from mk9p.auth import Principal
from mk9p.authority.acting import Directory, opened_as
from mk9p.authority.judges import VOID, Judge, Spot, Verdict, refusal
from mk9p.errors import NineError
from mk9p.scope import ALL, C, D, N, R
from mk9p.tree import Change, Handle, Maybe, Node, Open, Route, Way, settle
from mk9p.tree.node import Ahead
from mk9p.tree.shown import Question, Shown, T
from mk9p.wire import QTDIR, Qid

HOWS: Final = 32  # ways to open a file that are kept: the modes and flags of a client's programs
WEIGHT: Final = 416  # bytes of a guard beside the node that it shows: its dict, and its path


class Guard(Shown):
    """Shows a node and everything below it, as far as a judge allows it at its path."""

    def __init__(self, node: Node, at: str, judge: Judge, acts: Principal | None = None) -> None:
        self.node, self.at, self.judge, self.acts, self.spot = node, at, judge, acts, VOID
        self.guards = node.guards or acts is not None
        self.qtype, self.path, self.dtype, self.marks = node.qtype, node.path, node.dtype, node.marks
        self.descriptors, self.weight = node.descriptors, node.weight + WEIGHT
        self.hold, self.release = node.hold, node.release
        self.stat = node.stat  # type: ignore[method-assign]  # every getattr comes here, so this takes no detour
        self._there: Way | None = None
        self._way: Way | None = None

    # what is asked of the judge

    def _at(self, path: str) -> Spot:
        return self.judge.spots.get(path) or self.judge.spot(path)

    def _verdict(self, path: str) -> Verdict:
        return self._at(path).verdict

    @property
    def verdict(self) -> Verdict:
        """What may be done with it now."""
        return self._verdict(self.at)

    @property
    def needed(self) -> int:
        """What it takes to write: `c` for a ctl file, `w` for all others."""
        return self._at(self.at).writes

    def _path(self, name: str) -> str:
        return f"{self.at}/{name}"

    def _refuse(self, path: str, what: str, error: NineError) -> NineError:
        """Return an error that the judge has heard of."""
        self.judge.refused(path, what, error)
        return error

    def _unwalkable(self, path: str) -> NineError:
        """Return the error for a path at and below which nothing is allowed."""
        return self._refuse(path, "walk", NineError(errno.ENOENT if self.judge.hides else errno.EACCES))

    def _require(self, path: str, ops: int, what: str) -> None:
        """Raise EACCES or EROFS for OPS that are not allowed without asking."""
        verdict = self._verdict(path)
        if ops & ~verdict.now:
            raise self._refuse(path, what, refusal(verdict, ops))

    async def _confirm(self, path: str, ops: int, what: str) -> None:
        """Wait until an operator allows what they are to be asked for; raises EACCES or EROFS for OPS that are not allowed."""
        verdict = self._verdict(path)
        lacking = ops & ~verdict.now
        if lacking and (lacking & ~verdict.ask or not await self.judge.confirmed(path, lacking)):
            raise self._refuse(path, what, refusal(verdict, ops))

    def _not_more(self, old: str, new: str, *, directory: bool) -> None:
        """Raise EXDEV where a file would be allowed more by a new path than by its old one, or something below it would."""
        was, will = self._verdict(old), self._verdict(new)
        if (will.some if directory else will.now | will.ask) & ~(was.deep if directory else was.now):
            raise NineError(errno.EXDEV)
        if not directory:
            # the same OPS may be enough for a file that is called otherwise: `w` does not write a ctl file, nor `c` another
            before, after = self._at(old), self._at(new)
            for takes, took in ((after.writes, before.writes), (after.reads, before.reads)):
                if not takes & ~(will.now | will.ask) and took & ~was.now:
                    raise NineError(errno.EXDEV)

    # how the shown node is asked

    def _ask(self, who: Principal, ask: Question[T]) -> Maybe[T]:
        return ask(self.node, self._as(who))

    def _as(self, who: Principal) -> Principal:
        acts = self.acts
        return who if acts is None else acts if who.gid is None else attrs.evolve(acts, gid=who.gid)

    def _child(self, node: Node, name: str) -> "Guard":
        return shown(node, f"{self.at}/{name}", self.judge, self.acts)

    def _theirs(self, node: Node) -> Node:
        if not isinstance(node, Guard):
            raise NineError(errno.EXDEV)
        return node.node

    # names

    def walk(self, name: str, who: Principal) -> Maybe[Node]:
        known = self.spot.kids.get(name)
        if known is not None:  # so something below is allowed
            found = self.node.walk(name, self.acts or who)
            return known if found is known.node else self._found_at(name, found)
        path = f"{self.at}/{name}"
        if not self._at(path).some:
            raise self._unwalkable(path)
        return self._found_at(name, self.node.walk(name, self.acts or who))

    def _found_at(self, name: str, found: Maybe[Node]) -> Maybe[Node]:
        """Show what was found, and keep that if it is there as long as its directory."""
        if not isinstance(found, Node):
            return self._walked(found, name)
        made = self._reached(found, name)
        if not found.weight and found.below is None and found.route is None:
            self.spot = self._at(self.at)
            self.spot.kids[name] = made
        return made

    def _reached(self, found: Node, name: str) -> "Guard":
        made = self._child(found, name)
        if not self._may_be(found, made.at):
            raise self._unwalkable(made.at)
        return made

    async def _walked(self, found: Awaitable[Node], name: str) -> Node:
        return self._reached(await found, name)

    async def _ahead(self, names: tuple[str, ...], who: Principal, here: bool) -> list[tuple[Node, Qid]]:
        paths, at = list[str](), self.at
        for name in names:
            at = f"{at}/{name}"
            if not self._verdict(at).some:
                break
            paths.append(at)
        allowed = names[: len(paths)]
        if not allowed:
            raise self._unwalkable(at)

        assert self.node.ahead is not None
        found = await self.node.ahead(allowed, self._as(who), here)
        ways = [self.at, *paths] if here else paths
        there: list[tuple[Node, Qid]] = [
            (shown(node, path, self.judge, self.acts), qid) for (node, qid), path in zip(found, ways, strict=False)
        ]
        if there and not self._may_be(there[-1][0], ways[len(there) - 1]):  # only the last may be a file
            hidden = ways[len(there) - 1]
            if not there[here:-1]:
                raise self._unwalkable(hidden)
            there.pop()
        return there

    async def entries(self, who: Principal) -> Iterable[tuple[str, Node]]:
        verdict = self.verdict
        if not verdict.some & R:
            raise self._refuse(self.at, "list", refusal(verdict, R))
        if verdict.ask & R:
            await self._confirm(self.at, R, "list")
        found = await settle(self._ask(who, lambda node, who: node.entries(who)))
        if verdict.deep & R:
            return [(name, self._child(node, name)) for name, node in found]
        # in a directory that only leads somewhere, the names that lead there
        wanted = ALL if (verdict.now | verdict.ask) & R else R
        return [
            (name, self._child(node, name)) for name, node in found if self._may_be(node, self._path(name)) & wanted
        ]

    def _may_be(self, node: Node, path: str) -> int:
        """Return which OPS may be allowed at a path or below: below a file there is nothing."""
        spot = self._at(path)
        return spot.some if node.qtype & QTDIR else spot.now | spot.verdict.ask

    # contents

    def open(self, how: Open) -> Maybe[Handle]:
        spot = self.spot
        if how is spot.allowed:
            return self.node.open(spot.said)  # type: ignore[arg-type]  # both are set together
        if not self.qtype & QTDIR:
            spot = self.spot = self._at(self.at)
            ops = spot.reads if how.read or how.execute else 0
            if how.write or how.truncate:
                ops |= spot.writes
            if how.remove:
                ops |= D
            if not ops & ~spot.now:
                spot.allowed, spot.said = how, how if self.acts is None else self._as_acts(how)
                return self.node.open(spot.said)
            return self._opened(how, ops)
        # a directory that leads to something can be opened: what it lists is decided there
        if how.remove:
            self._require(self.at, D, "open")
        return self._open(how)

    async def _opened(self, how: Open, ops: int) -> Handle:
        await self._confirm(self.at, ops, "open")
        return await settle(self._open(how))

    def _open(self, how: Open) -> Maybe[Handle]:
        acts = self.acts
        if acts is not None:
            if self.qtype & QTDIR and not self.node.guards:
                return Directory(self.node, acts)
            how = self._as_acts(how)
        return self.node.open(how)

    def _as_acts(self, how: Open) -> Open:
        """Return how a file is opened as the one as whom requests are made. The server keeps what it says often, so the last answers are kept too."""
        hows = self.judge.hows
        known = hows.get(id(how))
        if known is not None and known[0] is how:
            return known[1]
        assert self.acts is not None
        if len(hows) >= HOWS:
            hows.clear()
        made = opened_as(how, self.acts)
        hows[id(how)] = how, made
        return made

    def _to_create(self, how: Open, path: str) -> int:
        """Return the OPS that it takes to make a file at a path and open it."""
        spot = self._at(path)
        ops = N | (spot.reads if how.read or how.execute else 0) | (spot.writes if how.write or how.truncate else 0)
        return ops | D if how.remove else ops

    def readlink(self) -> Maybe[str]:
        self._require(self.at, R, "readlink")
        return self.node.readlink()

    def xattr(self, name: str, who: Principal) -> Maybe[bytes]:
        self._require(self.at, R, "xattr")
        return super().xattr(name, who)

    def xattrs(self, who: Principal) -> Maybe[Iterable[str]]:
        self._require(self.at, R, "xattr")
        return super().xattrs(who)

    # changes

    def set_xattr(self, name: str, value: bytes, who: Principal, *, flags: int = 0) -> Maybe[None]:
        self._require(self.at, self.needed, "xattr")
        return super().set_xattr(name, value, who, flags=flags)

    def remove_xattr(self, name: str, who: Principal) -> Maybe[None]:
        self._require(self.at, self.needed, "xattr")
        return super().remove_xattr(name, who)

    def change(self, change: Change, who: Principal) -> Maybe[None]:
        self._require(self.at, self.needed, "change")
        return super().change(change, who)

    def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> Maybe[None]:
        self._require(self._path(name), D, "remove")
        return super().remove(name, who, directory=directory)

    async def rename(self, name: str, to: Node, newname: str, who: Principal, *, replace: bool = True) -> None:
        if not isinstance(to, Guard) or to.judge is not self.judge:
            raise NineError(errno.EXDEV)
        old, new = self._path(name), to._path(newname)
        self._require(old, D, "rename")
        to._require(new, N | D, "rename")
        found = await settle(self._ask(who, lambda node, who: node.walk(name, who)))
        self._not_more(old, new, directory=bool(found.qtype & QTDIR))
        await settle(super().rename(name, to, newname, who, replace=replace))

    def link(self, name: str, target: Node, who: Principal) -> Maybe[None]:
        new = self._path(name)
        self._require(new, N, "link")
        if isinstance(target, Guard):
            if target.judge is not self.judge:
                raise NineError(errno.EXDEV)
            self._not_more(target.at, new, directory=bool(target.qtype & QTDIR))
        return super().link(name, target, who)

    async def create(self, name: str, perm: int, how: Open) -> tuple[Node, Handle]:
        path = self._path(name)
        await self._confirm(path, self._to_create(how, path), "create")
        made, handle = await settle(
            self.node.create(name, perm, how if self.acts is None else opened_as(how, self.acts))
        )
        return self._child(made, name), handle

    def mkdir(self, name: str, perm: int, who: Principal) -> Maybe[Node]:
        return self._new(name, self._ask_to_make(name, who, lambda node, who: node.mkdir(name, perm, who)))

    def symlink(self, name: str, target: str, who: Principal) -> Maybe[Node]:
        return self._new(name, self._ask_to_make(name, who, lambda node, who: node.symlink(name, target, who)))

    def mknod(self, name: str, mode: int, rdev: int, who: Principal) -> Maybe[Node]:
        return self._new(name, self._ask_to_make(name, who, lambda node, who: node.mknod(name, mode, rdev, who)))

    def home(self, name: str, who: Principal) -> Maybe[Node]:
        raise NineError(errno.EXDEV)  # only the shown tree's own nodes are asked for that

    def _ask_to_make(self, name: str, who: Principal, ask: Question[T]) -> Maybe[T]:
        self._require(self._path(name), N, "create")
        return self._ask(who, ask)

    def _new(self, name: str, made: Maybe[Node]) -> Maybe[Node]:
        return self._child(made, name) if isinstance(made, Node) else self._walked(made, name)

    # other servers

    @property
    def way(self) -> Way | None:  # type: ignore[override]
        """Return where the file is, if the same is allowed at it and everywhere below: then the other server may get the requests as they come."""
        there = self.node.way
        spot = self._at(self.at)
        ops = spot.verdict.throughout if there is not None and spot.named else 0
        if there is None or not ops:
            self._there = self._way = None
        elif there is not self._there or self._way is None or self._way.ops != self._unseen(there, ops):
            # Its own name may be in a directory that allows less: then only what is below it is left entirely to another server.
            edge = not self.at or self._verdict(self.at.rpartition("/")[0]).throughout != ops
            way = self._led(attrs.evolve(there, whole=there.whole and not edge), ops)
            self._there, self._way = there, way if way != self._way or self._way is None else self._way
        return self._way

    def _unseen(self, way: Way, ops: int) -> int:
        """Return which of the OPS may be used there unseen. Commands of whoever acts as another stay here: there the log would name that other."""
        return way.ops & ops & (ALL if self.acts is None else ~C)

    def _led(self, way: Way, ops: int) -> Way:
        return attrs.evolve(way, who=self.acts or way.who, ops=self._unseen(way, ops))

    def _through(self, route: Route, names: tuple[str, ...]) -> Route | None:
        at, nodes = self.at, list[Node]()
        for node, name in zip(route.nodes, names, strict=False):
            at = f"{at}/{name}"
            if not self._verdict(at).some:
                return None
            nodes.append(shown(node, at, self.judge, self.acts))
        verdict, end = self._verdict, at
        ops = verdict(end).throughout
        if not ops:
            return None
        leads = tuple(shown(node, at, self.judge, self.acts) for node in route.leads)
        ways = tuple(self._led(way, ops) for way in route.ways)

        def stands() -> bool:
            return route.stands() and verdict(end).throughout == ops

        return attrs.evolve(route, nodes=tuple(nodes), leads=leads, ways=ways, stands=stands)

    def _route(self, names: tuple[str, ...], who: Principal) -> Route | None:
        assert self.node.route is not None
        route = self.node.route(names, self._as(who))
        return None if route is None else self._through(route, names)


class _Ahead(Guard):
    """Shows a file of another server, or a directory with such files."""

    @property
    def ahead(self) -> Ahead | None:  # type: ignore[override]
        return None if self.node.ahead is None else self._ahead


class _Mounted(_Ahead):
    """Shows a directory whose nature changes with the mount table."""

    @property
    def route(self) -> Callable[[tuple[str, ...], Principal], Route | None] | None:  # type: ignore[override]
        return self._route

    @property
    def guards(self) -> bool:
        return self.acts is not None or self.node.guards

    @guards.setter
    def guards(self, value: bool) -> None:
        return None


def shown(node: Node, path: str, judge: Judge, acts: Principal | None) -> Guard:
    """Return what shows a node at a path."""
    kind = _Mounted if node.route is not None else Guard if node.ahead is None else _Ahead
    return kind(node, path, judge, acts)
