"""The files of `kernels/`: names, words and lines for `holding.Kernel`."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, Literal

import attrs

from mk9p.auth import Principal  # noqa: TC001 - the words' signatures are read
from mk9p.errors import NineError
from mk9p.tree import Block, Ctl, CtlOfNew, Dir, Handle, Lazy, Log, Node, Open, Stream, Text, join

from . import (
    attach,
    backend,
    holding,
    inside,
    journal,
    keeping,
    labfile,
    moves,
    multikernel,
    pool,
    poolfiles,
    qemu,
    tx,
    uml,
    world,
)
from .words import Words

if TYPE_CHECKING:
    from pathlib import Path

    import trio

    from mk9p.tree import Maybe, Source

    from .console import Reader

BACKENDS: Final = {
    "qemu": qemu.Qemu(),
    "uml": uml.Uml(),
    "multikernel": multikernel.Multikernel(),
    "attach": attach.Attach(),
}


@attrs.define(eq=False)
class Entry:
    """A kernel's directory, its files, and who holds it."""

    kernel: holding.Kernel
    events: Log
    dir: KernelDir = attrs.field(init=False)


@attrs.define(eq=False)
class Kernels:
    """All kernels of one `kernels/`."""

    home: Path
    nursery: trio.Nursery
    serve: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    reach: inside.Reach = attrs.field(factory=inside.Reach, kw_only=True)
    journal: journal.Journal = attrs.field(kw_only=True)
    lasting: bool = attrs.field(default=False, kw_only=True)
    anew: bool = attrs.field(default=False, kw_only=True)
    backends: dict[str, backend.Backend] = attrs.field(factory=lambda: dict(BACKENDS), kw_only=True)
    events: Log = attrs.field(factory=Log, init=False)
    entries: dict[str, Entry] = attrs.field(factory=dict, init=False)
    moves: moves.Moves = attrs.field(init=False)
    keeping: keeping.Keeping = attrs.field(init=False)
    _lost: set[tuple[str, str]] = attrs.field(
        factory=set, init=False
    )  # devices that are just taken back, by kernel: its QEMU may tell often
    _root: Dir = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        ground = next((one.ground for one in self.backends.values() if one.ground is not None), None)
        there = world.World(self.kernel, pool.Pool(), self.reach, ground)
        self.moves = moves.Moves(there, tx.Transactions(there, self.journal, self.nursery, self.told))
        path = self.journal.path
        place = path.with_name(f"{path.name}.desired") if self.lasting else None
        self.keeping = keeping.Keeping(lambda: self._root, self.reach, self.kernel, self.told, place)
        self._root = self._tree()
        if self.anew:
            self.keeping.forget()
        self.keeping.load()
        self.nursery.start_soon(self.keeping.run)
        self.nursery.start_soon(self._resume)

    def tree(self) -> Dir:
        """Return the directory."""
        return self._root

    def _tree(self) -> Dir:
        files: dict[str, Node] = {
            "clone": _Clone(self),
            "ctl": Ctl({"create": self.create, "delete": self.delete, "move": self.move}),
            "status": Text(self.status),
            "events": self.events,
            "pool": poolfiles.PoolFiles(self.moves).tree(),
            "desired": keeping.DesiredFile(self.keeping),
            "diff": Text(self.keeping.diff),
            "tx": poolfiles.txs_dir(self.moves.txs),
        }
        return _Kernels(
            self, files, Lazy(lambda: list(self.entries), lambda name: self.entries[name].dir, key=self.entries.get)
        )

    def report(self, name: str, what: str, *args: object) -> None:
        """Report an event in both logs (life.Report)."""
        self.events.emit(what, name, *args)
        entry = self.entries.get(name)
        if entry is not None:
            entry.events.emit(what, *args)
            self.keeping.look()
            if what == "lost" and (lost := (name, str(args[0]))) not in self._lost:
                self._lost.add(lost)
                self.nursery.start_soon(self._take_back, entry.kernel, *lost)
            if what == "active":
                self.nursery.start_soon(self._settle, entry.kernel)

    def told(self, what: str, *args: object) -> None:
        """Report an event that belongs to no one kernel."""
        self.events.emit(what, *args)

    def kernel(self, name: str) -> holding.Kernel:
        """Return a kernel. Raises ENOENT."""
        entry = self.entries.get(name)
        if entry is None:
            raise NineError(errno.ENOENT, f"no kernel {name}")
        return entry.kernel

    async def _settle(self, kernel: holding.Kernel) -> None:
        """Give a kernel that serves again what it had, and undo what was interrupted and now concerns only kernels that serve."""
        try:
            await self.moves.settle(kernel)
        except OSError as error:
            self.report(kernel.name, "unsettled", str(error))

    async def _resume(self) -> None:
        """Undo what was interrupted in the machine itself, which has not ended with an earlier server."""
        try:
            await self.moves.txs.resume(self.moves.world.real)
        except OSError as error:
            self.told("unsettled", "", str(error))

    async def _take_back(self, kernel: holding.Kernel, name: str, device: str) -> None:
        try:
            await self.moves.take_back(kernel, device)
        except OSError as error:
            self.report(name, "unsettled", str(error))
        finally:
            self._lost.discard((name, device))

    async def move(self, kind: Literal["cpu", "mem", "dev"], what: str, from_: str, to: str) -> None:
        """Move something between kernels, or the pool."""
        await self.moves.move(kind, what, from_, to)

    def create(self, name: str) -> None:
        """Make a kernel that lives until it is deleted. Raises EEXIST, and EINVAL for an impossible name."""
        self.add(name)

    def add(self, name: str, *, kept: bool = True) -> Entry:
        """Make a kernel. One that is not kept goes when none of its files is open any more."""
        if name in self.entries or name in labfile.TAKEN:
            raise NineError(errno.EEXIST)
        try:
            spec = backend.Spec(name=name, kernel="", serve=self.serve)
        except ValueError as error:
            raise NineError(errno.EINVAL, str(error)) from None
        kernel = holding.Kernel(
            spec, self.backends, self.home / name, self.nursery, self.report, probe=self.reach.answers
        )
        entry = self.entries[name] = Entry(kernel, Log())
        entry.dir = KernelDir(self, kernel, entry.events, kept=kept)
        self.report(name, "created")
        return entry

    async def delete(self, name: str) -> None:
        """Forget a kernel that is not running; what it had from the pool goes back there. Raises ENOENT, EBUSY."""
        kernel = self.kernel(name)
        kernel.idle()
        if kernel.held:
            await kernel.give_back()
        elif kernel.extra_cpus > 0 or kernel.extra_memory or kernel.devices:
            await self.moves.give_back(name)
        if self.kernel(name) is not kernel:  # somebody else has deleted it meanwhile, and there is another of its name
            raise NineError(errno.ENOENT)
        kernel.forget()
        self.report(name, "deleted")
        del self.entries[name]

    def status(self) -> str:
        """Return a line for each kernel."""
        rows = (
            (k.name, k.state, k.backend, k.spec.cpus, k.spec.memory, k.spec.kernel)
            for k in (e.kernel for e in self.entries.values())
        )
        return "".join(join(row) + "\n" for row in rows)


