"""`mk9p socks [-l HOST:PORT] KERNEL`: a kernel's network as a SOCKS5 proxy (RFC 1928), for programs that know nothing of 9P.

    mk9p socks k1 &
    curl --socks5-hostname localhost:1080 http://intranet/

The proxy connects each program from the kernel, which also resolves the names. It listens only on loopback, because it does not ask who connects:
everybody on this machine gets the kernel's network. It does CONNECT; it refuses BIND and UDP, as the protocol says. When one side breaks off a
connection, so does the proxy on the other side, and when the proxy ends, it breaks off all: what was cut never looks complete.
"""

import errno
import ipaddress
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import trio

from mk9p.client import Client
from mk9p.clients.common import kernel, with_namespace
from mk9p.clients.net import PIECE, NetStream, dial
from mk9p.errors import NineError
from mk9p.usage import parsed

PATIENCE: Final = 30.0  # seconds for a program to say what it wants
_REPLIES: Final = {
    errno.EPERM: 2,
    errno.EACCES: 2,
    errno.ENETUNREACH: 3,
    errno.EHOSTUNREACH: 4,
    errno.ETIMEDOUT: 4,
    errno.EAGAIN: 4,
    errno.ECONNREFUSED: 5,
}
_FAILED: Final = 1
_NO_COMMAND: Final = 7
_NO_TYPE: Final = 8


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p socks`."""
    chosen = parsed(arguments)
    host, _, port = chosen.listen.rpartition(":")

    async def work(ns: Client) -> int:
        return await serve(ns, f"{await kernel(ns, chosen.kernel)}/net", host.strip("[]") or "127.0.0.1", int(port))

    return with_namespace(work)


async def serve(ns: Client, net: str, host: str, port: int) -> int:
    """Serve until SIGINT or SIGTERM, or until the namespace is gone; print on stderr where, when programs can use it."""
    await ns.stat(f"{net}/tcp/clone")  # raises at once the error that each program would get
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise NineError(
            error.errno, f"{host}:{port}: Address already in use: -l 127.0.0.1:0 takes a free one"
        ) from None
    try:
        for listener in listeners:
            if not ipaddress.ip_address(listener.socket.getsockname()[0]).is_loopback:
                raise NineError(errno.EPERM, f"{host}: it asks nobody who they are, so it listens only on loopback")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_signal, nursery.cancel_scope)
            nursery.start_soon(_until_gone, ns)
            for listener in listeners:
                name = listener.socket.getsockname()
                print(f"mk9p: listening on {name[0]}:{name[1]}", file=sys.stderr, flush=True)
            await trio.serve_listeners(partial(_client, ns, net), listeners)
    finally:
        with trio.CancelScope(shield=True):
            for listener in listeners:
                await listener.aclose()
    return 0


async def _until_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


async def _until_gone(ns: Client) -> None:
    raise NineError(errno.EIO, f"the namespace is gone: {await ns.wait_closed()}")


async def _client(ns: Client, net: str, near: trio.SocketStream) -> None:
    """Serve one program."""
    wanted = None
    try:
        async with near:
            with trio.move_on_after(PATIENCE):
                wanted = await _wanted(near)
            if wanted is None:
                return
            try:
                far = await dial(ns, f"{net}/tcp!{wanted}")
            except OSError as error:
                await near.send_all(_reply(_REPLIES.get(error.errno or 0, _FAILED)))
                return
            async with far:
                # also when this proxy ends: what has come through so far must not look complete to either side
                try:
                    await near.send_all(_reply(0, far.local))
                    await _both_ways(near, far)
                except BaseException:
                    _break_off(near)
                    await far.reset()
                    raise
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # one of the two has gone, which closes the other


async def _wanted(near: trio.SocketStream) -> str | None:
    """Return `HOST!PORT` as a program asks for it; None after a refusal."""
    version, methods = await _exactly(near, 2)
    if version != 5 or 0 not in await _exactly(near, methods):
        await near.send_all(b"\5\xff")
        return None
    await near.send_all(b"\5\0")
    _, command, _, kind = await _exactly(near, 4)
    if kind == 3:
        host = (await _exactly(near, (await _exactly(near, 1))[0])).decode("ascii", "replace")
    elif kind in (1, 4):
        host = str(ipaddress.ip_address(await _exactly(near, 4 if kind == 1 else 16)))
    else:
        await near.send_all(_reply(_NO_TYPE))
        return None
    port = int.from_bytes(await _exactly(near, 2), "big")
    if command != 1:
        await near.send_all(_reply(_NO_COMMAND))
        return None
    if "!" in host or not host:
        await near.send_all(_reply(4))
        return None
    return f"{host}!{port}"


async def _exactly(near: trio.SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = await near.receive_some(count - len(data))
        if not piece:
            raise trio.BrokenResourceError("it ended in the middle of a request")
        data += piece
    return data


def _reply(code: int, local: str = "") -> bytes:
    """Return a reply: the result, and this end of the connection."""
    host, _, port = local.partition("!")
    address = ipaddress.ip_address(host.partition("%")[0] or "0.0.0.0")
    kind = 1 if address.version == 4 else 4
    return bytes([5, code, 0, kind]) + address.packed + int(port or 0).to_bytes(2, "big")


async def _both_ways(near: trio.SocketStream, far: NetStream) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_copy, near, far)
        nursery.start_soon(_copy, far, near)


def _break_off(near: trio.SocketStream) -> None:
    """Make the close of a connection send a reset (SO_LINGER of socket(7))."""
    with suppress(OSError):  # it is closed already
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _copy(source: trio.abc.HalfCloseableStream, to: trio.abc.HalfCloseableStream) -> None:
    while data := await source.receive_some(PIECE):
        await to.send_all(data)
    await to.send_eof()
