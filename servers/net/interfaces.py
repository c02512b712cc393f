"""ipifc: the interfaces, by the kernel's numbers (ip(3)); their names lead there too."""

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

import attrs

from mk9p.errors import NineError
from mk9p.servers.net.netlink import address, interface_names, netlink, network, prefix
from mk9p.tree import Ctl, Dir, Lazy, Node, Text, fields

_COUNTERS = {
    "pktin": "rx_packets",
    "pktout": "tx_packets",
    "errin": "rx_errors",
    "errout": "tx_errors",
    "bytesin": "rx_bytes",
    "bytesout": "tx_bytes",
}
_UP = 1  # IFF_UP
_UNIVERSE = 0  # RT_SCOPE_UNIVERSE


@attrs.frozen
class Interface:
    """One interface, by its number."""

    number: int

    def tree(self) -> Dir:
        words: dict[str, Callable[..., Any]] = {
            "up": self.up,
            "down": self.down,
            "mtu": self.mtu,
            "add": self.add,
            "remove": self.remove,
        }
        made = Dir({"ctl": Ctl(words, self.settings), "stats": Text(self.stats), "status": Text(self.status)})
        made.owned(os.geteuid(), os.getegid())
        return made

    async def status(self) -> str:
        """Render the interface in one line, and each of its addresses in another: address, mask, network, seconds for which it is valid and
        preferred."""
        link, addresses = await self._ask()
        stats = link.get_attr("IFLA_STATS64") or {}
        words: list[object] = ["device", link.get_attr("IFLA_IFNAME"), "maxtu", link.get_attr("IFLA_MTU")]
        words += [
            "state",
            "up" if link["flags"] & _UP else "down",
            "carrier",
            "on" if link.get_attr("IFLA_CARRIER") else "off",
        ]
        words += ["mac", (link.get_attr("IFLA_ADDRESS") or "none").replace(":", "")]
        for name, key in _COUNTERS.items():
            words += [name, stats.get(key, 0)]
        lines = [" ".join(map(str, words))]
        for host, bits, life in addresses:
            lines.append(
                f"\t{host} /{bits} {network(host, bits)} {life.get('ifa_valid', 0)} {life.get('ifa_preferred', 0)}"
            )
        return "".join(f"{line}\n" for line in lines)

    async def stats(self) -> str:
        """Render all counters that the kernel has of the interface."""
        link, _ = await self._ask()
        return fields(link.get_attr("IFLA_STATS64") or {})

    async def settings(self) -> str:
        link, addresses = await self._ask()
        lines = ["up" if link["flags"] & _UP else "down", f"mtu {link.get_attr('IFLA_MTU')}"]
        return "".join(f"{line}\n" for line in [*lines, *(f"add {host} /{bits}" for host, bits, _ in addresses)])

    async def _ask(self) -> tuple[Any, list[tuple[str, int, Any]]]:
        def ask(ip: Any) -> tuple[Any, list[tuple[str, int, Any]]]:
            addresses = [
                (
                    a.get_attr("IFA_LOCAL") or a.get_attr("IFA_ADDRESS"),
                    a["prefixlen"],
                    a.get_attr("IFA_CACHEINFO") or {},
                )
                for a in ip.get_addr(index=self.number)
            ]
            return next(iter(ip.get_links(self.number))), addresses

        return await netlink(ask)

    async def up(self) -> None:
        """Start it."""
        await self._set("up", state="up")

    async def down(self) -> None:
        """Stop it; its routes go away."""
        await self._set("down", state="down")

    async def mtu(self, n: int) -> None:
        """Set the size of the largest packet in bytes. Refuses less than IPv4's least, 68, where the kernel would silently drop all addresses."""
        if n < 68:
            raise NineError(errno.EINVAL, f"mtu {n}: IPv4 needs at least 68")
        await self._set(f"mtu {n}", mtu=n)

    async def _set(self, what: str, **values: object) -> None:
        await netlink(lambda ip: ip.link("set", index=self.number, **values), what)

    async def add(self, addr: str, mask: str = "", remote: str = "") -> None:
        """Give it an address; without a mask it is a single address. `remote` is the other end of a point-to-point link."""
        host, bits = _with_mask(addr, mask)
        ends = {"local": host, "address": address(remote)} if remote else {"address": host}
        await netlink(lambda ip: ip.addr("add", index=self.number, prefixlen=bits, **ends), f"add {addr}")

    async def remove(self, addr: str, mask: str = "") -> None:
        """Remove an address; without a mask, whatever its mask is."""
        host, bits = _with_mask(addr, mask)
        found = [length for known, length, _ in (await self._ask())[1] if known == host]
        if not found:
            raise NineError(errno.EADDRNOTAVAIL, f"remove {addr}: the interface has no such address")
        length = bits if mask or "/" in addr else found[0]
        await netlink(lambda ip: ip.addr("del", index=self.number, address=host, prefixlen=length), f"remove {addr}")


def _with_mask(addr: str, mask: str) -> tuple[str, int]:
    host, slash, bits = addr.partition("/")
    host = address(host)
    return host, prefix(mask or slash + bits or ("/128" if ":" in host else "/32"), host)


def interfaces(stats: Callable[[], str]) -> Dir:
    """Return the directory of all interfaces."""

    def names() -> list[str]:
        return [str(number) for number in interface_names()]

    def key(name: str) -> int | None:
        return next((number for number, known in socket.if_nameindex() if name in (str(number), known)), None)

    def make(name: str) -> Node:
        number = key(name)
        if number is None:
            raise NineError(errno.ENOENT)
        return Interface(number).tree() if name == str(number) else numbered[str(number)]

    numbered = Lazy(names, make, key=key)
    return Dir({"stats": Text(stats)}, numbered)


async def addresses() -> list[tuple[str, int]]:
    """Return all addresses that others may know, with the lengths of their masks."""

    def ask(ip: Any) -> list[tuple[str, int]]:
        return [
            (a.get_attr("IFA_LOCAL") or a.get_attr("IFA_ADDRESS"), a["prefixlen"])
            for a in ip.get_addr()
            if a["scope"] == _UNIVERSE
        ]

    return await netlink(ask)
