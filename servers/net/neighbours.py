"""arp: the hardware addresses on the networks that the kernel reaches directly, with IPv6's neighbours (ip(3)): `medium state ip mac interface`."""

import errno
from typing import Any, Final

from mk9p.errors import NineError
from mk9p.servers.net.netlink import FAMILIES, address, interface_names, interface_number, netlink
from mk9p.tree import Ctl

_STATES: Final = {1: "WAIT", 32: "FAIL"}  # NUD_INCOMPLETE, NUD_FAILED; all other states have an address in use: OK
_NOARP: Final = 0x40  # multicast and the loopback: the kernel asked nobody


def _entries(ip: Any) -> list[Any]:
    return [n for family in FAMILIES for n in ip.get_neighbours(family=family) if not n["state"] & _NOARP]


async def show() -> str:
    """Render the table; hardware addresses are hexadecimal, without colons."""
    entries, names = await netlink(_entries), interface_names()
    return "".join(
        f"ether {_STATES.get(n['state'], 'OK')} {n.get_attr('NDA_DST')} "
        f"{(n.get_attr('NDA_LLADDR') or '000000000000').replace(':', '')} {names.get(n['ifindex'], n['ifindex'])}\n"
        for n in entries
    )


async def add(ip: str, mac: str, ifc: str = "") -> None:
    """Add a neighbour, which stays until it is deleted. Without an interface, use the one that the routes lead to."""
    host, plain = address(ip), mac.replace(":", "").lower()
    if len(plain) != 12 or set(plain) - set("0123456789abcdef"):
        raise NineError(errno.EINVAL, f"bad hardware address {mac!r}: want 525400123456")
    lladdr = ":".join(plain[at : at + 2] for at in range(0, 12, 2))
    given = interface_number(ifc) if ifc else None

    def do(route: Any) -> None:
        number = given or next(iter(route.route("get", dst=host))).get_attr("RTA_OIF")
        route.neigh("replace", dst=host, lladdr=lladdr, ifindex=number, state="permanent")

    await netlink(do, f"add {ip}")


async def delete(ip: str) -> None:
    """Delete an address; raises ENOENT for an unknown one."""
    host = address(ip)

    def do(route: Any) -> None:
        found = [n for n in _entries(route) if n.get_attr("NDA_DST") == host]
        if not found:
            raise NineError(errno.ENOENT, f"del {ip}: not known")
        for entry in found:
            route.neigh("del", dst=host, ifindex=entry["ifindex"])

    await netlink(do, f"del {ip}")


async def flush() -> None:
    """Delete all of them."""

    def do(route: Any) -> None:
        for entry in _entries(route):
            route.neigh("del", dst=entry.get_attr("NDA_DST"), ifindex=entry["ifindex"])

    await netlink(do, "flush")


def arp() -> Ctl:
    """Return the file."""
    return Ctl({"add": add, "del": delete, "flush": flush}, show)
