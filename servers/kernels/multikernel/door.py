"""The one door to /sys/fs/multikernel: what it says is checked here, and nowhere else, before anybody uses it.

A kernel that is not ours to vouch for answers there. So each answer has a largest size, comes in time, and is a device tree that libfdt finds whole,
of few nodes with plain names; and what kerf's parser makes of it fits together. What does not is one EIO, in words.
"""

from __future__ import annotations

import errno
import os
import re
import time
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs
import trio

from mk9p.errors import NineError
from mk9p.ktext import split_lines

from .lock import locked
from .trees import checked, library, memory_file, parsing, plain, wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

ROOT: Final = Path("/sys/fs/multikernel")
IOMEM: Final = Path("/proc/iomem")
LOCK: Final = Path("/var/run/kerf.lock")  # as kerf has it: whoever makes it has it

STATES: Final = ("empty", "ready", "loaded", "active", "failed")
APPLIED: Final = ("applied", "success", "ok")  # as kerf takes them
LARGEST_TEXT: Final = 4096  # bytes of a status: sysfs shows no more
LARGEST_TREE: Final = 1 << 20  # bytes: a hundred for each CPU or device of the largest machine
LARGEST_IOMEM: Final = 4 << 20
MOST_CPUS: Final = 8192  # CONFIG_NR_CPUS at its most
MOST_TXS: Final = 100_000  # directories that are looked at: nobody removes old ones
LAST_ADDRESS: Final = 1 << 57  # of memory: five levels of page tables
MOST_ID: Final = 511  # KEXEC_MK_ID_MASK has nine bits
MOST_AT_ONCE: Final = 16  # threads that ask: if it answers none of them, nobody else lacks a thread
ANSWER_SECONDS: Final = 10.0  # for a read, which that kernel answers from its memory
CHANGE_SECONDS: Final = 120.0  # for a change, for which it asks a kernel that may be busy
STEP: Final = 0.05  # s between two looks

_ALIAS: Final = re.compile(r"[a-z0-9-]{1,31}")
_PCI: Final = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_RANGE: Final = re.compile(r" *([0-9a-f]{1,16})-([0-9a-f]{1,16}) : ([ -~]{1,200})")
_OURS: Final = re.compile("Multikernel|mk-instance-")
_TX: Final = re.compile(r"tx_([0-9]{1,9})")


@attrs.frozen
class Chunk:
    """Memory of the pool: where it is, how many bytes, on which NUMA node, and whether some of it is in use."""

    base: int
    size: int
    node: int
    busy: bool = False


@attrs.frozen
class PoolSays:
    """What the pool has: its CPUs by physical number, those that are free, its memory, its free devices with their other names."""

    live: bool
    cpus: tuple[int, ...] = ()
    free: tuple[int, ...] = ()
    chunks: tuple[Chunk, ...] = ()
    devices: dict[str, str] = attrs.Factory(dict)
    granule: int = 0
    allocated: int = 0

    @property
    def memory(self) -> int:
        """Return the bytes of all its memory."""
        return sum(chunk.size for chunk in self.chunks)

    @property
    def free_memory(self) -> int:
        """Return the bytes that no instance has."""
        return max(0, self.memory - self.allocated)


@attrs.frozen
class InstanceSays:
    """What an instance has. `life` is another for another instance of that name."""

    name: str
    id: int
    life: str
    cpus: tuple[int, ...]
    memory: int
    devices: dict[str, str] = attrs.Factory(dict)


