"""Other ways to write a dial string, for shells in which `!` needs quotes: `tcp:host:564`, `unix:/run/mk9p/ns`, and URLs as fsspec has them.

    tcp:HOST[:PORT]  tcp://HOST[:PORT]   an IPv6 address stands in brackets: tcp:[::1]:564
    unix:/PATH  unix:///PATH  char:/PATH  exec:COMMAND  fd:READ:WRITE
    9p://HOST[:PORT]  9p+unix://%2FPATH  and the same with p9

A dial string never begins with `NETWORK:`. Before its first `!` it has a network alone, or the path of a network namespace, which begins with a
slash.
"""

import errno
import re
from typing import TYPE_CHECKING, Final, Protocol

from mk9p.errors import NineError

if TYPE_CHECKING:
    from collections.abc import Mapping

_URLS: Final = {"9p": "tcp", "p9": "tcp", "9p+unix": "unix", "p9+unix": "unix"}
_HOST: Final = re.compile(r"(?:\[([^\]]*)\]|([^:\[\]]*))(?::([^:]*))?")
_HEAD: Final = re.compile(r"([a-z0-9]+(?:\+unix)?):")


class Network(Protocol):
    """A row of TRANSPORTS: the ones that other machines can come by have a host and a port."""

    @property
    def exposed(self) -> bool: ...


def plain(address: str, transports: "Mapping[str, Network]") -> str:
    """Return a dial string as dial(2) has it; one that is not in any of the other ways is returned as it is. Raises EINVAL."""
    found = _HEAD.match(address)
    if found is None:
        return address
    network, rest = found[1], address[found.end() :]
    is_url = rest.startswith("//")
    if network in _URLS and is_url:
        rest, _, path = rest[2:].partition("/")
        if path or not rest:
            what = "the path in the tree is another argument" if path else "it names no server"
            raise NineError(errno.EINVAL, f"bad address {address!r}: {what}")
        if _URLS[network] == "unix":
            from urllib.parse import unquote

            return f"unix!{unquote(rest)}"
        return f"tcp!{_host_port(address, rest.rpartition('@')[2])}"
    row = transports.get(network)
    if row is None or not rest:
        return address
    if row.exposed:
        return f"{network}!{_host_port(address, rest[2:].removesuffix('/') if is_url else rest)}"
    if network == "fd":
        rest = rest.replace(":", "!")
    return f"{network}!{rest[2:] if is_url else rest}"


def _host_port(address: str, text: str) -> str:
    """Return HOST[!PORT] of HOST[:PORT]. Raises EINVAL, for an IPv6 address without brackets too."""
    found = _HOST.fullmatch(text)
    if found is None:
        raise NineError(
            errno.EINVAL, f"bad address {address!r}: want HOST:PORT, and an IPv6 address in brackets: [::1]:564"
        )
    bracketed, bare, port = found.groups()
    return (bare if bracketed is None else bracketed) + (f"!{port}" if port else "")
