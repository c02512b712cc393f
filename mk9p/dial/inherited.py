"""fd!N: a socket on which somebody else already listens for us, as systemd does for a unit of type .socket (sd_listen_fds(3)).

What is believed of peers depends on the socket's own family: they come by unix, tcp or vsock. Whoever made the socket keeps it: its file stays, and
who comes while this process is away waits.
"""

import errno
import os
import socket
import stat
from functools import partial
from typing import Final

from mk9p.dial import tcp, unix, vsock
from mk9p.dial.address import TRANSPORTS, Dial
from mk9p.dial.sockets import SocketListener

_FAMILIES: Final = {
    socket.AF_UNIX: "unix",
    socket.AF_INET: "tcp",
    socket.AF_INET6: "tcp",
    socket.AF_VSOCK: "vsock",
}


def listening(dial: Dial) -> SocketListener:
    """Return the listener of a socket that this process was started with. Raises NineError: EBADF, EINVAL for what is no listening stream socket."""
    number = int(dial.rest)
    try:
        kind = os.fstat(number).st_mode
    except (OSError, OverflowError):
        raise dial.refuse(errno.EBADF, f"descriptor {number} is not open") from None
    if not stat.S_ISSOCK(kind):
        raise dial.refuse(errno.EINVAL, "no socket: want fd!READ!WRITE, or fd!N for a socket that somebody listens on")
    sock = socket.socket(fileno=os.dup(number))
    try:
        name = _FAMILIES.get(socket.AddressFamily(sock.family)) if sock.type == socket.SOCK_STREAM else None
        if name is None or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise dial.refuse(errno.EINVAL, "nobody listens on it: want a listening socket of unix, tcp or vsock")
        sock.setblocking(False)
        os.close(number)  # the duplicate is closed at exec, and this one may not have been
        return _listener(Dial(None, TRANSPORTS[name], ""), sock)
    except BaseException:
        sock.close()
        raise


def _listener(dial: Dial, sock: socket.socket) -> SocketListener:
    name = sock.getsockname()
    if dial.network == "unix":
        path = os.fsdecode(name)
        dial = dial._replace(rest="@" + path[1:] if path.startswith("\0") else path)
        link, loopback = partial(unix.link_of, dial.transport), True
        return SocketListener(sock, link, address=dial.address, transport=dial.transport, loopback=loopback)
    if dial.network == "tcp":
        tcp.prepare(sock)
        dial = dial._replace(rest="!".join(("*" if name[0] in ("::", "0.0.0.0") else name[0], str(name[1]))))
        link, loopback = partial(tcp.link_of, dial), tcp.is_loopback(name[0])
    else:
        dial = dial._replace(rest="!".join(("*" if name[0] == vsock.ANY else str(name[0]), str(name[1]))))
        link, loopback = partial(vsock.link_of, dial), name[0] == vsock.CIDS["local"]
    return SocketListener(sock, link, address=dial.address, transport=dial.transport, loopback=loopback)
