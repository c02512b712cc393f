"""tcp: ip(7), tcp(7), ipv6(7).

`*` is every address of both families when listening, by one socket, and this machine when dialling, so that a listener's address can be dialled.
A Linux socket has its options inherited by what it accepts, so TCP's are set once on the listener.

Root dials a port that is root's, below 1024 as 9P's own is, from one that is root's too, as NFS does and v9fs with `privport`: a listener can then
tell root of a machine from its other users.
"""

import contextlib
import errno
import os
import socket
from functools import partial
from typing import Any, Final, TypeAlias

import attrs

from mk9p.dial import netns
from mk9p.dial.address import Dial
from mk9p.dial.eyeballs import first, interleaved
from mk9p.dial.link import Peer, SocketLink
from mk9p.dial.sockets import SocketListener, connect

RESERVED: Final = 1024  # the ports below are root's (ip(7), PROT_SOCK)
# of these, the ones to dial from: p9_ipport_resv_min of net/9p/trans_fd.c, and NFS's
_OURS: Final = range(665, RESERVED)

Where: TypeAlias = tuple[int, Any]
"""A family, and what its sockets are connected to."""


async def dial_tcp(dial: Dial) -> SocketLink:
    host, port = tcp_where(dial)
    found = await _resolve(dial, host, port)
    attempts = [partial(_dial_tcp_one, dial, *each) for each in interleaved(found, lambda each: each[0])]
    return await attempts[0]() if len(attempts) == 1 else await first(attempts, _close)


def tcp_where(dial: Dial) -> tuple[str, int]:
    """Return the host and the port to dial."""
    host, port = dial.host_port()
    if not port:
        raise dial.refuse(errno.EINVAL, "port 0 is for listening only")
    return "127.0.0.1" if host == "*" else host, port


async def _close(link: SocketLink) -> None:
    link.close()


async def _dial_tcp_one(dial: Dial, family: int, where: Any) -> SocketLink:
    sock = await netns.new_socket(dial, family)
    bind_reserved(dial, sock, where[1])
    await connect(sock, where)
    return tcp_connected(dial, sock)


def tcp_connected(dial: Dial, sock: socket.socket) -> SocketLink:
    """Return the link over a socket that is connected, or close it and raise."""
    try:
        # TCP's simultaneous open, with itself: a port that is free and in our own ephemeral range may be the one we dial from.
        if sock.getsockname() == sock.getpeername():
            raise dial.refuse(errno.ECONNREFUSED)
        _tcp_options(sock)
        return _tcp_link(sock, dial.netns is None)
    except BaseException:
        sock.close()
        raise


def bind_reserved(dial: Dial, sock: socket.socket, port: int) -> None:
    """Give a socket of root's that dials a port of root's one itself.

    Where none is free, or this root may not have one (a container), it keeps what connect(2) gives it.
    """
    if port >= RESERVED or dial.netns is not None or os.geteuid() != 0:
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


async def listen_tcp(dial: Dial) -> SocketListener:
    host, port = dial.host_port()
    if host == "*":
        sock, where = await _tcp_any(dial, port)
    else:
        found = await _resolve(dial, host, port)
        found.sort(
            key=lambda each: each[0] != socket.AF_INET
        )  # one listener a name: the family that every client tries
        family, where = found[0]
        sock = await netns.new_socket(dial, family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _tcp_options(sock)
        sock.bind(where)
        sock.listen(socket.SOMAXCONN)
        bound, real, *_ = sock.getsockname()
    except BaseException:
        sock.close()
        raise
    here = dial.netns is None

    def link(accepted: socket.socket, _: object) -> SocketLink:
        return _tcp_link(accepted, here)

    address = attrs.evolve(dial, rest=f"{host}!{real}").address
    return SocketListener(sock, link, address=address, kind="tcp", loopback=here and _is_loopback(bound))


async def _tcp_any(dial: Dial, port: int) -> tuple[socket.socket, Any]:
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
    return numeric(host, port) or await netns.in_thread(dial, lambda: looked_up(dial, host, port))


def numeric(host: str, port: int) -> list[Where]:
    """Return the address that a host's name is itself, if it is one; an IPv6 zone is an interface of the right namespace, and none here."""
    with contextlib.suppress(socket.gaierror, UnicodeError):
        return [] if "%" in host else _look(host, port, socket.AI_NUMERICHOST)
    return []


def looked_up(dial: Dial, host: str, port: int) -> list[Where]:
    """Return the addresses of a host, in whatever time that takes. Raises NineError."""
    try:
        return _look(host, port, 0)
    except (socket.gaierror, UnicodeError) as error:  # its errno is getaddrinfo's own, no errno
        raise dial.refuse(errno.EHOSTUNREACH, f"no address for {host!r}: {error.args[-1]}") from None


def _look(host: str, port: int, flags: int) -> list[Where]:
    name = host.encode() if host.isascii() else host  # bytes: str would import the slow idna codec
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, where) for family, _, _, _, where in found]


def _tcp_options(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A kernel that panicked or was switched off says no goodbye: its fids, and exclusive files, are freed after a minute.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3)):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    # And while something is sent to it and not taken, sooner: whoever waits for its answer is told.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 10_000)


def _tcp_link(sock: socket.socket, here: bool) -> SocketLink:
    host, port, *_ = sock.getpeername()
    if _is_loopback(host):
        # Nothing is lost there and nothing shared, so there is nothing to find out: bbr, where it is the default, paces itself to half of what goes.
        with contextlib.suppress(PermissionError):  # the administrator allows others only (tcp(7))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
    loopback = here and _is_loopback(host) and _is_loopback(sock.getsockname()[0])
    return SocketLink(sock, Peer("tcp", f"{host.removeprefix('::ffff:')}!{port}", loopback=loopback))


def _is_loopback(host: str) -> bool:
    return host == "::1" or host.removeprefix("::ffff:").startswith("127.")
