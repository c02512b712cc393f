"""The line that v9fs gets for what the kernel cannot dial itself: a descriptor, and a process beside it where one must stand between.

A capability is shown on it before v9fs begins its own conversation (login.py).
"""

import errno
import os
import socket
from collections.abc import Callable
from typing import Final

import trio

from mk9p.client import open_connection
from mk9p.clients import v9fs
from mk9p.clients.background import in_background
from mk9p.clients.login import login
from mk9p.dial import Link, Peer, SocketLink, parse
from mk9p.dial.tls import TlsLink
from mk9p.errors import NineError
from mk9p.serving import one_error

PATIENCE: Final = 5.0  # seconds for the server to answer the first time
_TLS: Final = "mk9p.dial.tls"


def handed(address: str, wish: v9fs.Wish) -> tuple[int, int]:
    """Dial, log in if there is a capability, and return descriptors to read and write that v9fs can use and children inherit."""
    if wish.wait:
        from mk9p.clients.kept import held

        fd = held(address, wish)
        fds = fd, fd
    elif parse(address).transport.module == _TLS:
        fd = _secure(address, wish)
        fds = fd, fd
    else:
        fds = _dialled(address, wish)
    for fd in fds:
        os.set_inheritable(fd, True)
    return fds


def _dialled(address: str, wish: v9fs.Wish) -> tuple[int, int]:
    links = []

    async def run() -> None:
        links.append(await v9fs.dialled(address, PATIENCE))
        await _login(links[0], address, wish)

    one_error(run)
    (link,) = links
    fds = link.rfd, link.wfd
    if v9fs.readable_by_kernel(link):
        return fds
    fd = _relayed(fds)
    return fd, fd


def _secure(address: str, wish: v9fs.Wish) -> int:
    """Dial over TLS: the kernel does it, or a process of its own where the kernel cannot."""
    from mk9p.dial import ktls

    links: list[SocketLink] = []

    async def run() -> None:
        where = parse(address)
        with trio.move_on_after(PATIENCE):
            unasked = await asked(address)
            sock = await ktls.dial(where) if not unasked and ktls.able() else None
            if sock is not None:
                links.append(SocketLink(sock, Peer(where.transport, address)))
            else:
                link = await v9fs.dialled(address, PATIENCE)
                assert isinstance(link, SocketLink)
                links.append(link)
            await _login(links[0], address, wish)
            return
        raise NineError(errno.ETIMEDOUT, f"{address}: no answer within {PATIENCE:g} s")

    one_error(run)
    (link,) = links
    if type(link) is not SocketLink:
        return _relayed(link)
    link.sock.setblocking(True)
    return link.sock.detach()


async def asked(address: str) -> bool:
    """Have one short conversation with a server over TLS; tell whether it sends tickets, which the kernel's TLS does not take.

    Raises what the server has against us: TLS 1.3 says that after the handshake, and v9fs would not tell.
    """
    async with trio.open_nursery() as nursery:
        connection = await open_connection(address, nursery, deadline=PATIENCE)
        link = connection.link
        session = link.sock.session if isinstance(link, TlsLink) else None
        connection.end("it was only asked")
        nursery.cancel_scope.cancel()
    return session is not None and session.has_ticket


async def try_login(address: str, wish: v9fs.Wish) -> None:
    """Raise what is wrong with a capability, in the server's words."""
    link = await v9fs.dialled(address, PATIENCE)
    try:
        await _login(link, address, wish)
    finally:
        link.close()


async def _login(link: Link, address: str, wish: v9fs.Wish) -> None:
    if not wish.cap:
        return
    with trio.move_on_after(PATIENCE):
        await login(link, wish.cap, wish.user)
        return
    raise NineError(errno.ETIMEDOUT, f"{address}: no answer to the login within {PATIENCE:g} s")


def _relayed(link: SocketLink | tuple[int, int]) -> int:
    """Let a process of its own stand between a link, or descriptors, and a socket for v9fs; return that."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    def work(ready: Callable[[], None]) -> None:
        theirs.close()
        ready()
        v9fs.relay(link, ours.fileno())

    in_background(work)
    ours.close()
    return theirs.detach()
