"""udp: whole datagrams (ip(3)).

`connect` is for one other side. `announce` takes datagrams from all. Each new sender is a call, which `listen` gives as a conversation of its own,
as in Plan 9. Or, after `headers`, each datagram comes through the announcement's own `data`, with its addresses in front.

The calls of an announcement share its socket (port.py).
"""

import errno
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import attrs

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.servers.net import address
from mk9p.servers.net.files import conversation, settled
from mk9p.servers.net.port import NOWHERE, PKTINFO, Datagram, Port, packed
from mk9p.servers.net.sockets import Socket, make, queued, take
from mk9p.tree import Conversations, Dir, Handle, Maybe, Open, Text, join

HEADER: Final = struct.Struct("!16s16s16sHH")  # Udphdr: remote, local, interface, their port, ours


@attrs.define(eq=False)
class Udp:
    """One conversation (mk9p.tree.Conversation): closed, connected, announced, or a call (`peer`) through an announcement."""

    number: int
    calls: Conversations
    port: Port | None = None
    queue: deque[Datagram] = attrs.field(factory=deque)
    peer: Any = None
    from_: bytes = NOWHERE  # the local address that the call came to, and that answers it
    how: str = ""  # the word that opened the conversation
    listens: bool = False
    headed: bool = False
    hung: bool = False
    ttl_hops: int | None = None
    last: Datagram | None = None  # the last one that was taken: it may be given back

    def tree(self) -> Dir:
        words: dict[str, Callable[..., Any]] = {
            "connect": self.connect,
            "announce": self.announce,
            "bind": self.bind,
            "headers": self.headers,
            "hangup": self.hangup,
            "ttl": self.ttl,
        }
        return conversation(self, words, lambda _: Data(self))

    # What it is

    def settings(self) -> str:
        lines = [
            "" if self.peer else self.how,
            "headers" if self.headed else "",
            "" if self.ttl_hops is None else f"ttl {self.ttl_hops}",
        ]
        return "".join(f"{line}\n" for line in lines if line)

    def local(self) -> str:
        sock = self._socket()
        if sock is None:
            return address.UNSET
        if self.from_ == NOWHERE:
            return address.show(sock.getsockname())
        return address.show((_text(self.from_), sock.getsockname()[1]))

    def remote(self) -> str:
        sock = self._socket()
        if sock and self.peer:
            return address.show(self.peer)
        try:
            return address.show(sock.getpeername()) if sock else address.UNSET
        except OSError:  # not connected
            return address.UNSET

    def status(self) -> str:
        sock = self._socket()
        if sock is None or not self.how:
            return "Closed\n"
        waiting = sum(len(datagram.data) for datagram in self.queue)
        return f"Open qin {waiting + queued(sock)} qout {queued(sock, out=True)}\n"

    def _socket(self) -> socket.socket | None:
        return self.port.link.sock if self.port else None

    # Words

    def _open(self, local: str = "", family: int | None = None) -> Port:
        """Return a new socket, bound if `local` says where to."""
        if self.how:
            raise NineError(errno.EBUSY, "the conversation is in use; hangup ends that")
        where = address.ip(local) if local else None
        sock = make(family or (where.family if where else address.any_family()), socket.SOCK_DGRAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)  # Plan 9 has no such protection
            sock.setsockopt(socket.IPPROTO_IP, PKTINFO, 1)
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            if local:
                take(sock, where, local)
        except BaseException:
            sock.close()
            raise
        self.hangup()
        self.port = Port(Socket(sock))
        self._apply()
        return self.port

    async def connect(self, address_: str, local: str = "") -> None:
        """Exchange datagrams only with `ADDR!PORT`, from LOCAL, a port or address, if there is one."""
        where = address.ip(address_)
        if where is None:
            raise NineError(errno.EINVAL, f"{address_}: connect needs an address: ADDR!PORT")
        port = self.port
        if port is None or local or self.how:
            port = self._open(local, where.family)
        try:
            await port.link.connect(where)
        except BaseException:
            self.hangup()
            raise
        port.rest = self.queue
        self.how, self.hung = join(["connect", address_, *filter(None, [local])]), False

    def announce(self, address_: str) -> None:
        """Take datagrams to `ADDR!PORT`, or to a port of any address: `announce *!53`, `announce 53`; 0 is any free port."""
        port = self._open(address_)
        self.how, self.listens, self.hung = join(["announce", address_]), True, False
        port.rest = self.queue if self.headed else None

    def bind(self, address_: str) -> None:
        """Choose the local address or port for the next `connect`."""
        self._open(address_)

    def headers(self) -> None:
        """Put 52 bytes of addresses before each datagram, in reads and writes (ip(3)); an announcement's datagrams then all come through its
        `data`."""
        self.headed = True
        if self.port and self.listens:
            self.port.rest = self.queue

    def hangup(self) -> None:
        """End it; readers get the end."""
        if self.port:
            self.port.leave(self.peer)
            self.hung = bool(self.how)
        self.port, self.how, self.listens, self.peer, self.from_ = None, "", False, None, NOWHERE
        self.last = None
        self.queue.clear()

    def ttl(self, n: int) -> None:
        """Set how many routers a datagram may pass."""
        if not 1 <= n <= 255:
            raise NineError(errno.EINVAL, "ttl goes from 1 to 255")
        self.ttl_hops = n
        self._apply()

    def _apply(self) -> None:
        sock = self._socket()
        if sock and self.ttl_hops is not None:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, self.ttl_hops)
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, self.ttl_hops)

    def close(self) -> None:
        """End everything."""
        self.hangup()

    # Datagrams and calls

    def _port(self) -> Port | None:
        """Return the port, None after `hangup`; raises ENOTCONN if there was none."""
        if self.port and self.how:
            if self.listens and not self.headed:
                raise NineError(errno.EINVAL, "announced: open listen for the calls, or write headers to ctl")
            return self.port
        if self.hung:
            return None
        raise NineError(errno.ENOTCONN, "not connected")

    def take(self) -> bytes | None:
        """Return the next datagram, None if there is none yet; b"" after `hangup`. An empty datagram looks like the end, and is left out."""
        port = self._port()
        if port is None:
            return b""
        while (datagram := port.take(self.queue)) is not None:
            if datagram.data or self.headed:
                self.last = datagram
                return self._header(port, datagram) + datagram.data if self.headed else bytes(datagram.data)
        return None

    def _header(self, port: Port, datagram: Datagram) -> bytes:
        here = port.link.sock.getsockname() if port.link.sock else ("::", 0)
        ours = datagram.local if datagram.local != NOWHERE else packed(here[0])
        return HEADER.pack(packed(datagram.peer[0]), ours, ours, datagram.peer[1], here[1])

    def send(self, data: bytes) -> Maybe[int]:
        """Send one datagram, whole or not at all: EMSGSIZE for a datagram that is too large."""
        port = self._port()
        if port is None:
            raise NineError(errno.EPIPE, "hung up")
        peer, ours, body = self.peer, self.from_, data
        if self.headed:
            if len(data) < HEADER.size:
                raise NineError(errno.EINVAL, f"a datagram begins with a header of {HEADER.size} bytes")
            remote, local, _, theirs, _ = HEADER.unpack_from(data)
            body = data[HEADER.size :]
            if self.listens:
                peer, ours = (_text(remote), theirs), local

        def do(sock: socket.socket) -> int:
            if peer is None:
                sock.send(body)
            else:
                where = address.Where(sock.family, peer)
                if sock.family == socket.AF_INET6 and "." in peer[0] and ":" not in peer[0]:
                    where = address.mapped(address.Where(socket.AF_INET, peer))
                sock.sendmsg([body], _from(sock.family, ours), 0, where.address)
            return len(data)

        return port.link.write(do, _hung_up)

    async def listen(self, how: Open) -> Handle:
        """Wait for a new sender and return the ctl of its conversation, which hears and answers only this sender."""
        port = self.port
        if port is None or not self.listens:
            raise NineError(errno.EINVAL, "not announced")
        while (peer := port.take(port.calls)) is None:
            await port.wait()
            if self.port is not port:
                raise NineError(errno.EPIPE, "hung up")
        queue = port.queues[peer]
        call = Udp(0, self.calls, port, queue, peer, queue[0].local if queue else NOWHERE, "call")
        port.users += 1

        def new(number: int, who: Principal) -> Udp:
            call.number = number
            return call

        return await settled(self.calls.accept(new, how, through=self), call.close)


