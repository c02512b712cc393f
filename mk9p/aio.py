"""The client for asyncio, with the same methods as the others: `async with mk9p.aio.connect("tcp:host:564") as ns: print(await ns.read("events"))`.

Below the methods is one conversation with a server, which three kinds of program can wait for: trio's tasks (`mk9p.connect`), plain code
(`mk9p.sync.connect`), and asyncio's tasks here. So there is no layer between, as anyio would be one, and nothing else to install.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from mk9p.client.agreement import MSIZE, attach, refusal
from mk9p.client.asyncio_ import open_asyncio
from mk9p.client.capability import in_words, tree_name
from mk9p.client.client import Client, way_in
from mk9p.client.files import File, Lines
from mk9p.client.ways import opening
from mk9p.dial.keys import Keys
from mk9p.errors import NineError

__all__ = ["Client", "File", "Lines", "connect"]

_WRONG: Final = "mk9p.aio.connect is for asyncio, and no event loop of it runs here: trio has mk9p.connect, plain code mk9p.sync.connect"


@opening
@asynccontextmanager
async def connect(
    address: str | None = None,
    *,
    uname: str | None = None,
    n_uname: int | None = None,
    aname: str = "",
    cap: str | None = None,
    msize: int = MSIZE,
    version: str = "9P2000.L",
    tls: Keys | None = None,
    context: str | None = None,
) -> AsyncIterator[Client]:
    """Connect to a server, attach, and give a `Client`. Arguments and errors are those of `mk9p.connect`.

    Any number of tasks of this event loop may use it at once; each cancelled call is flushed at the server. Raises RuntimeError outside of asyncio.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(_WRONG) from None
    aname = tree_name(aname, cap, default=address is None and context is None)
    address, aname, tls = way_in(address, aname, context, tls)
    connection = await open_asyncio(address, msize=msize, version=version, keys=tls)
    try:
        try:
            fid, qid = await attach(connection, uname, n_uname, aname)
        except NineError as error:
            if not in_words(error, address, aname, connection.dialect):
                raise
            with suppress(OSError):
                again = await open_asyncio(address, version="9P2000.u", keys=tls)
                try:
                    error = await refusal(again, error, uname, n_uname, aname)
                finally:
                    await again.aclose()
            raise error from None
        try:
            yield Client(connection, fid, qid)
        finally:
            connection.clunk_nowait(fid)
    finally:
        await connection.aclose()
