"""`Far`: the directory `k` of a federation of composers, with the kernels of all machines.

HOST.NAME   kernel NAME of machine HOST, also of this one
NAME        what is mounted here at /k/NAME; else the kernel of that name, if only one machine has one

Theory
* What there is, each machine's composer says in the store (federation.py). Here it is a table of names and addresses, and nothing more: a kernel of
  another machine becomes a server when somebody first walks to it. It is then dialled where it serves, and no composer is in between.
* A name that several machines have is nobody's: ENOENT, which says who has it.
* A kernel is one resource by whichever of its two names. A listing has it once, by the shorter one: else what is said to k/* would be said twice.
"""

import errno
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import attrs

from mk9p.auth import ROOT, Principal
from mk9p.compose.far_records import Said
from mk9p.compose.far_server import FarServer
from mk9p.compose.resolve import Resolver
from mk9p.compose.union import Composed
from mk9p.compose.untrusted import Untrusted
from mk9p.errors import NineError
from mk9p.tree import Dir, Maybe, Node, join
from mk9p.wire import QTDIR

K: Final = "/k"
MOST: Final = 1 << 17  # kernels, and machines: a thousand machines with a hundred kernels each


@attrs.define(eq=False)
class Machine:
    """A machine: whether its composer is there, and whether nobody answers there; since when, ns since 1970."""

    name: str
    there: bool = False
    out: bool = False
    doubted: bool = False
    """Whether one of its kernels could not be reached just now."""
    since: int = attrs.field(factory=time.time_ns)
    kernels: "dict[str, Kernel]" = attrs.field(factory=dict)


@attrs.define(eq=False)
class Kernel:
    """A kernel of a machine, as its composer says, and the way to it once somebody has walked there."""

    machine: Machine
    name: str
    said: Said
    server: FarServer | None = None
    tree: Node | None = None
    since: int = attrs.field(factory=time.time_ns)
    reason: str | None = None
    """Why the server was lost; None if it was not used, or is up."""

    @property
    def full(self) -> str:
        return f"{self.machine.name}.{self.name}"

    def state(self) -> tuple[str, int, str]:
        """Return `up`, `down` or `idle`, since when, and why not."""
        if self.server is not None and self.server.seen:
            return "up", self.since, ""
        if self.machine.out or not self.machine.there:
            return (
                "down",
                self.machine.since,
                self.server.out if self.server and self.server.out else gone(self.machine),
            )
        if not self.said.up:
            return "down", self.since, f"{self.machine.name} says so"
        if self.reason is not None:
            return "down", self.since, self.reason
        return "idle", self.since, ""


def gone(machine: Machine) -> str:
    """Return in words what is wrong with a machine."""
    return f"{machine.name} does not answer" if machine.out else f"the composer of {machine.name} is gone"


