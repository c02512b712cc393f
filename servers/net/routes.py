"""iproute: the routes of the main table (ip(3)), with a line for each: `target mask nexthop flags tag interface`.

The flags are 4 or 6, and i for a network that is reached directly. The tag says what made the route, in the kernel's words: `kernel`, `boot`,
`static`, `dhcp`, `ra` and others, some by number.
"""

import errno
import socket
from typing import Any, Final

from mk9p.errors import NineError
from mk9p.servers.net.netlink import FAMILIES, address, interface_names, interface_number, netlink, prefix
from mk9p.tree import Ctl

_TABLE: Final = 254  # RT_TABLE_MAIN
_UNICAST: Final = 1
_KERNEL: Final = 2
_TAGS: Final = {1: "redirect", 2: "kernel", 3: "boot", 4: "static", 9: "ra", 16: "dhcp"}
_NONE: Final = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}


def _routes(ip: Any) -> list[Any]:
    return [
        route
        for family in FAMILIES
        for route in ip.get_routes(family=family)
        if route.get_attr("RTA_TABLE", route["table"]) == _TABLE and route["type"] == _UNICAST
    ]


async def show() -> str:
    """Render the table."""
    routes, names = await netlink(_routes), interface_names()
    lines = []
    for route in routes:
        none = _NONE[route["family"]]
        hops = [(route.get_attr("RTA_GATEWAY"), route.get_attr("RTA_OIF"))]
        hops += [(hop.get_attr("RTA_GATEWAY"), hop["oif"]) for hop in route.get_attr("RTA_MULTIPATH") or []]
        for gateway, oif in hops:
            if oif is None:
                continue
            flags = ("4" if route["family"] == socket.AF_INET else "6") + ("" if gateway else "i")
            tag = _TAGS.get(route["proto"], route["proto"])
            lines.append(
                f"{route.get_attr('RTA_DST') or none} /{route['dst_len']} {gateway or none} {flags} {tag} {names.get(oif, oif)}\n"
            )
    return "".join(lines)


async def default() -> dict[bool, str]:
    """Return the default router, if there is one, by whether it is for IPv6."""
    routes = await netlink(_routes)
    return {
        r["family"] == socket.AF_INET6: r.get_attr("RTA_GATEWAY")
        for r in routes
        if not r["dst_len"] and r.get_attr("RTA_GATEWAY")
    }


async def add(target: str, mask: str, nexthop: str, ifc: str = "") -> None:
    """Add a route by a router, or with `::` or `0.0.0.0` as next hop directly through an interface."""
    host, gateway = address(target), address(nexthop)
    values: dict[str, Any] = {"dst": f"{host}/{prefix(mask, host)}", "table": _TABLE}
    if gateway not in _NONE.values():
        values["gateway"] = gateway
    elif not ifc:
        raise NineError(
            errno.EINVAL, "usage: add TARGET MASK NEXTHOP [IFC]: without a router you must name an interface"
        )
    if ifc:
        values["oif"] = interface_number(ifc)
    await netlink(lambda ip: ip.route("add", **values), f"add {target}")


async def remove(target: str, mask: str, nexthop: str = "") -> None:
    """Remove a route."""
    host = address(target)
    values: dict[str, Any] = {"dst": f"{host}/{prefix(mask, host)}", "table": _TABLE}
    if nexthop and address(nexthop) not in _NONE.values():
        values["gateway"] = address(nexthop)
    await netlink(lambda ip: ip.route("del", **values), f"remove {target}")


async def flush() -> None:
    """Remove all routes except those that the kernel made for the interfaces' own networks."""

    def do(ip: Any) -> None:
        for route in _routes(ip):
            if route["proto"] != _KERNEL:
                ip.route("del", **_same(route))

    await netlink(do, "flush")


def _same(route: Any) -> dict[str, Any]:
    """Return what identifies a route for `route del`."""
    target = route.get_attr("RTA_DST") or _NONE[route["family"]]
    values: dict[str, Any] = {"dst": f"{target}/{route['dst_len']}", "table": _TABLE, "proto": route["proto"]}
    for key, name in (("gateway", "RTA_GATEWAY"), ("oif", "RTA_OIF"), ("priority", "RTA_PRIORITY")):
        if (value := route.get_attr(name)) is not None:
            values[key] = value
    return values


def iproute() -> Ctl:
    """Return the file."""
    return Ctl({"add": add, "remove": remove, "delete": remove, "flush": flush}, show)
