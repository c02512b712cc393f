"""`kept_in`: the store that a composer is told to use."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mk9p import state
from mk9p.etcd.address import is_etcd, parse
from mk9p.lease.shared import shared
from mk9p.lease.store import NAME, Disk, Memory, SqliteStore
from mk9p.lease.stores import Local, Store

log = logging.getLogger("mk9p.lease")


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
