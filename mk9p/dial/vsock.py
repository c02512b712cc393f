"""vsock: vsock(7). Between a machine and its virtual machines, by number (CID) and port; `local` is 1 and `host` 2."""

import errno
import os
import socket
from typing import Final

import attrs

from mk9p.dial.address import Dial
from mk9p.dial.link import Peer, SocketLink
from mk9p.dial.sockets import SocketListener, connect

_CIDS: Final = {"local": 1, "host": 2}
_ANY: Final = 0xFFFFFFFF  # VMADDR_CID_ANY and VMADDR_PORT_ANY


async def dial_vsock(dial: Dial) -> SocketLink:
    sock, where = vsock_socket(dial)
    try:
        await connect(sock, where)
    except OSError as error:
        raise vsock_failed(dial, error) from None
    return vsock_link(sock, where)


def vsock_socket(dial: Dial) -> tuple[socket.socket, tuple[int, int]]:
    """Return a socket, and where it is to be connected to."""
    cid, port = _vsock_where(dial)
    return _vsock_socket(dial), (_CIDS["local"] if cid == _ANY else cid, port)


def listen_vsock(dial: Dial) -> SocketListener:
    cid, port = _vsock_where(dial)
    sock = _vsock_socket(dial)
    try:
        sock.bind((cid, port or _ANY))
        sock.listen(socket.SOMAXCONN)
        real = sock.getsockname()[1]
    except OSError as error:
        sock.close()
        raise vsock_failed(dial, error) from None
    address = attrs.evolve(dial, rest=f"{dial.rest.partition('!')[0]}!{real}").address
    return SocketListener(sock, vsock_link, address=address, kind="vsock", loopback=cid == _CIDS["local"])


def _vsock_where(dial: Dial) -> tuple[int, int]:
    name, port = dial.host_port(highest=_ANY - 1)
    if name == "*":
        return _ANY, port
    if name in _CIDS:
        return _CIDS[name], port
    if name.isascii() and name.isdigit() and int(name) < _ANY:
        return int(name), port
    raise dial.refuse(errno.EINVAL, f"bad CID {name!r}: want a number, local, host or *")


def _vsock_socket(dial: Dial) -> socket.socket:
    try:
        sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    except OSError as error:
        raise vsock_failed(dial, error) from None
    sock.setblocking(False)
    return sock


def vsock_failed(dial: Dial, error: OSError) -> OSError:
    if error.errno in (errno.EAFNOSUPPORT, errno.ENODEV, errno.EADDRNOTAVAIL):
        words = (
            f"{os.strerror(error.errno)}: modprobe vsock_loopback for this kernel itself, vhost_vsock for its guests"
        )
        return dial.refuse(error.errno, words)
    return dial.failed(error)


def vsock_link(sock: socket.socket, where: tuple[int, int]) -> SocketLink:
    cid, port = where
    return SocketLink(sock, Peer("vsock", f"{cid}!{port}", loopback=cid == _CIDS["local"]))
