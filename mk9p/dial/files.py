"""fd and char: lines that are descriptors, not connections.

**O_NONBLOCK belongs to the open file, not to the descriptor**: setting it on an inherited one sets it for the shell that has the same terminal,
and for everybody else who inherited it. So what was there is put back when the link closes; a process killed meanwhile leaves it set, and no call
gets around that. Terminals have their termios put back likewise.

A character line has no beginning: there may be bytes from before it was opened, or from a conversation that died, in the middle of a frame too, and
nobody hangs up. So it is marked lossy, under whatever name it comes: a terminal, a virtio port, the socket that QEMU has for one. A pipe ends.
"""

import errno
import fcntl
import os
import select
import socket
import stat
import termios
from functools import partial
from typing import Any, TypeVar

from mk9p.dial.address import Dial
from mk9p.dial.link import FdLink, Peer, SocketLink
from mk9p.dial.unix import connect_unix

L = TypeVar("L", bound=FdLink | SocketLink)


# fd


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
        _check_waits(dial, fd)
    restore = [partial(os.set_blocking, fd, True) for fd in sorted({rfd, wfd}) if os.get_blocking(fd)]
    for fd in (rfd, wfd):
        os.set_blocking(fd, False)
    peer = Peer("fd", f"{rfd}!{wfd}", private=True, loopback=True)
    if rfd == wfd and stat.S_ISSOCK(os.fstat(rfd).st_mode):
        return SocketLink(socket.socket(fileno=rfd), peer, on_close=[*restore])
    lossy = any(stat.S_ISCHR(os.fstat(fd).st_mode) for fd in (rfd, wfd))
    return FdLink(rfd, wfd, peer=peer, lossy=lossy, on_close=[*restore])


def _check_waits(dial: Dial, fd: int) -> None:
    try:
        with select.epoll() as epoll:
            epoll.register(fd, 0)
    except PermissionError:  # epoll_ctl(2): a regular file, a directory, /dev/null
        raise dial.refuse(
            errno.EINVAL, "a file that cannot be waited for: want a pipe, a socket or a terminal"
        ) from None


# char


async def dial_char(dial: Dial) -> FdLink | SocketLink:
    return answered(dial, await open_char(dial))


def answered(dial: Dial, link: L | None) -> L:
    """Return the link of a line that was opened; raises ECONNREFUSED if there is none."""
    if link is None:
        raise dial.refuse(errno.ECONNREFUSED, "nobody is at the other end of the line")
    return link


async def open_char(dial: Dial) -> FdLink | SocketLink | None:
    """Open the device, or connect to the socket that stands for it; None if nobody is at the other end. Raises OSError."""
    if is_socket(dial):
        return char_link(dial, await connect_unix(dial, dial.rest))
    return open_device(dial)


def is_socket(dial: Dial) -> bool:
    """Tell whether what is to be opened is a unix socket: the other end of one that QEMU's -chardev or UML made."""
    return stat.S_ISSOCK(os.stat(dial.rest).st_mode)


def char_link(dial: Dial, sock: socket.socket) -> SocketLink:
    """Return the link over a socket that stands for a device."""
    return SocketLink(sock, Peer("char", dial.rest, private=True), lossy=True)


def open_device(dial: Dial) -> FdLink | None:
    """Open the device; None if nobody is at the other end. Raises OSError."""
    device = dial.rest
    peer = Peer("char", device, private=True)
    mode = os.stat(device).st_mode
    if not stat.S_ISCHR(mode):
        raise dial.refuse(errno.ENODEV, "neither a character device nor a unix socket")
    fd = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_waits(dial, fd)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        # A virtio port whose host side is not open says so, and would read as ended.
        if any(events & select.POLLHUP for _, events in poll.poll(0)):
            os.close(fd)
            return None
        link = FdLink(fd, fd, peer=peer, lossy=True)
        if os.isatty(fd):
            link.on_close.append(partial(_set_tty, fd, _set_raw(fd)))
    except BaseException:
        os.close(fd)
        raise
    return link


def _set_raw(fd: int) -> list[Any]:
    """Make a terminal a plain line, as cfmakeraw(3) does and without modem control, and return what it was."""
    was = _get_tty(fd)
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = _get_tty(fd)
    iflag &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP)
    iflag &= ~(termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON | termios.IXOFF | termios.IXANY)
    oflag &= ~termios.OPOST
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8 | termios.CLOCAL | termios.CREAD
    cc[termios.VMIN], cc[termios.VTIME] = 1, 0  # with VMIN 0 an empty line would read as ended
    _set_tty(fd, [iflag, oflag, cflag, lflag, ispeed, ospeed, cc])
    return was


def _get_tty(fd: int) -> list[Any]:
    try:
        return termios.tcgetattr(fd)
    except termios.error as error:  # no OSError
        raise OSError(*error.args) from None


def _set_tty(fd: int, attributes: list[Any]) -> None:
    try:
        # Not TCSADRAIN or TCSAFLUSH: they wait for the other end to read.
        termios.tcsetattr(fd, termios.TCSANOW, attributes)
    except termios.error as error:  # no OSError
        if error.args[0] != errno.EIO:  # hung up: there is no terminal any more
            raise OSError(*error.args) from None
