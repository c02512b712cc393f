"""vsock: vsock(7). Connects a machine and its virtual machines, by number (CID) and port; `local` is 1 and `host` 2.

`mkN` is instance N of a multikernel, to which another transport of the kernel leads: its number may be that of a virtual machine, or 1, too.
"""

import errno
import os
import socket
from functools import partial
from typing import Final

from mk9p.dial.address import Dial
from mk9p.dial.blocking import connected
from mk9p.dial.link import Peer, SocketLink
from mk9p.dial.sockets import SocketListener, connect

CIDS: Final = {"local": 1, "host": 2}
MULTIKERNEL: Final = "mk"  # before the number of an instance
TRANSPORT: Final = (9, 1)  # SO_VM_SOCKETS_TRANSPORT and VSOCK_TRANSPORT_MULTIKERNEL, as kerf sets them
ANY: Final = 0xFFFFFFFF  # VMADDR_CID_ANY and VMADDR_PORT_ANY


async def dial(where: Dial) -> SocketLink:
    sock, there = _to_connect(where)
    try:
        await connect(sock, there)
    except OSError as error:
        raise _failed(where, error) from None
    return link_of(where, sock, there)


def dial_now(where: Dial, deadline: float) -> SocketLink:
    sock, there = _to_connect(where)
    try:
        return link_of(where, connected(sock, there, deadline), there)
    except OSError as error:
        raise _failed(where, error) from None


def _to_connect(dial: Dial) -> tuple[socket.socket, tuple[int, int]]:
    """Return a socket, and the address to connect it to."""
    cid, port = _where(dial)
    sock = _socket(dial)
    if dial.rest.startswith(MULTIKERNEL):
        try:
            sock.setsockopt(socket.AF_VSOCK, *TRANSPORT)
        except OSError as error:
            sock.close()
            raise _failed(dial, error) from None
    return sock, (CIDS["local"] if cid == ANY else cid, port)


async def listen(where: Dial, mode: int) -> SocketListener:
    cid, port = _where(where)
    if where.rest.startswith(MULTIKERNEL):
        raise where.refuse(errno.EINVAL, "an instance of a multikernel is dialled; it listens at *")
    sock = _socket(where)
    try:
        sock.bind((cid, port or ANY))
        sock.listen(socket.SOMAXCONN)
        real = sock.getsockname()[1]
    except OSError as error:
        sock.close()
        raise _failed(where, error) from None
    address = where._replace(rest=f"{where.rest.partition('!')[0]}!{real}").address
    loopback = cid == CIDS["local"]
    return SocketListener(sock, partial(link_of, where), address=address, transport=where.transport, loopback=loopback)


def _where(dial: Dial) -> tuple[int, int]:
    name, port = dial.host_port(highest=ANY - 1)
    if name == "*":
        return ANY, port
    if name in CIDS:
        return CIDS[name], port
    number = name.removeprefix(MULTIKERNEL)
    if number.isascii() and number.isdigit() and int(number) < ANY:
        return int(number), port
    raise dial.refuse(errno.EINVAL, f"bad CID {name!r}: want a number, local, host, mkN or *")


def _socket(dial: Dial) -> socket.socket:
    try:
        sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    except OSError as error:
        raise _failed(dial, error) from None
    sock.setblocking(False)
    return sock


def _failed(dial: Dial, error: OSError) -> OSError:
    if error.errno in (errno.EAFNOSUPPORT, errno.ENODEV, errno.EADDRNOTAVAIL):
        words = (
            f"{os.strerror(error.errno)}: modprobe vsock_loopback for this kernel itself, vhost_vsock for its guests"
        )
        return dial.refuse(error.errno, words)
    return dial.failed(error)


def link_of(dial: Dial, sock: socket.socket, where: tuple[int, int]) -> SocketLink:
    cid, port = where
    loopback = cid == CIDS["local"] and not dial.rest.startswith(MULTIKERNEL)
    return SocketLink(sock, Peer(dial.transport, f"{cid}!{port}", loopback=loopback))
