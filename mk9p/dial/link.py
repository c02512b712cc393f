"""Links and listeners: what the server and the client see of any transport.

A link is one or two descriptors and the calls on them, non-blocking and without a buffer. The server waits for many links with one epoll of its
own and calls `recv_into` and `send` as often as it likes, so these are the kernel's calls with nothing around them (on a socket, the bound methods
themselves). For that reason a link is not a trio stream: a trio stream would have a checkpoint for each message.

Closing tells trio first (`notify_closing`), so a task that waits gets `trio.ClosedResourceError` and not another file that got the same number.
Descriptors 0 to 2 are never left free: the next opened file would become somebody's standard output.
"""

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from mk9p.dial.address import Transport

Data = bytes | bytearray | memoryview

IOV_MAX: Final = os.sysconf("SC_IOV_MAX")


class Refused(ConnectionError):
    """The other end of a link is not let in, or does not let us in. `strerror` says why, on one line."""


class Peer(NamedTuple):
    """Who is at the other end of a link, as far as the transport tells."""

    transport: Transport
    address: str  # for logs and stats: "127.0.0.1!54321", "pid 123", "/dev/hvc1"
    uid: int | None = None  # unix only: SO_PEERCRED of unix(7), fixed when the peer connected
    gid: int | None = None
    groups: tuple[int, ...] = ()  # unix only: SO_PEERGROUPS, the groups besides `gid` that it was in then
    pid: int | None = None  # unix and exec
    loopback: bool = False  # it cannot have come from another machine or network namespace
    user: str | None = None  # its name, where the transport proves it: a certificate

    @property
    def place(self) -> str:
        """Where it is, as one word: `tcp!10.0.0.7!51234`, `unix!pid_4321`."""
        return f"{self.transport.name}!{self.address}".replace(" ", "_")

    @property
    def private(self) -> bool:
        """Tell whether somebody gave it its end of the line."""
        return self.transport.private


class Link(Protocol):
    """A two-way line of bytes: a `SocketLink` or an `FdLink`."""

    rfd: int  # -1 once closed
    wfd: int
    peer: Peer
    lossy: bool  # bytes may be lost, or left over from an earlier conversation: a reader must find its Tversion
    kept: int  # bytes that it keeps in this process, as long as it is open

    def recv_into(self, buf: memoryview, /) -> int:
        """Receive what is there; return the count, 0 at the end. Raises BlockingIOError, or OSError when the line broke."""

    def send(self, data: Data, /) -> int:
        """Send what fits; return the count. Raises BlockingIOError, or OSError when nobody reads any more."""

    def sendmsg(self, buffers: Sequence[Data], /) -> int:
        """Send what fits of the buffers, of the first IOV_MAX if there are more; return the count of bytes. Raises as `send`."""

    async def wait_readable(self) -> None:
        """Wait until `recv_into` would not block. Raises trio.ClosedResourceError when it is closed meanwhile; if cancelled, nothing has changed."""

    async def wait_writable(self) -> None:
        """Wait until `send` would not block; otherwise as `wait_readable`."""

    def close(self) -> None:
        """Close the line, at once and without waiting; a second call does nothing."""


class Listener(Protocol):
    """Where links come from."""

    address: str  # a dial string that `dial` takes, with the real port instead of 0
    transport: Transport
    loopback: bool  # no other machine or network namespace can reach it

    async def accept(self) -> Link:
        """Wait for the next link. Raises trio.ClosedResourceError after it is closed; if cancelled, no link is lost."""

    async def aclose(self) -> None:
        """Stop listening, and remove the socket's file; accepted links live on. A second call does nothing."""


