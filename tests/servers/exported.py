"""An exported directory, and the other end of the wire by hand: what v9fs sends, message by message."""

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs

from mk9p.servers.fs import tree
from mk9p.tree import Node
from mk9p.wire import NOFID, Dialect, Qid, unpack_dirents
from mk9p.wire import messages as m
from tests.server.talk import Talk, talking

UTIME = 0x30  # atime and mtime, now
SIZE = 0x08


@attrs.define(eq=False)
class Files:
    """Fids by path; replies as messages, errors raised."""

    talk: Talk
    root: Node
    fids: int = 100
    attached: int = 0  # the fid of the root

    async def ask(self, cls: type[m.Message], *fields: Any) -> Any:
        reply = await self.talk.rpc(cls, 1, *fields)
        if isinstance(reply, m.Rlerror):
            raise OSError(reply.ecode, os.strerror(reply.ecode))
        if isinstance(reply, m.Rerror):
            raise OSError(reply.errno or 0, reply.ename)
        return reply

    def new(self) -> int:
        self.fids += 1
        return self.fids

    async def walk(self, path: str = "") -> int:
        fid, names = self.new(), tuple(name for name in path.split("/") if name)
        reply = await self.ask(m.Twalk, self.attached, fid, names)
        if len(reply.qids) < len(names):
            raise OSError(errno.ENOENT, path)
        return fid

    async def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        fid = await self.walk(path)
        await self.ask(m.Tlopen if self.talk.dialect is Dialect.L else m.Topen, fid, flags)
        return fid

    async def create(self, path: str, flags: int = os.O_RDWR | os.O_EXCL, mode: int = 0o644, gid: int = 0) -> int:
        parent, _, name = path.rpartition("/")
        fid = await self.walk(parent)
        await self.ask(m.Tlcreate, fid, name, flags, mode, gid)
        return fid

    async def read(self, fid: int, offset: int = 0, count: int = 4096) -> bytes:
        return bytes((await self.ask(m.Tread, fid, offset, count)).data)

    async def write(self, fid: int, data: bytes, offset: int = 0) -> int:
        count: int = (await self.ask(m.Twrite, fid, offset, data)).count
        return count

    async def clunk(self, fid: int) -> None:
        await self.ask(m.Tclunk, fid)

    async def getattr(self, path_or_fid: str | int, mask: int = 0x7FF) -> m.Rgetattr:
        fid = await self.walk(path_or_fid) if isinstance(path_or_fid, str) else path_or_fid
        reply: m.Rgetattr = await self.ask(m.Tgetattr, fid, mask)
        return reply

    async def setattr(
        self,
        fid: int,
        valid: int,
        *,
        mode: int = 0,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        atime: tuple[int, int] = (0, 0),
        mtime: tuple[int, int] = (0, 0),
    ) -> None:
        await self.ask(m.Tsetattr, fid, valid, mode, uid, gid, size, *atime, *mtime)

    async def ls(self, path: str = "") -> dict[str, tuple[Qid, int]]:
        """Return what is in a directory: qid and type by name."""
        fid, found, offset = await self.open(path), dict[str, tuple[Qid, int]](), 0
        while data := (await self.ask(m.Treaddir, fid, offset, 4096)).data:
            for qid, offset, kind, name in unpack_dirents(data):  # noqa: B007  # the last is where to go on
                found[name] = qid, kind
        await self.clunk(fid)
        return {name: entry for name, entry in found.items() if name not in (".", "..")}


@asynccontextmanager
async def exported(
    path: Path | str, dialect: Dialect = Dialect.L, *, uname: str = "root", **options: str
) -> AsyncIterator[Files]:
    async with tree(str(path), **options) as root, talking(root, dialect, uname=uname) as talk:
        yield Files(talk, root)


async def also(files: Files, uname: str) -> Files:
    """Attach as another user on the same connection."""
    reply = await files.talk.rpc(m.Tattach, 1, 50, NOFID, uname, "", 0xFFFFFFFF)
    assert isinstance(reply, m.Rattach), reply
    return Files(files.talk, files.root, 10000, 50)
