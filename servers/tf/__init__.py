"""Task forces, after Helios's CDL: a graph of tasks and pipes, placed over kernels, started together or not at all, ended together.

graph.py     the words of a graph
places.py    which task goes where
reach.py     files of the namespace, as the user whose force it is
work.py      a task that runs: a command of a kernel's `cmd`
program.py   … or a program of its `wasm`
pipes.py     what carries bytes between two tasks
farm.py      jobs for as many workers as were asked for, each answered once
running.py   a force that runs
force.py     a conversation: the files and words of one force

The manual is docs/files/tf.md.
"""

import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.servers.tf.force import Forces
from mk9p.servers.tf.reach import Permit, everything
from mk9p.tree import Dir, Node


@asynccontextmanager
async def tree(reach: Callable[[Principal], Node] | str, *, permit: Permit = everything) -> AsyncIterator[Dir]:
    """Give the directory of task forces of a namespace. When the caller leaves it, all their tasks have been ended.

    `reach` gives the root of the namespace as a user may see it; `permit` raises what stands against writing to a file of it. Raises EINVAL outside
    of a composed namespace.
    """
    if isinstance(reach, str):
        raise NineError(errno.EINVAL, "task forces are in a composed namespace: mk9p compose has them")
    async with trio.open_nursery() as nursery:
        forces = Forces(nursery, reach, permit)
        try:
            yield forces
        finally:
            with trio.CancelScope(shield=True):
                await forces.aclose()
            nursery.cancel_scope.cancel()
