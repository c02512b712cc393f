"""Made-up kernels between which CPUs, memory and devices move: each has a tree that says what it has, and a machine that gives and takes."""

from __future__ import annotations

import errno
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from mk9p.affinity import numbers
from mk9p.errors import NineError
from mk9p.servers.kernels import bare
from mk9p.tree import Ctl, Dir, Lazy, Text
from tests.kernels.made_up import lab

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mk9p.servers.kernels import backend
    from mk9p.servers.kernels.device import Device
    from tests.kernels.made_up import Lab, Made

PLACES = 4  # CPUs that each may have


@attrs.define(eq=False)
class Inner(bare.Bare):
    """The inside of one kernel and its machine. `refuse` is what it says to the next thing that it is asked to do; `late` refuses only when half is
    done."""

    what: str = "a made-up kernel"
    most: int = PLACES
    online: set[int] = attrs.Factory(lambda: {0, 1})
    isolated: set[int] = attrs.Factory(set)
    size: int = 0
    used: int = 300 << 20
    devices: dict[str, Device] = attrs.Factory(dict)
    mounted: set[str] = attrs.Factory(set)
    auto: str = "offline"
    refuse: str = ""
    late: bool = False
    asked: list[str] = attrs.Factory(list)

    def tree(self) -> Dir:
        """Return what it serves."""
        return Dir(
            {
                "cpu": Dir(
                    {
                        "ctl": Ctl(
                            {"online": self.up, "offline": self.down, "isolate": self.isolate, "join": self.join}
                        ),
                        "status": Text(self.cpus),
                    }
                ),
                "mem": Dir({"ctl": Ctl({"auto_online": self.set_auto}), "status": Text(self.mem)}),
                "dev": Dir({"block": Dir({"status": Text(self.disks)}, Lazy(lambda: list(self.devices), self.disk))}),
                "proc": Dir({"1": Dir({"ns": Text(self.mounts)})}),
            }
        )

    def cpus(self) -> str:
        def state(n: int) -> str:
            return "isolated" if n in self.isolated else "online" if n in self.online else "offline"

        return "".join(f"{n} {state(n)} 0 - - - -\n" for n in range(PLACES))

    def up(self, n: str) -> None:
        self.asks(f"online {n}")
        self.online |= set(numbers(n))

    def down(self, n: str) -> None:
        self.asks(f"offline {n}")
        if self.online <= set(numbers(n)):
            raise NineError(errno.EBUSY, "no CPU would be left")
        self.online -= set(numbers(n))

    def isolate(self, n: str) -> None:
        self.isolated |= set(numbers(n)) & self.online

    def join(self, n: str) -> None:
        self.isolated -= set(numbers(n))

    def asks(self, what: str) -> None:
        self.asked.append(what)
        words, self.refuse = self.refuse, ""
        if words:
            raise NineError(errno.EBUSY, words)

    def set_auto(self, how: str) -> None:
        self.auto = how

    def mem(self) -> str:
        return f"MemTotal {self.total()}\nMemAvailable {self.total() - self.used}\nblock_size 134217728\n"

    def total(self) -> int:
        return (512 << 20) + self.size

    async def memory(self) -> int:
        return self.size

    async def set_memory(self, wanted: int) -> None:
        before = self.size
        assert self.auto == "online_movable" or wanted < before
        if self.late and self.refuse:
            self.size = (before + wanted) // 2
        self.asks(f"memory {wanted}")
        self.size = wanted
        assert self.total() > self.used, "it has panicked"

    def disks(self) -> str:
        return "".join(f"{name} 1 512 rw fixed x\n" for name in self.devices)

    def disk(self, name: str) -> Dir:
        return Dir({"ctl": Ctl({"flush": lambda: None, "rescan": lambda: None})})

    def mounts(self) -> str:
        return "mount proc /proc proc rw\n" + "".join(f"mount /dev/{name}1 /mnt ext4 rw\n" for name in self.mounted)

    async def plugged(self) -> frozenset[str]:
        return frozenset(self.devices)

    async def plug(self, device: Device) -> None:
        self.asks(f"plug {device.name}")
        self.devices[device.name] = device

    async def unplug(self, device: Device) -> None:
        if self.late and self.refuse:  # it refuses, and lets go all the same
            del self.devices[device.name]
        self.asks(f"unplug {device.name}")
        del self.devices[device.name]


@attrs.define(eq=False)
class Moving:
    """A lab with such kernels, all of which run."""

    lab: Lab
    inner: dict[str, Inner]

    async def say(self, path: str, words: str) -> None:
        await self.lab.write(path, words)

    async def read(self, path: str) -> str:
        return await self.lab.read(path)

    async def end(self, name: str, reason: str = "killed") -> None:
        """End a kernel from outside."""
        kernel = self.lab.kernel(name)
        assert kernel.running is not None
        kernel.running.end(reason)  # type: ignore[attr-defined]
        await kernel.ended(kernel.ends)

    async def start(self, name: str) -> None:
        """Start a kernel whose machine is new."""
        kernel, inner = self.lab.kernel(name), self.inner[name]
        inner.online, inner.size, inner.devices = set(range(kernel.spec.cpus)), 0, {}
        await self.lab.boot(name)
        self.lab.guest.machine = inner
        inner.lost = kernel._lost  # as a machine has it from the start
        self.lab.backend.trees[name] = inner.tree()
        await trio.testing.wait_all_tasks_blocked()

    def all(self) -> tuple[object, ...]:
        """Return where everything is."""
        world = self.lab.kernels.moves.world.pool
        kernels = [
            (name, sorted(i.online), i.size, sorted(i.devices), self.lab.kernel(name).spec.cpus)
            for name, i in self.inner.items()
        ]
        return (sorted(world.cpus), world.memory, sorted(world.devices), kernels)

    def counts(self) -> tuple[int, int, list[str]]:
        """Return how much there is of everything, wherever it is."""
        pool = self.lab.kernels.moves.world.pool
        inner = self.inner.values()
        devices = [name for i in inner for name in i.devices]
        return (
            len(pool.cpus) + sum(len(i.online) for i in inner),
            pool.memory + sum(i.size for i in inner),
            sorted([*pool.devices, *devices]),
        )


def boots_itself(here: Moving) -> None:
    """Have kernels from now on serve as soon as they start, each on a machine of its own."""

    def born(spec: backend.Spec, guest: Made) -> None:
        inner = here.inner.setdefault(spec.name, Inner())
        inner.online, inner.size, inner.devices, inner.isolated = set(range(spec.cpus)), 0, {}, set()
        guest.machine = inner
        here.lab.backend.trees[spec.name] = inner.tree()
        guest.says.send_nowait(b"mk9p: listening on x\n")

    here.lab.backend.born = born


@asynccontextmanager
async def moving(home: Path, *names: str) -> AsyncIterator[Moving]:
    """Give a lab of these kernels, all with two CPUs; each gets its machine before it serves."""
    async with lab(home) as one:
        here = Moving(one, {name: Inner() for name in names})
        for name in names:
            if name != "k1":
                await one.write("ctl", f"create {name}")
            await one.write(f"{name}/ctl", "cpus 2\nload")
            await here.start(name)
        yield here
