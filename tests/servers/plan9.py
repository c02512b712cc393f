"""An exported directory over 9P2000 and 9P2000.u: Tcreate, Tstat and Twstat by hand."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from mk9p.server.wishes import UNTOUCHED
from mk9p.servers.fs import tree
from mk9p.wire import NOFID, NONUNAME, Dialect, WireStat
from mk9p.wire import messages as m
from tests.server.talk import talking
from tests.servers.exported import Files

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="acting as others needs root")
P9, U = Dialect.P9, Dialect.U
BOTH = pytest.mark.parametrize("dialect", [P9, U])
DAEMON = 1  # uid and gid of user daemon, in all Debians


@attrs.define(eq=False)
class Plan9(Files):
    """One user's fids; `root` is the fid that they attached with."""

    async def as_user(self, uname: str) -> "Plan9":
        """Attach as another user on the same connection."""
        fid = self.new()
        more = () if self.talk.dialect is Dialect.P9 else (NONUNAME,)
        await self.ask(m.Tattach, fid, NOFID, uname, "", *more)
        return Plan9(self.talk, self.root, fid * 1000, fid)

    async def make(self, path: str, perm: int, mode: int = 1, extension: str = "") -> int:
        """Make a file; returns its open fid."""
        parent, _, name = path.rpartition("/")
        fid = await self.walk(parent)
        more = () if self.talk.dialect is Dialect.P9 else (extension,)
        await self.ask(m.Tcreate, fid, name, perm, mode, *more)
        return fid

    async def stat(self, path_or_fid: str | int) -> WireStat:
        fid = await self.walk(path_or_fid) if isinstance(path_or_fid, str) else path_or_fid
        stat: WireStat = (await self.ask(m.Tstat, fid)).stat
        return stat

    async def wstat(self, path_or_fid: str | int, **changes: Any) -> None:
        fid = await self.walk(path_or_fid) if isinstance(path_or_fid, str) else path_or_fid
        await self.ask(m.Twstat, fid, UNTOUCHED._replace(**changes))


@asynccontextmanager
async def served(path: Path, dialect: Dialect, *, uname: str = "root", **options: str) -> AsyncIterator[Plan9]:
    """Serve a directory in which everybody may do anything, and each way to it may be walked by everybody."""
    way = path
    while way not in (Path("/tmp"), Path("/")):
        os.chmod(way, os.stat(way).st_mode | 0o755)
        way = way.parent
    os.chmod(path, 0o777)
    async with tree(str(path), **options) as root, talking(root, dialect, uname=uname) as talk:
        yield Plan9(talk, root)
