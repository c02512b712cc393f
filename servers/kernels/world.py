"""What moves when CPUs, memory and devices move: the words of a transaction's steps, and what they do (tx.World).

    pool …                    the pool's own (pool.py)
    cpu on|off NAME N         a kernel's CPU N, through its own cpu/ctl
    mem add|del NAME BYTES    memory that is plugged into its machine
    dev in|out NAME D KIND …  a device that is plugged into its machine
    mk …                      the machine's own (backend.Ground)

The kernel is asked first, and its refusal ends the step. A kernel that does not run has the same words for its settings, and a kernel that starts
again gets what it had (`equip`).
"""

from __future__ import annotations

import errno
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Final

import attrs
import trio

from mk9p.errors import NineError
from mk9p.tree import join, split

from .device import Device
from .inside import cpu_states

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .backend import Ground, Machine
    from .holding import Kernel
    from .inside import Reach
    from .pool import Pool
    from .tx import Words

REAL: Final = "mk"
COME_SECONDS: Final = 30.0  # until a kernel sees a device that was plugged in; 2.9 s were seen on a busy machine
STEP: Final = 0.05  # s between two looks
RESERVE: Final = 64 << 20  # bytes that a kernel keeps available, or
RESERVE_PART: Final = 16  # this part of what it has: below, it panics (`System is deadlocked on memory`)


