"""`mk9p cpu KERNEL [-- COMMAND [ARG...]]`: Plan 9's rcpu. A command, or a shell, in a kernel, with the caller's namespace at /mnt/term.

It is `mk9p run` (run.py) with two things more, both of `cmd`: the command has a mount namespace of its own, which only its programs see (`ns`), and
a line to this process (`line`), by which that kernel mounts what this process serves: the caller's namespace, or with `-x` a directory of this
machine. So the kernel needs no way to reach this machine, and what it gets ends with the command.

What is served is what the caller may use: this process dials the namespace as the caller, with their capability if there is one, and the namespace
decides. A user there is the user of that number here, as far as the caller may say so: root may, everybody else is themselves.
"""

import errno
import logging
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from mk9p.auth import Policy, Principal
from mk9p.client import Client, File
from mk9p.client.capability import named, tree_name
from mk9p.client.client import way_in
from mk9p.clients.common import kernel, piece, say, with_namespace
from mk9p.clients.export import exported
from mk9p.clients.kept import LIMITS, PATIENCE
from mk9p.clients.mount import shown_capability
from mk9p.clients.run import run
from mk9p.compose.remote import Server as Line
from mk9p.dial import TRANSPORTS, Link, Peer, SocketLink, parse, receive, send_all
from mk9p.errors import NineError
from mk9p.server import Server
from mk9p.server.shares import descriptors
from mk9p.tree import Node, join
from mk9p.usage import parsed

SHELL: Final = ("sh",)
PIECE: Final = 1 << 16


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p cpu`."""
    chosen = parsed(arguments)
    # standard error is the command's: what a daemon tells of failed and slow requests has no place there
    logging.getLogger("mk9p.server").setLevel(logging.ERROR)
    terminal = chosen.terminal or (not chosen.command and os.isatty(0))
    directory = chosen.dir or (chosen.place if chosen.export else None)
    settings = [join(["env", *chosen.env])] if chosen.env else []
    settings += [join(["dir", directory])] if directory else []
    settings += [join(["ns", "mount", *(["-r"] * chosen.readonly), "fd!3!3", chosen.place])]

    async def work(ns: Client) -> int:
        tree = await kernel(ns, chosen.kernel)
        async with trio.open_nursery() as nursery, shown(chosen, nursery) as root:
            link = await served(root, nursery, readonly=chosen.readonly)

            async def carry(reading: File, writing: File) -> None:
                await carried(link, reading, writing)

            status = await run(
                ns,
                tree,
                chosen.command or SHELL,
                settings,
                terminal=terminal,
                no_input=chosen.no_input,
                line=carry,
            )
            nursery.cancel_scope.cancel()
        return status

    return with_namespace(work)


@asynccontextmanager
async def shown(chosen: Any, nursery: trio.Nursery) -> AsyncIterator[Node]:
    """Give the tree that the kernel gets: of the caller's namespace, or of a directory."""
    if chosen.export:
        async with exported(chosen.export, chosen.patterns) as tree:
            yield tree
        return
    cap = shown_capability(chosen.cap, default=True)
    address, aname, _ = way_in(None, "", None, None)
    aname, of_context = named(aname)
    if not parse(address).transport.redial:
        raise NineError(errno.EINVAL, f"{address}: it cannot be dialled twice, and the kernel needs a line of its own")
    line = Line(address, nursery, aname=tree_name(aname, cap or of_context, default=False), deadline=PATIENCE)
    me = Principal.of(os.geteuid())
    try:
        await line.root(me)
    except NineError as error:
        raise NineError(error.errno, line.reason if not line.up else f"{address}: {error}") from None
    yield line.tree(me)


async def served(root: Node, nursery: trio.Nursery, *, readonly: bool) -> Link:
    """Serve a tree to one client, and return the client's end of the line."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    server = Server(root, limits=LIMITS)
    descriptors(server.limits)
    await nursery.start(server.run)
    peer = Peer(TRANSPORTS["fd"], "a command in a kernel", loopback=True)
    server.add(SocketLink(ours, peer), Policy(readonly=readonly))
    return SocketLink(theirs, peer)


async def carried(link: Link, reading: File, writing: File) -> None:
    """Carry bytes between a link and the two directions of a command's line, until one of them ends; then both end, and the command goes on."""

    async def there(scope: trio.CancelScope) -> None:
        room = memoryview(bytearray(PIECE))
        while count := await receive(link, room):
            await writing.write(room[:count])
        scope.cancel()

    async def here(scope: trio.CancelScope) -> None:
        while data := await piece(reading):
            await send_all(link, data)
        scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(there, nursery.cancel_scope)
            nursery.start_soon(here, nursery.cancel_scope)
    except* OSError as group:
        if not all(error.errno in (errno.EPIPE, errno.EIO, errno.ECONNRESET) for error in _leaves(group)):
            say(f"the line of the command: {_leaves(group)[0]}")
    finally:
        link.close()


def _leaves(group: BaseExceptionGroup[OSError]) -> list[OSError]:
    found: list[OSError] = []
    for each in group.exceptions:
        found += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found
