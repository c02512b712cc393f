"""Transports, one row each, and dial strings: what they say, and the words of their failures.

A dial string is Plan 9's (dial(2)): `[PREFIX/]NETWORK!ADDRESS`. The prefix names another network stack, as `/net.alt/tcp!host!port` does there; on
Linux it is the file of a network namespace. This module looks only at the first `!`: what follows belongs to the network, so `unix!/a!b` and
`exec!echo hi!` mean what they seem to, and an IPv6 host needs no brackets.

A transport is a module and its row here. The row says what is different about it: no other code compares names of transports. A row names its
module, which is imported when somebody dials or listens.

For shells in which `!` needs quotes there are other ways to write the same (spellings.py); what `parse` returns has the plain one.

Every failure is one line that begins with its address, as given: with ten kernels, `Connection refused` alone helps nobody.
"""

import errno
import os
import socket
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, NamedTuple

from mk9p.dial.keys import Keys
from mk9p.errors import NineError

PORT: Final = 564  # 9P's own, `9pfs` at IANA; Plan 9's ndb calls it 9fs, and few /etc/services have either
_PORT_NAMES: Final = {"9fs": PORT, "9pfs": PORT}


class Transport(NamedTuple):
    """A network of dial strings, and what is known of the peers that come by it.

    `module` has its functions, which raise OSError: the coroutines `dial(where)` and, if one can listen on it, `listen(where, mode)`; and
    `dial_now(where, deadline)`, which blocks (blocking.py). `where` is a `Dial`.
    """

    name: str
    module: str
    tells_user: bool = False
    """It proves who is at the other end: `Peer.uid` by the kernel, `Peer.user` otherwise."""
    private: bool = False
    """Somebody gave the other end to its holder: names that the holder sends are believed."""
    redial: bool = False
    """It can be dialled any number of times: it is no line that exists once."""
    exposed: bool = False
    """Other machines can come, unless a listener is `loopback`; `Peer.address` is HOST!PORT."""
    netns: bool = False
    """It can be in another network namespace."""
    once: bool = False
    """A listener has only one link in its life."""
    starts: bool = False
    """Dialling starts what answers, which then takes longer the first time."""

    def function(self, name: str) -> Callable[..., Any] | None:
        """Return one of its module's functions, None if it has none of that name."""
        found: Callable[..., Any] | None = getattr(import_module(self.module), name, None)
        return found


TRANSPORTS: Final = {
    row.name: row
    for row in (
        Transport("tcp", "mk9p.dial.tcp", redial=True, exposed=True, netns=True),
        Transport("tls", "mk9p.dial.tls", redial=True, exposed=True, tells_user=True, netns=True),
        Transport("unix", "mk9p.dial.unix", redial=True, tells_user=True),
        Transport("vsock", "mk9p.dial.vsock", redial=True, exposed=True),
        Transport("fd", "mk9p.dial.fd", private=True, once=True),
        Transport("char", "mk9p.dial.char", private=True),
        Transport("exec", "mk9p.dial.commands", private=True, starts=True),
    )
}


class Dial(NamedTuple):
    """A parsed dial string: the file of a network namespace or None, the transport, and the transport's own part.

    `keys` are not in the string: the caller has them, or None for those that keys.py finds.
    """

    netns: str | None
    transport: Transport
    rest: str
    keys: Keys | None = None

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
        """Return the error to raise: this address, then the words, else the C library's words for that errno."""
        return NineError(number, f"{self.address}: {words or os.strerror(number)}")

    def failed(self, error: OSError, words: str = "") -> NineError:
        """Return the error to raise for what the kernel said, and what that means here."""
        if isinstance(error, NineError):
            return error
        number = error.errno or errno.EIO
        return self.refuse(number, f"{os.strerror(number)}: {words}" if words else "")

    def host_port(self, *, highest: int = 65535) -> tuple[str, int]:
        """Return the host's name and the port's number of `HOST[!PORT]`, 564 by default; a port may be a name of services(5)."""
        host, _, port = self.rest.partition("!")
        if not host or "!" in port:
            raise self.refuse(errno.EINVAL, f"want {self.network}!HOST!PORT")
        if not port:
            return host, PORT
        if port.isascii() and port.isdigit():
            if len(port) > 20 or int(port) > highest:
                raise self.refuse(errno.EINVAL, f"port {port:.20} is above {highest}")
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
    """Parse a dial string, also one that is written another way (spellings.py).

    It looks up and opens nothing. Raises NineError (EINVAL) if the string is not `[NETNS/]NETWORK!ADDRESS` with a network of `TRANSPORTS`.
    """
    if ":" in address:
        from mk9p.dial.spellings import plain

        address = plain(address, TRANSPORTS)
    head, mark, rest = address.partition("!")
    prefix, slash, network = head.rpartition("/")
    if not mark or not network or not rest or "\0" in address or (slash and not prefix.startswith("/")):
        want = "want NETWORK!ADDRESS, as tcp!host!564 or unix:/run/mk9p/ns"
        raise NineError(errno.EINVAL, f"bad dial string {address!r}: {want}")
    transport = TRANSPORTS.get(network)
    if transport is None:
        known = f"want one of {' '.join(TRANSPORTS)}"
        raise NineError(errno.EINVAL, f"bad dial string {address!r}: unknown network {network!r}: {known}")
    dial = Dial(prefix if slash else None, transport, rest)
    if slash and not transport.netns:
        able = " and ".join(row.name for row in TRANSPORTS.values() if row.netns)
        raise dial.refuse(errno.EINVAL, f"only {able} can be in another network namespace, not {network}")
    return dial


def _line(text: str) -> str:
    return " ".join(text.replace("\r", "\n").split("\n")) if "\n" in text or "\r" in text else text
