"""One conversation of tcp or vsock: a socket that connects, or is announced and gives calls (ip(3)).

It has at most one socket, which `connect`, `announce` and `bind` make; if they fail, there is none. The state comes from the kernel where it tells
one (TCP_INFO), and from this module elsewhere. After `hangup` a conversation may connect again.
"""

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, NoReturn

import attrs

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.servers.net import address
from mk9p.servers.net.address import Where
from mk9p.servers.net.files import conversation, settled
from mk9p.servers.net.sockets import Socket, make, queued, take
from mk9p.tree import Conversations, Dir, Handle, Maybe, Open, Text, join

# The kernel's states (net/tcp_states.h, from 1) in the words of ip(3)
STATES: Final = (
    "Closed",
    "Established",
    "Syn_sent",
    "Syn_received",
    "Finwait1",
    "Finwait2",
    "Time_wait",
    "Closed",
    "Close_wait",
    "Last_ack",
    "Listen",
    "Closing",
)
_PIECE: Final = 1 << 18  # the most bytes of one read: more than what comes at once, and little to allocate
_INFO: Final = 104  # bytes of tcp_info that every kernel has


@attrs.frozen
class Network:
    """How tcp and vsock differ: how addresses are written, and which words each adds to the common ones."""

    name: str
    parse: Callable[[str], Where | None]
    options: bool = False


TCP: Final = Network("tcp", address.ip, options=True)
VSOCK: Final = Network("vsock", address.vsock)


