"""The files of `kernels/`: names, words and lines for `life.Kernel`."""

from __future__ import annotations

import errno
import os
import posixpath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs

from mk9p.auth import Principal  # noqa: TC001 - the words' signatures are read
from mk9p.errors import NineError
from mk9p.ktext import split_words
from mk9p.tree import Ctl, CtlOfNew, Dir, Handle, Lazy, Log, Node, Open, Stream, Text, fields, join, settings

from . import backend, life, qemu, uml

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

    from mk9p.tree import Maybe, Source

    from .console import Reader

BACKENDS: Final = {"qemu": qemu.Qemu(), "uml": uml.Uml()}


@attrs.define(eq=False)
class Entry:
    """A kernel's directory, its files, and who holds it."""

    kernel: life.Kernel
    events: Log
    dir: KernelDir = attrs.field(init=False)


@attrs.define(eq=False)
class Kernels:
    """All kernels of one `kernels/`."""

    home: Path
    nursery: trio.Nursery
    serve: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    backends: dict[str, backend.Backend] = attrs.field(factory=lambda: dict(BACKENDS), kw_only=True)
    events: Log = attrs.field(factory=Log, init=False)
    entries: dict[str, Entry] = attrs.field(factory=dict, init=False)

    def tree(self) -> Dir:
        """Return the directory."""
        files: dict[str, Node] = {
            "clone": _Clone(self),
            "ctl": Ctl({"create": self.create, "delete": self.delete}),
            "status": Text(self.status),
            "events": self.events,
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

    def create(self, name: str) -> None:
        """Make a kernel that lives until it is deleted. Raises EEXIST, and EINVAL for an impossible name."""
        self.add(name)

    def add(self, name: str, *, kept: bool = True) -> Entry:
        """Make a kernel. One that is not kept goes when none of its files is open any more."""
        if name in self.entries or name in ("clone", "ctl", "status", "events", "error"):
            raise NineError(errno.EEXIST)
        try:
            spec = backend.Spec(name=name, kernel="", serve=self.serve)
        except ValueError as error:
            raise NineError(errno.EINVAL, str(error)) from None
        kernel = life.Kernel(spec, self.backends, self.home / name, self.nursery, self.report)
        entry = self.entries[name] = Entry(kernel, Log())
        entry.dir = KernelDir(self, kernel, entry.events, kept=kept)
        self.report(name, "created")
        return entry

    def delete(self, name: str) -> None:
        """Forget a kernel that is not running. Raises ENOENT, EBUSY."""
        entry = self.entries.get(name)
        if entry is None:
            raise NineError(errno.ENOENT, f"no kernel {name}")
        entry.kernel.forget()
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

    def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> None:
        if name not in self.kernels.entries:
            raise NineError(errno.EPERM)
        if directory is False:
            raise NineError(errno.EISDIR)
        self.kernels.delete(name)


class KernelDir(Dir):
    """NAME/: counts what is open below it, for a kernel that came from clone."""

    def __init__(self, kernels: Kernels, kernel: life.Kernel, events: Log, *, kept: bool) -> None:
        self.kernels, self.kernel, self.kept, self.users = kernels, kernel, kept, 0
        words = Words(kernel)
        self.ctl = Ctl(words.table() | {"delete": self._delete, "keep": self._keep}, read=words.config)
        super().__init__(
            {
                "ctl": self.ctl,
                "status": Text(words.status),
                "config": Text(words.config),
                "console": Stream(per_open=lambda how: Console(kernel, kernel.console.reader()), mode=0o600),
                "log": Text(lambda: kernel.console.read(kernel.console.start), mode=0o400),
                "events": events,
                "wait": Stream(per_open=lambda how: End.of(kernel), mode=0o444),
            }
        )

    def _delete(self) -> None:
        self.kernels.delete(self.kernel.name)

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
            self._delete()


@attrs.frozen
class Words:
    """The words of NAME/ctl: their signatures are their usage."""

    kernel: life.Kernel

    def table(self) -> dict[str, Callable[..., Any]]:
        """Return the words."""
        kernel = self.kernel
        named = {
            name: getattr(self, name)
            for name in ("backend", "cpus", "memory", "serve", "device", "load", "restart", "show", "grant", "ungrant")
        }
        return named | {"start": kernel.start, "halt": kernel.halt, "kill": kernel.kill}

    def backend(self, name: Literal["qemu", "uml"]) -> None:
        self.kernel.use(name)

    def cpus(self, n: int) -> None:
        self.kernel.set(cpus=n)

    def memory(self, bytes_: int) -> None:
        self.kernel.set(memory=bytes_)

    def serve(self, *args: str | None) -> None:
        self.kernel.set(serve=args)

    def device(self, *args: str) -> None:
        """Add raw arguments of the emulator."""
        self.kernel.set(devices=(*self.kernel.spec.devices, *args))

    def restart(self, when: Literal["never", "always", "on-failure"]) -> None:
        self.kernel.restart = when

    def show(self, *paths: str) -> None:
        """Let the guest see more of this machine, read-only at the same paths."""
        missing = next((path for path in paths if not path.startswith("/") or not os.path.exists(path)), None)
        if missing is not None:
            raise NineError(errno.ENOENT, f"{missing}: want absolute paths of this machine")
        self.kernel.set(shown=(*self.kernel.spec.shown, *map(Path, paths)))

    def grant(self, path: str, mode: Literal["ro", "rw"]) -> None:
        """Let the kernel use what is at a path of the namespace, and everything below."""
        path = _place(path)
        others = [other for other in self.kernel.spec.grants if other[0] != path]
        self.kernel.set(grants=(*others, (path, mode)))

    def ungrant(self, path: str) -> None:
        path = _place(path)
        left = tuple(other for other in self.kernel.spec.grants if other[0] != path)
        if left == self.kernel.spec.grants:
            raise NineError(errno.ENOENT, f"{path} is not granted")
        self.kernel.set(grants=left)

    async def load(self, kernel: str = "", *more: str | None) -> None:
        """`load [KERNEL] [initrd I] [cmdline C]`."""
        words = [word for word in more if word is not None]  # None only says, in the signature, that there may be none
        chosen = dict(zip(words[::2], words[1::2], strict=False))
        if len(words) != 2 * len(chosen) or not chosen.keys() <= {"initrd", "cmdline"}:
            raise NineError(errno.EINVAL, "usage: load [KERNEL] [initrd I] [cmdline C]")
        initrd = Path(chosen["initrd"]) if "initrd" in chosen else None
        await self.kernel.load(kernel, initrd=initrd, cmdline=chosen.get("cmdline", ""))

    def config(self) -> str:
        """Return the settings as lines that a client can write back."""
        kernel, spec = self.kernel, self.kernel.spec
        lines = settings(
            {"backend": kernel.backend, "cpus": spec.cpus, "memory": spec.memory, "restart": kernel.restart}
        )
        for word, args in (("serve", spec.serve or ()), ("device", spec.devices), ("show", spec.shown)):
            lines += join([word, *args]) + "\n" if args else ""
        lines += "".join(join(["grant", *grant]) + "\n" for grant in spec.grants)
        if spec.kernel:
            initrd = ["initrd", spec.initrd] if spec.initrd else []
            lines += join(["load", spec.kernel, *initrd, *(["cmdline", spec.cmdline] if spec.cmdline else [])]) + "\n"
        return lines

    def status(self) -> str:
        """Return key value lines; values that belong to a running kernel are empty without one."""
        kernel, spec, running = self.kernel, self.kernel.spec, self.kernel.running
        values: dict[str, object] = {
            "state": kernel.state,
            "backend": kernel.backend,
            "cpus": spec.cpus,
            "memory": spec.memory,
            "kernel": spec.kernel,
            "pid": running.pid if running else 0,
            "dial": running.dial if running else "",
            "listen": running.listen if running else "",
            "guest_dial": running.guest_dial if running else "",
            "started": kernel.started,
            "ends": kernel.ends,
            "reason": " ".join(split_words(kernel.reason)),
        }
        return fields(values)


def _place(path: str) -> str:
    """Return a path of the namespace without needless dots and slashes; raises EINVAL for a text that is no path."""
    if not path.startswith("/") or "\n" in path or "\0" in path:
        raise NineError(errno.EINVAL, f"a grant is for a path of the namespace, such as /k/k2: {path!r}")
    return "/" + posixpath.normpath(path).lstrip("/")


@attrs.define(eq=False)
class Console:
    """One open console."""

    kernel: life.Kernel
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

    kernel: life.Kernel
    after: int
    told: bool = False

    @classmethod
    def of(cls, kernel: life.Kernel) -> Source:
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
