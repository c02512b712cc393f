"""The network of a kernel, after Plan 9's ip(3) and ndb(8): a client that has it opens connections there, as if it were there.

The manual is docs/files/net.md. streams.py and udp.py (with port.py) are conversations, sockets.py does the waiting, names.py is cs and dns.
interfaces.py, routes.py, neighbours.py and ndb.py show and change what netlink.py asks the kernel.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from mk9p.servers.net import streams, udp
from mk9p.servers.net.interfaces import interfaces
from mk9p.servers.net.names import cs, dns
from mk9p.servers.net.ndb import ndb
from mk9p.servers.net.neighbours import arp
from mk9p.servers.net.routes import iproute
from mk9p.servers.net.stats import counters
from mk9p.tree import Dir, Text


@asynccontextmanager
async def tree(*, root: str = "/") -> AsyncIterator[Dir]:
    """Give the directory. When the caller leaves it, all connections have ended.

    The network is that of this process's namespace. `root` matters only for its counters (/proc/net) and /etc/resolv.conf.
    """
    tcp = streams.conversations(streams.TCP, partial(counters, root, "Tcp", "TcpExt"))
    vsock = streams.conversations(streams.VSOCK, str)
    datagrams = udp.conversations(partial(counters, root, "Udp", "Udp6"))
    made = Dir(
        {
            "tcp": tcp,
            "udp": datagrams,
            "vsock": vsock,
            "ipifc": interfaces(partial(counters, root, "Ip", "IpExt", "Ip6")),
            "iproute": iproute(),
            "arp": arp(),
            "ndb": Text(partial(ndb, root)),
            "cs": cs(),
            "dns": dns(),
        }
    )
    made.owned(os.geteuid(), os.getegid())
    try:
        yield made
    finally:
        with trio.CancelScope(shield=True):
            for each in (tcp, datagrams, vsock):
                await each.aclose()
