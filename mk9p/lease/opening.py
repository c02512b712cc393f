"""`kept_in`: the store that a composer is told to use; `shared`: the one on etcd."""

import errno
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from mk9p import state
from mk9p.errors import NineError
from mk9p.etcd.address import Where, is_etcd, parse
from mk9p.etcd.client import Client, opened
from mk9p.etcd.mirror import Mirror
from mk9p.etcd.records import get, put, same
from mk9p.etcd.session import Session, identity
from mk9p.lease.leases import Clock, Steady
from mk9p.lease.shared import Shared
from mk9p.lease.store import NAME, Disk, Memory, SqliteStore
from mk9p.lease.stores import Local, Store

log = logging.getLogger("mk9p.lease")

VERSION: Final = 1


@asynccontextmanager
async def kept_in(where: str | None) -> AsyncIterator[Store]:
    """Have the store of leases and entries as long as the block runs: etcd, or a file, by default in the state directory.

    Raises what is wrong with a named one. If it cannot be the default, the log says so, and they end with this composer.
    """
    if where is not None and is_etcd(where):
        async with shared(parse(where)) as store:
            yield store
        return
    disk = _disk(where)
    try:
        yield Local(disk)
    finally:
        disk.close()


def _disk(where: str | None) -> Disk:
    if where is not None:
        return SqliteStore(Path(where))
    try:
        return SqliteStore(state.directory() / NAME)
    except (OSError, RuntimeError) as error:
        log.warning("leases and the registry will end with this composer: %s", error)
        return Memory()


@asynccontextmanager
async def shared(where: Where, clock: Clock | None = None) -> AsyncIterator[Shared]:
    """Have the store on etcd as long as the block runs.

    Raises ECONNREFUSED if there is no etcd, EACCES for a certificate or a user who is not believed, EAGAIN without a quorum, EBUSY if another
    composer has its name, EINVAL if what is there is of a newer version.
    """
    with identity(where.name) as who:
        async with opened(where) as client:
            try:
                await _require_version(client)
            except BlockingIOError as error:
                if client.answered:
                    raise
                raise NineError(errno.ECONNREFUSED, f"no etcd answers: {error}") from None
            session = Session(client, where.name, who, where.ttl)
            await session.begin()
            try:
                mirror = Mirror(client, where.prefix)
                store = Shared(client, mirror, session, clock or Steady())
                await mirror.load()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(store.run)
                    yield store
                    nursery.cancel_scope.cancel()
            finally:
                await session.end()


async def _require_version(client: Client) -> None:
    key = f"{client.where.prefix}version"
    outcome = await client.txn([same(key, 0)], [put(key, str(VERSION))], [get(key)])
    found = b"%d" % VERSION if outcome.done or not outcome.found[0] else outcome.found[0][0].value
    if not found.isdigit() or len(found) > 9 or int(found) > VERSION:
        raise NineError(
            errno.EINVAL,
            f"{key} is of version {found[:20].decode(errors='replace')}, and this mk9p knows {VERSION}: use a newer one",
        )
