"""Transports, a row each, and dial strings: what they say, and the words of their failures.

A dial string is Plan 9's (dial(2)): `[PREFIX/]NETWORK!ADDRESS`. The prefix names another network stack, as `/net.alt/tcp!host!port` does there; on
Linux that is the file of a network namespace. Only the first `!` is looked at here: what follows is the network's own, so `unix!/a!b` and
`exec!echo hi!` say what they seem to, and an IPv6 host needs no brackets.

A transport is a module and its row here. What is different about one or another is read in the row: nothing else compares names of transports. A row
names its module, which is imported when somebody dials or listens.

Every failure is one line that begins with the address it is about, as given: with ten kernels, `Connection refused` alone helps nobody.
"""

import errno
import os
import socket
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

import attrs

from mk9p.errors import NineError

PORT: Final = 564  # 9P's own, `9pfs` at IANA; Plan 9's ndb calls it 9fs, and few /etc/services know either
_PORT_NAMES: Final = {"9fs": PORT, "9pfs": PORT}


@attrs.frozen
class Transport:
    """Say what a network of dial strings is, and what is known of who comes by it.

    `module` has its functions, which raise OSError: the coroutines `dial(where)` and, of what can be listened on, `listen(where, mode)`; and
    `dial_now(where, deadline)`, which blocks (blocking.py). `where` is a `Dial`.
    """

    name: str
    module: str
    tells_user: bool = attrs.field(default=False, kw_only=True)
    """It proves who is at the other end: `Peer.uid` by the kernel, `Peer.user` otherwise."""
    private: bool = attrs.field(default=False, kw_only=True)
    """Whoever holds the other end was given it: the names that they say are believed."""
    redial: bool = attrs.field(default=False, kw_only=True)
    """It can be dialled as often as one likes: it is no line that is there once."""
    exposed: bool = attrs.field(default=False, kw_only=True)
    """Other machines may come, unless a listener is `loopback`; `Peer.address` is HOST!PORT."""
    netns: bool = attrs.field(default=False, kw_only=True)
    """It can be in another network namespace."""
    once: bool = attrs.field(default=False, kw_only=True)
    """A listener has one link in all."""

    def function(self, name: str) -> Callable[..., Any] | None:
        """Return one of its module's functions, None if it has none of that name."""
        found: Callable[..., Any] | None = getattr(import_module(self.module), name, None)
        return found


TRANSPORTS: Final = {
    row.name: row
    for row in (
        Transport("tcp", "mk9p.dial.tcp", redial=True, exposed=True, netns=True),
        Transport("unix", "mk9p.dial.unix", redial=True, tells_user=True),
        Transport("vsock", "mk9p.dial.vsock", redial=True, exposed=True),
        Transport("fd", "mk9p.dial.fd", private=True, once=True),
        Transport("char", "mk9p.dial.char", private=True),
        Transport("exec", "mk9p.dial.commands", private=True),
    )
}


@attrs.frozen
class Dial:
    """A dial string, taken apart: the file of a network namespace or None, the transport, and what is the transport's own."""

    netns: str | None
    transport: Transport
    rest: str

    @property
    def network(self) -> str:
        """The transport's name."""
        return self.transport.name

    @property
    def address(self) -> str:
        """The dial string again, on one line."""
        prefix = "" if self.netns is None else self.netns + "/"
        return _line(f"{prefix}{self.network}!{self.rest}")

    def refuse(self, number: int, words: str = "") -> NineError:
        """Return the error to raise: this address, then the words, else the C library's for that errno."""
        return NineError(number, f"{self.address}: {words or os.strerror(number)}")

    def failed(self, error: OSError, words: str = "") -> NineError:
        """Return the error to raise for what the kernel said, and what that means here."""
        if isinstance(error, NineError):
            return error
        number = error.errno or errno.EIO
        return self.refuse(number, f"{os.strerror(number)}: {words}" if words else "")

    def host_port(self, *, highest: int = 65535) -> tuple[str, int]:
        """Return `HOST[!PORT]` as the host's name and the port's number, 564 where none is given; a port may be a name of services(5)."""
        host, _, port = self.rest.partition("!")
        if not host or "!" in port:
            raise self.refuse(errno.EINVAL, f"want {self.network}!HOST!PORT")
        if not port:
            return host, PORT
        if port.isascii() and port.isdigit():
            if int(port) > highest:
                raise self.refuse(errno.EINVAL, f"port {port} is above {highest}")
            return host, int(port)
        if port in _PORT_NAMES:
            return host, _PORT_NAMES[port]
        try:
            return host, socket.getservbyname(port, "tcp")
        except OSError:
            raise self.refuse(
                errno.EINVAL, f"unknown port {port!r}: give a number, or a name of /etc/services"
            ) from None


def parse(address: str) -> Dial:
    """Take a dial string apart.

    Nothing is looked up or opened. Raises NineError (EINVAL) if it is not `[NETNS/]NETWORK!ADDRESS` with a network of `TRANSPORTS`.
    """
    head, mark, rest = address.partition("!")
    prefix, slash, network = head.rpartition("/")
    if not mark or not network or not rest or "\0" in address or (slash and not prefix.startswith("/")):
        want = "want NETWORK!ADDRESS, as tcp!host!564 or unix!/run/mk9p/ns"
        raise NineError(errno.EINVAL, f"bad dial string {address!r}: {want}")
    transport = TRANSPORTS.get(network)
    if transport is None:
        if network == "tls":
            words = "TLS is not there yet: tunnel instead, as exec!ssh HOST mk9p serve 'fd!0!1'"
            raise NineError(errno.EOPNOTSUPP, f"{_line(address)}: {words}")
        known = f"want one of {' '.join(TRANSPORTS)}"
        raise NineError(errno.EINVAL, f"bad dial string {address!r}: unknown network {network!r}: {known}")
    dial = Dial(prefix if slash else None, transport, rest)
    if slash and not transport.netns:
        able = " and ".join(row.name for row in TRANSPORTS.values() if row.netns)
        raise dial.refuse(errno.EINVAL, f"only {able} can be in another network namespace, not {network}")
    return dial


def _line(text: str) -> str:
    return " ".join(text.replace("\r", "\n").split("\n")) if "\n" in text or "\r" in text else text
