"""cpu: the processors of this kernel. The files are those of docs/files/cpu.md.

The server reads everything from the kernel when somebody asks. It keeps only the ticks that the load is measured against, the counts that noise
starts from, and which CPUs were online at the last event. The kernel keeps what is isolated, and what was before (partition.py). A thread switches
a CPU, because the kernel may take a long time for it.
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
        # what changed before anybody listened
        cpus.look()
        cpus.came.set()
        nursery.start_soon(cpus.free_what_comes)
        yield cpus.tree()
        nursery.cancel_scope.cancel()
