"""What the FUSE adapter (fuse.py) asks in one round trip: a walk and the status, an opening with status and first bytes, the status of a listing."""

from typing import Final

import attrs
import trio

from mk9p.client import flights, requests
from mk9p.client.connection import Connection
from mk9p.clients.fuse_files import kind_of
from mk9p.compose.opened import RemoteHandle
from mk9p.compose.remote import PASSED, Remote
from mk9p.errors import NineError
from mk9p.tree import Open, Stat
from mk9p.wire import Dialect, Qid

AT_ONCE: Final = 128  # files of a listing that are asked about at once: what goes into one answer to the kernel
ONE_BY_ONE: Final = 16  # … where each is a task, and takes three round trips


async def look(directory: Remote, name: str) -> tuple[Remote, Stat]:
    """Walk to a name in a directory, as its user, and return the file with its status."""
    connection, fid = await directory.here()
    new, qid, stat = await directory.server.soon(flights.look(connection, fid, name))
    return _child(directory, name, qid, connection, new), stat


def _child(directory: Remote, name: str, qid: Qid, connection: Connection, fid: int) -> Remote:
    return Remote(directory.server, directory.who, directory, name, qid, (connection, fid))


@attrs.frozen
class Answer:
    """What an opening brought: the handle, the file's qid.path, its status and how it begins, as far as they were asked for."""

    handle: RemoteHandle
    path: int
    stat: Stat | None
    first: bytes


async def open_(
    file: Remote, how: Open, *, directory: Remote | None = None, stat: bool = True, count: int = 0
) -> Answer:
    """Open a file, by its name if `directory` is given. What is made up may take its time to open."""
    connection, fid = await (directory or file).here()
    flags = requests.linux_flags(how.read, how.write, how.truncate, how.append) | how.flags & PASSED
    if connection.dialect is not Dialect.L:
        handle = await file.open(how)
        return Answer(handle, file.path or 0, await handle.stat() if stat else None, b"")
    names = () if directory is None else (file.name,)
    found = await flights.open_(connection, fid, names, flags, stat=stat, count=count)
    handle = RemoteHandle(file, connection, found.fid, found.iounit, how.records)
    return Answer(handle, file.server.paths[found.qid.path], found.stat, found.first)


def drop(handle: RemoteHandle) -> None:
    """Close a file, and wait for nothing."""
    handle.connection.clunk_nowait(handle.fid)


async def look_at_some(directory: Remote, entries: list[tuple[str, Remote]]) -> list[tuple[Remote, Stat | None]]:
    """Return the status of some entries of a directory, in their order, None for one that has gone."""
    connection, fid = await directory.here()
    if not flights.can(connection):
        return await _one_by_one(entries)
    found: list[tuple[Remote, Stat | None]] = []
    names = [name for name, _ in entries]
    answers = await flights.look_at_all(connection, fid, names, directory.server.silence)
    for (name, node), answer in zip(entries, answers, strict=True):
        if isinstance(answer, NineError):
            found.append((node, _instead(node, answer)))
        else:
            new, qid, stat = answer
            found.append((_child(directory, name, qid, connection, new), stat))
    return found


async def _one_by_one(entries: list[tuple[str, Remote]]) -> list[tuple[Remote, Stat | None]]:
    found: list[tuple[Remote, Stat | None]] = [(node, None) for _, node in entries]
    limit = trio.CapacityLimiter(ONE_BY_ONE)

    async def ask(at: int, node: Remote) -> None:
        async with limit:
            try:
                found[at] = node, await node.stat()
            except OSError as error:
                found[at] = node, _instead(node, error)

    async with trio.open_nursery() as nursery:
        for at, (_, node) in enumerate(entries):
            nursery.start_soon(ask, at, node)
    return found


def _instead(node: Remote, error: OSError) -> Stat | None:
    """Return what is told of a file whose status is an error: it is there, and that is all that can be told, or it has gone."""
    if isinstance(error, (FileNotFoundError, ProcessLookupError)):
        return None
    return Stat(kind_of(node, Stat(0)))
