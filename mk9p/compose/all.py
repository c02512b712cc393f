"""`all/PART`: the same part of every kernel in one directory.

`all/proc/k1.4321` is `k/k1/proc/4321`. A listing asks every kernel which parts there are, and what is in them (everyone.py). A walk asks one
kernel: to a part, the kernel that had it last; to a file in a part, the kernel that the name begins with. Permission bits of the directories on
the way count as if the user had walked through `k` themselves: the server that serves us sees only our own user. A kernel's name may contain dots:
the first dot that ends the name of an existing kernel divides. The kinds of device are in a kernel's `dev`, and are parts like those beside it:
`all/block/k1.vda` is `k/k1/dev/block/vda`.
"""

import errno
import stat as st
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

import attrs

from mk9p.auth import EXEC, READ, Principal, may
from mk9p.compose.everyone import Entry, Everyone, Kernels
from mk9p.errors import NineError
from mk9p.tree import Maybe, Node, Route, Stat, settle
from mk9p.wire import QTDIR, Qid

DEVICES: Final = "dev"
_NONE: Final = ("", ".", "..")  # no names of files
Routes: TypeAlias = Callable[[tuple[str, ...], Principal], Route | None]
"""Returns the route of a walk from the root of the namespace."""

KNOWN: Final = 4096  # parts and users: a dozen parts, and the users of a machine


async def _let(node: Node, who: Principal, want: int) -> Node:
    """Return a directory that a user may search or read; raises EACCES."""
    if who.uid != 0:
        stat = await settle(node.stat())
        if not may(who, stat.mode, stat.uid, stat.gid, want):
            raise NineError(errno.EACCES)
    return node


async def _step(node: Node, name: str, who: Principal) -> Node:
    return await settle((await _let(node, who, EXEC)).walk(name, who))


async def _part(tree: Node, name: str, who: Principal) -> Node:
    """Return a part of a kernel: a file at the top of its tree, or in its `dev`."""
    try:
        return await _step(tree, name, who)
    except FileNotFoundError:
        return await _step(await _step(tree, DEVICES, who), name, who)


async def _directories(node: Node, who: Principal) -> list[Entry]:
    return [entry for entry in await settle((await _let(node, who, READ)).entries(who)) if entry[1].qtype & QTDIR]


class _Made(Node):
    """A directory that this module makes up."""

    qtype = QTDIR
    _stat = Stat(st.S_IFDIR | 0o555, nlink=2)

    def __init__(self, everyone: Everyone, routes: Routes) -> None:
        self.everyone, self.routes = everyone, routes

    def stat(self) -> Stat:
        return self._stat


class All(_Made):
    """The directory `all`: it has a directory for each part that some kernel has."""

    def __init__(self, kernels: Kernels, routes: Routes) -> None:
        super().__init__(Everyone(kernels), routes)
        self._known: set[tuple[str, Principal]] = set()  # parts that some kernel had, and users who saw that

    async def entries(self, who: Principal) -> Iterable[Entry]:
        async def parts(tree: Node) -> list[str]:
            found = dict(await _directories(tree, who))
            devices = await _directories(found[DEVICES], who) if DEVICES in found else ()
            return [*found, *(name for name, _ in devices)]

        found = await self.everyone.ask(who, parts)
        names = dict.fromkeys(name for _, names in found for name in names)
        return [(name, self._part(name)) for name in names]

    def _part(self, name: str) -> "Part":
        return Part(self.everyone, self.routes, name)

    def walk(self, name: str, who: Principal) -> Maybe[Node]:
        return self._part(name) if (name, who) in self._known else self._search(name, who)

    def route(self, names: tuple[str, ...], who: Principal) -> Route | None:
        if len(names) < 2 or (names[0], who) not in self._known:
            return None
        part = self._part(names[0])
        route = part.route(names[1:], who)
        return None if route is None else attrs.evolve(route, nodes=(part, *route.nodes))

    async def _search(self, name: str, who: Principal) -> Node:
        """Ask every kernel until one has the part; raises ENOENT if none has."""

        async def has(tree: Node) -> bool:
            if not await _is_part(tree, name, who):
                raise NineError(errno.ENOENT)
            return True

        if not await self.everyone.ask(who, has, enough=1):
            raise NineError(errno.ENOENT)
        if len(self._known) >= KNOWN:
            self._known.clear()
        self._known.add((name, who))
        return self._part(name)


async def _is_part(tree: Node, name: str, who: Principal) -> bool:
    return (await _part(tree, name, who)).qtype & QTDIR != 0


class Part(_Made):
    """A directory `all/PART`: the files of every kernel in that part, with the kernel's name and a dot in front."""

    def __init__(self, everyone: Everyone, routes: Routes, part: str) -> None:
        super().__init__(everyone, routes)
        self.part = part

    def route(self, names: tuple[str, ...], who: Principal) -> Route | None:
        """Return where a walk goes over: to the server of the kernel that the first name begins with, if that is mounted and all else is on it.

        A kernel whose name has a dot has none.
        """
        kernel, _, name = names[0].partition(".")
        if name in _NONE:
            return None
        route = self.routes(("k", kernel, self.part, name, *names[1:]), who)
        if route is None or len(route.nodes) != 2 or len(route.leads) != 1:
            return None
        lead, stat = route.leads[0], route.nodes[0].stat()
        if lead.below is None or not isinstance(stat, Stat) or not may(who, stat.mode, stat.uid, stat.gid, EXEC):
            return None
        there = lead.below(self.part, who)
        if there.way is None:
            return None
        return attrs.evolve(route, nodes=(), leads=(there,), ways=(there.way,), certain=False, alias=name)

    async def entries(self, who: Principal) -> Iterable[Entry]:
        async def listed(tree: Node) -> list[Entry]:
            part = await _let(await _part(tree, self.part, who), who, READ)
            return list(await settle(part.entries(who)))

        found = await self.everyone.ask(who, listed)
        made: list[Entry] = []
        for kernel, entries in found:
            made += [(f"{kernel}.{name}", node) for name, node in entries]
        return made

    async def walk(self, name: str, who: Principal) -> Node:
        tree, rest = await self._kernel(name, who)
        return await _step(await _part(tree, self.part, who), rest, who)

    async def ahead(self, names: tuple[str, ...], who: Principal, here: bool) -> list[tuple[Node, Qid]]:
        if here:
            raise NineError(errno.EOPNOTSUPP)
        tree, rest = await self._kernel(names[0], who)
        if tree.ahead is not None:
            for way in (self.part,), (DEVICES, self.part):
                try:
                    found = await tree.ahead((*way, rest, *names[1:]), who, False)
                except FileNotFoundError:
                    continue
                if len(found) > len(way):
                    return found[len(way) :]
                if len(found) == len(way):
                    break  # the part is there, and has no such file
            raise NineError(errno.ENOENT)
        at: Node = self
        made: list[tuple[Node, Qid]] = []
        try:
            for name in names:
                at = await settle(at.walk(name, who))
                stat = await settle(at.stat())
                made.append((at, Qid(at.qtype, stat.version, at.path or 0)))
        except OSError:
            if not made:
                raise
        return made

    async def _kernel(self, name: str, who: Principal) -> tuple[Node, str]:
        """Return the tree of the kernel that a name begins with, and the rest of the name; raises ENOENT."""
        at = name.find(".")
        while at >= 0:
            try:
                tree = await self.everyone.kernel(name[:at], who)
            except FileNotFoundError:
                at = name.find(".", at + 1)
                continue
            rest = name[at + 1 :]
            if rest in _NONE:
                break
            return tree, rest
        raise NineError(errno.ENOENT)
