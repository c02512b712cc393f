"""Tasks side by side, of which the caller sees one error, as of a single task."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def together() -> AsyncIterator[trio.Nursery]:
    """Open a nursery. When tasks in it meet errors of the tree, the first is raised, and not a group: so `except OSError` around it holds."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        failed, rest = group.split(OSError)
        if rest is not None:
            # a caller who gives up at the same moment has given up
            raise (group if rest.split(trio.Cancelled)[1] is not None else rest) from None
        error: BaseException | None = failed
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        assert error is not None
        raise error from None
