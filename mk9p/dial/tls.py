"""tls: TLS 1.3 over tcp, with a certificate at both ends.

Whoever comes is `cert:NAME`, the name in their certificate (tls_words.py), whatever names they send: the prefix keeps it apart from every user of
this machine and every guest. The server's certificate must be for the host that was dialled. keys.py says where the keys are.

Theory
* A link is a socket that OpenSSL reads and writes itself. It takes one record at a time from the kernel and no more, so what was not received keeps
  the descriptor readable, and a server's epoll goes on to tell. A record has at most 16 KiB, and whoever receives gives at least as much room
  (wire/framing.py): then nothing is ever left inside OpenSSL.
* At a listener the handshake is what `recv_into` does first. So it waits as everything of this link does, a stranger has no more time for it than
  for an attach, and no task is started for who may never come.
* OpenSSL wants a write that did not fit again with the same bytes. All callers of a link do that: they offer what was not taken, and maybe more.
"""

import errno
import select
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final
from weakref import WeakSet

from mk9p.dial import tcp
from mk9p.dial.address import Dial
from mk9p.dial.blocking import Late
from mk9p.dial.keys import Keys, to_dial, told
from mk9p.dial.link import Data, Refused, SocketLink, _readable
from mk9p.dial.revoked import Lists
from mk9p.dial.sockets import SocketListener, log
from mk9p.dial.tls_context import context
from mk9p.dial.tls_words import broken, name_in
from mk9p.errors import NineError

RECORD: Final = 16384  # bytes of data in a record at most (RFC 8446, 5.1)
_GATHERED: Final = 4 * RECORD  # bytes of several buffers that are put together for one call
KEPT: Final = (
    1 << 16
)  # bytes of OpenSSL's for a connection, as measured: keys, the peer's certificate, the state of the records
_MOST: Final = 16  # pieces of what comes from who is refused
LOOK: Final = 1.0  # s between two looks at what was revoked
_HELLO: Final = (
    b"\x16"  # with which every TLS client begins (RFC 8446, 5.1): the frame of a Tversion has 19 bytes and not 22
)
_ALERT: Final = b"\x15\x03\x03\x00\x02\x02\x46"  # protocol_version, for who speaks something else

_IN, _OUT = select.POLLIN, select.POLLOUT


class TlsLink(SocketLink):
    """A link over TLS; it takes the socket of another. `certificate` is the peer's, in DER, once the handshake is over."""

    __slots__ = ("_began", "_host", "certificate", "ended")

    kept = KEPT
    sock: ssl.SSLSocket

    def __init__(self, link: SocketLink, made: ssl.SSLContext, host: str | None) -> None:
        """Begin with a socket that is connected; `host` is the name that the peer must have, None for a client that came to us."""
        secure = made.wrap_socket(
            link.sock, server_side=host is None, server_hostname=host, do_handshake_on_connect=False
        )
        super().__init__(secure, link.peer)
        self._host, self._began = host, host is not None
        self.certificate = b""
        self.ended = ""  # why we have ended it
        self.recv_into, self.send = self._first, self._send
        self.on_close.append(self._farewell)

    def shake(self) -> int:
        """Go on with the handshake; return what it waits for, as an event of poll(2), 0 if it is over. Raises Refused, or another OSError."""
        sock = self.sock
        try:
            if not self._began:
                first = socket.socket.recv(sock, 1, socket.MSG_PEEK)
                if not first:  # who only looks whether somebody listens: no reason for a line in the log
                    raise ConnectionResetError(errno.ECONNRESET, "it hung up before it said anything")
                if first != _HELLO:
                    socket.socket.send(sock, _ALERT)
                    self._take_all()
                    raise Refused(errno.EPROTO, "it does not speak TLS")
                self._began = True
            sock.do_handshake()
        except (ssl.SSLWantReadError, BlockingIOError):
            return _IN
        except ssl.SSLWantWriteError:
            return _OUT
        except ssl.SSLError as error:
            self._take_all()
            raise broken(error, self._host, shaking=True) from None
        self.certificate = sock.getpeercert(binary_form=True) or b""
        if self._host is None:
            self.peer = self.peer._replace(user=f"cert:{name_in(sock.getpeercert() or {})}")
        self.recv_into = self._receive
        return 0

    def _take_all(self) -> None:
        """Take what has come. Otherwise closing would reset the connection (RFC 1122, 4.2.2.13), and the other end might not read why."""
        with suppress(OSError):
            for _ in range(_MOST):
                if not socket.socket.recv(self.sock, _GATHERED):
                    break

    def _first(self, buf: memoryview) -> int:
        if (
            self.shake()
        ):  # it waits for the peer: what a handshake sends is less than the kernel takes for a new connection
            raise BlockingIOError
        return self._receive(buf)

    def _receive(self, buf: memoryview) -> int:
        take = self.sock.recv_into
        try:
            got = last = take(buf)
            with suppress(ssl.SSLWantReadError):
                # who fills a record probably sends more; each next one has room as a whole
                while last == RECORD and len(buf) - got >= RECORD:
                    last = take(buf[got:])
                    got += last
            return got
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except OSError as error:
            raise self._broken(error) from None

    def _send(self, data: Data) -> int:
        give, sent = self.sock.send, 0
        try:
            while True:
                sent += give(memoryview(data)[sent:] if sent else data)
                if sent >= len(data):
                    return sent
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if sent:
                return sent
            raise BlockingIOError from None
        except OSError as error:
            try:  # it may have said why before it hung up
                self.sock.recv(1)
            except ssl.SSLError as other:
                if not isinstance(other, (ssl.SSLWantReadError, ssl.SSLEOFError)):
                    raise self._broken(other) from None
            except OSError:
                pass  # no: then the first error is all there is
            raise self._broken(error) from None

    def sendmsg(self, buffers: Sequence[Data], /) -> int:
        if len(buffers) == 1 or len(buffers[0]) >= _GATHERED:
            return self.send(buffers[0])
        some, left = list[Data](), _GATHERED
        for buffer in buffers:
            some.append(buffer if len(buffer) <= left else memoryview(buffer)[:left])
            left -= len(some[-1])
            if not left:
                break
        return self.send(b"".join(some))

    def _broken(self, error: OSError) -> OSError:
        if self.ended:
            return Refused(errno.EACCES, self.ended)
        return broken(error, self._host, shaking=False) if isinstance(error, ssl.SSLError) else error

    async def wait_readable(self) -> None:
        if self.rfd < 0 or not self.sock.pending():
            await _readable(self.rfd)

    def end(self, reason: str) -> None:
        """End the link, for a reason that whoever waits for it gets as the error."""
        self.ended = reason
        self.recv_into = self._over
        with suppress(OSError):  # the other end has closed it
            self.shut()

    def _over(self, buf: memoryview) -> int:
        raise Refused(errno.EACCES, self.ended)

    def _farewell(self) -> None:
        with suppress(OSError, ValueError):  # it says close_notify, and does not wait for the other end's
            self.sock.unwrap()


