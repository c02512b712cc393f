"""`kernels/`: real Linux kernels, started, watched and ended through files.

    clone            opened: a kernel named k0, k1, …, which lives while its files are open, or for good after `keep`; read: its name
    ctl              create NAME · delete NAME (also mkdir and rmdir) · move cpu|mem|dev WHAT FROM TO
    status           a line a kernel: NAME STATE BACKEND CPUS MEMORY KERNEL
    events           SEQ TIME_NS WHAT KERNEL ARGS…
    pool/            what is in no kernel: ctl (cpu|mem|dev add|del …) status cpus memory devices
    pool/multikernel what is in no instance of this machine's multikernel: ctl (baseline …, cpu|mem|dev add|del …) status
    tx/N/            changes of several steps: status error; rmdir undoes one
    NAME/ctl         backend qemu|uml|multikernel|attach · dial ADDR · qmp SOCKET
                     · cpus N · memory BYTES · serve [ARGS…] · device [ARGS…] · show [PATH…] · hostroot on|off · trust on|off
                     · modules [NAME…] · boot [SCRIPT] · wait SECONDS
                     · load [KERNEL] [initrd I] [cmdline C] · unload · start · halt · kill · freeze · thaw · reset · dump
                     · restart never|always|on-failure [max N] [in SECONDS]
                     · watch SECONDS tell|restart|kill · cpu|mem|dev add|del WHAT · grant PATH ro|rw|OPS · ungrant PATH · delete · keep
    NAME/status      key value lines: state, backend, cpus, memory, kernel, pid, dial (its tree, from here), listen (where to listen for it),
                     guest_dial (how it reaches that), started (ns), ends, reason (of its last end)
    NAME/config      the settings as ctl lines
    NAME/console     read: its history, then what comes; write: its keyboard
    NAME/log         what is kept of the console, without waiting
    NAME/events      its own events
    NAME/dump        its memory, an ELF core file, as it was at the last `dump`
    NAME/wait        read: waits for its end, and says why; at once if it has ended since it was last started

life.py describes the states, keeper.py how nothing outlives this server, backend.py what a backend is, and tx.py how a change is whole or not at all.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from mk9p.tree import Dir, Node

    from . import afar


@asynccontextmanager
async def tree(
    run: str,
    *,
    serve: str = "",
    state: str = "",
    reach: Callable[[str], Node | None] | None = None,
    through: afar.Way | None = None,
    desired: str = "kept",
) -> AsyncIterator[Dir]:
    """Serve `kernels/`. However this process ends, everything that was started through it ends too.

    `run` is the folder of sockets and the like, made now and removed at the end. "" is a new one in /run/mk9p, or for an ordinary user below
    $XDG_RUNTIME_DIR or /tmp. (It has no default, so `mk9p serve` without names does not serve this: a guest starts no guests.) `serve` is the
    default for `mk9p serve` in the guests: its arguments after `-l`, quoted as in sh. `state` is a file for what must outlive this server when it
    is killed (tx.py); "" is one in the folder, which does not. It is removed at an orderly end that leaves nothing to be remembered. `reach` gives
    the root of a kernel's tree, None if nobody has mounted it. `through` leads to a namespace of another process, where kernels are mounted at k/NAME
    (the option `through=DIAL` of `mk9p serve`). Without one of both nothing moves, and nobody is watched. `desired` is `kept`, to desire what an
    earlier server did that was killed, or `none`, to begin with nothing.
    """
    import errno
    import shlex
    from pathlib import Path

    import trio

    from mk9p.errors import NineError

    from . import afar, files, inside, journal, keeper

    if desired not in ("kept", "none"):
        raise NineError(errno.EINVAL, f"desired={desired}: want kept or none")
    home = _home(run)
    held = await keeper.keep(home)
    try:
        book = journal.Journal.open(Path(state) if state else home / "journal")
        try:
            async with trio.open_nursery() as nursery:
                kernels = files.Kernels(
                    home,
                    nursery,
                    serve=tuple(shlex.split(serve)),
                    journal=book,
                    lasting=bool(state),
                    anew=desired == "none",
                    reach=afar.Afar(way=through) if through is not None else inside.Reach(reach or inside.no_way),
                )
                yield kernels.tree()
                nursery.cancel_scope.cancel()
            kernels.keeping.forget()
            if kernels.moves.nothing_to_remember:
                book.remove()
        finally:
            book.close()
    finally:
        with trio.CancelScope(shield=True):  # this takes limited time: it removes a folder
            await held.end()
            await held.close()


def _home(run: str) -> Path:
    import os
    import tempfile
    from pathlib import Path

    from mk9p.itself import unique

    if run:
        return Path(run).absolute()
    if os.geteuid() == 0:
        above = Path("/run/mk9p")
        above.mkdir(mode=0o755, exist_ok=True)
    else:
        above = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    return above / unique("kernels")
