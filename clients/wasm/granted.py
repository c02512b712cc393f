"""The files that a program was granted, served to it by this process: by the program's `9p`, as this user, and nothing else.

So a program anywhere has what it was granted, whether or not its kernel can reach the namespace, and never more than who started it.
"""

import errno
import logging
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import attrs
import trio

from mk9p.auth import Policy, Principal, Told
from mk9p.client import Client, File
from mk9p.client.capability import tree_name
from mk9p.client.client import way_in
from mk9p.clients.wasm.kept import Kept
from mk9p.compose.readonly import ReadOnly
from mk9p.compose.remote import Server as Line
from mk9p.dial import TRANSPORTS, Peer, SocketLink
from mk9p.errors import NineError
from mk9p.server import Server
from mk9p.tree import Dir, Node, settle

PATIENCE: Final = 5.0  # seconds for the namespace to answer the first time
AGAIN: Final = 0.05  # seconds between two attempts to serve a program that is just being moved
_PIECE: Final = 1 << 17
# by it the same file has the same qid.path in every such process: a program that goes on looks at that
_SECRET: Final = b"mk9p wasm"


@attrs.frozen
class Grant:
    """`PATH[:AT]:ro|rw` of the command line."""

    path: str
    at: str
    readonly: bool


@attrs.frozen
class _Mine(Policy):
    """Whoever comes by the line of a program is this user, whatever names they send."""

    def attach(self, uname: str, n_uname: int, peer: Told) -> Principal:
        return Principal.of(os.geteuid())


async def tree_of(grants: Sequence[Grant], root: Node, who: Principal, kept: str = "") -> Node:
    """Return a tree that has what was granted, at the paths where it is, and room for a checkpoint at the path `kept`; and nothing else.

    Raises ENOENT for what is not there.
    """
    made: dict[str, object] = {}
    for grant in sorted(grants, key=lambda grant: len(grant.path)):
        names = _names(grant.path)
        node = await _found(root, names, who, f"grant {grant.path}")
        if not names:
            if kept and grant.readonly:
                raise _unwritten(kept)
            return ReadOnly(node) if grant.readonly else node
        at = made
        for name in names[:-1]:
            below = at.setdefault(name, {})
            if not isinstance(below, dict):
                break  # it lies in what was granted already, and is reached by that
            at = below
        else:
            at[names[-1]] = ReadOnly(node) if grant.readonly and not _written(grants, grant.path) else node
    if kept:
        *above, name = _names(kept)
        _make_room(made, above, name, await _found(root, above, who, f"checkpoint {kept}"), kept)
    return _directory(made)


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name]


async def _found(root: Node, names: list[str], who: Principal, what: str) -> Node:
    node = root
    for name in names:
        try:
            node = await settle(node.walk(name, who))
        except OSError as error:
            raise NineError(error.errno or errno.EIO, f"{what}: {error.strerror}") from None
    return node


def _make_room(made: dict[str, object], above: list[str], name: str, node: Node, kept: str) -> None:
    """Put the directory of a checkpoint into a tree that is being made, if nothing that was granted has it."""
    for each in above:
        below = made.setdefault(each, {})
        if isinstance(below, ReadOnly):
            raise _unwritten(kept)
        if not isinstance(below, dict):
            return
        made = below
    made[""] = node, name


def _unwritten(kept: str) -> NineError:
    return NineError(errno.EROFS, f"checkpoint {kept}: it lies in what is granted to be read only")


def _written(grants: Sequence[Grant], path: str) -> bool:
    """Tell whether a path, or something in it, was also granted to be written: then the program itself keeps the rest read-only."""
    return any(not grant.readonly and f"{grant.path}/".startswith(path.rstrip("/") + "/") for grant in grants)


def _directory(made: dict[str, object]) -> Node:
    kept = made.pop("", None)
    below: Any = {name: _directory(node) if isinstance(node, dict) else node for name, node in made.items()}
    if kept is None:
        return Dir(below)
    assert isinstance(kept, tuple)  # as _make_room left it
    node, name = kept
    return Kept(node, name, below)


@attrs.define(eq=False)
class Granted:
    """What serves the grants, and where it does so now."""

    ns: Client
    server: Server
    nursery: trio.Nursery
    places: dict[str, trio.CancelScope] = attrs.field(factory=dict)

    def serve(self, talk: str) -> None:
        """Serve the program at a path from now on, until it ends, or has gone from there."""
        if talk not in self.places:
            self.places[talk] = trio.CancelScope()
            self.nursery.start_soon(self._serve, talk, self.places[talk])

    def leave(self, talk: str) -> None:
        """Serve a program no longer, whatever it goes on with there."""
        if (scope := self.places.pop(talk, None)) is not None:
            scope.cancel()

    async def _serve(self, talk: str, scope: trio.CancelScope) -> None:
        with scope, suppress(FileNotFoundError):
            while True:
                try:
                    async with await self.ns.open(f"{talk}/9p", "r+") as file:
                        await self._line(file)
                except FileNotFoundError:
                    raise
                except OSError:  # another kernel's, which has just gone; or somebody else serves it
                    if self.ns.connection.gone is not None:
                        return
                await trio.sleep(AGAIN)

    async def _line(self, file: File) -> None:
        """Serve by one open `9p`, until the program has been frozen, or has ended."""
        ours, theirs = socket.socketpair()
        for each in (ours, theirs):
            each.setblocking(False)
        self.server.add(SocketLink(theirs, Peer(TRANSPORTS["fd"], file.name, loopback=True)), _Mine())
        sock = trio.socket.from_stdlib_socket(ours)
        with sock:
            async with trio.open_nursery() as nursery:

                async def answers() -> None:
                    with suppress(OSError):
                        while data := await sock.recv(min(_PIECE, file.iounit)):
                            await file.write(data)

                nursery.start_soon(answers)
                with suppress(OSError):  # its kernel is gone: the next open tells
                    await _requests(file, sock)
                nursery.cancel_scope.cancel()


async def _requests(file: File, sock: trio.socket.SocketType) -> None:
    """Pass on what comes by an open `9p`, until its end. It is not `read`: that takes the empty read that ends a record for one that ends nothing."""
    offset = 0
    while data := await _piece(file, offset):
        offset += len(data)
        rest = memoryview(data)
        while rest:
            rest = rest[await sock.send(rest) :]


async def _piece(file: File, offset: int) -> bytes:
    """Return what comes next; two empty reads in a row are the end."""
    return await file.pread(file.iounit, offset) or await file.pread(file.iounit, offset)


@asynccontextmanager
async def granting(ns: Client, grants: Sequence[Grant], kept: str = "") -> AsyncIterator[Granted | None]:
    """Give what serves the grants of a program, and where its checkpoints go; None where there are none. Raises ENOENT for what is not there."""
    if not grants and not kept:
        yield None
        return
    # that a busy machine held it up is nothing to tell at somebody's terminal
    logging.getLogger("mk9p.server").setLevel(logging.ERROR)
    me = Principal.of(os.geteuid())
    address, aname, _ = way_in(None, tree_name("", None, default=True), None, None)
    async with trio.open_nursery() as nursery:
        line = Line(address, nursery, aname=aname, name="granted", secret=_SECRET, deadline=PATIENCE)
        try:
            server = Server(await tree_of(grants, line.tree(me), me, kept))
            await nursery.start(server.run)
            yield Granted(ns, server, nursery)
        finally:
            line.close()
            nursery.cancel_scope.cancel()
