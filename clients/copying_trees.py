"""`mk9p cp`: one file or many, and with `-r` whole directories, into, out of and within a tree. Each file is copied by copying.py.

A directory's bits are set when everything is in it, so that one without write permission can be filled. The bits of a file that is made are those of
its source; setuid and setgid are not copied. Links are copied as links. What waits (`events`, `cons`, …) is left out, and said: it has no end.
An error ends the copy of that file alone.
"""

import errno
import os
import posixpath
import stat as st
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import attrs

from mk9p.client import Client, changes, requests
from mk9p.client.client import split
from mk9p.clients import copying
from mk9p.clients.common import say
from mk9p.clients.hints import words
from mk9p.clients.links import resolved
from mk9p.clients.listing import entries
from mk9p.errors import NineError
from mk9p.status import Change
from mk9p.usage.common import SKIPPED

BITS: Final = 0o777


class Side(ABC):
    """A tree to copy from or to: this machine's files, or those of a server. Paths are text; errors of a method name the path."""

    mark = ""

    @abstractmethod
    async def mode(self, path: str, *, follow: bool = True) -> int | None:
        """Return the mode of a file, None if it does not exist."""

    @abstractmethod
    async def names(self, path: str) -> list[str]:
        """Return the names in a directory."""

    @abstractmethod
    async def mkdir(self, path: str) -> None:
        """Make a directory that its owner may fill."""

    @abstractmethod
    async def chmod(self, path: str, bits: int) -> None:
        """Set the permission bits of a file."""

    @abstractmethod
    async def readlink(self, path: str) -> str:
        """Return where a link leads."""

    @abstractmethod
    async def symlink(self, path: str, target: str) -> None:
        """Make a link."""


class Here(Side):
    """The files of this machine."""

    async def mode(self, path: str, *, follow: bool = True) -> int | None:
        try:
            return os.stat(path, follow_symlinks=follow).st_mode
        except FileNotFoundError:
            return None

    async def names(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    async def mkdir(self, path: str) -> None:
        os.mkdir(path, 0o700)

    async def chmod(self, path: str, bits: int) -> None:
        os.chmod(path, bits)

    async def readlink(self, path: str) -> str:
        return os.readlink(path)

    async def symlink(self, path: str, target: str) -> None:
        os.symlink(target, path)


@attrs.define
class There(Side):
    """The files of a server."""

    client: Client
    mark = ":"

    async def mode(self, path: str, *, follow: bool = True) -> int | None:
        try:
            return (await self.client.stat(await resolved(self.client, path, last=follow))).mode
        except FileNotFoundError:
            return None

    async def names(self, path: str) -> list[str]:
        return [entry.name for entry in await entries(self.client, await resolved(self.client, path))]

    async def mkdir(self, path: str) -> None:
        await self.client.mkdir(path, 0o700)

    async def chmod(self, path: str, bits: int) -> None:
        await self._at(path, lambda fid: changes.change(self.client.connection, fid, Change(mode=bits)))

    async def readlink(self, path: str) -> str:
        found: list[str] = []

        async def read(fid: int) -> None:
            found.append(await requests.readlink(self.client.connection, fid))

        await self._at(path, read)
        return found[0]

    async def symlink(self, path: str, target: str) -> None:
        above, _, name = path.rstrip("/").rpartition("/")

        async def make(fid: int) -> None:
            await changes.symlink(self.client.connection, fid, name, target, gid=os.getegid())

        await self._at(above, make)

    async def _at(self, path: str, work: Callable[[int], Awaitable[None]]) -> None:
        c = self.client.connection
        fid, _ = await requests.walk(c, self.client.root, split(path))
        try:
            await work(fid)
        finally:
            c.clunk_nowait(fid)


@attrs.define
class Copy:
    """One run of cp: from one side to another."""

    client: Client
    source: Side
    target: Side
    recursive: bool
    only: bool = False
    failed: int = 0

    async def all(self, sources: Sequence[str], target: str) -> int:
        """Copy sources to a target, into it if it is a directory; return the exit status. Raises ENOTDIR for several sources and no directory."""
        mode = await self.target.mode(target)
        directory = target.endswith("/") or (mode is not None and st.S_ISDIR(mode))
        if len(sources) > 1 and not directory:
            raise _about(self.target.mark + target, NineError(errno.ENOTDIR))
        self.only = len(sources) == 1 and not self.recursive
        for path in sources:
            name = posixpath.basename(posixpath.normpath(path))
            if name == "..":
                name = ""  # as cp(1): its files, not it
            await self.one(path, posixpath.join(target, name) if directory else target)
        return self.failed

    async def one(self, old: str, new: str) -> None:
        """Copy a file, or with `recursive` whatever there is. What goes wrong is said, or raised where only one file was asked for."""
        try:
            await self._one(old, new)
        except OSError as error:
            if isinstance(error, NineError):
                if error.filename is None:
                    error.filename = old
                if error.filename in (old, new):
                    error.filename = (self.source if error.filename == old else self.target).mark + error.filename
            if self.only:
                raise
            said = await words(self.client, error) if isinstance(error, NineError) else error.strerror
            say(f"{error.filename}: {said}")
            self.failed = 1

    async def _one(self, old: str, new: str) -> None:
        mode = await self.source.mode(old, follow=not self.recursive)
        if mode is None:
            raise NineError(errno.ENOENT)
        if st.S_ISDIR(mode):
            if not self.recursive:
                raise NineError(errno.EISDIR, "it is a directory: cp -r copies those")
            await self._directory(old, new, mode)
        elif st.S_ISLNK(mode):
            await self.target.symlink(new, await self.source.readlink(old))
        elif self.recursive and posixpath.basename(old) in SKIPPED:
            say(f"{self.source.mark}{old}: left out: it waits, and has no end")
        else:
            await self._file(old, new, mode)

    async def _directory(self, old: str, new: str, mode: int) -> None:
        if type(self.source) is type(self.target) and await self._inside(old, new):
            raise _about(self.target.mark + new, NineError(errno.EINVAL, "it is inside of its source"))
        there = await self.target.mode(new)
        if there is None:
            await self.target.mkdir(new)
        elif not st.S_ISDIR(there):
            raise _about(self.target.mark + new, NineError(errno.ENOTDIR))
        for name in await self.source.names(old):
            await self.one(posixpath.join(old, name), posixpath.join(new, name))
        if there is None:
            await self.target.chmod(new, mode & BITS)

    async def _inside(self, old: str, new: str) -> bool:
        if isinstance(self.source, There):
            return await copying.inside(self.client, old, new)
        mine, other = await self.client.connection.aside(lambda: [os.path.realpath(path) for path in (old, new)])
        return os.path.commonpath([mine, other]) == mine

    async def _file(self, old: str, new: str, mode: int) -> None:
        fresh = await self.target.mode(new) is None
        match self.source.mark, self.target.mark:
            case ":", ":":
                await copying.within(self.client, old, new)
            case ":", _:
                await copying.out_of(self.client, old, new)
            case _:
                await copying.into(self.client, old, new)
        if fresh and self.recursive:
            await self.target.chmod(new, mode & BITS)


def _about(path: str, error: NineError) -> NineError:
    error.filename = path
    return error
