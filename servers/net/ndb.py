"""ndb: what this kernel knows of its own network, as an entry of ndb(6): addresses, the default router, its name, and the name servers."""

import os
from pathlib import Path

from mk9p.errors import NineError
from mk9p.ktext import split_lines, split_words, whole
from mk9p.servers.net.interfaces import addresses
from mk9p.servers.net.routes import default


async def ndb(root: str) -> str:
    """Render the entry; without pyroute2 it has no addresses."""
    lines = []
    try:
        routers = await default()
        for host, bits in await addresses():
            router = routers.get(":" in host)
            lines.append(f"ip={host} ipmask=/{bits}" + (f" ipgw={router}" if router else ""))
    except NineError:
        lines = []
    lines.append(f"sys={os.uname().nodename}")
    lines += _resolvers(Path(root, "etc/resolv.conf"))
    return "\n\t".join(lines) + "\n"


def _resolvers(file: Path) -> list[str]:
    """Return what resolv.conf(5) says."""
    lines: list[str] = []
    try:
        conf = whole(file)
    except FileNotFoundError:
        return lines
    for words in map(split_words, split_lines(conf)):
        if words[:1] == ["nameserver"]:
            lines += [f"dns={server}" for server in words[1:2]]
        elif words[:1] in (["search"], ["domain"]):
            lines += [f"dnsdomain={name}" for name in words[1:]]
    return lines
