"""What the emulated kernel has. Whatever it does not know is an error.

It follows what kerf 0.4.0 writes and reads, and nothing else: nobody has compared it with that kernel.
"""

from __future__ import annotations

import copy
import errno
from typing import Final, Literal

import attrs

MB: Final = 1 << 20
BASE: Final = 0x1_0000_0000
GRANULE: Final = 2 * MB
HOST_CPUS: Final = tuple(range(8))
HOST_DEVICES: Final = {"0000:09:00.0": 0x8086, "0000:0a:00.0": 0x144D}  # vendors, by address

Status = Literal["ready", "loaded", "active", "failed"]


class Refused(Exception):
    """What that kernel would not do, in its words."""


@attrs.define
class Region:
    """Memory: where it is, how long, on which node."""

    base: int
    size: int
    node: int = 0

    @property
    def end(self) -> int:
        return self.base + self.size


@attrs.define
class Instance:
    """One instance."""

    id: int
    cpus: list[int]
    memory: list[Region]
    devices: list[str] = attrs.Factory(list)
    status: Status = "ready"
    cmdline: str = ""


@attrs.define
class Pool:
    """All that can be changed by an overlay, so that it can be put back."""

    cpus: list[int] = attrs.Factory(list)
    chunks: list[Region] = attrs.Factory(list)
    devices: dict[str, str] = attrs.Factory(dict)  # aliases, by address
    instances: dict[str, Instance] = attrs.Factory(dict)
    next_base: int = BASE

    @property
    def live(self) -> bool:
        return bool(self.cpus or self.chunks or self.devices)

    @property
    def free_cpus(self) -> list[int]:
        lent = {cpu for one in self.instances.values() for cpu in one.cpus}
        return [cpu for cpu in self.cpus if cpu not in lent]

    @property
    def free_devices(self) -> list[str]:
        lent = {device for one in self.instances.values() for device in one.devices}
        return [device for device in self.devices if device not in lent]

    def used(self, chunk: Region) -> list[Region]:
        found = [m for one in self.instances.values() for m in one.memory if chunk.base <= m.base < chunk.end]
        return sorted(found, key=lambda m: m.base)

    def place(self, size: int) -> Region:
        """Return the lowest free range: that is where it puts what an instance boots with."""
        for chunk in self.chunks:
            at = chunk.base
            for used in self.used(chunk):
                if used.base - at >= size:
                    break
                at = used.end
            if chunk.end - at >= size:
                return Region(at, size, chunk.node)
        raise Refused("no memory in the pool")


@attrs.define
class Tx:
    """A transaction: what became of it, which path it was for, the overlay, and what was before."""

    status: str
    target: str
    overlay: bytes
    before: Pool | None


@attrs.define(eq=False)
class Model:
    """The kernel."""

    pool: Pool = attrs.Factory(Pool)
    txs: dict[int, Tx] = attrs.Factory(dict)
    next_tx: int = 1
    refusals: list[str] = attrs.Factory(list)  # what it says to the next overlays; nothing is that it takes one
    failures: dict[str, int] = attrs.Factory(dict)  # errors of the next system calls, by their names
    console: dict[int, bytearray] = attrs.Factory(dict)  # by instance: what nobody has read

    def baseline(self, data: bytes) -> None:
        """Take a baseline, which is for an empty pool."""
        from . import overlays

        if self.pool.live:
            raise OSError(errno.EBUSY, "the pool is there")
        try:
            self.pool = overlays.baseline(data)
        except Refused as error:
            raise OSError(errno.EINVAL, str(error)) from None

    def overlay(self, data: bytes) -> None:
        """Take an overlay, whole or not at all. What becomes of it is in its transaction."""
        from . import overlays

        before, target = copy.deepcopy(self.pool), ""
        refusal = self.refusals.pop(0) if self.refusals else ""
        try:
            for target, changes in overlays.fragments(data):
                for change in changes:
                    overlays.change(self.pool, target, *change)
            if refusal:
                raise Refused(refusal)
            status = "applied"
        except Refused as error:
            self.pool, status = before, f"failed: {error}"
        self.txs[self.next_tx] = Tx(status, target, data, before if status == "applied" else None)
        self.next_tx += 1

    def roll_back(self, number: int) -> None:
        """Undo a transaction. Only the newest that was applied can be undone."""
        tx = self.txs.get(number)
        if tx is None:
            raise OSError(errno.ENOENT, "no such transaction")
        applied = [n for n, one in self.txs.items() if one.before is not None]
        if tx.before is not None:
            if number != applied[-1] or any(one.status != "ready" for one in self.pool.instances.values()):
                raise OSError(errno.EBUSY, "later ones stand on it")
            self.pool = tx.before
        del self.txs[number]

    def iomem(self) -> str:
        """Return what it adds to /proc/iomem."""
        out = "00001000-0009ffff : System RAM\n"
        for chunk in self.pool.chunks:
            out += f"{chunk.base:08x}-{chunk.end - 1:08x} : Multikernel Memory Pool\n"
            for name, one in self.pool.instances.items():
                for number, m in enumerate(one.memory):
                    if chunk.base <= m.base < chunk.end:
                        out += f"  {m.base:08x}-{m.end - 1:08x} : mk-instance-{one.id}-{name}-region-{number}\n"
        return out

    def syscall(self, line: str) -> None:
        """Do what a system call asks: `load ID CMDLINE`, `boot ID`, `halt ID`, `force ID`, `unload ID`."""
        word, _, rest = line.partition(" ")
        number, _, more = rest.partition(" ")
        if not number.isdecimal():
            raise OSError(errno.EINVAL, "no number")
        one = next((i for i in self.pool.instances.values() if i.id == int(number)), None)
        if one is None:
            raise OSError(errno.ESRCH, "no such instance")
        steps: dict[str, tuple[tuple[Status, ...], Status]] = {
            "load": (("ready",), "loaded"),
            "boot": (("loaded",), "active"),
            "halt": (("active",), "loaded"),
            "force": (("active", "loaded", "failed"), "loaded"),
            "unload": (("loaded",), "ready"),
        }
        if word not in steps:
            raise OSError(errno.ENOSYS, "no such call")
        if failure := self.failures.pop(word, 0):
            raise OSError(failure, "as a test asked")
        was, becomes = steps[word]
        if one.status not in was:
            raise OSError(errno.EBUSY if word == "load" else errno.EINVAL, f"it is {one.status}")
        if word == "load":
            one.cmdline = more
        if word == "boot":
            self.console[one.id] = bytearray(f"Linux version 0 (emulated)\nCommand line: {one.cmdline}\n".encode())
        one.status = becomes

    def order(self, line: str) -> None:
        """Do what a test asks: `pass N` overlays, `refuse WORDS` to the one after, let a system call `fail WORD ERRNO`; an instance `panic NAME`s, it
        `halt NAME`s by itself, it is `gone NAME`."""
        word, _, rest = line.partition(" ")
        one = self.pool.instances.get(rest)
        if word == "refuse":
            self.refusals.append(rest)
        elif word == "pass":
            self.refusals += [""] * int(rest)
        elif word == "fail":
            name, _, number = rest.partition(" ")
            self.failures[name] = int(number)
        elif word == "panic" and one is not None:
            one.status = "failed"
        elif word == "halt" and one is not None:
            one.status = "loaded"
        elif word == "gone" and one is not None:
            del self.pool.instances[rest]
        else:
            raise OSError(errno.EINVAL, "no such order")
