"""What the FUSE adapter (fuse.py) asks in one round trip: a walk and the status, an opening with status and first bytes, the status of a listing."""

from typing import Final

import attrs
import trio

from mk9p.client import flights, requests
from mk9p.client.calls import Lost
from mk9p.clients.fuse_files import kind_of
from mk9p.compose.lasting import lasting
from mk9p.compose.opened import RemoteHandle
from mk9p.compose.remote import PASSED, Remote, Server
from mk9p.errors import NineError
from mk9p.tree import Open, Stat
from mk9p.wire import Dialect
from mk9p.wire import messages as m

# files of a listing whose status it asks for at once: it handles some answers while others are on their way
AT_ONCE: Final = 512
EAGER: Final = 0.0003  # seconds
ONE_BY_ONE: Final = 16  # … if each is a task, and takes three round trips


def eager(server: Server, up: bool, reason: str) -> None:
    """Let calls wait for a server's answers directly, as long as that takes about as long as giving others their turn meanwhile."""
    if server.connection is not None:
        server.connection.eager = EAGER


@lasting
async def look(
    start: Remote, names: tuple[str, ...], directory: Remote, *, keep: bool = True
) -> tuple[Remote, list[int], Stat]:
    """Walk to names from a file; return the last as a file of its directory, the qid.paths of all, and its status. Without `keep` the file is let
    go.

    Raises flights.Astray where the walk ends before the last name.
    """
    connection, fid = await start.here()
    server = start.server
    if flights.can(connection):
        new, qids, stat = await flights.look(connection, fid, names, keep=keep, patience=server.silence)
    else:
        new, qids = await server.soon(requests.walk(connection, fid, names))
        keep, stat = True, Stat(0)
    file = Remote(start.server, start.who, directory, names[-1], qids[-1], (connection, new) if keep else None)
    if not flights.can(connection):
        stat = await file.stat()
    return file, [server.paths[qid.path] for qid in qids], stat


@lasting
async def leads(start: Remote, names: tuple[str, ...]) -> list[int]:
    """Return the qid.paths of the files that names lead to, as far as they lead."""
    connection, fid = await start.here()
    new = connection.new_fid()
    (qids,) = await start.server.soon(connection.rpc(m.Twalk, fid, new, names))
    connection.clunk_nowait(new)  # if it ended before the last name, that is an error, or an end that diod needs
    return [start.server.paths[qid.path] for qid in qids]


@attrs.frozen
class Answer:
    """The result of an opening: the handle, the qid.paths of the names that led there, the version; status and first bytes as far as requested."""

    handle: RemoteHandle
    paths: list[int]
    version: int
    stat: Stat | None
    first: bytes


@lasting
async def open_(
    file: Remote,
    how: Open,
    *,
    start: Remote | None = None,
    names: tuple[str, ...] = (),
    stat: bool = True,
    count: int = 0,
) -> Answer:
    """Open a file, by names that lead to it from `start` if that is given. A synthetic file may take its time to open. Raises flights.Astray."""
    connection, fid = await (start or file).here()
    flags = requests.linux_flags(how.read, how.write, how.truncate, how.append) | how.flags & PASSED
    if connection.dialect is not Dialect.L:
        handle = await file.open(how)
        told = await handle.stat() if stat else None
        return Answer(handle, [], told.version if told else 0, told, b"")
    found = await flights.open_(connection, fid, names, flags, stat=stat, count=count)
    handle = RemoteHandle(file, connection, found.fid, found.qid, found.iounit, how)
    paths = [file.server.paths[qid.path] for qid in found.qids]
    return Answer(handle, paths, found.qid.version, found.stat, found.first)


def drop(handle: RemoteHandle) -> None:
    """Close a file, and wait for nothing."""
    handle.connection.clunk_nowait(handle.fid)


@lasting
async def look_at_some(directory: Remote, entries: list[tuple[str, Remote]]) -> list[tuple[Remote, Stat | None]]:
    """Return the status of some entries of a directory, in their order, None for one that has gone."""
    connection, fid = await directory.here()
    if not flights.can(connection):
        return await _one_by_one(entries)
    found: list[tuple[Remote, Stat | None]] = []
    names = [name for name, _ in entries]
    answers = await flights.look_at_all(connection, fid, names, directory.server.silence)
    for (name, node), answer in zip(entries, answers, strict=True):
        if isinstance(answer, Lost):
            raise answer
        if isinstance(answer, NineError):
            found.append((node, _instead(node, answer)))
        else:
            new, qid, stat = answer
            found.append((Remote(directory.server, directory.who, directory, name, qid, (connection, new)), stat))
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
    """Return what to say of a file whose status is an error: it exists, and nothing else is known, or it has gone."""
    if isinstance(error, (FileNotFoundError, ProcessLookupError)):
        return None
    return Stat(kind_of(node, Stat(0)))
