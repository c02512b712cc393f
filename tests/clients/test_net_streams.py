"""`dial` and `listen` over a kernel's /net: streams and listeners as trio's own, held to trio's own checks of them."""

import errno
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio
import trio.testing

from mk9p.client import Client
from mk9p.clients import socks
from mk9p.clients.net import NetStream, dial, listen
from mk9p.errors import NineError
from mk9p.servers.net import tree
from mk9p.testing import SOON, mounted
from mk9p.tree import Dir
from tests.leftovers import descriptors as open_now
from tests.server.left_open import nothing_more


@asynccontextmanager
async def served(version: str = "9P2000.L") -> AsyncIterator[Client]:
    before = open_now()
    with trio.fail_after(SOON):
        async with tree() as net, mounted(Dir({"net": net}), version=version) as ns:
            yield ns
            assert [e.name for e in await ns.listdir("net/tcp") if e.name.isdecimal()] == []
    await nothing_more(before)


@pytest.mark.parametrize("version", ["9P2000.L", "9P2000"])
async def test_they_are_streams_of_trio(version: str) -> None:
    """Both ends in /net, through all that trio's check does: partial reads, cancellation, busy and closed streams, the end of one direction."""
    async with served(version) as ns, await listen(ns, "tcp!127.0.0.1!0") as listener:

        async def pair() -> tuple[NetStream, NetStream]:
            made = [await dial(ns, f"tcp!{listener.address}"), await listener.accept()]
            return made[0], made[1]

        await trio.testing.check_half_closeable_stream(pair, None)


@pytest.mark.parametrize("prefix", ["", "net/", "/net/"])
async def test_an_echo_with_a_program_of_this_machine(prefix: str) -> None:
    payload = os.urandom(2 << 20)

    async def echo(stream: trio.SocketStream) -> None:
        async for piece in stream:
            await stream.send_all(piece)

    async with served() as ns, trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, echo, 0)
        port = listeners[0].socket.getsockname()[1]
        async with await dial(ns, f"{prefix}tcp!localhost!{port}") as stream:
            assert stream.remote == f"127.0.0.1!{port}"
            back = b""

            async def send() -> None:
                await stream.send_all(payload)
                await stream.send_eof()

            nursery.start_soon(send)
            async for piece in stream:
                back += piece
            assert back == payload
        nursery.cancel_scope.cancel()


async def test_a_server_in_net_serves_programs_of_this_machine() -> None:
    async def shout(stream: NetStream) -> None:
        async for piece in stream:
            await stream.send_all(piece.upper())

    async with served() as ns, trio.open_nursery() as nursery:
        listener = await listen(ns, "tcp!*!0")
        nursery.start_soon(trio.serve_listeners, shout, [listener])
        port = int(listener.address.rpartition("!")[2])
        for word in (b"one", b"two"):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(word)
                assert await stream.receive_some() == word.upper()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await listener.aclose()
            while [e.name for e in await ns.listdir("net/tcp") if e.name.isdecimal()]:
                await trio.lowlevel.checkpoint()


async def test_failures_say_what_and_where_and_leave_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    async with served() as ns:
        with pytest.raises(ConnectionRefusedError, match=f"tcp!127.0.0.1!{port}: Connection refused"):
            await dial(ns, f"tcp!127.0.0.1!{port}")
        for address, number in (
            ("tcp!127.0.0.1", errno.EINVAL),
            ("tcp!256.256.256.256.!80", errno.EHOSTUNREACH),
            ("il!127.0.0.1!80", errno.EINVAL),
            ("udp!127.0.0.1!80", errno.EPROTOTYPE),
            ("k/k9/net/tcp!127.0.0.1!80", errno.ENOENT),
        ):
            with pytest.raises(NineError) as caught:
                await dial(ns, address)
            assert caught.value.errno == number
        async with await listen(ns, "tcp!127.0.0.1!0") as listener:
            with pytest.raises(NineError, match="Address already in use"):
                await listen(ns, f"tcp!{listener.address}")


