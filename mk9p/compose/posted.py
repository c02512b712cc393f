"""Servers behind a file of the namespace: what `mount /k/k1/srv/NAME OLD` dials.

A service that is posted in a kernel (srv(3)) is an open file there, whose two directions are a connection to the service. 9P goes over it as over
any other line: two tasks carry bytes between the file and a socket pair, whose other end is the link. The file is looked up for each new link. So
a service that is posted again is found again, and a service that does not exist is EIO, as any server that is down.
"""

import errno
import logging
import socket
from collections.abc import Callable

import trio

from mk9p.auth import ROOT
from mk9p.compose.resolve import Resolver
from mk9p.compose.table import clean
from mk9p.dial import TRANSPORTS, Link, Peer, SocketLink
from mk9p.errors import NineError
from mk9p.tree import Handle, Open, settle

log = logging.getLogger("mk9p.compose")

_PIECE = 65536


def is_path(address: str) -> bool:
    """Tell whether an address is a path of the namespace. A dial string may begin with a path too, but has a `!`."""
    return address.startswith("/") and "!" not in address


async def dial_file(find: Callable[[], Resolver], path: str, nursery: trio.Nursery) -> Link:
    """Open the file at a path of the namespace, and return the link over its connection; the tasks in between run in `nursery`.

    Raises what opening it raises; the words begin with the path. If cancelled, nothing stays open.
    """
    try:
        node = (await find().elements(clean(path), ROOT))[0].node
        handle = await settle(node.open(Open(ROOT, read=True, write=True)))
    except OSError as error:
        raise NineError(error.errno or errno.EIO, f"{path}: {error.strerror}") from None
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    nursery.start_soon(_carry, handle, trio.SocketStream(trio.socket.from_stdlib_socket(theirs)))
    return SocketLink(ours, Peer(TRANSPORTS["fd"], path))


async def _carry(handle: Handle, stream: trio.SocketStream) -> None:
    """Carry bytes both ways until either side ends."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_out, handle, stream, nursery.cancel_scope)
            await _in(handle, stream)
            nursery.cancel_scope.cancel()
    except Exception:  # our bug must not end everything in the nursery
        log.exception("internal error: a posted service's line ends")
    finally:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)
            await settle(handle.close())


async def _in(handle: Handle, stream: trio.SocketStream) -> None:
    offset = 0
    try:
        while data := await settle(handle.read(offset, _PIECE)):
            offset += len(data)
            await stream.send_all(bytes(data))
    except (OSError, trio.BrokenResourceError):
        return


async def _out(handle: Handle, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    offset = 0
    try:
        while data := await stream.receive_some(_PIECE):
            view = memoryview(data)
            while view:
                count = await settle(handle.write(offset, view))
                if not count:
                    raise NineError(errno.EIO, "nothing was taken")
                offset += count
                view = view[count:]
    except (OSError, trio.BrokenResourceError):
        pass
    scope.cancel()
