"""Calls about files by path: path_*. A program names a directory that it has open and a path below it; nothing above it is to be had."""

import errno
from typing import Final

from mk9p import sync
from mk9p.errors import NineError
from mk9p.servers.wasm.space import Place, Space, decoded
from mk9p.servers.wasm.wasi.descriptors import Opened
from mk9p.servers.wasm.wasi.files import Files, status, times
from mk9p.servers.wasm.wasi.numbers import (
    F_APPEND,
    FOLLOW,
    INVAL,
    ISDIR,
    LOOP,
    NOENT,
    NOTCAPABLE,
    NOTDIR,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_TRUNC,
    RIGHT_READ,
    RIGHT_WRITE,
    ROFS,
    XDEV,
    Error,
)
from mk9p.status import Stat

_NEW: Final = 0o666  # bits of a new file: WASI has no word for them


class Paths(Files):
    """The calls about files by path."""

    @property
    def _space(self) -> Space:
        assert self.table.space is not None, "a directory is open, so something was granted"
        return self.table.space

    @property
    def _client(self) -> sync.Client:
        return self._space.client

    def _place(self, fd: int, p: int, n: int, *, follow: bool = False, change: bool = False) -> Place:
        start = self.table.directory(fd)
        place = self._space.resolve(start, self.machine.memory.get(p, n), follow=follow)
        if change and place.grant.readonly:
            raise Error(ROFS)
        return place

    def _named(self, fd: int, p: int, n: int) -> Place:
        """Return a place in a directory whose names may be changed: not the directory itself that was granted."""
        place = self._place(fd, p, n, change=True)
        if not place.names:
            raise Error(INVAL)
        return place

    def path_open(
        self, fd: int, follow: int, p: int, n: int, how: int, base: int, inheriting: int, flags: int, result: int
    ) -> None:
        self.machine.memory.at(result, 4)
        self.table.room()
        read, write = bool(base & RIGHT_READ), bool(base & RIGHT_WRITE)
        read = read or not write
        if how & O_CREAT and how & O_DIRECTORY:
            raise Error(INVAL)
        place = self._place(fd, p, n, follow=bool(follow & FOLLOW) and not how & O_EXCL)
        found = self._stat(place)
        if found is None and not how & O_CREAT:
            raise Error(NOENT)
        if place.grant.readonly and (found is None or ((write or how & O_TRUNC) and not found.is_dir)):
            raise Error(ROFS)
        opened = (
            self._made(place, flags, read, write)
            if found is None
            else self._found(place, found, how, flags, read, write)
        )
        self.machine.memory.put32(result, self.table.add(opened))

    def _stat(self, place: Place) -> Stat | None:
        try:
            return self._client.stat(place.path)
        except FileNotFoundError:
            return None

    def _made(self, place: Place, flags: int, read: bool, write: bool) -> Opened:
        if place.slash:
            raise Error(ISDIR)
        file = self._client.create_as(place.path, _NEW, read=read, append=bool(flags & F_APPEND))
        return Opened(place, file, read, write, flags, path=file.qid.path)

    def _found(self, place: Place, found: Stat, how: int, flags: int, read: bool, write: bool) -> Opened:
        path = found.qid.path if found.qid else 0
        if how & O_CREAT and how & O_EXCL:
            raise NineError(errno.EEXIST)
        if found.is_dir:
            if (write and not how & O_DIRECTORY) or how & O_TRUNC:
                raise Error(ISDIR)
            return Opened(place, flags=flags, path=path)
        if how & O_DIRECTORY:
            raise Error(NOTDIR)
        if found.mode & 0o170000 == 0o120000:
            raise Error(LOOP)
        file = self._client.open_as(
            place.path, read=read, write=write, truncate=bool(how & O_TRUNC) and write, append=bool(flags & F_APPEND)
        )
        if how & O_TRUNC and not write:
            file.close()
            raise Error(INVAL)
        return Opened(place, file, read, write, flags, path=file.qid.path)

    def path_filestat_get(self, fd: int, follow: int, p: int, n: int, result: int) -> None:
        place = self._place(fd, p, n, follow=bool(follow & FOLLOW))
        self.machine.memory.put(result, status(self._client.stat(place.path)))

    def path_filestat_set_times(self, fd: int, follow: int, p: int, n: int, atime: int, mtime: int, flags: int) -> None:
        place = self._place(fd, p, n, follow=bool(follow & FOLLOW), change=True)
        self._client.change(place.path, times(atime, mtime, flags))

    def path_create_directory(self, fd: int, p: int, n: int) -> None:
        place = self._place(fd, p, n, change=True)
        if not place.names:
            raise NineError(errno.EEXIST)
        self._client.mkdir(place.path, 0o777)

    def path_remove_directory(self, fd: int, p: int, n: int) -> None:
        self._client.unlink(self._named(fd, p, n).path, directory=True)

    def path_unlink_file(self, fd: int, p: int, n: int) -> None:
        self._client.unlink(self._named(fd, p, n).path, directory=False)

    def path_rename(self, fd: int, p: int, n: int, to: int, q: int, m: int) -> None:
        old, new = self._named(fd, p, n), self._named(to, q, m)
        if new.slash and not self._client.stat(old.path).is_dir:
            raise Error(NOTDIR)
        self._client.rename(old.path, new.path)

    def path_link(self, fd: int, follow: int, p: int, n: int, to: int, q: int, m: int) -> None:
        old, new = self._place(fd, p, n, follow=bool(follow & FOLLOW), change=True), self._named(to, q, m)
        if old.grant is not new.grant:
            raise Error(XDEV)
        self._client.link(old.path, self._new(new).path)

    def path_symlink(self, p: int, n: int, fd: int, q: int, m: int) -> None:
        target = self.machine.memory.get(p, n)
        if not target or b"\0" in target:
            raise Error(INVAL)
        if target.startswith(b"/"):
            raise Error(NOTCAPABLE)
        self._client.symlink(decoded(target), self._new(self._named(fd, q, m)).path)

    def _new(self, place: Place) -> Place:
        """Return where something is made that is no directory. Raises NOENT for a path that ends with a slash."""
        if place.slash:
            raise Error(NOENT)
        return place

    def path_readlink(self, fd: int, p: int, n: int, buffer: int, size: int, result: int) -> None:
        self.machine.memory.at(buffer, size)
        target = self._client.readlink(self._place(fd, p, n).path).encode(errors="surrogateescape")[:size]
        self.machine.memory.put(buffer, target)
        self.machine.memory.put32(result, len(target))
