"""What belongs to no kernel at the moment: CPUs by number, bytes of memory, devices by name. It is book-keeping, and pure.

A CPU keeps its number when it comes from a kernel, if that is free in the pool; else it gets the lowest free one. Words change the pool, and other
words undo that:

    pool cpu put|take N        pool mem put|take BYTES        pool dev put|take NAME KIND ARGS…
"""

from __future__ import annotations

import errno
import itertools
from typing import TYPE_CHECKING

import attrs

from mk9p.errors import NineError

from .device import Device

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .tx import Step, Words


@attrs.define
class Pool:
    """The pool."""

    cpus: set[int] = attrs.Factory(set)
    memory: int = 0
    devices: dict[str, Device] = attrs.Factory(dict)

    def change(self, words: Words) -> None:
        """Do words. Raises NineError, with nothing done, where the pool has no such thing, or has it already."""
        _, kind, do, *args = words
        put = do == "put"
        if kind == "cpu":
            self._cpu(put, int(args[0]))
        elif kind == "mem":
            left = self.memory + (int(args[0]) if put else -int(args[0]))
            if left < 0:
                raise NineError(errno.ENOMEM, f"the pool has {self.memory} bytes, and not {args[0]}")
            self.memory = left
        else:
            self._device(put, Device.parse(args))

    def _cpu(self, put: bool, number: int) -> None:
        if put and number in self.cpus:
            raise NineError(errno.EEXIST, f"CPU {number} is in the pool")
        if not put and number not in self.cpus:
            raise NineError(errno.ENODEV, f"CPU {number} is not in the pool")
        self.cpus ^= {number}

    def _device(self, put: bool, device: Device) -> None:
        if put and device.name in self.devices:
            raise NineError(errno.EEXIST, f"{device.name} is in the pool")
        if put:
            self.devices[device.name] = device
        else:
            self.device(device.name)
            del self.devices[device.name]

    def device(self, name: str) -> Device:
        """Return a device of the pool; raises ENODEV."""
        found = self.devices.get(name)
        if found is None:
            raise NineError(errno.ENODEV, f"{name} is not in the pool")
        return found

    def number(self, wanted: int, taken: set[int]) -> int:
        """Return the number that a CPU gets in the pool, beside those that others are about to get."""
        there = self.cpus | taken
        return wanted if wanted not in there else next(n for n in itertools.count() if n not in there)

    def words(self) -> Iterator[Words]:
        """Return the words that make this pool out of an empty one."""
        for number in sorted(self.cpus):
            yield ("pool", "cpu", "put", str(number))
        if self.memory:
            yield ("pool", "mem", "put", str(self.memory))
        for device in self.devices.values():
            yield ("pool", "dev", "put", *device.words)


def step(made: type[Step], do: str, kind: str, *args: object) -> Step:
    """Return the step of one of these words."""
    words = [str(word) for word in args]
    return made(("pool", kind, do, *words), ("pool", kind, "take" if do == "put" else "put", *words))
