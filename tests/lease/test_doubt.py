"""A grant that failed, but is in the file, is in nobody's way, neither now nor after the next start."""

import errno
from pathlib import Path
from typing import Any

import pytest

from mk9p.errors import NineError
from mk9p.lease.book import Lease
from mk9p.lease.store import SqliteStore
from mk9p.lease.stores import Local
from mk9p.lease.wish import SECOND, Wish


class Late(SqliteStore):
    """A file whose next write is done, and fails nevertheless."""

    fails = False

    def _do(self, *statements: Any) -> None:
        super()._do(*statements)
        if self.fails:
            self.fails = False
            raise NineError(errno.EIO, "made up")


async def test_two_that_are_in_each_others_way_are_never_both_in_the_file(tmp_path: Path) -> None:
    disk = Late(tmp_path / "leases")
    store = Local(disk)
    first, second = (Lease(Wish(n, "/k", ("k",), "exclusive", "ann", SECOND), n + 1, 9) for n in range(2))
    disk.fails = True
    with pytest.raises(NineError):
        await store.grant(first)
    assert list(disk.load().leases) == [0], "the disk has done it"
    await store.grant(second)
    assert list(disk.load().leases) == [1]
    disk.close()
