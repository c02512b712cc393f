"""Copying a file into, out of and within a tree. Before anything is taken from the target, this module, and no other, checks that it is not the
source.

* Within a tree it walks to both and compares their qids: type and path say which file it is (intro(5)). If the target is another file, opening it
  by the compared fid empties it.
* Between a tree and this kernel's files nothing tells that in advance: the tree may be this directory, served, or may be mounted here. So it opens
  the target as it is, reads each piece before it writes the piece to the same place, and sets the length when everything is written: a file that
  is copied to itself is then unchanged. If both had one length and one time, and writing to one of them has changed those of the other, it says
  so.

It finds out what cannot be read before it opens the target: a directory, and whatever fails at its first read.
"""

import errno
import io
import os
import stat as st
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from mk9p.client import Client, File, requests
from mk9p.client.client import split
from mk9p.clients.common import piece
from mk9p.clients.links import resolved
from mk9p.errors import NineError
from mk9p.stdio import take
from mk9p.wire import QTDIR, Qid

PIECE: Final = 1 << 20

SAME: Final = "it is the same file as its source"

Read = Callable[[], Awaitable[bytes]]
"""Returns the next piece of what is copied, b"" at its end."""

Look = tuple[int, int]
"""A file's length in bytes, and the time of its last write, in ns."""


async def within(client: Client, old: str, new: str) -> None:
    """Copy a file of a tree to another path of it; the error names the path that it is about.

    Raises EINVAL for one file under two paths, EISDIR for directories.
    """
    async with _source(client, old) as (source, read), _target(client, new, source.qid) as target:
        await _fill(client, new, target, read)


async def out_of(client: Client, old: str, local: str) -> None:
    """Copy a file of a tree to one of this kernel. Raises as `within`, and OSError as the calls on that file do."""
    async with _source(client, old) as (source, read):
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        aside = client.connection.aside
        fd = await aside(os.open, local, flags, 0o666, give_up=True)  # a fifo waits
        with io.FileIO(fd, "w") as file:

            async def look() -> Look:
                stat = await source.stat()
                return stat.length, stat.mtime

            before = os.fstat(fd)
            read = await _told_apart(local, read, look, (before.st_size, before.st_mtime_ns))
            written = 0
            while data := await read():
                view = memoryview(data)
                while view:
                    count = await aside(file.write, view) or 0
                    written, view = written + count, view[count:]
            if st.S_ISREG(before.st_mode):
                await aside(file.truncate, written)


async def into(client: Client, local: str, new: str) -> None:
    """Copy a file of this kernel into a tree. Raises as `out_of`."""
    aside = client.connection.aside
    with await aside(io.FileIO, local) as file:
        await _into(client, file.fileno(), lambda: aside(file.read, PIECE), new)


async def input_into(client: Client, new: str) -> None:
    """Copy the standard input into a tree: from its present position to its end. Raises as `out_of`."""
    await _into(client, 0, lambda: client.connection.aside(take, 0, PIECE, give_up=True), new)


async def _into(client: Client, descriptor: int, pieces: Read, new: str) -> None:
    async def look() -> Look:
        stat = os.fstat(descriptor)
        return stat.st_size, stat.st_mtime_ns

    shifted = _position(descriptor) > 0
    read = await _begun(pieces)
    async with _target(client, new, None) as target:
        with _naming(new):
            before = await target.stat()
            # When the place of the write is not the place of the read, the effect of the write does not tell whether the files are the same.
            if shifted and before.length and await look() == (before.length, before.mtime):
                raise NineError(errno.EINVAL, SAME)
        read = await _told_apart(new, read, look, (before.length, before.mtime))
        await _fill(client, new, target, read)
        with _naming(new):
            await _cut(target)


def _position(descriptor: int) -> int:
    """Return the position of the next read of a file; 0 if it has none, as a pipe."""
    try:
        return os.lseek(descriptor, 0, os.SEEK_CUR)
    except OSError:
        return 0


async def _cut(target: File) -> None:
    """Cut off what is behind the last written byte. A synthetic file, such as a disk, may have a length of its own, and then keeps it."""
    if (await target.stat()).length > target.position:
        try:
            await target.truncate(target.position)
        except NineError:
            if target.qid.version:  # it is stored
                raise


async def inside(client: Client, directory: str, path: str) -> bool:
    """Tell whether a path leads to a directory, or into it, under any names. A path that does not exist yet is in those of its parents that exist."""
    mine = (await client.walk(await resolved(client, directory)))[-1:]
    if not mine:
        return True  # it is the root
    names = split(await resolved(client, path))
    while True:
        try:
            walked = await client.walk("/".join(names))
        except FileNotFoundError:
            names = names[:-1]
        else:
            return any(_same(mine[0], qid) for qid in walked)


@asynccontextmanager
async def _source(client: Client, path: str) -> AsyncIterator[tuple[File, Read]]:
    """Open a file and read its first piece, so the caller knows what cannot be read."""
    with _naming(path):
        file = await client.open(await resolved(client, path))

    async def read() -> bytes:
        with _naming(path):
            return await piece(file)

    async with file:
        with _naming(path):
            if file.qid.type & QTDIR:
                raise NineError(errno.EISDIR)
        yield file, await _begun(read)


@asynccontextmanager
async def _target(client: Client, path: str, other: Qid | None) -> AsyncIterator[File]:
    """Open a file for writing, or make it. `other` is the qid of the source, if that is in the same tree."""
    with _naming(path):
        file = await _opened(client, await resolved(client, path), other)
    async with file:
        yield file


async def _opened(client: Client, path: str, other: Qid | None) -> File:
    c = client.connection
    try:
        fid, qids = await requests.walk(c, client.root, split(path))
    except FileNotFoundError:
        return await client.open(path, "w")
    try:
        qid = qids[-1] if qids else client.qid
        if qid.type & QTDIR:
            raise NineError(errno.EISDIR)
        if other is not None and _same(qid, other):
            raise NineError(errno.EINVAL, SAME)
        qid, iounit = await requests.open_(c, fid, read=False, write=True, truncate=other is not None)
        return File(c, fid, path, qid, iounit)
    except BaseException:
        c.clunk_nowait(fid)
        raise


def _same(one: Qid, other: Qid) -> bool:
    return (one.type, one.path) == (other.type, other.path)


async def _fill(client: Client, path: str, target: File, read: Read) -> None:
    """Write everything that there is to read; an error has the words of the ctl that refused."""
    while data := await read():
        try:
            await target.write(data)
        except NineError as error:
            raise about(path, await requests.in_words(client.connection, client.root, split(path), error)) from None


async def _begun(read: Read) -> Read:
    """Read the first piece, and return a function that gives it and the rest. Raises what reading raises."""
    waiting = [await read()]

    async def again() -> bytes:
        return waiting.pop() if waiting else await read()

    return again


async def _told_apart(target: str, read: Read, look: Callable[[], Awaitable[Look]], other: Look) -> Read:
    """Return a function that reads a source. Raises EINVAL if writing its first piece to the target has changed the source. `other`: the target
    before."""
    before = await look()
    known = before[0] == 0 or before != other
    count = 0

    async def again() -> bytes:
        nonlocal count
        count += 1
        if count == 2 and not known and await look() != before:
            raise about(target, NineError(errno.EINVAL, SAME))
        return await read()

    return again


@contextmanager
def _naming(path: str) -> Iterator[None]:
    try:
        yield
    except NineError as error:
        raise about(path, error) from None


def about(path: str, error: NineError) -> NineError:
    """Return an error that names its path, unless it does so already."""
    if error.filename is None:
        error.filename = path
    return error