@attrs.frozen
class Data:
    """One open `data` (mk9p.tree.Store): each datagram goes to one reader."""

    talk: Udp

    def take(self, room: int) -> bytes | None:
        return self.talk.take()

    async def wait(self) -> None:
        if self.talk.port:
            await self.talk.port.wait()

    def untake(self, message: bytes) -> None:
        if self.talk.last:
            self.talk.queue.appendleft(self.talk.last)

    def send(self, data: bytes) -> Maybe[int]:
        return self.talk.send(data)

    def close(self) -> None:
        return None


def _hung_up() -> int:
    raise NineError(errno.EPIPE, "hung up")


def _text(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET6, packed).removeprefix("::ffff:")


def _from(family: int, ours: bytes) -> list[tuple[int, int, bytes]]:
    """Return the control message that makes a local address the source of a datagram."""
    if ours == NOWHERE:
        return []
    if family == socket.AF_INET6:
        return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, ours + bytes(4))]
    return [(socket.IPPROTO_IP, PKTINFO, struct.pack("=i4s4s", 0, ours[12:], bytes(4)))]


def conversations(stats: Callable[[], str]) -> Conversations:
    """Return the directory of udp."""
    calls: Conversations

    def new(number: int, who: Principal) -> Udp:
        return Udp(number, calls)

    calls = Conversations(new, {"stats": Text(stats)})
    return calls
