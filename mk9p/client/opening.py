"""`connect`: a client in trio, for the time of a block."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

import trio

from mk9p.client.agreement import MSIZE, attach, refusal
from mk9p.client.capability import in_words, tree_name
from mk9p.client.client import Client, way_in
from mk9p.client.handshake import open_connection
from mk9p.client.ways import opening
from mk9p.dial import Keys, dial
from mk9p.errors import NineError

_WRONG: Final = (
    "mk9p.connect is for trio, which does not run here: asyncio has mk9p.aio.connect, plain code mk9p.sync.connect"
)


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
    """Connect to a server, attach, and give a `Client`: `async with connect("tcp!host!564") as ns`.

    `address` is a dial string; by default $MK9P, else the namespace of `mk9p up`. The user is the one that this process runs as, or `uname` and
    `n_uname`; `aname` is the wanted tree. `version` is the richest dialect to ask for. `cap` is a capability, as text or as the path of its file; by
    default that of $MK9P_CAP, if the address is the default too. `tls` are the files for `tls!` (`mk9p.Keys`), by default those that the environment
    or the context in use names; `context` names one that has address and keys (`mk9p context`). Raises NineError as dialling, agreeing and attaching
    do, and EACCES for a file with a capability that others can read. Leaving the block closes the connection; whatever the block raises comes out as
    it is, in no group.
    """
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        raise RuntimeError(_WRONG) from None
    aname = tree_name(aname, cap, default=address is None and context is None)
    address, aname, tls = way_in(address, aname, context, tls)
    dialler = partial(dial, keys=tls)
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            connection = await open_connection(address, nursery, msize=msize, version=version, dialler=dialler)
            try:
                try:
                    fid, qid = await attach(connection, uname, n_uname, aname)
                except NineError as error:
                    if not in_words(error, address, aname, connection.dialect):
                        raise
                    with suppress(OSError):
                        again = await open_connection(address, nursery, version="9P2000.u", dialler=dialler)
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
                await connection.aclose()  # this ends its tasks
    except BaseExceptionGroup as group:
        # The nursery wraps the block's exception once. Its own tasks raise nothing, so a single exception in the group comes from the block.
        if len(group.exceptions) != 1:
            raise
        failure = group.exceptions[0]
    if failure is not None:
        raise failure