class Far(Dir):
    """The directory. `this` is the name of this machine, `make` makes the server of a kernel elsewhere, `here` finds what is mounted at /k/NAME."""

    resolver: Resolver

    def __init__(
        self,
        this: str,
        make: Callable[[Kernel], FarServer],
        here: Callable[[str], Node | None],
        told: Callable[[str, str], None],
    ) -> None:
        super().__init__()
        self.this, self.make, self.here, self.told = this, make, here, told
        self.machines: dict[str, Machine] = {}
        self.full: dict[str, Kernel] = {}
        self.short: dict[str, list[Kernel]] = {}

    # what the composers say

    def machine(self, name: str) -> Machine:
        """Return a machine, old or new. Raises ENOSPC for too many."""
        if name not in self.machines and len(self.machines) >= MOST:
            raise NineError(errno.ENOSPC, f"all {MOST} places for other machines are in use")
        return self.machines.setdefault(name, Machine(name))

    def there(self, name: str, there: bool) -> None:
        """Hear that the composer of a machine is there, or gone."""
        machine = self.machine(name)
        if machine.there != there:
            machine.there, machine.since = there, time.time_ns()
            self.told(name, "here" if there else "gone")

    def hear(self, host: str, name: str, said: Said | None) -> None:
        """Hear what a composer says of a kernel; None: it has none of that name any more."""
        machine = self.machine(host)
        old = machine.kernels.get(name)
        if old is None and said is not None and len(self.full) >= MOST:
            raise NineError(errno.ENOSPC, f"all {MOST} places for kernels of other machines are in use")
        if said is None:
            if old is not None:
                del machine.kernels[name], self.full[old.full]
                self.short[name].remove(old)
                if not self.short[name]:
                    del self.short[name]
                if old.server is not None:
                    old.server.close()
            return
        if old is None:
            kernel = machine.kernels[name] = Kernel(machine, name, said)
            self.full[kernel.full] = kernel
            self.short.setdefault(name, []).append(kernel)
            return
        if old.server is not None and old.said.way != said.way:
            old.server.close()  # it serves elsewhere now: who walks there again finds it
            old.server = old.tree = old.reason = None
        old.said = said

    def out(self, machine: Machine, out: bool) -> None:
        """Note that nobody answers on a machine, or that somebody does again."""
        if machine.out != out:
            machine.out, machine.since = out, time.time_ns()
            for kernel in machine.kernels.values():
                if kernel.server is not None:
                    if out:
                        kernel.server.leave(gone(machine))
                    else:
                        kernel.server.back()
            self.told(machine.name, "silent" if out else "answers")

    # names

    def find(self, name: str) -> Kernel | None:
        """Return the kernel of a name, full or short; None if there is none. Raises ENOENT for a name of several machines."""
        found = self.full.get(name)
        if found is not None:
            return found
        those = self.short.get(name, [])
        if len(those) > 1:
            names = sorted(kernel.full for kernel in those)
            raise NineError(errno.ENOENT, f"{name} is of several machines: {' '.join(names)}")
        return those[0] if those else None

    def known(self, name: str) -> bool:
        """Tell whether some kernel has a name."""
        return name in self.full or name in self.short

    def shortest(self, kernel: Kernel) -> str:
        """Return the name that a kernel has where each is there once."""
        mine = self.here(kernel.name)
        if mine is not None:
            return kernel.name if kernel.machine.name == self.this else kernel.full
        return kernel.name if len(self.short[kernel.name]) == 1 and kernel.name not in self.full else kernel.full

    def twin(self, name: str) -> str | None:
        """Return the other name of a kernel, if it has one."""
        kernel = self.full.get(name)
        if kernel is None:
            those = self.short.get(name, [])
            kernel = next((one for one in those if self.shortest(one) == name), None)
        both = () if kernel is None else (kernel.full, self.shortest(kernel))
        return next((other for other in both if other != name), None)

    def tree_of(self, kernel: Kernel) -> Node:
        """Return the root of a kernel's tree. Raises ENOENT for one of this machine that is not mounted any more."""
        if kernel.machine.name == self.this:
            mine = self.here(kernel.name)
            if mine is None:
                raise NineError(errno.ENOENT)
            return mine
        if kernel.server is None or kernel.tree is None:
            kernel.server = self.make(kernel)
            if kernel.machine.out:
                kernel.server.leave(gone(kernel.machine))
            root = kernel.server.tree(ROOT)
            kernel.tree = Untrusted(root, kernel.server.wait) if kernel.said.untrusted else root
        return kernel.tree

    # the directory

    def walk(self, name: str, who: Principal) -> Maybe[Node]:
        kernel = self.find(name)
        if kernel is None:
            raise NineError(errno.ENOENT)
        return self.tree_of(kernel)

    def entries(self, who: Principal) -> Iterable[tuple[str, Node]]:
        others = (kernel for kernel in self.full.values() if kernel.machine.name != self.this)
        names = [self.shortest(kernel) for kernel in others]
        return [(name, Composed(self.resolver, f"{K}/{name}", who, qtype=QTDIR)) for name in names]

    def mounts(self) -> Iterator[str]:
        """Yield a line for each kernel of another machine, as `mounts` has it."""
        for name, kernel in sorted(self.full.items()):
            if kernel.machine.name != self.this:
                state, since, reason = kernel.state()
                yield join([f"{K}/{name}", kernel.said.dial, state, since, *([reason] if reason else [])]) + "\n"