async def test_closing_a_listener_wakes_who_waits_for_calls() -> None:
    async with served() as ns, trio.open_nursery() as nursery:
        listener = await listen(ns, "tcp!127.0.0.1!0")

        async def accept() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()


async def test_a_dial_that_is_given_up_leaves_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as sock:
        waiting = [socket.socket() for _ in range(8)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(sock.getsockname())
        async with served() as ns:
            with trio.move_on_after(0.1) as scope:
                await dial(ns, f"tcp!127.0.0.1!{sock.getsockname()[1]}")
            assert scope.cancelled_caught
        for each in waiting:
            each.close()


async def test_a_connection_that_breaks_is_a_broken_resource() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        async with served() as ns, await dial(ns, f"tcp!127.0.0.1!{sock.getsockname()[1]}") as stream:
            peer, _ = sock.accept()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer.close()
            with pytest.raises(trio.BrokenResourceError, match="reset"):
                await stream.receive_some()


LINGER = struct.pack("ii", 1, 0)


async def test_a_connection_that_was_broken_off_has_no_end(nursery: trio.Nursery) -> None:
    """However often it is read, also after a write has been told first; and what came before the break is read before it."""

    async def half(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        await stream.send_all(b"half of it")
        assert await stream.receive_some(1) == b"!"
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)

    async with served() as ns:
        listeners = await nursery.start(trio.serve_tcp, half, 0)
        port = listeners[0].socket.getsockname()[1]
        for write_first in (False, True):
            async with await dial(ns, f"tcp!127.0.0.1!{port}") as stream:
                await stream.send_all(b"?")
                assert await stream.receive_some() == b"half of it"
                await stream.send_all(b"!")
                if write_first:
                    with suppress(trio.BrokenResourceError):
                        while True:
                            await stream.send_all(b"x")
                for _ in range(3):
                    with pytest.raises(trio.BrokenResourceError):
                        await stream.receive_some()
        nursery.cancel_scope.cancel()


async def test_a_stream_can_be_broken_off(nursery: trio.Nursery) -> None:
    broken = trio.Event()

    async def watch(stream: trio.SocketStream) -> None:
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            broken.set()

    async with served() as ns:
        listeners = await nursery.start(trio.serve_tcp, watch, 0)
        stream = await dial(ns, f"tcp!127.0.0.1!{listeners[0].socket.getsockname()[1]}")
        await stream.send_all(b"half of it")
        await stream.reset()
        await stream.reset()
        await broken.wait()
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("who", ["server", "client", "proxy"])
async def test_what_was_cut_on_one_side_of_the_proxy_is_cut_on_the_other(who: str) -> None:
    seen: dict[str, str] = {}
    both, served_one = trio.Event(), trio.Event()

    async def until_the_end(name: str, stream: trio.SocketStream) -> None:
        try:
            while await stream.receive_some():
                pass
            seen[name] = "an end"
        except trio.BrokenResourceError:
            seen[name] = "broken"

    async def server(stream: trio.SocketStream) -> None:
        await stream.send_all(b"half of it")
        await both.wait()
        if who == "server":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        else:
            await until_the_end("server", stream)
        served_one.set()

    async def proxies(scope: trio.CancelScope, ns: Client, listener: trio.SocketListener) -> None:
        with scope:
            await trio.serve_listeners(partial(socks._client, ns, "net"), [listener])

    async with served() as ns, trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, server, 0)
        port = listeners[0].socket.getsockname()[1]
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        scope = trio.CancelScope()
        nursery.start_soon(proxies, scope, ns, listener)
        async with await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1]) as client:
            await client.send_all(b"\5\1\0\5\1\0\1\x7f\0\0\1" + port.to_bytes(2, "big"))
            got = b""
            while not got.endswith(b"half of it"):
                got += await client.receive_some()
            both.set()
            if who == "client":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
            else:
                if who == "proxy":
                    scope.cancel()
                await until_the_end("client", client)
        await served_one.wait()
        nursery.cancel_scope.cancel()
    assert set(seen.values()) == {"broken"}
