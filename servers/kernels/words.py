"""The words of `kernels/NAME/ctl`, and what its settings and status say: for `life.Kernel`."""

from __future__ import annotations

import errno
import os
import posixpath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs

from mk9p.auth import granted_as
from mk9p.dial import parse
from mk9p.errors import NineError
from mk9p.ktext import split_words
from mk9p.restart import Restart
from mk9p.tree import fields, join, settings

from . import policy
from .backend import Kind  # noqa: TC001 - the words' signatures are read

if TYPE_CHECKING:
    from collections.abc import Callable

    from .holding import Kernel


MOST_CPUS: Final = 1024
LONGEST_WAIT: Final = 86400  # seconds, as for `mount -w`
Grant = tuple[str, str]


@attrs.frozen
class Words:
    """The words of NAME/ctl: their signatures are their usage."""

    kernel: Kernel

    def table(self) -> dict[str, Callable[..., Any]]:
        """Return the words."""
        kernel = self.kernel
        named = {
            name: getattr(self, name)
            for name in (
                *(
                    "backend",
                    "cpus",
                    "memory",
                    "serve",
                    "device",
                    "load",
                    "dial",
                    "qmp",
                    "restart",
                    "watch",
                    "show",
                    "hostroot",
                    "trust",
                    "modules",
                    "boot",
                    "wait",
                    "grant",
                    "ungrant",
                ),
            )
        }
        lives = ("unload", "start", "halt", "kill", "freeze", "thaw", "reset", "dump")
        return named | {name: getattr(kernel, name) for name in lives}

    def backend(self, name: Kind) -> None:
        self.kernel.use(name)

    def cpus(self, n: int) -> None:
        if not 1 <= n <= MOST_CPUS:
            raise NineError(errno.EINVAL, f"a kernel has 1 to {MOST_CPUS} CPUs: {n}")
        if n <= (more := self.kernel.extra_cpus):
            raise NineError(errno.EBUSY, f"{self.kernel.name} has {more} CPUs that came later: cpu del")
        self.kernel.set(cpus=n)

    def memory(self, bytes_: int) -> None:
        if bytes_ <= 0:
            raise NineError(errno.EINVAL, f"want bytes: {bytes_}")
        self.kernel.set(memory=bytes_)

    def serve(self, *args: str | None) -> None:
        self.kernel.set(serve=args)

    def device(self, *args: str | None) -> None:
        """Add raw arguments of the emulator; without any, forget those from before."""
        self.kernel.set(devices=(*self.kernel.spec.devices, *args) if args else ())

    def restart(self, when: Literal["never", "always", "on-failure"], *more: str | None) -> None:
        """`restart WHEN [max N] [in SECONDS]`."""
        self.kernel.restart = Restart.parse(when, [word for word in more if word is not None])

    def watch(self, seconds: float, then: Literal["tell", "restart", "kill"]) -> None:
        self.kernel.watch = policy.Watch.parse(seconds, then)

    def show(self, *paths: str | None) -> None:
        """Let the guest see more of this machine, read-only at the same paths; without any, what programs need and no more."""
        more = [path for path in paths if path is not None]
        missing = next((path for path in more if not path.startswith("/") or not os.path.exists(path)), None)
        if missing is not None:
            raise NineError(errno.ENOENT, f"{missing}: want absolute paths of this machine")
        self.kernel.set(shown=(*self.kernel.spec.shown, *map(Path, more)) if more else ())

    def trust(self, on: Literal["on", "off"]) -> None:
        """Let the namespace believe what its tree says, and pass it on as it comes."""
        self.kernel.set(trusted=on == "on")

    def hostroot(self, on: Literal["on", "off"]) -> None:
        """Show the guest all of this machine's /, whoever may read it, read-only; or only programs."""
        self.kernel.set(whole=on == "on")

    def modules(self, *names: str | None) -> None:
        """Put more drivers, and those that they need, where the guest can load them; without any, forget those from before."""
        self.kernel.set(modules=(*self.kernel.spec.modules, *names) if names else ())

    def boot(self, script: str = "") -> None:
        """Let the guest run a script of sh(1) as root before it serves its tree."""
        self.kernel.set(boot=script)

    def wait(self, seconds: int) -> None:
        """Let requests wait so long for its tree while that is down (`mount -w`)."""
        if not 0 <= seconds <= LONGEST_WAIT:
            raise NineError(errno.EINVAL, f"requests wait for 0 to {LONGEST_WAIT} seconds: {seconds}")
        self.kernel.set(wait=seconds)

    def grant(self, path: str, ops: str) -> None:
        """Let the kernel use what is at a path of the namespace, and everything below: `ro`, `rw`, or letters of OPS."""
        grants = granted(self.kernel.spec.grants, path, ops)
        self.kernel.grant(grants, "granted", *grants[-1])

    def ungrant(self, path: str) -> None:
        path = _place(path)
        left = tuple(other for other in self.kernel.spec.grants if other[0] != path)
        if left == self.kernel.spec.grants:
            raise NineError(errno.ENOENT, f"{path} is not granted")
        self.kernel.grant(left, "ungranted", path)

    def dial(self, addr: str) -> None:
        """Say where the tree of a kernel is that is there already."""
        try:
            parse(addr)
        except ValueError as error:
            raise NineError(errno.EINVAL, f"{addr}: {error}") from None
        self.kernel.set(dial=addr)

    def qmp(self, socket: str) -> None:
        """Say where the monitor of its QEMU is."""
        if not socket.startswith("/") or "\0" in socket:
            raise NineError(errno.EINVAL, f"{socket}: want the absolute path of a socket")
        self.kernel.set(qmp=socket)

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
        lines = settings({"backend": kernel.backend, "cpus": spec.cpus, "memory": spec.memory})
        lines += join(["restart", *kernel.restart.words]) + "\n"
        lines += join(["dial", spec.dial]) + "\n" if spec.dial else ""
        lines += join(["qmp", spec.qmp]) + "\n" if spec.qmp else ""
        if kernel.watch.seconds:
            lines += join(["watch", *kernel.watch.words]) + "\n"
        for word, args in (
            ("serve", spec.serve or ()),
            ("device", spec.devices),
            ("show", spec.shown),
            ("modules", spec.modules),
        ):
            lines += join([word, *args]) + "\n" if args else ""
        lines += join(["boot", spec.boot]) + "\n" if spec.boot else ""
        lines += f"wait {spec.wait}\n" if spec.wait else ""
        lines += "hostroot on\n" * spec.whole + "trust on\n" * spec.trusted
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
            "extra_cpus": kernel.extra_cpus,
            "extra_memory": kernel.extra_memory,
            "devices": " ".join(kernel.devices),
            "kernel": spec.kernel,
            "grants": join([word for grant in spec.grants for word in grant]),
            "trust": "on" if spec.trusted else "off",
            "wait": spec.wait,
            "pid": running.pid if running else 0,
            "dial": running.dial if running else "",
            "listen": running.listen if running else "",
            "guest_dial": running.guest_dial if running else "",
            "started": kernel.started,
            "ends": kernel.ends,
            "reason": " ".join(split_words(kernel.reason)),
        }
        return fields(values)


def granted(grants: tuple[Grant, ...], path: str, ops: str) -> tuple[Grant, ...]:
    """Return grants with another one, which is the last; raises EINVAL for one that is none, and for one that lies in another and differs from it."""
    path, mode = _place(path), granted_as(ops)
    others = tuple(other for other in grants if other[0] != path)
    for at, how in others:
        if how != mode and (_within(path, at) or _within(at, path)):
            inner, outer = (path, at) if _within(path, at) else (at, path)
            raise NineError(errno.EINVAL, f"{inner} lies in {outer}: grant both {mode}, or only one")
    return (*others, (path, mode))


def _place(path: str) -> str:
    """Return a path of the namespace without needless dots and slashes; raises EINVAL for a text that is no path."""
    if not path.startswith("/") or "\n" in path or "\0" in path:
        raise NineError(errno.EINVAL, f"a grant is for a path of the namespace, such as /k/k2: {path!r}")
    return "/" + posixpath.normpath(path).lstrip("/")


def _within(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")