@attrs.define(eq=False)
class Call:
    """One conversation (mk9p.tree.Conversation). `link` is its socket, from `connect`, `announce` or `bind` to `hangup`."""

    network: Network
    number: int
    calls: Conversations
    link: Socket | None = None
    state: str = "Closed"
    hung: bool = False  # it had a socket: readers get the end, not an error
    announced: str = ""
    dialled: str = ""
    keepalive_ms: int | None = None
    ttl_hops: int | None = None
    nodelay_on: bool | None = None
    back: bytes = b""  # taken for a reader that has not got it
    broken: int = 0  # the errno that the connection broke with: the kernel tells it once, and after that only an end

    def tree(self) -> Dir:
        words: dict[str, Callable[..., Any]] = {
            "connect": self.connect,
            "announce": self.announce,
            "bind": self.bind,
            "hangup": self.hangup,
            "shutdown": self.shutdown,
        }
        if self.network.options:
            words |= {"keepalive": self.keepalive, "ttl": self.ttl, "nodelay": self.nodelay, "reset": self.reset}
        return conversation(self, words, lambda _: Data(self))

    # What it is

    def settings(self) -> str:
        lines = [self.announced, self.dialled]
        if self.keepalive_ms is not None:
            lines.append(f"keepalive {self.keepalive_ms}")
        if self.ttl_hops is not None:
            lines.append(f"ttl {self.ttl_hops}")
        if self.nodelay_on is not None:
            lines.append(f"nodelay {'on' if self.nodelay_on else 'off'}")
        return "".join(f"{line}\n" for line in lines if line)

    def local(self) -> str:
        sock = self._open_socket()
        return address.show(sock.getsockname()) if sock else address.UNSET

    def remote(self) -> str:
        sock = self._open_socket()
        try:
            return address.show(sock.getpeername()) if sock else address.UNSET
        except OSError:  # not connected
            return address.UNSET

    def status(self) -> str:
        """Render the state, and what waits in the queues; for tcp also the smoothed round trip, the retransmission time, and the size of a
        segment."""
        sock = self._open_socket()
        if sock is None or self.state != "Established":
            return f"{self.state}\n"
        state, more = self.state, ""
        if self.network.options:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO)
            rto, mss, rtt = (struct.unpack_from("=I", info, at)[0] for at in (8, 16, 68))
            state, more = STATES[info[0]], f" srtt {rtt * 1000} rto {rto * 1000} mss {mss}"
        return f"{state} qin {queued(sock)} qout {queued(sock, out=True)}{more}\n"

    def _open_socket(self) -> socket.socket | None:
        return self.link.sock if self.link else None

    # Words

    def _idle(self) -> None:
        if self.state != "Closed":
            raise NineError(errno.EBUSY, f"the conversation is in use: {self.state}; hangup ends that")

    def _options(self, family: int) -> Iterator[tuple[int, int, int]]:
        """Return the options that the client set, as setsockopt(2) takes them."""
        if self.ttl_hops is not None:
            yield socket.IPPROTO_IP, socket.IP_TTL, self.ttl_hops
            if family == socket.AF_INET6:
                yield socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, self.ttl_hops
        if self.nodelay_on is not None:
            yield socket.IPPROTO_TCP, socket.TCP_NODELAY, int(self.nodelay_on)
        if self.keepalive_ms is not None:
            yield socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(self.keepalive_ms > 0)
            if self.keepalive_ms > 0:
                seconds = max(1, round(self.keepalive_ms / 1000))
                yield socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds
                yield socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, seconds

    def _apply(self) -> None:
        if sock := self._open_socket():
            for option in self._options(sock.family):
                sock.setsockopt(*option)

    def _make(self, family: int, local: str = "") -> socket.socket:
        sock = make(family, socket.SOCK_STREAM)
        try:
            for option in self._options(family):
                sock.setsockopt(*option)
            if local:
                take(sock, self.network.parse(local), local)
        except BaseException:
            sock.close()
            raise
        return sock

    def _bound(self, local: str) -> socket.socket:
        where = self.network.parse(local)
        return self._make(where.family if where else address.any_family(), local)

    async def connect(self, address_: str, local: str = "") -> None:
        """Connect to `ADDR!PORT`, from LOCAL, a port or address, if there is one, and return when the other side has answered."""
        self._idle()
        where = self.network.parse(address_)
        if where is None or address.halves(address_)[0] == address.ANY:
            raise NineError(errno.EINVAL, f"{address_}: connect needs an address: ADDR!PORT")
        if self.link is None or local:
            sock = self._make(where.family, local)
            self._drop()
            self.link = Socket(sock)
        mine = self.link
        self.state, self.hung = "Syn_sent", False
        try:
            await mine.connect(where)
        except BaseException:
            mine.close()
            if self.link is mine:
                self._drop()
            raise
        self.state, self.dialled = "Established", join(["connect", address_, *filter(None, [local])])

    def announce(self, address_: str) -> None:
        """Take calls to `ADDR!PORT`, or to a port of any address: `announce *!8080`, `announce 8080`; 0 is any free port."""
        self._idle()
        sock = self._bound(address_)
        try:
            sock.listen(socket.SOMAXCONN)
        except BaseException:
            sock.close()
            raise
        self._drop()
        self.back = b""
        self.link, self.state, self.announced = Socket(sock), "Listen", join(["announce", address_])

    def bind(self, address_: str) -> None:
        """Choose the local address or port for the next `connect`."""
        self._idle()
        sock = self._bound(address_)
        self._drop()
        self.link = Socket(sock)

    def hangup(self) -> None:
        """End the connection or the announcement; readers get the end, writers get EPIPE."""
        self._drop()

    def reset(self) -> None:
        """Break the connection off: the other side gets ECONNRESET instead of the end, and what was not sent yet is dropped."""
        sock = self._open_socket()
        if sock is None or self.state != "Established":
            raise NineError(errno.ENOTCONN, "not connected")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._drop()

    def shutdown(self) -> None:
        """End this side's direction: the other side reads the end, and may go on writing."""
        sock = self._open_socket()
        if sock is None or self.state != "Established":
            raise NineError(errno.ENOTCONN, "not connected")
        sock.shutdown(socket.SHUT_WR)

    def keepalive(self, ms: int = 30000) -> None:
        """Ask the other side for a sign of life when nothing came for `ms` ms, and give the connection up after a few questions; 0 ends that."""
        if not 0 <= ms <= 32767000:
            raise NineError(errno.EINVAL, "keepalive goes from 0 to 32767000 ms")
        self.keepalive_ms = ms
        self._apply()

    def ttl(self, n: int) -> None:
        """Set how many routers a packet may pass."""
        if not 1 <= n <= 255:
            raise NineError(errno.EINVAL, "ttl goes from 1 to 255")
        self.ttl_hops = n
        self._apply()

    def nodelay(self, how: Literal["on", "off"] = "on") -> None:
        """Send small pieces at once, without waiting for more to come (TCP_NODELAY)."""
        self.nodelay_on = how == "on"
        self._apply()

    def _drop(self) -> None:
        if self.link:
            self.hung = self.hung or self.state == "Established"
            self.link.close()
        self.back, self.broken = b"", 0
        self.link, self.state, self.announced, self.dialled = None, "Closed", "", ""

    # Data and calls

    def _connected(self) -> Socket | None:
        """Return the socket of the connection, None after `hangup`; raises ENOTCONN if there was none."""
        if self.link and self.state == "Established":
            return self.link
        if self.hung:
            return None
        raise NineError(errno.ENOTCONN, "not connected")

    def take(self, room: int) -> bytes | None:
        """Return at most `room` bytes that have come, None if there are none yet; b"" when the other side has ended, or after `hangup`.

        Raises ECONNRESET, or whatever else the connection broke with, after everything that came before it, however often somebody asks.
        """
        if self.back:
            piece, self.back = self.back[:room], self.back[room:]
            return piece
        link = self._connected()
        if link is None or link.sock is None:
            return b""
        try:
            data = link.sock.recv(min(room, _PIECE))
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._broke(error) from None
        if not data and room and self.broken:
            raise NineError(self.broken)
        return data

    def _broke(self, error: OSError) -> NineError:
        """Note what a connection broke with; EPIPE says only that the other side no longer reads."""
        if error.errno not in (None, errno.EPIPE):
            self.broken = error.errno
        return NineError(error.errno or errno.EIO)

    async def wait(self) -> None:
        """Wait until something may have come."""
        if self.link:
            await self.link.readable()

    def send(self, data: bytes) -> Maybe[int]:
        """Send and return how much was taken, at least a byte. Raises EPIPE when the other side no longer reads, ECONNRESET when it is gone."""
        link = self._connected()

        def put(sock: socket.socket) -> int:
            try:
                return sock.send(data)
            except BlockingIOError:
                raise
            except OSError as error:
                raise self._broke(error) from None

        return link.write(put, _hung_up) if link else _hung_up()

    async def listen(self, how: Open) -> Handle:
        """Wait for a call and return the ctl of its conversation."""
        if self.link is None or self.state != "Listen":
            raise NineError(errno.EINVAL, "not announced")
        sock = await self.link.read(_accept, _hung_up)
        return await settled(
            self.calls.accept(
                lambda number, _: Call(self.network, number, self.calls, Socket(sock), "Established"), how, through=self
            ),
            sock.close,
        )

    def close(self) -> None:
        """End everything."""
        self._drop()


@attrs.frozen
class Data:
    """One open `data` (mk9p.tree.Store). It takes no more than the reader asked for, so nothing is lost when a reader closes it."""

    call: Call

    def take(self, room: int) -> bytes | None:
        return self.call.take(room)

    async def wait(self) -> None:
        await self.call.wait()

    def untake(self, message: bytes) -> None:
        self.call.back = message + self.call.back

    def send(self, data: bytes) -> Maybe[int]:
        return self.call.send(data)

    def close(self) -> None:
        return None


def _accept(sock: socket.socket) -> socket.socket:
    try:
        return sock.accept()[0]
    except ConnectionAbortedError:  # the call has gone again: wait for the next
        raise BlockingIOError from None


def _hung_up() -> NoReturn:
    raise NineError(errno.EPIPE, "hung up")


def conversations(network: Network, stats: Callable[[], str]) -> Conversations:
    """Return the directory of a network."""
    calls: Conversations

    def new(number: int, who: Principal) -> Call:
        return Call(network, number, calls)

    calls = Conversations(new, {"stats": Text(stats)})
    return calls
