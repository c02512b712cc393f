"""A tree with channels, served to several clients of this process, each with a connection of its own."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio

from mk9p.client import Client, changes, connect, requests
from mk9p.clients.chan import channel
from mk9p.servers import chan
from mk9p.testing import SOON, address_of, serving
from mk9p.tree import Change, Dir


@asynccontextmanager
async def clients(
    *, count: int = 1, version: str = "9P2000.L", msize: int = 1 << 20, uname: str = "root"
) -> AsyncIterator[list[Client]]:
    """Serve a tree with `chan/c` in it to several clients."""
    with trio.fail_after(SOON):
        async with serving(Dir({"chan": chan.tree()})) as server, AsyncExitStack() as stack:
            how: dict[str, Any] = {"version": version, "uname": uname, "msize": msize}
            yield [await stack.enter_async_context(connect(address_of(server), **how)) for _ in range(count)]


async def status(ns: Client, name: str = "chan/c") -> dict[str, str]:
    return dict(line.split(" ") for line in (await ns.read(f"{name}/status")).splitlines())


async def chmod(ns: Client, path: str, mode: int) -> None:
    fid, _ = await requests.walk(ns.connection, ns.root, path.split("/"))
    await changes.change(ns.connection, fid, Change(mode=mode))


async def told(ns: Client, key: str, value: int) -> None:
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
