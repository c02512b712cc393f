"""Dial strings to non-blocking byte links and listeners.

    tcp!HOST!PORT       port 564 if left out; HOST a name, an address of either family, or * (listening: all; dialling: this machine)
    unix!/PATH          or unix!@NAME, an abstract one
    vsock!CID!PORT      CID a number, local, host or *
    fd!READ!WRITE       descriptors that this process was given
    char!DEVICE         a virtio port, an hvc console, a serial line, or the unix socket that an emulator has in its place
    exec!COMMAND        the standard input and output of a command, quoted as in sh; dialled only
    NETNS/tcp!...       inside the network namespace of that file, as /run/netns/k1/tcp!10.0.0.1!564

Rules, for all of them. Whatever goes wrong is one `NineError` of one line that begins with the address. Cancelled, `dial`, `listen`, `accept` and the
waits leave nothing open and lose nothing. Nothing is logged about a link that works; `mk9p.dial` is the logger. See Plan 9's dial(2) and dial(3).
"""

import errno
import socket
from contextlib import suppress
from functools import partial
from typing import Final

import trio

from mk9p.dial.address import NETWORKS, PORT, Dial, parse
from mk9p.dial.files import dial_char, dial_exec, open_fds
from mk9p.dial.lines import listen_char, listen_fd
from mk9p.dial.link import FdLink, Link, Listener, Peer, SocketLink
from mk9p.dial.tcp import RESERVED, dial_tcp, listen_tcp
from mk9p.dial.unix import dial_unix, listen_unix
from mk9p.dial.vsock import dial_vsock, listen_vsock

__all__ = [
    "NETWORKS",
    "PORT",
    "RESERVED",
    "Dial",
    "FdLink",
    "Link",
    "Listener",
    "Peer",
    "SocketLink",
    "dial",
    "hang_up",
    "listen",
    "parse",
]

_dialled: Final[dict[str, set[SocketLink]]] = {}  # those that are open, by their dial strings


async def dial(address: str) -> Link:
    """Connect to a dial string and return the link.

    Waits as long as the transport does: put a timeout around it. Raises NineError with the kernel's errno: EINVAL for a string that cannot be
    dialled, EHOSTUNREACH for an unknown host, ENOENT for a path, device or command that is not there, ECONNREFUSED if nobody listens.
    """
    link = await _dial(address)
    if isinstance(link, SocketLink):
        _dialled.setdefault(address, set()).add(link)
        link.on_close.append(partial(_closed, address, link))
    return link


def hang_up(address: str) -> None:
    """End all links of this process that were dialled at a dial string, as if the other end had closed them.

    For one who knows that nobody is there any more, when the transport has not heard: TCP notices a kernel that was killed only by its silence.
    """
    for link in _dialled.get(address, ()):
        with suppress(OSError):  # it was closed by the other end
            link.sock.shutdown(socket.SHUT_RDWR)


def _closed(address: str, link: SocketLink) -> None:
    links = _dialled[address]
    links.remove(link)
    if not links:
        del _dialled[address]


async def _dial(address: str) -> FdLink | SocketLink:
    where = parse(address)
    await trio.lowlevel.checkpoint()
    try:
        match where.network:
            case "tcp":
                return await dial_tcp(where)
            case "unix":
                return await dial_unix(where)
            case "vsock":
                return await dial_vsock(where)
            case "fd":
                return open_fds(where)
            case "char":
                return await dial_char(where)
            case _:
                return await dial_exec(where)
    except OSError as error:
        raise where.failed(error) from None


async def listen(address: str, *, mode: int = 0o600) -> Listener:
    """Listen on a dial string and return the listener, whose address has the real port if port 0 was asked for.

    `mode` is that of a unix socket's file; a file that nobody listens on is replaced, a missing folder is made, 0755. `fd!` and `char!` have one
    link at a time; `fd!` has one in all, and accepting again waits for ever. Raises NineError as `dial` does, EADDRINUSE if it is taken.
    """
    where = parse(address)
    await trio.lowlevel.checkpoint()
    try:
        match where.network:
            case "tcp":
                return await listen_tcp(where)
            case "unix":
                return listen_unix(where, mode)
            case "vsock":
                return listen_vsock(where)
            case "fd":
                return listen_fd(where)
            case "char":
                return await listen_char(where)
            case _:
                raise where.refuse(errno.EINVAL, "a command cannot be listened on: dial it")
    except OSError as error:
        raise where.failed(error) from None
