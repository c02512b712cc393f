"""fd: lines that are descriptors of this process, not connections.

**O_NONBLOCK belongs to the open file, not to the descriptor**: setting it on an inherited descriptor sets it for the shell that has the same
terminal, and for everybody else who inherited it. So the link restores the old flag when it closes. A process that is killed meanwhile leaves the
flag set, and no call avoids that.
"""

import errno
import fcntl
import os
import select
import socket
import stat
from functools import partial
from typing import TYPE_CHECKING

from mk9p.dial.address import Dial
from mk9p.dial.link import FdLink, Peer, SocketLink

if TYPE_CHECKING:
    from mk9p.dial.lines import LineListener
    from mk9p.dial.sockets import SocketListener


async def dial(where: Dial) -> FdLink | SocketLink:
    return open_fds(where)


def dial_now(where: Dial, deadline: float) -> FdLink | SocketLink:
    return open_fds(where)


async def listen(where: Dial, mode: int) -> "LineListener | SocketListener":
    if where.rest.isascii() and where.rest.isdigit():
        from mk9p.dial.inherited import listening

        return listening(where)
    from mk9p.dial.lines import LineListener

    return LineListener(open_fds(where), None, address=where.address, transport=where.transport, loopback=True)


def open_fds(dial: Dial) -> FdLink | SocketLink:
    """Return the link over descriptors that this process was started with. Raises NineError."""
    numbers = dial.rest.split("!")
    if len(numbers) != 2 or not all(each.isascii() and each.isdigit() for each in numbers):
        raise dial.refuse(errno.EINVAL, "want fd!READ!WRITE, two numbers of descriptors")
    rfd, wfd = map(int, numbers)
    for fd, wrong, what in ((rfd, os.O_WRONLY, "reading"), (wfd, os.O_RDONLY, "writing")):
        try:
            flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        except (OSError, OverflowError):
            raise dial.refuse(errno.EBADF, f"descriptor {fd} is not open") from None
        if flags & os.O_ACCMODE == wrong:
            raise dial.refuse(errno.EBADF, f"descriptor {fd} is not open for {what}")
        check_waits(dial, fd)
    restore = [partial(os.set_blocking, fd, True) for fd in sorted({rfd, wfd}) if os.get_blocking(fd)]
    for fd in (rfd, wfd):
        os.set_blocking(fd, False)
    peer = Peer(dial.transport, f"{rfd}!{wfd}", loopback=True)
    if rfd == wfd and stat.S_ISSOCK(os.fstat(rfd).st_mode):
        return SocketLink(socket.socket(fileno=rfd), peer, on_close=[*restore])
    lossy = any(stat.S_ISCHR(os.fstat(fd).st_mode) for fd in (rfd, wfd))
    return FdLink(rfd, wfd, peer=peer, lossy=lossy, on_close=[*restore])


def check_waits(dial: Dial, fd: int) -> None:
    """Raise EINVAL for a descriptor that epoll(7) cannot wait for."""
    try:
        with select.epoll() as epoll:
            epoll.register(fd, 0)
    except PermissionError:  # epoll_ctl(2): a regular file, a directory, /dev/null
        raise dial.refuse(
            errno.EINVAL, "a file that cannot be waited for: want a pipe, a socket or a terminal"
        ) from None