@attrs.frozen
class Door:
    """One multikernel machine. The methods block, except `ask`, which does them elsewhere and gives up in time."""

    root: Path = ROOT
    iomem: Path = IOMEM
    lock_file: Path = LOCK
    limiter: trio.CapacityLimiter = attrs.Factory(lambda: trio.CapacityLimiter(MOST_AT_ONCE))

    async def ask(self, work: Callable[[], T], seconds: float = ANSWER_SECONDS) -> T:
        """Do blocking work. Raises ETIMEDOUT if it takes too long: it then goes on, and nobody waits for it; also if cancelled."""
        with trio.move_on_after(seconds):
            try:
                return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self.limiter)
            except NineError:
                raise
            except OSError as error:
                raise NineError(error.errno or errno.EIO, f"multikernel: {error.strerror}") from None
        raise NineError(errno.ETIMEDOUT, f"multikernel: no answer in {seconds:.0f} s")

    @property
    def there(self) -> bool:
        """Say whether this machine has that file system."""
        return (self.root / "overlays").is_dir()

    def need(self) -> None:
        """See that it is there. Raises ENODEV, and ENOSYS without the library."""
        library("kerf")
        if not self.there:
            words = f"{self.root} is not there: boot a multikernel, then mount -t multikernel none {self.root}"
            raise NineError(errno.ENODEV, words)

    # what it says
    def read(self, path: Path, largest: int) -> bytes:
        """Return what a file has. Raises its OSError, EIO if it is too long."""
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            said = b""
            while len(said) <= largest and (data := os.read(file, largest + 1 - len(said))):
                said += data
        finally:
            os.close(file)
        if len(said) > largest:
            raise wrong(f"{path.name} has more than {largest} bytes")
        return said

    def text(self, path: Path) -> str:
        """Return a short text."""
        return plain(self.read(path, LARGEST_TEXT).decode("utf-8", "replace"))

    def status(self, name: str) -> str:
        """Return the state of an instance, one of STATES. Raises ENOENT."""
        said = self.text(self._folder(name) / "status").lower()
        if said not in STATES:
            raise wrong(f"{name} is in no state that is known: {said!r}")
        return said

    def has(self, name: str) -> bool:
        """Say whether there is an instance of this name."""
        return self._folder(name).is_dir()

    def _folder(self, name: str) -> Path:
        return self.root / "instances" / name

    def instance(self, name: str) -> InstanceSays:
        """Return what an instance has. Raises ENOENT."""
        folder = self._folder(name)
        tree = checked(self.read(folder / "device_tree", LARGEST_TREE))
        number = self.text(folder / "id")
        with parsing(f"the device tree of {name}"):
            said = library("kerf.dtc.parser").DeviceTreeParser().parse_instance_dtb_from_bytes(tree)
            devices = library("kerf.dtc.parser").DeviceTreeParser().parse_instance_devices_from_bytes(tree)
            memory = _size(said.resources.memory_bytes)
            if said.name != name or str(said.id) != number or not 1 <= said.id <= MOST_ID:
                raise ValueError(
                    f"it is of {plain(str(said.name))} {plain(str(said.id))}, and the file id says {number}"
                )
            cpus, life = _cpus(said.resources.cpus), f"{said.id}.{folder.stat().st_ino}"
            if not cpus:
                raise ValueError("it has no CPU")
            return InstanceSays(name, said.id, life, cpus, memory, _devices(devices))

    def pool(self) -> PoolSays:
        """Return what the pool has. Before there is one, that kernel tells of its own CPUs instead."""
        tree = checked(self.read(self.root / "device_tree", LARGEST_TREE))
        parser = library("kerf.dtc.parser").DeviceTreeParser()
        try:
            with parsing("the device tree of the pool"):
                said = parser.parse_dtb_from_bytes(tree).hardware
        except NineError as error:
            if "No memory description" in error.ename:
                return PoolSays(False)
            raise
        with parsing("the device tree of the pool"):
            if said.cpus.available_free is None and not said.memory.regions:
                return PoolSays(False)
            cpus, free = _cpus(said.cpus.available), _cpus(said.cpus.available_free or [])
            if not set(free) <= set(cpus):
                raise ValueError("a CPU is free that is not in it")
            chunks = sorted(said.memory.regions, key=lambda chunk: int(chunk.base))
            ranges = [(chunk.base, _size(chunk.size, chunk.base)) for chunk in chunks]
            if any(base + size > after for (base, size), (after, _) in pairwise(ranges)):
                raise ValueError("its memory overlaps")
            resources = library("kerf.resources")
            with self.map_file() as path:
                busy, allocated = resources.get_busy_chunks_from_iomem(path), resources.get_pool_allocated_bytes(path)
            made = tuple(Chunk(c.base, c.size, c.node, c.base in busy) for c in chunks)
            used = int(allocated[2]) if allocated else 0
            return PoolSays(True, cpus, free, made, _devices(said.devices or {}), self._granule(tree), used)

    def _granule(self, tree: bytes) -> int:
        """Return the pieces in which memory moves (that kernel's, else those of memory blocks)."""
        with memory_file(tree) as path:
            found = int(library("kerf.resources").get_memory_granule(path))
        if not 4096 <= found <= 1 << 40 or found & (found - 1):
            raise ValueError(f"memory moves in pieces of {found} bytes")
        return found

    def memory_map(self) -> bytes:
        """Return the lines of /proc/iomem that are ranges. Raises EIO if one of multikernel is none, EPERM where only root sees addresses."""
        said = self.read(self.iomem, LARGEST_IOMEM).decode("utf-8", "replace")
        kept = []
        for line in split_lines(said):
            found = _RANGE.fullmatch(line)
            sane = found is not None and int(found[1], 16) <= int(found[2], 16) < LAST_ADDRESS
            if _OURS.search(line) and not sane:
                raise wrong(f"{self.iomem} has a line that is no range: {plain(line)!r}")
            if found is not None and _OURS.search(line) and int(found[2], 16) == 0:
                raise NineError(errno.EPERM, f"{self.iomem} shows addresses to root alone")
            kept += [line + "\n"] if sane else []
        return "".join(kept).encode()

    @contextmanager
    def map_file(self) -> Iterator[str]:
        """Give `memory_map` as a file."""
        with memory_file(self.memory_map()) as path:
            yield path

    # what is written
    def take_baseline(self, build: Callable[[], bytes]) -> None:
        """Write the baseline that is built once nobody else changes anything. Raises the OSError of that kernel."""
        with locked(self.lock_file):
            self._message(self.root / "device_tree", _built(build))

    def apply(self, build: Callable[[], bytes]) -> int:
        """Write the overlay that is built once nobody else changes anything, and return the number of its transaction. Raises EIO with that kernel's
        words if it did not apply it, EBUSY with kerf's if there can be no such overlay."""
        with locked(self.lock_file):
            overlay = _built(build)
            before = self.transactions()
            self._message(self.root / "overlays" / "new", overlay)
            new = self.transactions() - before
            if not new:
                raise wrong("it took an overlay, and made no transaction of it")
            number = max(new)
            said = self._outcome(self.root / "overlays" / f"tx_{number}" / "status")
        if said.lower() not in APPLIED:
            raise wrong(f"transaction {number}: {said}")
        return number

    def _outcome(self, status: Path) -> str:
        """Return what became of a transaction. It may not be told at once."""
        until = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                said = self.text(status)
            except OSError as error:
                said = ""
                if time.monotonic() > until:
                    raise wrong(f"{status.parent.name}: its status cannot be read: {error}") from None
            if said or time.monotonic() > until:
                return said or "it says nothing"
            time.sleep(STEP)

    def transactions(self) -> set[int]:
        """Return the numbers of that kernel's transactions."""
        found: set[int] = set()
        with os.scandir(self.root / "overlays") as entries:
            for seen, entry in enumerate(entries):
                if seen > MOST_TXS:
                    raise wrong(f"overlays has more than {MOST_TXS} entries")
                if number := _TX.fullmatch(entry.name):
                    found.add(int(number[1]))
        return found

    def _message(self, path: Path, data: bytes) -> None:
        """Write a message: one write(2)."""
        file = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if os.write(file, data) != len(data):
                raise wrong(f"{path.name} took a part of {len(data)} bytes")
        finally:
            os.close(file)


def _built(build: Callable[[], bytes]) -> bytes:
    try:
        return bytes(build())
    except library("kerf.exceptions").KerfError as error:
        raise NineError(errno.EBUSY, f"multikernel: {plain(str(error))}") from None


def _cpus(found: list[int]) -> tuple[int, ...]:
    if len(found) > MOST_CPUS or len(set(found)) != len(found) or any(not 0 <= cpu < 1 << 32 for cpu in found):
        raise ValueError("its CPUs are no list of CPUs")
    return tuple(sorted(found))


def _size(size: int, base: int = 0) -> int:
    if not 0 < size <= LAST_ADDRESS or not 0 <= base <= LAST_ADDRESS - size:
        raise ValueError("its memory is no range")
    return size


def _devices(found: dict[str, Any]) -> dict[str, str]:
    """Return the other name of each PCI device, by its address."""
    devices = {str(one.pci_id): str(one.alias or "") for one in found.values() if one.pci_id}
    if any(not _PCI.fullmatch(pci) or not (not alias or _ALIAS.fullmatch(alias)) for pci, alias in devices.items()):
        raise ValueError("a device has no address of PCI")
    return devices
