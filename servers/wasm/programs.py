"""The tree: `clone`, `status`, and the programs; and what they share."""

import errno
import logging
import os
import platform
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from weakref import WeakSet

import attrs
import trio

from mk9p import cgroups
from mk9p.auth import Principal, counts_as, unlimited
from mk9p.errors import NineError
from mk9p.servers.wasm.files import Served
from mk9p.servers.wasm.process import group
from mk9p.servers.wasm.program import Program
from mk9p.tree import Conversations, Dir, Text

log = logging.getLogger("mk9p.wasm")

SHARE: Final = 1 << 30  # bytes of modules and states that one user may have written: they are kept in memory
CACHE: Final = "/var/cache/mk9p/wasm"


@attrs.define(eq=False)
class Shared:
    """The server's part of all programs (program.Programs)."""

    nursery: trio.Nursery
    namespace: str
    root: str  # of the cache; "" for none
    most: int
    system: str = attrs.field(factory=lambda: f"{platform.node()} {platform.release()} {platform.machine()}")
    end: str = "signal SIGKILL"
    running: set[Program] = attrs.field(factory=set)
    made: WeakSet[Program] = attrs.field(factory=WeakSet)
    users: Counter[int | str] = attrs.field(factory=Counter)

    def new(self, number: int, who: Principal) -> Served:
        """Begin a program."""
        made = Served(self, number, who)
        self.made.add(made)
        return made

    def cache(self, who: Principal) -> str:
        """Return a directory that belongs to this user alone: what is in it is run as it is, and only for them."""
        if not self.root:
            return ""
        uid = who.uid if os.geteuid() == 0 else os.geteuid()
        place = Path(self.root, str(uid))
        with suppress(OSError):
            place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                place.mkdir(mode=0o700)
                if os.geteuid() == 0:
                    os.chown(place, uid, -1)
            if place.lstat().st_uid == uid and not place.is_symlink():
                return str(place)
        return ""

    def require_room(self, program: Program, more: int) -> None:
        """Raise ENOSPC if a user would have too many bytes of modules and states with some more."""
        if not more or unlimited(program.who):
            return
        mine = [one for one in self.made if counts_as(one.who) == counts_as(program.who)]
        if sum(one.held for one in mine) + more > SHARE:
            raise NineError(errno.ENOSPC, f"{program.who.name} has modules and states of {SHARE} bytes at most")

    def admit(self, who: Principal) -> None:
        """Raise EAGAIN if this user has as many programs as one may have."""
        if self.users[counts_as(who)] >= self.most:
            raise NineError(errno.EAGAIN, f"{self.most} programs of {who.name} run already")

    def runs(self, program: Program) -> None:
        self.running.add(program)
        self.users[counts_as(program.who)] += 1

    def ran(self, program: Program) -> None:
        self.running.discard(program)
        self.users[counts_as(program.who)] -= 1


def require() -> None:
    """Raise ENODEV where wasmtime is not installed, or not made for this machine."""
    found = find_spec("wasmtime")
    if found is None or found.origin is None:
        raise NineError(errno.ENODEV, "wasmtime is not installed: pip install 'mk9p[wasm]'")
    machine = platform.machine()
    if not any(Path(found.origin).parent.glob(f"linux-{machine}/_libwasmtime.so")):
        raise NineError(errno.ENODEV, f"the wasmtime that is installed has nothing for {machine}")


def _usual_cache() -> str:
    return CACHE if os.geteuid() == 0 else str(Path("~/.cache/mk9p/wasm").expanduser())


@asynccontextmanager
async def serving(*, namespace: str, cache: str, programs: int) -> AsyncIterator[Dir]:
    """Give the directory; when the caller leaves it, all programs have ended."""
    require()
    values = group(0)
    if lacking := cgroups.missing(cgroups.planned("", values), values):
        log.info("no control group limits the %s of programs: none can be made", ", ".join(lacking))
    cgroups.sweep()
    cache = cache or _usual_cache()
    async with trio.open_nursery() as nursery:
        shared = Shared(nursery, namespace, "" if cache == "off" else cache, programs)
        talks = Conversations(shared.new, {"status": Text(lambda: _status(talks))})
        talks.owned(os.geteuid(), os.getegid())  # `clone` belongs to the user whose programs it starts
        try:
            yield talks
        finally:
            with trio.CancelScope(shield=True):
                shared.end = "lost the server ends"  # nobody has asked for the program's end
                await talks.aclose()
                for program in list(shared.running):
                    if program.run is not None:
                        program.run.kill(shared.end)
                        await program.run.ended.wait()
            nursery.cancel_scope.cancel()


async def _status(talks: Conversations) -> str:
    """Render a line for each program, as its own `status`. All are asked at once: one that does not answer holds up nobody twice."""
    lines: dict[int, str] = {}

    async def ask(program: Program) -> None:
        lines[program.number] = await program.status()

    async with trio.open_nursery() as nursery:
        for talk in talks.talks.values():
            if talk is not None and isinstance(talk.talk, Program):
                nursery.start_soon(ask, talk.talk)
    return "".join(line for _, line in sorted(lines.items()))
