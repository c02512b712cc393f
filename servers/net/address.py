"""Addresses as ip(3) writes them, `ADDR!PORT`, and as sockets have them.

An address is a number: cs translates names. IPv6 sockets here take IPv4 as well (`::ffff:10.0.0.1`), which is shown as IPv4. vsock's are
`CID!PORT`; a CID is a number, `local` or `host` (vsock(7)).
"""

import errno
import socket
from typing import Any, Final

import attrs

from mk9p.errors import NineError

ANY: Final = "*"
UNSET: Final = "::!0\n"  # what local and remote say where there is none: Plan 9's words
_CIDS: Final = {"hypervisor": 0, "local": 1, "host": 2}
_VMADDR_ANY: Final = 0xFFFFFFFF
_MAPPED: Final = "::ffff:"


@attrs.frozen
class Where:
    """A socket's address: its family, and the argument of Python's bind(2) and connect(2)."""

    family: int
    address: Any


def halves(text: str) -> tuple[str, str]:
    """Split `ADDR!PORT`; a port alone is of any address."""
    host, mark, port = text.partition("!")
    return (host, port) if mark else (ANY, host)


def number(text: str, most: int) -> int:
    """Return a port; raises EINVAL for anything else, also for the name of a service."""
    if not (text.isascii() and text.isdigit() and int(text) <= most):
        raise NineError(errno.EINVAL, f"bad port {text!r}: want a number; cs translates names")
    return int(text)


def ip(text: str) -> Where | None:
    """Return an IP address and port, with None for the address of `*!80` and `80`, which is any. Raises EINVAL with what is wrong."""
    host, port = halves(text)
    wanted = number(port, 65535)
    if host == ANY:
        return None
    try:
        found = socket.getaddrinfo(host, wanted, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)
    except (socket.gaierror, UnicodeError):
        raise NineError(
            errno.EINVAL, f"bad address {host!r}: want ADDR!PORT, as 10.0.0.1!80; cs translates names"
        ) from None
    return Where(found[0][0], found[0][4])


def mapped(where: Where) -> Where:
    """Return an IPv4 address as an IPv6 socket takes it."""
    if where.family != socket.AF_INET or not where.address[0]:
        return where
    return Where(socket.AF_INET6, (_MAPPED + where.address[0], where.address[1], 0, 0))


def any_family() -> int:
    """Return the family whose sockets take both, or IPv4 where the kernel has no IPv6."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        return socket.AF_INET
    return socket.AF_INET6


def vsock(text: str) -> Where:
    """Return a vsock address; raises EINVAL with what is wrong."""
    host, port = halves(text)
    wanted = number(port, _VMADDR_ANY - 1)
    if host == ANY:
        return Where(socket.AF_VSOCK, (_VMADDR_ANY, wanted or _VMADDR_ANY))
    if host not in _CIDS and not (host.isascii() and host.isdigit() and int(host) < _VMADDR_ANY):
        raise NineError(errno.EINVAL, f"bad CID {host!r}: want a number, local, host or *")
    return Where(socket.AF_VSOCK, (_CIDS[host] if host in _CIDS else int(host), wanted or _VMADDR_ANY))


def show(address: Any) -> str:
    """Return a socket's address as a file shows it: `10.0.0.1!80` and a newline."""
    host, port = address[0], address[1]
    if host == _VMADDR_ANY:
        host = ANY
    elif isinstance(host, str):
        host = host.removeprefix(_MAPPED) if "." in host else host
    return f"{host}!{port}\n"
