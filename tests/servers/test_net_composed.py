"""net through the composer: a page fetched and calls taken by a client of the namespace, with the network of a kernel in it."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from mk9p.client import Client, connect
from mk9p.clients.net import NetStream
from mk9p.clients.net import dial as net_dial
from mk9p.clients.net import listen as net_listen
from mk9p.servers.net import tree
from mk9p.testing import SOON
from mk9p.tree import Dir
from tests.leftovers import descriptors as open_now
from tests.server.composed import composed
from tests.server.left_open import nothing_more
from tests.servers.calls import PAGE, all_of, call, listening, numbers, web


@asynccontextmanager
async def used(folder: Path, version: str) -> AsyncIterator[Client]:
    """Give a client of a namespace that has this kernel's network at k/k1/net."""
    before = open_now()
    with trio.fail_after(3 * SOON):
        async with (
            tree() as net,
            composed(folder, {"k1": Dir({"net": net})}) as address,
            connect(address, version=version) as client,
        ):
            yield client
    await nothing_more(before)


@pytest.mark.parametrize("version", ["9P2000.L", "9P2000"])
async def test_a_page_and_a_call(tmp_path: Path, version: str) -> None:
    with web() as port:
        async with used(tmp_path, version) as ns:
            async with call(ns, "k/k1/net/tcp", f"connect 127.0.0.1!{port}") as c:
                data = await c.open("data")
                await data.pwrite(b"GET / HTTP/1.0\r\n\r\n", 0)
                assert (await all_of(data)).endswith(PAGE)
            async with call(ns, "k/k1/net/tcp", "announce 127.0.0.1!0") as c:
                with trio.move_on_after(0.05) as scope:
                    await c.listen()
                assert scope.cancelled_caught
                with socket.create_connection(("127.0.0.1", await c.port())) as peer:
                    theirs = await c.listen()
                    await (await theirs.open("data")).pwrite(b"through two servers", 0)
                    assert peer.recv(100) == b"through two servers"
                    await theirs.close()
            assert await numbers(ns, "k/k1/net/tcp") == []


async def test_the_end_of_a_client_of_the_namespace_ends_its_connections(tmp_path: Path) -> None:
    with listening() as (sock, port):
        async with used(tmp_path, "9P2000.L") as ns:
            async with connect(f"unix!{tmp_path}/ns") as other:
                file = await other.open("k/k1/net/tcp/clone", "r+")
                await file.pwrite(f"connect 127.0.0.1!{port}".encode(), 0)
                peer, _ = sock.accept()
            assert await trio.to_thread.run_sync(peer.recv, 1) == b""
            peer.close()
            while await numbers(ns, "k/k1/net/tcp"):
                await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("version", ["9P2000.L", "9P2000"])
async def test_streams_of_trio_through_the_namespace(tmp_path: Path, version: str) -> None:
    async with used(tmp_path, version) as ns:
        async with await net_listen(ns, "k/k1/net/tcp!127.0.0.1!0") as listener:

            async def pair() -> tuple[NetStream, NetStream]:
                made = [await net_dial(ns, f"k/k1/net/tcp!{listener.address}"), await listener.accept()]
                return made[0], made[1]

            await trio.testing.check_half_closeable_stream(pair, None)
        assert await numbers(ns, "k/k1/net/tcp") == []
