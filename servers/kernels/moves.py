"""Moves of CPUs, memory and devices between kernels and the pool, each a transaction: the plans, and what their words mean.

WHAT is a list of CPUs by the numbers that they have where they are (`1`, `2-3,5`), a number of bytes (`268435456`, `256M`), or the name of a device.
FROM and TO are kernels, or `pool`.
"""

from __future__ import annotations

import errno
import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs

from mk9p.affinity import numbers
from mk9p.errors import NineError

from .device import Device
from .hardware import GRANULE
from .pool import step
from .tx import OPEN, Step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .backend import Ground
    from .holding import Kernel
    from .tx import Transactions
    from .world import World

POOL: Final = "pool"
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size(word: str) -> int:
    """Return a number of bytes. Raises ValueError for another word, and for a number of bytes that cannot move (GRANULE)."""
    found = re.fullmatch(r"([0-9]{1,15})([KMG]?)", word)
    if found is None:
        raise ValueError("want bytes, as 268435456 or 256M")
    count = int(found[1]) * _UNITS[found[2]]
    if not count or count % GRANULE:
        raise NineError(errno.EINVAL, f"memory moves in pieces of {GRANULE} bytes: {word}")
    return count


def cpus(word: str) -> list[int]:
    """Return the CPUs of a list. Raises ValueError for another word."""
    wrong = ValueError("want CPUs, as 1 or 2-3,5")
    if not re.fullmatch(r"[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?){0,99}", word):
        raise wrong
    try:
        return sorted(set(numbers(word)))
    except ValueError:
        raise wrong from None


def parsed(kind: str, what: str) -> Any:
    """Return what is to move: numbers of CPUs, bytes, or a name. Raises EINVAL if it is no such thing."""
    try:
        return cpus(what) if kind == "cpu" else size(what) if kind == "mem" else what
    except NineError:
        raise
    except ValueError as error:
        raise NineError(errno.EINVAL, f"{what}: {error}") from None


