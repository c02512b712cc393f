"""`all/PART`: the same part of every kernel in one directory.

`all/proc/k1.4321` is `k/k1/proc/4321`. Which parts there are, and what is in them, is asked of every kernel at the same time, when somebody lists;
one that is down, or does not answer within `PATIENCE`, is left out, so that a silent kernel costs a second and never a listing.
Permission bits of the directories passed on the way count as if the user had walked through `k` himself: the server that serves us sees only our own.
A kernel's name may hold dots itself: the first dot that ends the name of a kernel that is there divides.
The kinds of device stand in a kernel's `dev`, and are parts as those beside it are: `all/block/k1.vda` is `k/k1/dev/block/vda`.
"""

import errno
import stat as st
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias, TypeVar

import trio

from mk9p.auth import EXEC, READ, Principal, may
from mk9p.errors import NineError
from mk9p.tree import Node, Stat, settle
from mk9p.wire import QTDIR

T = TypeVar("T")

PATIENCE: Final = (
    1.0  # seconds: a kernel that is up answers in milliseconds, and a person at `ls` waits no longer gladly
)

DEVICES: Final = "dev"

Entry: TypeAlias = tuple[str, Node]
Kernels: TypeAlias = Callable[[Principal], Awaitable[Node]]
"""Returns the directory of all kernels' trees, whose listing asks none of them."""


async def _each(kernels: Kernels, who: Principal, ask: Callable[[Node], Awaitable[T]]) -> list[tuple[str, T]]:
    """Ask every kernel's tree the same at once; returns (kernel, answer) of those that answered in time, in the kernels' order.

    A cancelled call cancels what it asked.
    """
    trees = list(await settle((await kernels(who)).entries(who)))
    answers: dict[str, T] = {}

    async def one(name: str, tree: Node) -> None:
        with trio.move_on_after(PATIENCE):
            try:
                answers[name] = await ask(tree)
            except OSError:
                return  # it is down, has no such part, or does not let this user see it: it has nothing to show here

    async with trio.open_nursery() as nursery:
        for name, tree in trees:
            nursery.start_soon(one, name, tree)
    return [(name, answers[name]) for name, _ in trees if name in answers]


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
    """Return a part of a kernel: what stands at the top of its tree, or in its `dev`."""
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

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels

    def stat(self) -> Stat:
        return self._stat


class All(_Made):
    """The directory `all`: a directory for each part that some kernel has."""

    async def entries(self, who: Principal) -> Iterable[Entry]:
        async def parts(tree: Node) -> list[str]:
            found = dict(await _directories(tree, who))
            devices = await _directories(found[DEVICES], who) if DEVICES in found else ()
            return [*found, *(name for name, _ in devices)]

        found = await _each(self.kernels, who, parts)
        names = dict.fromkeys(name for _, names in found for name in names)
        return [(name, Part(self.kernels, name)) for name in names]

    async def walk(self, name: str, who: Principal) -> Node:
        async with trio.open_nursery() as nursery:
            there = False

            async def has(tree: Node) -> None:
                nonlocal there
                if (await _part(tree, name, who)).qtype & QTDIR:
                    there = True
                    nursery.cancel_scope.cancel()  # one is enough: a silent kernel keeps nobody from the others

            await _each(self.kernels, who, has)
        if there:
            return Part(self.kernels, name)
        raise NineError(errno.ENOENT)


class Part(_Made):
    """A directory `all/PART`: what every kernel has in that part, with the kernel's name and a dot in front."""

    def __init__(self, kernels: Kernels, part: str) -> None:
        super().__init__(kernels)
        self.part = part

    async def entries(self, who: Principal) -> Iterable[Entry]:
        async def listed(tree: Node) -> list[Entry]:
            part = await _let(await _part(tree, self.part, who), who, READ)
            return list(await settle(part.entries(who)))

        found = await _each(self.kernels, who, listed)
        return [(f"{kernel}.{name}", node) for kernel, entries in found for name, node in entries]

    async def walk(self, name: str, who: Principal) -> Node:
        kernels = await self.kernels(who)
        names = {kernel for kernel, _ in await settle(kernels.entries(who))}
        at = name.find(".")
        while at >= 0:
            if name[:at] in names:
                tree = await settle(kernels.walk(name[:at], who))
                return await _step(await _part(tree, self.part, who), name[at + 1 :], who)
            at = name.find(".", at + 1)
        raise NineError(errno.ENOENT)
