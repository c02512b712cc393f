"""Commands on this kernel, after Inferno's cmd(3): `clone`, and `N/{ctl data stderr status wait}` for each command.

The manual is docs/files/cmd.md. command.py is a conversation and its words, files.py its files, pipes.py this side's ends of a command's pipes
(locked.py: calls that may wait for ever), running.py its signals and its end, spawn.py how it starts.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from mk9p.servers.cmd.command import Command
from mk9p.servers.cmd.running import Commands, Running, finish
from mk9p.tree import Conversations, Dir

GRACE = 2.0  # seconds that a command has after SIGHUP: a shell ends its own commands in less time, and nobody waits longer for a prompt


@asynccontextmanager
async def tree(*, root: str = "/", grace: float = GRACE) -> AsyncIterator[Dir]:
    """Give the directory of commands. When the caller leaves it, everything that it started has ended, and its end has been waited for.

    `root` has no effect: commands run on the present kernel. `grace` is how many seconds a command has between SIGHUP and SIGKILL.
    """
    running: set[Running] = set()
    try:
        async with trio.open_nursery() as nursery:
            talks = Conversations(partial(Command.of, Commands(nursery, float(grace), running)))
            talks.owned(os.geteuid(), os.getegid())  # `clone` belongs to the user whose commands it starts
            try:
                yield talks
            finally:
                with trio.CancelScope(shield=True):
                    await talks.aclose()
                nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await finish(running, float(grace))
