"""tcp: ip(7), tcp(7), ipv6(7).

For listening, `*` is every address of both families, by one socket. For dialling it is this machine, so a listener's address can be dialled. On
Linux accepted sockets inherit options, so TCP's are set once on the listener.

Root dials a port that is root's, below 1024 such as 9P's own, from another port that is root's, as NFS and v9fs with `privport` do: a listener can
then distinguish root of a machine from its other users.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

from mk9p.dial import blocking, netns
from mk9p.dial.address import Dial
from mk9p.dial.eyeballs import first, interleaved
from mk9p.dial.link import Peer, SocketLink
from mk9p.dial.sockets import SocketListener, connect

RESERVED: Final = 1024  # the ports below are root's (ip(7), PROT_SOCK)
# of these, the ports to dial from: p9_ipport_resv_min of net/9p/trans_fd.c, and NFS's
_OURS: Final = range(665, RESERVED)

L = TypeVar("L", bound=SocketListener)
Where: TypeAlias = tuple[int, Any]
"""A family, and the address that its sockets connect to."""


async def dial(where: Dial) -> SocketLink:
    host, port = _where(where)
    found = await _resolve(where, host, port)
    attempts = [partial(_dial_one, where, *each) for each in interleaved(found, lambda each: each[0])]
    return await attempts[0]() if len(attempts) == 1 else await first(attempts, _close)


def dial_now(where: Dial, deadline: float) -> SocketLink:
    host, port = _where(where)
    found = _numeric(host, port) or blocking.in_thread(where, lambda: _looked_up(where, host, port), deadline)
    addresses = interleaved(found, lambda each: each[0])
    return _connected(where, blocking.first(where, addresses, partial(_bind_reserved, where), deadline))


def _where(dial: Dial) -> tuple[str, int]:
    """Return the host and the port to dial."""
    host, port = dial.host_port()
    if not port:
        raise dial.refuse(errno.EINVAL, "port 0 is for listening only")
    return "127.0.0.1" if host == "*" else host, port


async def _close(link: SocketLink) -> None:
    link.close()


async def _dial_one(dial: Dial, family: int, where: Any) -> SocketLink:
    sock = await netns.new_socket(dial, family)
    _bind_reserved(dial, sock, where)
    await connect(sock, where)
    return _connected(dial, sock)


def _connected(dial: Dial, sock: socket.socket) -> SocketLink:
    """Return the link over a socket that is connected, or close it and raise."""
    try:
        # TCP's simultaneous open, with itself: the kernel may choose as local port the very port that this call dials.
        if sock.getsockname() == sock.getpeername():
            raise dial.refuse(errno.ECONNREFUSED)
        prepare(sock)
        return link_of(dial, sock)
    except BaseException:
        sock.close()
        raise


def _bind_reserved(dial: Dial, sock: socket.socket, where: Any) -> None:
    """Bind a socket of root's that dials a port of root's to such a port.

    If none is free, or this root may not have one (a container), connect(2) chooses the port.
    """
    if where[1] >= RESERVED or dial.netns is not None or os.geteuid() != 0:
        return
    import random

    ports = list(_OURS)
    random.shuffle(ports)
    for mine in ports:
        try:
            sock.bind(("", mine))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return
        else:
            return


async def listen(where: Dial, mode: int, *, kind: Callable[..., L] = SocketListener) -> L:  # type: ignore[assignment]
    host, port = where.host_port()
    if host == "*":
        sock, there = await _any(where, port)
    else:
        found = await _resolve(where, host, port)
        # One listener for each name: the family that every client tries.
        found.sort(key=lambda each: each[0] != socket.AF_INET)
        family, there = found[0]
        sock = await netns.new_socket(where, family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        prepare(sock)
        sock.bind(there)
        sock.listen(socket.SOMAXCONN)
        bound, real, *_ = sock.getsockname()
    except BaseException:
        sock.close()
        raise
    address = where._replace(rest=f"{host}!{real}").address
    loopback = where.netns is None and is_loopback(bound)
    return kind(sock, partial(link_of, where), address=address, transport=where.transport, loopback=loopback)


async def _any(dial: Dial, port: int) -> tuple[socket.socket, Any]:
    """Return an unbound socket and the address that means all of both families, or of IPv4 where the kernel has no IPv6."""
    try:
        sock = await netns.new_socket(dial, socket.AF_INET6)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
        return await netns.new_socket(dial, socket.AF_INET), ("0.0.0.0", port)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return sock, ("::", port)


async def _resolve(dial: Dial, host: str, port: int) -> list[Where]:
    return _numeric(host, port) or await netns.in_thread(dial, lambda: _looked_up(dial, host, port))


def _numeric(host: str, port: int) -> list[Where]:
    """Return the address that a host's name itself is, if it is one; an IPv6 zone is an interface of the right namespace, and means nothing here."""
    with contextlib.suppress(socket.gaierror, UnicodeError):
        return [] if "%" in host else _look(host, port, socket.AI_NUMERICHOST)
    return []


def _looked_up(dial: Dial, host: str, port: int) -> list[Where]:
    """Return the addresses of a host, however long that takes. Raises NineError."""
    try:
        return _look(host, port, 0)
    except (socket.gaierror, UnicodeError) as error:  # its number is getaddrinfo's own, and no errno
        raise dial.refuse(errno.EHOSTUNREACH, f"no address for {host!r}: {error.args[-1]}") from None


def _look(host: str, port: int, flags: int) -> list[Where]:
    name = host.encode() if host.isascii() else host  # bytes: str would import the slow idna codec
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, where) for family, _, _, _, where in found]


def prepare(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A kernel that panicked or was switched off says no goodbye: its fids, and exclusive files, are freed after a minute.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3)):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    # While something was sent to it and is not taken, sooner: a caller that waits for its answer gets an error.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 10_000)


def link_of(dial: Dial, sock: socket.socket, _: object = None) -> SocketLink:
    host, port, *_ = sock.getpeername()
    if is_loopback(host):
        # On the loopback nothing is lost and nothing shared, so there is nothing to find out: bbr, where it is the default, paces itself to half of
        # what is possible.
        with contextlib.suppress(PermissionError):  # the administrator allows only others (tcp(7))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
    loopback = dial.netns is None and is_loopback(host) and is_loopback(sock.getsockname()[0])
    return SocketLink(sock, Peer(dial.transport, f"{host.removeprefix('::ffff:')}!{port}", loopback=loopback))


def is_loopback(host: str) -> bool:
    return host == "::1" or host.removeprefix("::ffff:").startswith("127.")
