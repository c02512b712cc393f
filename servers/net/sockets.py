"""One socket, owned and non-blocking: calls try first, and wait only when they must.

A try takes effect whole or not at all, and nothing waits after it. So a cancelled read has lost nothing, a cancelled write has written nothing,
and a cancelled accept leaves its call in the kernel's queue. Readers take turns, and so do writers.
"""

import array
import errno
import fcntl
import os
import socket
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import trio

from mk9p.errors import NineError
from mk9p.servers.net.address import Where, halves, mapped
from mk9p.tree import Maybe

T = TypeVar("T")


class Socket:
    """A socket and those who wait for it. Closing it wakes them."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock: socket.socket | None = sock
        self._reading, self._writing = trio.Lock(), trio.Lock()

    def close(self) -> None:
        """Close it. May be called again."""
        if self.sock is not None:
            trio.lowlevel.notify_closing(self.sock)
            self.sock.close()
            self.sock = None

    async def readable(self) -> None:
        """Wait until there may be something to read, or it is closed."""
        async with self._reading:
            if self.sock is not None:
                with suppress(trio.ClosedResourceError):
                    await trio.lowlevel.wait_readable(self.sock)

    async def read(self, do: Callable[[socket.socket], T], gone: Callable[[], T]) -> T:
        """Return what `do` returns as soon as it need not wait, or what `gone` does after the socket is closed."""
        while self.sock is not None:
            try:
                return do(self.sock)
            except BlockingIOError:
                await self.readable()
        return gone()

    def write(self, do: Callable[[socket.socket], T], gone: Callable[[], T]) -> Maybe[T]:
        """Return what `do` returns, at once or as soon as there is room."""
        if self.sock is not None and not self._writing.locked():
            with suppress(BlockingIOError):
                return do(self.sock)
        return self._write(do, gone)

    async def _write(self, do: Callable[[socket.socket], T], gone: Callable[[], T]) -> T:
        async with self._writing:
            while self.sock is not None:
                try:
                    return do(self.sock)
                except BlockingIOError:
                    with suppress(trio.ClosedResourceError):
                        await trio.lowlevel.wait_writable(self.sock)
            return gone()

    async def connect(self, where: Where) -> None:
        """Connect; raises the kernel's errno, or ECANCELED if it was closed meanwhile. After an error the caller closes it."""
        sock = self.sock
        assert sock is not None
        if sock.family == socket.AF_INET6:
            where = mapped(where)
        try:
            sock.connect(where.address)
        except BlockingIOError:
            with suppress(trio.ClosedResourceError):
                await trio.lowlevel.wait_writable(sock)
            if self.sock is None:
                raise NineError(errno.ECANCELED, "hung up") from None
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                raise OSError(number, os.strerror(number)) from None
        if sock.type == socket.SOCK_STREAM and sock.getsockname() == sock.getpeername():
            # The kernel may choose as local port the very port that this call dials: then TCP connects to itself.
            raise NineError(errno.ECONNREFUSED)


def make(family: int, kind: int) -> socket.socket:
    """Return a new socket, of IPv6 for both families; raises EAFNOSUPPORT, and says so, for what this kernel does not have."""
    try:
        sock = socket.socket(family, kind)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            what = "vsock: modprobe vsock" if family == socket.AF_VSOCK else "such addresses"
            raise NineError(error.errno, f"this kernel has no {what}") from None
        raise
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return sock


def take(sock: socket.socket, where: Where | None, text: str) -> None:
    """Give a socket the local address that was parsed from a text; port 0 is any free port. Raises as bind(2)."""
    if sock.type == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if where is None:
        where = Where(sock.family, ("", int(halves(text)[1])))
    try:
        sock.bind((mapped(where) if sock.family == socket.AF_INET6 else where).address)
    except PermissionError:
        raise NineError(
            errno.EACCES, f"{text}: ports below 1024 need CAP_NET_BIND_SERVICE, which the server does not have"
        ) from None


def queued(sock: socket.socket, *, out: bool = False) -> int:
    """Return how many bytes have come and wait for a reader, or wait to be sent; 0 where the kernel does not tell."""
    count = array.array("i", [0])
    try:
        fcntl.ioctl(sock, termios.TIOCOUTQ if out else termios.FIONREAD, count)
    except OSError:
        return 0
    return count[0]
