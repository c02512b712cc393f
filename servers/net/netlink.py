"""Ask the kernel and change its settings by netlink, with pyroute2.

pyroute2 is imported when it is first needed, and works in threads: its import takes an emulated kernel a second or two, and it waits for answers
in its own way. Without it the files that need it say so, and everything else works.
"""

import errno
import os
import socket
from collections.abc import Callable
from typing import Any, Final, TypeVar

import trio

from mk9p.errors import NineError

T = TypeVar("T")

FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


async def netlink(do: Callable[[Any], T], what: str = "") -> T:
    """Return what `do(IPRoute)` returns. Raises the kernel's errno, with words that begin with `what`, and ENOSYS without pyroute2."""
    return await trio.to_thread.run_sync(_netlink, do, what)


def _netlink(do: Callable[[Any], T], what: str) -> T:
    try:
        from pyroute2 import IPRoute, NetlinkError  # type: ignore[import-untyped]
    except ImportError:
        raise NineError(errno.ENOSYS, "this needs pyroute2: pip install 'mk9p[net]'") from None
    try:
        with IPRoute() as ip:
            return do(ip)
    except NetlinkError as error:
        words = os.strerror(error.code)
        if error.code == errno.EPERM:
            words += ": the server has no CAP_NET_ADMIN in this kernel"
        raise NineError(error.code, f"{what}: {words}" if what else words) from None


def interface_names() -> dict[int, str]:
    """Return the names of all interfaces by their numbers."""
    return dict(socket.if_nameindex())


def interface_number(name: str) -> int:
    """Return an interface's number by its name, or by the number itself; raises ENODEV."""
    for number, known in socket.if_nameindex():
        if name in (known, str(number)):
            return number
    raise NineError(errno.ENODEV, f"no interface {name!r}")


def address(text: str) -> str:
    """Return an IP address as the kernel writes it; raises EINVAL."""
    for family in FAMILIES:
        try:
            return socket.inet_ntop(family, socket.inet_pton(family, text))
        except OSError:
            continue
    raise NineError(errno.EINVAL, f"bad address {text!r}")


def prefix(text: str, of: str) -> int:
    """Return a mask's length for an address: `/24`, `255.255.255.0`, or Plan 9's `/120` for the same; raises EINVAL."""
    most = 128 if ":" in of else 32
    if text.startswith("/") and text[1:].isascii() and text[1:].isdigit():
        bits = int(text[1:])
        bits -= 96 if most == 32 and bits >= 96 else 0
        if bits <= most:
            return bits
    elif ":" not in text and most == 32:
        try:
            mask = int.from_bytes(socket.inet_pton(socket.AF_INET, text), "big")
        except OSError:
            mask = 1
        ones = 32 - ((~mask & 0xFFFFFFFF).bit_length())
        if mask == (0xFFFFFFFF << (32 - ones)) & 0xFFFFFFFF:
            return ones
    raise NineError(errno.EINVAL, f"bad mask {text!r}: want /24, or 255.255.255.0")


def network(host: str, bits: int) -> str:
    """Return the network that an address is in."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    packed = socket.inet_pton(family, host)
    rest = 8 * len(packed) - bits
    number = int.from_bytes(packed, "big") >> rest << rest
    return socket.inet_ntop(family, number.to_bytes(len(packed), "big"))