@attrs.define(eq=False)
class World:
    """Kernels and the pool. `kernel` gives the one of a name, or raises ENOENT."""

    kernel: Callable[[str], Kernel]
    pool: Pool
    reach: Reach
    ground: Ground | None = None
    token: str = attrs.Factory(lambda: token_hex(8))  # of this process
    disks: dict[tuple[str, str], str] = attrs.Factory(dict)  # by kernel and device: the kernel's name for the disk

    def own(self, words: Words) -> bool:
        return words[0] == "pool"

    def replay(self, words: Words) -> None:
        self.pool.change(words)

    def kept(self) -> Iterator[Words]:
        return self.pool.words()

    async def note(self, words: Words) -> str:
        """Return how the thing is: this process, the life of the kernel, whether the CPU is online, how much memory is plugged in, whether the device
        is; and what the kernel's settings say of it."""
        if self.real(words):
            return await self._real().note(words)
        what, _, name, *args = words
        kernel = self.kernel(name)
        if what == "cpu":
            now, setting = int(args[0] in await self.online(kernel)), kernel.spec.cpus
        elif what == "mem":
            now, setting = await self.memory(kernel), kernel.extra_memory
        else:
            now = setting = int(args[0] in kernel.devices)
        return join([self.token, kernel.started if kernel.running else 0, _life(kernel), now, setting])

    def real(self, words: Words) -> bool:
        """Say whether words change the machine itself (backend.Ground)."""
        return words[0] == REAL

    def _real(self) -> Ground:
        if self.ground is None:
            raise NineError(errno.ENODEV, "this machine has nothing that could move")
        return self.ground

    async def _look(self, words: Words) -> None:
        """Note what a kernel has whose parts words have changed."""
        try:
            await self.kernel(words[3]).see()
        except FileNotFoundError:  # it is the pool, or gone
            return

    async def perform(self, words: Words) -> None:
        if self.real(words):
            await self._real().perform(words)
            await self._look(words)
            return
        what, do, name, *args = words
        kernel = self.kernel(name)
        if what == "cpu":
            await self._cpu(kernel, args[0], do == "on")
        elif what == "mem":
            now = await self.memory(kernel)
            await self._memory(kernel, now + (int(args[0]) if do == "add" else -int(args[0])))
        else:
            await self._device(kernel, Device.parse(args), do == "in")

    async def restore(self, words: Words, note: str) -> None:
        """Put a thing back. What has ended with its kernel is put back into its settings, for its next start; and what an earlier server gave to a
        kernel that has ended with it is gone with it."""
        if self.real(words):
            await self._real().restore(words, note)
            await self._look(words)
            return
        what, _, name, *args = words
        token, started, life, now, setting = split(note)
        try:
            kernel = self.kernel(name)
        except FileNotFoundError:
            return
        ours = token == self.token
        if (ours and int(started) == (kernel.started if kernel.running else 0)) or (
            not ours and life and life == _life(kernel)
        ):
            await self._restore(kernel, what, args, int(now))
        elif ours:
            if what == "cpu":
                kernel.more_cpus(int(setting) - kernel.spec.cpus)
            elif what == "mem":
                kernel.extra_memory = int(setting)
            elif int(setting):
                kernel.devices[args[0]] = Device.parse(args)
            else:
                kernel.devices.pop(args[0], None)

    async def _restore(self, kernel: Kernel, what: str, args: list[str], now: int) -> None:
        """Put a thing back in a kernel whose machine is still the one that it was in."""
        if what == "cpu":
            if (args[0] in await self.online(kernel)) != bool(now):
                await self._cpu(kernel, args[0], bool(now))
        elif what == "mem":
            if await self.memory(kernel) != now:
                await self._memory(kernel, now)
        else:
            device = Device.parse(args)
            there = device.name in kernel.devices
            if kernel.running is not None:
                there = device.name in await kernel.running.machine.plugged()
                kernel.devices.pop(device.name, None)
                if there:
                    kernel.devices[device.name] = device
            if there != bool(now):
                await self._device(kernel, device, bool(now))

    def serves(self, words: Words) -> bool:
        """Say whether the kernel that words concern is one that can be asked."""
        if self.real(words):
            return True
        try:
            return self.kernel(words[2]).state == "active"
        except FileNotFoundError:
            return False

    async def cpus(self, kernel: Kernel) -> dict[str, str]:
        """Return the state of each CPU of a kernel, by its number; those that one gets at its start, if it does not run."""
        if kernel.running is None:
            return {str(n): "online" for n in range(kernel.spec.cpus)}
        self._must_ask(kernel)
        found = await self._states(kernel)
        if not found:
            raise NineError(errno.EOPNOTSUPP, f"{kernel.name} does not serve cpu/, so its CPUs cannot move")
        return found

    async def _states(self, kernel: Kernel) -> dict[str, str]:
        return cpu_states(await self.reach.lines(kernel.name, "cpu/status"))

    async def online(self, kernel: Kernel) -> set[str]:
        """Return the numbers of a kernel's CPUs that are in use."""
        return {number for number, state in (await self.cpus(kernel)).items() if state != "offline"}

    async def memory(self, kernel: Kernel) -> int:
        """Return how many bytes a kernel has beside those of its setting."""
        return kernel.extra_memory if kernel.running is None else await kernel.running.machine.memory()

    async def _cpu(self, kernel: Kernel, number: str, on: bool) -> None:
        if kernel.running is None:
            kernel.more_cpus(1 if on else -1)
            return
        before = len(await self.online(kernel))
        await self.reach.write(kernel.name, "cpu/ctl", f"{'online' if on else 'offline'} {number}\n")
        online = await self.online(kernel)
        kernel.more_cpus(len(online) - before)  # what it says, and not what it was told
        if (number in online) != on:
            raise NineError(errno.EIO, f"{kernel.name}: CPU {number} is {'offline' if on else 'online'} all the same")

    def _must_ask(self, kernel: Kernel) -> None:
        """See that a kernel that runs can be asked at all. Raises EOPNOTSUPP for one that was attached without its tree."""
        if kernel.running is not None and not kernel.running.dial:
            raise NineError(errno.EOPNOTSUPP, f"{kernel.name} was attached without its tree, and cannot be asked")

    async def _memory(self, kernel: Kernel, wanted: int) -> None:
        if kernel.running is not None:
            self._must_ask(kernel)
            if wanted > kernel.extra_memory:
                await self._make_room(kernel)
            else:
                await self.spare(kernel, kernel.extra_memory - wanted)
            await self._told(kernel, kernel.running.machine.set_memory(wanted))
        kernel.extra_memory = wanted

    async def _make_room(self, kernel: Kernel) -> None:
        """Have the kernel take new memory at once, and only for what can be moved out of it again."""
        try:
            await self.reach.write(kernel.name, "mem/ctl", "auto_online online_movable\n")
        except FileNotFoundError:
            raise NineError(errno.EOPNOTSUPP, f"{kernel.name} does not serve mem/, so memory cannot move") from None

    async def spare(self, kernel: Kernel, size: int) -> None:
        """See that a kernel can spare so many bytes. Raises EBUSY: taking them all the same would make it panic."""
        if kernel.running is None:
            return
        found = {line[0]: line[1] for line in await self.reach.lines(kernel.name, "mem/status") if len(line) > 1}
        try:
            total, available = int(found["MemTotal"]), int(found["MemAvailable"])
        except (KeyError, ValueError):
            raise NineError(errno.EOPNOTSUPP, f"{kernel.name} does not serve mem/, so memory cannot move") from None
        reserve = max(RESERVE, total // RESERVE_PART)
        if available - size < reserve:
            words = f"{available} bytes are available to it, and it keeps {reserve}"
            raise NineError(errno.EBUSY, f"{kernel.name} cannot spare {size} bytes: {words}")

    async def _device(self, kernel: Kernel, device: Device, plug: bool) -> None:
        if kernel.running is not None and plug:
            await self._plug(kernel, kernel.running.machine, device)
        elif kernel.running is not None:
            await self._unused(kernel, device)
            await self._told(kernel, kernel.running.machine.unplug(device))
            self.disks.pop((kernel.name, device.name), None)
        if plug:
            kernel.devices[device.name] = device
        else:
            kernel.devices.pop(device.name, None)

    async def _plug(self, kernel: Kernel, machine: Machine, device: Device) -> None:
        if kernel.running is not None and not kernel.running.dial:
            await self._told(kernel, machine.plug(device))
            return
        before = {line[0] for line in await self.reach.lines(kernel.name, "dev/block/status")}
        await self._told(kernel, machine.plug(device))
        try:
            await self._see(kernel, device, before)
        except OSError:
            await machine.unplug(device)
            raise

    async def _see(self, kernel: Kernel, device: Device, before: set[str]) -> None:
        """Wait until the kernel itself shows a device, where it serves what would show it."""
        if not device.file or "block" not in await self.reach.names(kernel.name, "dev"):
            return
        with trio.move_on_after(COME_SECONDS):
            while True:
                new = [
                    line[0] for line in await self.reach.lines(kernel.name, "dev/block/status") if line[0] not in before
                ]
                if new:
                    self.disks[kernel.name, device.name] = new[0]
                    return
                await trio.sleep(STEP)
        raise NineError(
            errno.ENODEV, f"{kernel.name} does not see {device.name} in {COME_SECONDS:.0f} s: has it the driver?"
        )

    async def _unused(self, kernel: Kernel, device: Device) -> None:
        """See that nothing in the kernel uses a disk. Raises EBUSY: Linux lets a disk go whose file system is mounted, and that is lost."""
        disk = self.disks.get((kernel.name, device.name))
        if disk is None or not device.file:
            return
        for line in await self.reach.lines(kernel.name, "proc/1/ns"):
            if line[0] == "mount" and len(line) > 2 and line[1].startswith(f"/dev/{disk}"):
                raise NineError(errno.EBUSY, f"{kernel.name}: {line[1]} is mounted at {line[2]}")
        if disk in await self.reach.names(kernel.name, "dev/block"):
            await self.reach.write(kernel.name, f"dev/block/{disk}/ctl", "flush\nrescan\n")

    async def equip(self, kernel: Kernel) -> None:
        """Give a kernel that has started again what it had. Raises the first error, when all has been tried."""
        if kernel.running is None or kernel.held:
            return
        machine, failed = kernel.running.machine, []
        if kernel.extra_cpus > 0 and kernel.running.dial and (states := await self._states(kernel)):
            off = sorted((n for n, state in states.items() if state == "offline"), key=int)
            lack = kernel.spec.cpus - (len(states) - len(off))
            for number in off[: max(0, lack)]:
                await self.reach.write(kernel.name, "cpu/ctl", f"online {number}\n")
        if kernel.extra_memory and await machine.memory() != kernel.extra_memory:
            wanted, kernel.extra_memory = kernel.extra_memory, 0
            try:
                await self._memory(kernel, wanted)
            except OSError as error:
                kernel.extra_memory = wanted
                failed.append(error)
        there = await machine.plugged()
        for device in [d for name, d in kernel.devices.items() if name not in there]:
            try:
                await self._plug(kernel, machine, device)
            except OSError as error:
                failed.append(error)
        if failed:
            raise failed[0]

    async def _told(self, kernel: Kernel, doing: object) -> None:
        """Wait for something, and put the kernel's name before its error."""
        try:
            await doing  # type: ignore[misc]
        except NineError as error:
            raise NineError(error.errno, f"{kernel.name}: {error.ename}") from None


def _life(kernel: Kernel) -> str:
    """Return what is the same only as long as a machine lives: its process and when that started (proc(5)); "" if there is none."""
    pid = kernel.running.pid if kernel.running else 0
    try:
        return f"{pid}.{Path(f'/proc/{pid}/stat').read_text().rpartition(') ')[2].split(' ')[19]}" if pid else ""
    except (OSError, IndexError):
        return ""
