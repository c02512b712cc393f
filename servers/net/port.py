"""A socket of udp. An announcement and the calls that came through it share it.

No task reads it: whoever waits reads for all, and puts datagrams for others into their queues. What nobody waits for stays with the kernel, which
drops it when it is too much.
"""

import socket
from collections import deque
from typing import Any, Final

import attrs
import trio

from mk9p.servers.net.sockets import Socket

PKTINFO: Final = 8  # IP_PKTINFO; ipi_ifindex, ipi_spec_dst, ipi_addr
NOWHERE: Final = bytes(16)
_MOST: Final = 65535
_QUEUE: Final = 64  # datagrams kept for one conversation, and calls that nobody has listened for yet
_ROOM: Final = 64  # for either kind of control message


@attrs.frozen
class Datagram:
    """A datagram: from whom it came, and to which local address (16 bytes)."""

    data: bytes
    peer: Any
    local: bytes


@attrs.define(eq=False)
class Port:
    """A socket and those who share it. `rest` gets the datagrams of senders without a queue; without `rest` such a sender is a call."""

    link: Socket
    users: int = 1
    queues: dict[Any, deque[Datagram]] = attrs.field(factory=dict)
    calls: deque[Any] = attrs.field(factory=deque)
    rest: deque[Datagram] | None = None
    announced: bool = True
    waits: set[trio.CancelScope] = attrs.field(factory=set)

    def take(self, mine: deque[Any]) -> Any:
        """Return the first datagram of a queue, None if nothing has come for it. Put what came for others into their queues, and wake them."""
        sock = self.link.sock
        while not mine and sock is not None:
            try:
                data, control, _, peer = sock.recvmsg(_MOST, _ROOM)
            except BlockingIOError:
                return None
            self._route(Datagram(data, peer, _local_of(control)))
            if not mine:
                self.wake()
        return mine.popleft() if mine else None

    async def wait(self) -> None:
        """Wait until something may have come, or somebody calls `wake`."""
        with trio.CancelScope() as scope:
            self.waits.add(scope)
            try:
                await self.link.readable()
            finally:
                self.waits.discard(scope)

    def wake(self) -> None:
        """Wake all who wait, so they look again."""
        for scope in self.waits:
            scope.cancel()

    def _route(self, datagram: Datagram) -> None:
        queue = self.queues.get(datagram.peer, self.rest)
        if queue is None:
            if not self.announced or len(self.calls) >= _QUEUE:
                return
            queue = self.queues[datagram.peer] = deque()
            self.calls.append(datagram.peer)
        if len(queue) < _QUEUE:
            queue.append(datagram)

    def leave(self, peer: Any) -> None:
        """Count one user less; the last one closes the socket."""
        if peer is None:
            self.announced, self.rest = False, None
            for caller in self.calls:
                self.queues.pop(caller, None)
            self.calls.clear()
        else:
            self.queues.pop(peer, None)
        self.users -= 1
        self.wake()
        if not self.users:
            self.link.close()


def _local_of(control: list[tuple[int, int, bytes]]) -> bytes:
    """Return the local address that a datagram came to."""
    for level, kind, data in control:
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            return bytes(data[:16])
        if (level, kind) == (socket.IPPROTO_IP, PKTINFO):
            return packed(socket.inet_ntoa(data[8:12]))
    return NOWHERE


def packed(host: str) -> bytes:
    """Return an address as 16 bytes; an IPv4 address as Plan 9 and Linux both write it: ::ffff:a.b.c.d."""
    host = host.partition("%")[0]
    if ":" not in host:
        host = f"::ffff:{host}"
    return socket.inet_pton(socket.AF_INET6, host)