class _Kernels(Dir):
    """The directory itself: mkdir and rmdir are create and delete."""

    def __init__(self, kernels: Kernels, *children: dict[str, Node] | Lazy) -> None:
        super().__init__(*children, mode=0o755)
        self.kernels = kernels

    def mkdir(self, name: str, perm: int, who: Principal) -> Node:
        return self.kernels.add(name).dir

    def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> Maybe[None]:
        if name not in self.kernels.entries:
            raise NineError(errno.EPERM)
        if directory is False:
            raise NineError(errno.EISDIR)
        return self.kernels.delete(name)


class KernelDir(Dir):
    """NAME/: counts what is open below it, for a kernel that came from clone."""

    def __init__(self, kernels: Kernels, kernel: holding.Kernel, events: Log, *, kept: bool) -> None:
        self.kernels, self.kernel, self.kept, self.users = kernels, kernel, kept, 0
        words = Words(kernel)
        moving = poolfiles.KernelWords(kernels.moves, kernel.name).table()
        self.ctl = Ctl(words.table() | moving | {"delete": self._delete, "keep": self._keep}, read=words.config)
        super().__init__(
            {
                "ctl": self.ctl,
                "status": Text(words.status),
                "config": Text(words.config),
                "console": Stream(per_open=lambda how: Console(kernel, kernel.console.reader()), mode=0o600),
                "log": Text(lambda: kernel.console.read(kernel.console.start), mode=0o400),
                "events": events,
                "dump": Block(kernel.dumped.read, size=lambda: kernel.dumped.size, mode=0o400),
                "wait": Stream(per_open=lambda how: End.of(kernel), mode=0o444),
            }
        )

    async def _delete(self) -> None:
        await self.kernels.delete(self.kernel.name)

    def _keep(self) -> None:
        self.kept = True

    def hold(self) -> None:
        self.users += 1

    def release(self) -> Maybe[None]:
        self.users -= 1
        return None if self.users or self.kept else self._end()

    async def _end(self) -> None:
        if self.kernel.running is not None:
            await self.kernel.kill()
        if self.kernel.name in self.kernels.entries:
            await self._delete()


@attrs.define(eq=False)
class Console:
    """One open console."""

    kernel: holding.Kernel
    reader: Reader

    async def receive(self) -> bytes:
        return await self.reader.receive()

    async def send(self, data: bytes) -> None:
        await self.kernel.send(data)

    def close(self) -> None:
        return None


@attrs.define(eq=False)
class End:
    """One open `wait`: one line, then the end of the file."""

    kernel: holding.Kernel
    after: int
    told: bool = False

    @classmethod
    def of(cls, kernel: holding.Kernel) -> Source:
        """Wait for the end of the present life. For a kernel that has ended already, give its last end."""
        return cls(kernel, kernel.ends if kernel.running else max(0, kernel.ends - 1))

    async def receive(self) -> bytes:
        if self.told:
            return b""
        reason = await self.kernel.ended(self.after)
        self.told = True
        return f"{reason}\n".encode()

    def send(self, data: bytes) -> None:
        raise NineError(errno.EACCES)

    def close(self) -> None:
        return None


class _Clone(Text):
    """clone: a new kernel at every open. The handle is that of its ctl, and a read of it tells its name."""

    def __init__(self, kernels: Kernels) -> None:
        super().__init__("", mode=0o600)
        self.kernels = kernels

    def open(self, how: Open) -> Maybe[Handle]:
        taken = self.kernels.entries
        number = next(n for n in range(len(taken) + 1) if f"k{n}" not in taken)
        made = self.kernels.add(f"k{number}", kept=False).dir
        ctl = made.ctl.open(how)
        assert isinstance(ctl, Handle)
        made.hold()
        return CtlOfNew(ctl, made.kernel.name, made.release)
