"""cpu: the processors of this kernel. The files are those of docs/files/cpu.md.

Everything is read from the kernel when it is asked for; kept are only the ticks that the load is measured against, and which CPUs were online when
the last event was told. A CPU is switched in a thread, since the kernel may take a long time over it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from mk9p.tree import Dir
from servers.cpu import uevents
from servers.cpu.cpus import Cpus

__all__ = ["tree"]


@asynccontextmanager
async def tree(*, root: str = "/") -> AsyncIterator[Dir]:
    """Serve the CPUs of the kernel whose /sys and /proc are below `root`; a made-up root gets no events of the real kernel."""
    sock = await uevents.listen() if root == "/" else None
    cpus = Cpus(root.rstrip("/"), told=sock is not None)
    if sock is None:
        yield cpus.tree()
        return
    with sock:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(uevents.follow, sock, cpus.changed, cpus.look)
            yield cpus.tree()
            nursery.cancel_scope.cancel()
