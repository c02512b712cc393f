"""The end of a fid: its handle is closed exactly once, when its last request is finished, and what it held is released."""

import errno
import logging
from collections.abc import Awaitable, Callable
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Final

import trio

from mk9p.auth import Principal
from mk9p.errors import FAILURE, NineError
from mk9p.server.fids import Fid, Place
from mk9p.server.named import require_named
from mk9p.server.turns import SLICE
from mk9p.tree import Handle, settle

if TYPE_CHECKING:
    from mk9p.server.connection import Connection

log = logging.getLogger("mk9p.server")

# seconds that closing one file may take: long for a disk, short for an operator who waits for the end of a server
GRACE: Final = 10

# nodes of exclusive use that are open (DMEXCL): in this process, whatever connection has them
in_use: set[object] = set()


def claim_exclusive(node: object) -> None:
    """Mark a file of exclusive use as open; raises EBUSY if it is already."""
    if node in in_use:
        raise NineError(errno.EBUSY, "exclusive use file already open")
    in_use.add(node)


async def put(fid: Fid) -> None:
    """Drop one use of a fid, and close it if it was clunked and this was the last."""
    fid.uses -= 1
    if not fid.uses and fid.more is not None and fid.gone:
        await close(fid)


class _Closes(dict[type, bool]):
    """Tells for a kind of handle whether closing it does anything."""

    def __missing__(self, kind: type[Handle]) -> bool:
        does = self[kind] = kind.close is not Handle.close
        return does


_closes: Final = _Closes()


def close_nowait(fid: Fid) -> bool:
    """Close what a clunked fid has open if that does nothing, or can be done at once; return False if it needs `close`."""
    how = fid.how
    if how is None:
        fid.release()
        return True
    more = fid.more
    if how.remove or fid.place.holders or (more is not None and (more.get("exclusive") or more.get("directory"))):
        return False
    handle = fid.handle
    if handle is not None and _closes[type(handle)]:
        if not handle.prompt:
            return False
        try:
            handle.close()
        except OSError:
            log.exception("closing %s", fid.place.name)
    fid.how = fid.handle = None
    fid.release()
    return True


async def close(fid: Fid) -> None:
    """Close what a clunked fid has open. Safe to call again; an error of closing is logged, because a clunk always succeeds (clunk(5))."""
    fid.release()
    await shut(fid)


async def shut(fid: Fid) -> None:
    """Close what a fid has open; the fid can be opened again then."""
    handles, how = (fid.handle, fid.directory), fid.how
    fid.handle = fid.how = None
    if fid.more is not None:
        fid.directory = None
    if how is None:
        return
    place = fid.place
    claims = _give_back(fid)
    for step in [handle.close for handle in handles if handle is not None] + claims:
        try:
            await _shielded(step())
        except FAILURE:
            log.exception("closing %s", place.name)
    if how.remove:
        try:
            await _shielded(_remove(place, fid.who))
        except OSError as error:
            log.info("remove on close of %s: %s", place.name, error)


def _give_back(fid: Fid) -> list[Callable[[], Any]]:
    """Let others use what a fid has alone. Return what must be called after its handle is closed."""
    if fid.exclusive:
        in_use.discard(fid.place.node)
        fid.exclusive = False
    if not fid.held:
        return []
    fid.held = False
    return [node.release for node in reversed(fid.place.holders) if node.release is not None]


async def end(fid: Fid, ended: Callable[[Handle], Awaitable[None] | None]) -> None:
    """End the use of an open file whose client keeps its fid. `ended` returns what waits until a handle is closed; None if that is to stay open."""
    waits = [
        wait for handle in (fid.handle, fid.directory) if handle is not None and (wait := ended(handle)) is not None
    ]
    if waits:
        fid.drop_listing()
        for wait in waits:
            await _shielded(wait)
        for step in _give_back(fid):
            await _shielded(step())


async def _remove(place: Place, who: Principal) -> None:
    await require_named(place, who)
    await settle(place.parent.node.remove(place.name, who))


async def close_all(c: "Connection") -> None:
    """Close all fids of a client, in slices. Fids whose requests are not finished are closed with the last of these."""
    fids, c.session.fids = c.session.fids, {}
    ends = monotonic_ns() + SLICE // 4
    while fids:
        for _ in range(min(16, len(fids))):
            _, fid = fids.popitem()
            fid.gone = True
            if not fid.uses and not close_nowait(fid):
                await close(fid)
            del fid  # with everything that it stands for, now and not at the end
        if monotonic_ns() > ends:
            ends = await c.slices.next(c.user)


async def free(c: "Connection", table: dict[int, Any]) -> None:
    """Empty a table of very many things that a client had, in slices."""
    ends = monotonic_ns() + SLICE // 4
    while table:
        for _ in range(min(64, len(table))):
            table.popitem()
        if monotonic_ns() > ends:
            ends = await c.slices.next(c.user)


async def _shielded(value: Any) -> None:
    """Await a value if it can be awaited, although the request that led here was flushed or its client is gone."""
    if isinstance(value, Awaitable):
        with trio.CancelScope(shield=True, deadline=trio.current_time() + GRACE):
            await value
