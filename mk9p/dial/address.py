"""Dial strings: what they say, and the words of their failures.

A dial string is Plan 9's (dial(2)): `[PREFIX/]NETWORK!ADDRESS`. The prefix names another network stack, as `/net.alt/tcp!host!port` does there; on
Linux that is the file of a network namespace. Only the first `!` is looked at here: what follows is the network's own, so `unix!/a!b` and
`exec!echo hi!` say what they seem to, and an IPv6 host needs no brackets.

Every failure is one line that begins with the address it is about, as given: with ten kernels, `Connection refused` alone helps nobody.
"""

import errno
import os
import socket
from typing import Final

import attrs

from mk9p.errors import NineError

NETWORKS: Final = ("tcp", "unix", "vsock", "fd", "char", "exec")
PORT: Final = 564  # 9P's own, `9pfs` at IANA; Plan 9's ndb calls it 9fs, and few /etc/services know either
_PORT_NAMES: Final = {"9fs": PORT, "9pfs": PORT}


@attrs.frozen
class Dial:
    """A dial string, taken apart: the file of a network namespace or None, the network, and what is the network's own."""

    netns: str | None
    network: str
    rest: str

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

    Nothing is looked up or opened. Raises NineError (EINVAL) if it is not `[NETNS/]NETWORK!ADDRESS` with a network of `NETWORKS`.
    """
    head, mark, rest = address.partition("!")
    prefix, slash, network = head.rpartition("/")
    if not mark or not network or not rest or "\0" in address or (slash and not prefix.startswith("/")):
        want = "want NETWORK!ADDRESS, as tcp!host!564 or unix!/run/mk9p/ns"
        raise NineError(errno.EINVAL, f"bad dial string {address!r}: {want}")
    dial = Dial(prefix if slash else None, network, rest)
    if network == "tls":
        raise dial.refuse(
            errno.EOPNOTSUPP, "TLS is not there yet: tunnel instead, as exec!ssh HOST mk9p serve 'fd!0!1'"
        )
    if network not in NETWORKS:
        raise NineError(
            errno.EINVAL, f"bad dial string {address!r}: unknown network {network!r}: want one of {' '.join(NETWORKS)}"
        )
    if slash and network != "tcp":
        raise dial.refuse(errno.EINVAL, f"only tcp can be in another network namespace, not {network}")
    return dial


def _line(text: str) -> str:
    return " ".join(text.replace("\r", "\n").split("\n")) if "\n" in text or "\r" in text else text
