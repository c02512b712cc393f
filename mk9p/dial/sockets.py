"""What tcp, unix and vsock have in common: connecting without blocking, and accepting whatever happens to the connections.

`connect` closes its socket whenever it does not succeed, so a cancelled `dial` leaves nothing.
"""

import errno
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mk9p.dial.address import Transport
from mk9p.dial.link import SocketLink

if TYPE_CHECKING:
    import logging

SPARE: Final = 4  # descriptors: root needs them to look, and to end the connections that have the others
PAUSE: Final = 0.1  # s
_FULL: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def log() -> "logging.Logger":
    """Return the logger for links and listeners."""
    import logging

    return logging.getLogger("mk9p.dial")


async def connect(sock: socket.socket, where: Any) -> None:
    """Connect, or close the socket and raise."""
    import trio

    pause = 0.001
    try:
        while True:
            try:
                sock.connect(where)
            except BlockingIOError as error:
                # unix(7): the listener's queue is full, and poll(2) does not report when it has room again.
                if error.errno == errno.EAGAIN and sock.family == socket.AF_UNIX:
                    await trio.sleep(pause)
                    pause = min(2 * pause, 0.1)
                    continue
                if error.errno != errno.EINPROGRESS:
                    raise
                await trio.lowlevel.wait_writable(sock)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise OSError(code, os.strerror(code)) from None
            return
    except BaseException:
        sock.close()
        raise


class SocketListener:
    """A listening socket, which it owns, with a few descriptors to spare.

    When this process has no more descriptors, the listener gives these up, one for each connection that it accepts then: for root, and the
    server's own user, who can do something about it. It closes all others at once.
    """

    def __init__(
        self,
        sock: socket.socket,
        link: Callable[[socket.socket, Any], SocketLink],
        *,
        address: str,
        transport: Transport,
        loopback: bool,
        before_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._sock, self._link, self._before_close = sock, link, before_close
        self.address, self.transport, self.loopback = address, transport, loopback
        self._spare: list[int] = []
        self._full = False
        self._save()

    async def accept(self) -> SocketLink:
        import trio

        # The only checkpoint when there is something to accept: a cancellation loses no link.
        await trio.lowlevel.checkpoint()
        while True:
            if self._sock.fileno() < 0:
                raise trio.ClosedResourceError("this listener was closed")
            try:
                sock, where = self._sock.accept()
            except BlockingIOError:
                self._save()
                await trio.lowlevel.wait_readable(self._sock)
                continue
            except OSError as error:
                # accept(2): errors of the connection itself come here too, and mean "try again". Only a full table needs patience.
                if error.errno in (errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP, errno.EFAULT):
                    raise
                if error.errno in _FULL:
                    if not self._full:
                        log().error("%s: %s: only root is let in now", self.address, os.strerror(error.errno or 0))
                    self._full = True
                    if self._spare:
                        os.close(self._spare.pop())
                    else:
                        await trio.sleep(PAUSE)
                else:
                    await trio.lowlevel.checkpoint()
                continue
            sock.setblocking(False)
            try:
                link = self._link(sock, where)
            except OSError as error:  # it is already gone: getpeername(2) says ENOTCONN
                sock.close()
                log().debug("%s: gone before it was accepted: %s", self.address, error)
                continue
            if len(self._spare) == SPARE:
                self._full = False
                return link
            if self._save() or link.peer.uid in (0, os.geteuid()):
                return link
            link.close()
            self._save()
            await trio.lowlevel.checkpoint()

    def _save(self) -> bool:
        """Open as many spare descriptors as there should be; False if there are too few for others than root."""
        try:
            while len(self._spare) < SPARE:
                self._spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return False
        return True

    async def aclose(self) -> None:
        import trio

        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            while self._spare:
                os.close(self._spare.pop())
            try:
                self._before_close()
            finally:
                self._sock.close()
        await trio.lowlevel.checkpoint()
