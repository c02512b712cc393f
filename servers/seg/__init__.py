"""Shared memory objects: `mkdir NAME` makes one, `NAME/{ctl data fd status}` are its files.

The manual is docs/files/seg.md. memory.py is the memory itself, files.py the tree, handing.py gives descriptors to programs of this machine. The
files are those of Plan 9's segment(3). The memory is a memfd, so it needs no name in a file system, and nothing of it is left.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from mk9p.servers.seg.files import Segments
from mk9p.servers.seg.handing import hand_out, listener
from mk9p.tree import Dir


@asynccontextmanager
async def tree(*, root: str = "/") -> AsyncIterator[Dir]:
    """Give the directory of segments, and hand out their descriptors until the caller leaves it; `root` is where /sys and /proc are."""
    async with trio.open_nursery() as nursery:
        sockets = await listener()
        segments = Segments(root.rstrip("/"), sockets.address)
        try:
            nursery.start_soon(hand_out, sockets, segments.descriptor)
            yield segments
        finally:
            nursery.cancel_scope.cancel()
            segments.close()
            with trio.CancelScope(shield=True):
                await sockets.aclose()