async def dial(where: Dial) -> TlsLink:
    import trio

    keys, host = _wanted(where)
    link = _begun(where, await tcp.dial(where), keys, host)
    try:
        while waits := _shaken(where, link):
            await (trio.lowlevel.wait_readable if waits == _IN else trio.lowlevel.wait_writable)(link.rfd)
    except BaseException:
        link.close()
        raise
    return link


def dial_now(where: Dial, deadline: float) -> TlsLink:
    keys, host = _wanted(where)
    link = _begun(where, tcp.dial_now(where, deadline), keys, host)
    try:
        while waits := _shaken(where, link):
            poll = select.poll()
            poll.register(link.rfd, waits)
            if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
                raise Late
    except BaseException:
        link.close()
        raise
    return link


def _wanted(where: Dial) -> tuple[Keys, str]:
    """Return the keys to dial with, and the name that the server must have."""
    host, _ = where.host_port()
    return where.keys or to_dial(), "localhost" if host == "*" else host


def _begun(where: Dial, link: SocketLink, keys: Keys, host: str) -> TlsLink:
    try:
        return TlsLink(link, _context(where, keys, server=False), host)
    except BaseException:
        link.close()
        raise


def _context(where: Dial, keys: Keys, *, server: bool) -> ssl.SSLContext:
    try:
        return context(keys, server=server)
    except NineError as error:
        raise where.refuse(error.errno, str(error)) from None


def _shaken(where: Dial, link: TlsLink) -> int:
    try:
        return link.shake()
    except Refused as error:
        raise where.refuse(error.errno or errno.EPROTO, error.strerror or "") from None


async def listen(where: Dial, mode: int) -> "TlsListener":
    keys = where.keys or told()
    _context(where, keys, server=True)  # refuses now, and not the first client
    return await tcp.listen(where, mode, kind=partial(TlsListener, keys))


class TlsListener(SocketListener):
    """A listener for TLS. It ends the links of certificates that were revoked meanwhile."""

    def __init__(self, keys: Keys, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._keys, self._plain = keys, self._link
        self._link = self._secure
        self._live: WeakSet[TlsLink] = WeakSet()
        self._lists, self._looked = Lists(keys), 0.0

    def _secure(self, sock: socket.socket, where: Any) -> TlsLink:
        link = TlsLink(self._plain(sock, where), context(self._keys, server=True), None)
        self._live.add(link)
        return link

    async def accept(self) -> SocketLink:
        import trio

        while True:
            rest = self._looked + LOOK - trio.current_time()
            if rest <= 0:
                self._look()
                self._looked = trio.current_time()
                continue
            with trio.move_on_after(rest):
                return await super().accept()

    def _look(self) -> None:
        """End the links of what was revoked since the last look."""
        if not self._lists.changed():
            return
        for link in list(self._live):
            if link.rfd >= 0 and link.certificate and self._lists.has(link.certificate):
                log().warning("%s: the certificate of %s was revoked", self.address, link.peer.user)
                link.end("the client's certificate was revoked")