class SocketLink:
    """A link over one connected, non-blocking stream socket, which it owns; it calls `on_close` while it is still open."""

    kept = 0
    __slots__ = ("__weakref__", "lossy", "on_close", "peer", "recv_into", "rfd", "send", "sock", "wfd")

    def __init__(
        self,
        sock: socket.socket,
        peer: Peer,
        *,
        lossy: bool = False,
        on_close: list[Callable[[], None]] | None = None,
    ) -> None:
        self.sock, self.peer, self.lossy = sock, peer, lossy
        self.on_close: list[Callable[[], None]] = [] if on_close is None else on_close
        self.rfd = self.wfd = sock.fileno()
        # The socket's own methods, without a Python frame in between: every batch of messages calls them.
        self.recv_into: Callable[[memoryview], int] = sock.recv_into
        self.send: Callable[[Data], int] = sock.send

    def sendmsg(self, buffers: Sequence[Data], /) -> int:
        return self.sock.sendmsg(buffers if len(buffers) <= IOV_MAX else buffers[:IOV_MAX])

    async def wait_readable(self) -> None:
        await _readable(self.rfd)

    async def wait_writable(self) -> None:
        await _writable(self.wfd)

    def shut(self) -> None:
        """End both directions, as if the other end had closed it; whoever waits for it sees that. Raises OSError if it has."""
        socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # the method of a TLS socket would go on without TLS

    def close(self) -> None:
        if self.rfd >= 0:
            self.rfd = self.wfd = -1
            _closing(self.sock.fileno())
            for call in self.on_close:
                call()
            _close_fd(self.sock.detach())


class FdLink:
    """A link over a descriptor to read and one to write, maybe the same, non-blocking, which it owns: pipes, terminals, devices."""

    kept = 0
    __slots__ = ("__weakref__", "lossy", "on_close", "peer", "rfd", "wfd")

    def __init__(
        self,
        rfd: int,
        wfd: int,
        *,
        peer: Peer,
        lossy: bool = False,
        on_close: list[Callable[[], None]] | None = None,
    ) -> None:
        self.rfd, self.wfd, self.peer, self.lossy = rfd, wfd, peer, lossy
        self.on_close: list[Callable[[], None]] = [] if on_close is None else on_close

    def recv_into(self, buf: memoryview, /) -> int:
        return os.readv(self.rfd, (buf,))

    def send(self, data: Data, /) -> int:
        return os.write(self.wfd, data)

    def sendmsg(self, buffers: Sequence[Data], /) -> int:
        return os.writev(self.wfd, buffers if len(buffers) <= IOV_MAX else buffers[:IOV_MAX])

    async def wait_readable(self) -> None:
        await _readable(self.rfd)

    async def wait_writable(self) -> None:
        await _writable(self.wfd)

    def close(self) -> None:
        if self.rfd >= 0:
            fds = {self.rfd, self.wfd}
            self.rfd = self.wfd = -1
            for fd in fds:
                _closing(fd)
            for call in self.on_close:
                call()
            for fd in fds:
                _close_fd(fd)


async def send_all(link: Link, data: Data) -> None:
    """Send all, waiting as often as necessary. Raises OSError when the line broke; if cancelled, a part may have been sent."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[link.send(rest) :]
        except BlockingIOError:
            await link.wait_writable()


async def receive(link: Link, buffer: memoryview) -> int:
    """Wait until something can be received; return the count, 0 at the end. Raises OSError when the line broke; if cancelled, nothing is taken."""
    while True:
        try:
            return link.recv_into(buffer)
        except BlockingIOError:
            await link.wait_readable()


async def _readable(fd: int) -> None:
    import trio

    if fd < 0:
        raise trio.ClosedResourceError("this link was closed")
    await trio.lowlevel.wait_readable(fd)


async def _writable(fd: int) -> None:
    import trio

    if fd < 0:
        raise trio.ClosedResourceError("this link was closed")
    await trio.lowlevel.wait_writable(fd)


def _closing(fd: int) -> None:
    if "trio" in sys.modules:
        import trio

        with contextlib.suppress(RuntimeError):  # not inside trio.run: then nobody waits for it
            trio.lowlevel.notify_closing(fd)


def _close_fd(fd: int) -> None:
    if fd > 2:
        os.close(fd)
        return
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, fd)
    os.close(null)
