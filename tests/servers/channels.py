"""A tree with channels, served to several clients of this process, each with a connection of its own."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from socket import AF_UNIX, SOCK_STREAM, socketpair

import pytest
import trio

from mk9p.auth import Policy
from mk9p.client import Client, changes, connect, requests
from mk9p.clients.chan import channel
from mk9p.dial import SocketLink
from mk9p.server import Server
from mk9p.servers import chan
from mk9p.testing import PRIVATE
from mk9p.tree import Change, Dir
from tests.server.patience import SOON


@asynccontextmanager
async def clients(
    *, count: int = 1, version: str = "9P2000.L", msize: int = 1 << 20, uname: str = "root"
) -> AsyncIterator[list[Client]]:
    """Serve a tree with `chan/c` in it to several clients."""
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            server = Server(Dir({"chan": chan.tree()}))
            await nursery.start(server.run)
            async with AsyncExitStack() as stack:
                how = {"version": version, "uname": uname}
                yield [await stack.enter_async_context(one(server, msize=msize, **how)) for _ in range(count)]
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def one(
    server: Server, *, version: str = "9P2000.L", msize: int = 1 << 20, uname: str = "root"
) -> AsyncIterator[Client]:
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    theirs.setblocking(False)
    server.add(SocketLink(theirs, PRIVATE), Policy())
    number = ours.detach()
    async with connect(f"fd!{number}!{number}", uname=uname, version=version, msize=msize) as client:
        yield client


async def status(ns: Client, name: str = "chan/c") -> dict[str, str]:
    return dict(line.split(" ") for line in (await ns.read(f"{name}/status")).splitlines())


async def chmod(ns: Client, path: str, mode: int) -> None:
    fid, _ = await requests.walk(ns.connection, ns.root, path.split("/"))
    await changes.change(ns.connection, fid, Change(mode=mode))


async def until(ns: Client, key: str, value: int) -> None:
    """Return when the status says so."""
    while (await status(ns))[key] != str(value):
        await trio.lowlevel.checkpoint()


async def receive_one(ns: Client, got: list[bytes], scope: trio.CancelScope) -> None:
    with scope:
        async with channel(ns, "chan/c", "r") as into:
            got.append(await into.receive())


async def refused(ns: Client, number: int, words: str, call: object, who: str = "chan/c") -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - what it must be is asserted below
        await call  # type: ignore[misc]
    assert caught.value.errno == number, caught.value
    assert words in await ns.read(f"{who}/error")
