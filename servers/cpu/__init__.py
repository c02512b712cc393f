"""cpu: the processors of this kernel. The files are those of docs/files/cpu.md.

Everything is read from the kernel when it is asked for; kept are only the ticks that the load is measured against, what noise is counted from, and
which CPUs were online when the last event was told. What is isolated, and what was before, the kernel keeps (partition.py). A CPU is switched in a
thread, since the kernel may take a long time over it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from mk9p import uevents
from mk9p.servers.cpu.cpus import Cpus
from mk9p.tree import Dir

__all__ = ["tree"]


@asynccontextmanager
async def tree(*, root: str = "/") -> AsyncIterator[Dir]:
    """Serve the CPUs of the kernel whose /sys and /proc are below `root`; a made-up root gets no events of the real kernel."""
    cpus = Cpus(root.rstrip("/"))
    async with uevents.told(cpus.heard, cpus.look, root=root) as cpus.told, trio.open_nursery() as nursery:
        # what changed before somebody listened
        cpus.look()
        cpus.came.set()
        nursery.start_soon(cpus.settle_what_comes)
        yield cpus.tree()
        nursery.cancel_scope.cancel()
