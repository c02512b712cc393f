"""`kernels/`: real Linux kernels, started, watched and ended through files.

    clone            opened: a kernel named k0, k1, …, which lives while its files are open, or for good after `keep`; read: its name
    ctl              create NAME · delete NAME                                                    (also mkdir and rmdir)
    status           a line a kernel: NAME STATE BACKEND CPUS MEMORY KERNEL
    events           SEQ TIME_NS WHAT KERNEL ARGS…
    NAME/ctl         backend qemu|uml · cpus N · memory BYTES · serve [ARGS…] · device ARGS… · show PATH… · load [KERNEL] [initrd I]
                     [cmdline C] · start · halt · kill · restart never|always|on-failure · grant PATH ro|rw · ungrant PATH · delete · keep
    NAME/status      key value lines: state, backend, cpus, memory, kernel, pid, dial (its tree, from here), listen (where to listen for it),
                     guest_dial (how it reaches that), started (ns), ends, reason (of its last end)
    NAME/config      the settings as ctl lines
    NAME/console     read: its history, then what comes; write: its keyboard
    NAME/log         what is kept of the console, without waiting
    NAME/events      its own events
    NAME/wait        read: waits for its end, and says why; at once if it has ended since it was last started

life.py describes the states, keeper.py how nothing outlives this server, and backend.py what a backend is.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mk9p.tree import Dir


@asynccontextmanager
async def tree(run: str, *, serve: str = "") -> AsyncIterator[Dir]:
    """Serve `kernels/`. However this process ends, everything that was started through it ends too.

    `run` is the folder of sockets and the like, made now and removed at the end. "" is a new one in /run/mk9p, or for an ordinary user below
    $XDG_RUNTIME_DIR or /tmp. (It has no default, so `mk9p serve` without names does not serve this: a guest starts no guests.) `serve` is the
    default for `mk9p serve` in the guests: its arguments after `-l`, quoted as in sh.
    """
    import shlex

    import trio

    from . import files, keeper

    home = _home(run)
    held = await keeper.keep(home)
    try:
        async with trio.open_nursery() as nursery:
            kernels = files.Kernels(home, nursery, serve=tuple(shlex.split(serve)))
            yield kernels.tree()
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):  # this takes limited time: it removes a folder
            await held.end()
            await held.close()


def _home(run: str) -> Path:
    import os
    import tempfile
    from pathlib import Path

    if run:
        return Path(run).absolute()
    if os.geteuid() == 0:
        above = Path("/run/mk9p")
        above.mkdir(mode=0o755, exist_ok=True)
    else:
        above = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    return above / f"kernels-{os.getpid()}"
