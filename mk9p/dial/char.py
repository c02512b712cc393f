"""char: a virtio port, an hvc console, a serial line, or the unix socket that an emulator has instead of one.

A character line has no beginning: it may hold bytes from before it was opened, or from a conversation that died, also in the middle of a frame,
and nobody hangs up. So it is marked lossy, whatever its name: a terminal, a virtio port, the socket that QEMU has for one. A pipe ends. When the
link closes, terminals get their old termios back.
"""

import errno
import os
import select
import socket
import stat
import termios
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from mk9p.dial import unix
from mk9p.dial.address import Dial
from mk9p.dial.fd import check_waits
from mk9p.dial.link import FdLink, Peer, SocketLink
from mk9p.terminals import CFLAG, IFLAG, attributes, raw

if TYPE_CHECKING:
    from mk9p.dial.lines import LineListener

L = TypeVar("L", bound=FdLink | SocketLink)


async def dial(where: Dial) -> FdLink | SocketLink:
    return _answered(where, await open_char(where))


def dial_now(where: Dial, deadline: float) -> FdLink | SocketLink:
    if _is_socket(where):
        return _over(where, unix.connect_now(where, deadline))
    return _answered(where, _open_device(where))


async def listen(where: Dial, mode: int) -> "LineListener":
    from mk9p.dial.lines import LineListener

    line, again = await open_char(where), partial(open_char, where)
    return LineListener(line, again, address=where.address, transport=where.transport, loopback=False)


def _answered(dial: Dial, link: L | None) -> L:
    """Return the link of a line that was opened; raises ECONNREFUSED if there is none."""
    if link is None:
        raise dial.refuse(errno.ECONNREFUSED, "nobody is at the other end of the line")
    return link


async def open_char(dial: Dial) -> FdLink | SocketLink | None:
    """Open the device, or connect to the socket that stands for it; None if nobody is at the other end. Raises OSError."""
    if _is_socket(dial):
        return _over(dial, await unix.connect(dial))
    return _open_device(dial)


def _is_socket(dial: Dial) -> bool:
    """Tell whether the path is a unix socket: the other end of one that QEMU's -chardev or UML made."""
    return stat.S_ISSOCK(os.stat(dial.rest).st_mode)


def _over(dial: Dial, sock: socket.socket) -> SocketLink:
    """Return the link over a socket that stands for a device."""
    return SocketLink(sock, Peer(dial.transport, dial.rest), lossy=True)


def _open_device(dial: Dial) -> FdLink | None:
    """Open the device; None if nobody is at the other end. Raises OSError."""
    device = dial.rest
    peer = Peer(dial.transport, device)
    mode = os.stat(device).st_mode
    if not stat.S_ISCHR(mode):
        raise dial.refuse(errno.ENODEV, "neither a character device nor a unix socket")
    fd = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        check_waits(dial, fd)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        # A virtio port reports when nobody has its host side open, and would read as ended.
        if any(events & select.POLLHUP for _, events in poll.poll(0)):
            os.close(fd)
            return None
        link = FdLink(fd, fd, peer=peer, lossy=True)
        if os.isatty(fd):
            link.on_close.append(partial(_restore, fd, _set_raw(fd)))
    except BaseException:
        os.close(fd)
        raise
    return link


def _set_raw(fd: int) -> list[Any]:
    """Make a terminal a plain line of bytes without modem control, and return its old settings."""
    was = attributes(fd)
    now = raw(was)
    now[IFLAG] &= ~termios.IXANY
    now[CFLAG] = now[CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8 | termios.CLOCAL
    attributes(fd, now)
    return was


def _restore(fd: int, was: list[Any]) -> None:
    try:
        attributes(fd, was)
    except OSError as error:
        if error.errno != errno.EIO:  # hung up: there is no terminal any more
            raise
