"""`connect`: a client in trio, for the time of a block."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from mk9p.client.agreement import MSIZE, attach
from mk9p.client.client import Client, address_of
from mk9p.client.handshake import open_connection


@asynccontextmanager
async def connect(
    address: str | None = None,
    *,
    uname: str | None = None,
    n_uname: int | None = None,
    aname: str = "",
    msize: int = MSIZE,
    version: str = "9P2000.L",
) -> AsyncIterator[Client]:
    """Connect to a server, attach, and give a `Client`: `async with connect("tcp!host!564") as ns`.

    `address` is a dial string; by default $MK9P, else the namespace of `mk9p up`. The user is the one that this process runs as, or `uname` and
    `n_uname`; `aname` is the wanted tree. `version` is the richest dialect to ask for. Raises NineError as dialling, agreeing and attaching do.
    Leaving the block closes the connection; whatever the block raises comes out as it is, in no group.
    """
    address = address_of(address)
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            connection = await open_connection(address, nursery, msize=msize, version=version)
            try:
                fid, qid = await attach(connection, uname, n_uname, aname)
                try:
                    yield Client(connection, fid, qid)
                finally:
                    connection.clunk_nowait(fid)
            finally:
                await connection.aclose()  # this ends its tasks
    except BaseExceptionGroup as group:
        # The nursery wraps the block's exception once. Its own tasks raise nothing, so a single exception in the group comes from the block.
        if len(group.exceptions) != 1:
            raise
        failure = group.exceptions[0]
    if failure is not None:
        raise failure