@attrs.frozen
class Moves:
    """What moves, and the transactions that move it."""

    world: World
    txs: Transactions

    @property
    def nothing_to_remember(self) -> bool:
        """Say whether a later start needs to know nothing: nothing is left to undo. The pool goes with the kernels that had the rest of it."""
        return not any(tx.state in OPEN for tx in self.txs.txs.values())

    async def move(self, kind: str, what: str, source: str, target: str) -> None:
        """Move something, or raise with everything as it was. If cancelled, it goes on."""
        if source == target:
            raise NineError(errno.EINVAL, f"from {source} to {target} nothing moves")
        for name in (source, target):
            if name != POOL:
                self.world.kernel(name)
        title = f"move {kind} {what} {source} {target}"
        ground = self._ground(source, target)
        if ground is not None:
            given = parsed(kind, what)
            await self.txs.run(title, lambda: ground.plan(kind, given, source, target))
            return
        if target != POOL:
            self._must_grow(target)
        plan = self.plan(kind, what)
        await self.txs.run(title, lambda: plan(source, target))

    def _ground(self, *ends: str) -> Ground | None:
        """Return what a move is in, if it is of parts of the machine itself; None if of emulated ones. Raises EXDEV from one to the other."""
        kernels = [self.world.kernel(name) for name in ends if name != POOL]
        grounds = [kernel.ground for kernel in kernels]
        for kernel, ground in zip(kernels, grounds, strict=True):
            if ground != grounds[0]:
                words = " and ".join(f"{one.name} is {one.backend}" for one in kernels)
                raise NineError(errno.EXDEV, f"{words}: what is real in the one is emulated in the other")
            if ground is not None and not kernel.held:
                raise NineError(errno.EINVAL, f"kernel {kernel.name} has nothing of the machine yet: load KERNEL")
        return grounds[0]

    def _must_grow(self, target: str) -> None:
        """See that a kernel that does not run can be given something for its next start. One that runs is asked itself."""
        kernel = self.world.kernel(target)
        if kernel.running is None and not kernel.backends[kernel.backend].grows:
            raise NineError(
                errno.EOPNOTSUPP, f"{target}: a {kernel.backend} kernel has what it begins with, and gets no more"
            )

    def plan(self, kind: str, what: str) -> Callable[[str, str], Awaitable[list[Step]]]:
        """Return what plans the move of something; raises EINVAL if it is no such thing."""
        given = parsed(kind, what)
        if kind == "cpu":
            return partial(self._cpus, given)
        return partial(self._memory if kind == "mem" else self._device, given)

    async def _cpus(self, wanted: list[int], source: str, target: str) -> list[Step]:
        pool = self.world.pool
        steps: list[Step] = []
        free = [] if target == POOL else await self._places(target, len(wanted))
        taken: set[int] = set()
        for number in wanted:
            name = str(number)
            if source == POOL:
                if number not in pool.cpus:
                    raise NineError(errno.ENODEV, f"CPU {number} is not in the pool")
                steps.append(step(Step, "take", "cpu", number))
            else:
                await self._movable(source, name)
                steps.append(Step(("cpu", "off", source, name), ("cpu", "on", source, name)))
            if target == POOL:
                there = pool.number(number, taken)
                taken.add(there)
                steps.append(step(Step, "put", "cpu", there))
            else:
                place = name if name in free else free[0]
                free.remove(place)
                steps.append(Step(("cpu", "on", target, place), ("cpu", "off", target, place)))
        return steps

    async def _places(self, target: str, count: int) -> list[str]:
        """Return the numbers that new CPUs can have in a kernel, the lowest first."""
        kernel = self.world.kernel(target)
        states = await self.world.cpus(kernel)
        if kernel.running is None:
            return [str(kernel.spec.cpus + n) for n in range(count)]
        free = sorted((number for number, state in states.items() if state == "offline"), key=int)
        online = len(states) - len(free)
        free = free[: max(0, kernel.running.machine.most - online)]
        if len(free) < count:
            raise NineError(errno.ENOSPC, f"{target} has places for {online + len(free)} CPUs, and {online} are online")
        return free

    async def _movable(self, source: str, number: str) -> None:
        state = (await self.world.cpus(self.world.kernel(source))).get(number)
        if state is None:
            raise NineError(errno.ENODEV, f"{source} has no CPU {number}")
        if state == "offline":
            raise NineError(errno.ENODEV, f"CPU {number} of {source} is offline: it has none to give there")
        if state == "isolated":
            raise NineError(errno.EBUSY, f"CPU {number} of {source} is isolated: join it first")

    async def _memory(self, count: int, source: str, target: str) -> list[Step]:
        steps: list[Step] = []
        if source == POOL:
            steps.append(step(Step, "take", "mem", count))
        else:
            kernel = self.world.kernel(source)
            there = await self.world.memory(kernel)
            if there < count:
                raise NineError(errno.ENOMEM, f"{source} has {there} bytes that can move, and not {count}")
            await self.world.spare(kernel, count)
            steps.append(Step(("mem", "del", source, str(count)), ("mem", "add", source, str(count))))
        if target == POOL:
            steps.append(step(Step, "put", "mem", count))
        else:
            steps.append(Step(("mem", "add", target, str(count)), ("mem", "del", target, str(count))))
        return steps

    async def _device(self, name: str, source: str, target: str) -> list[Step]:
        if source == POOL:
            device = self.world.pool.device(name)
            steps = [step(Step, "take", "dev", *device.words)]
        else:
            found = self.world.kernel(source).devices.get(name)
            if found is None:
                raise NineError(errno.ENODEV, f"{source} has no device {name}")
            device = found
            steps = [Step(("dev", "out", source, *device.words), ("dev", "in", source, *device.words))]
        if target == POOL:
            steps.append(step(Step, "put", "dev", *device.words))
        else:
            steps.append(Step(("dev", "in", target, *device.words), ("dev", "out", target, *device.words)))
        return steps

    async def pool_word(self, kind: str, do: str, words: list[str]) -> None:
        """Add something to the pool, or take it out of this world."""

        async def plan() -> list[Step]:
            put = "put" if do == "add" else "take"
            if kind == "cpu":
                return [step(Step, put, "cpu", number) for number in cpus(words[0])]
            if kind == "mem":
                return [step(Step, put, "mem", size(words[0]))]
            if do == "del":
                return [step(Step, "take", "dev", *self.world.pool.device(words[0]).words)]
            return [step(Step, "put", "dev", *Device.parse(words).words)]

        await self.txs.run(" ".join(["pool", kind, do, *words]), plan)

    async def give_back(self, name: str) -> None:
        """Put into the pool what a kernel that does not run has got from it, or from others."""
        kernel = self.world.kernel(name)

        async def plan() -> list[Step]:
            steps: list[Step] = []
            taken: set[int] = set()
            for n in range(kernel.extra_cpus):
                last = str(kernel.spec.cpus - 1 - n)
                number = self.world.pool.number(int(last), taken)
                taken.add(number)
                steps += [Step(("cpu", "off", name, last), ("cpu", "on", name, last)), step(Step, "put", "cpu", number)]
            if kernel.extra_memory:
                steps += await self._memory(kernel.extra_memory, name, POOL)
            for device in kernel.devices:
                steps += await self._device(device, name, POOL)
            return steps

        await self.txs.run(f"give back {name}", plan)

    async def take_back(self, kernel: Kernel, name: str) -> None:
        """Put a device into the pool that a kernel has let go by itself; one that it has again by now stays."""

        async def plan() -> list[Step]:
            device = kernel.devices.get(name)
            if device is None or kernel.running is None or name in await kernel.running.machine.plugged():
                return []
            await kernel.running.machine.forget(device)
            del kernel.devices[name]
            return [step(Step, "put", "dev", *device.words)]

        await self.txs.run(f"take back {name} {kernel.name}", plan)

    async def settle(self, kernel: Kernel) -> None:
        """Give a kernel that serves again what it had, and undo what was interrupted, where every kernel that it concerns serves. Raises the error of
        what cannot be given."""
        await self.txs.alone(f"settle {kernel.name}", lambda: self.world.equip(kernel))
        await self.txs.resume(self.world.serves)
