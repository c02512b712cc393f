"""What moves between instances, the pool of multikernel and this machine: the words of transactions, and what they do.

    mk cpu add|del WHO N          WHO is an instance, or `pool`: what it gets or gives; the other side of an instance is the pool, that of
    mk mem add|del WHO BYTES      the pool is this machine
    mk dev add|del WHO ADDRESS    of PCI; for the pool also the name that kernels are to give it
    mk baseline put|take pool LIST BYTES NODE

Each is one overlay of that kernel, whole or not at all there. What it refuses is told in its words.
"""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs

from mk9p.affinity import listed, numbers
from mk9p.errors import NineError
from mk9p.sysfs import boot
from mk9p.tree import fields, join, split

from ..backend import Parts
from ..tx import Step, Words
from . import calls
from .door import CHANGE_SECONDS, Door, InstanceSays, PoolSays
from .trees import library

if TYPE_CHECKING:
    from collections.abc import Iterable

POOL: Final = "pool"
MARK: Final = "mk"


def _step(kind: str, do: str, who: str, *args: object) -> Step:
    words = [str(word) for word in args]
    other = {"add": "del", "del": "add", "put": "take", "take": "put"}[do]
    return Step((MARK, kind, do, who, *words), (MARK, kind, other, who, *words))


@attrs.frozen
class Ground:
    """What instances of one machine stand on (backend.Ground)."""

    door: Door = attrs.Factory(Door)

    async def parts(self, name: str) -> Parts:
        """Return what an instance has. Raises ENOENT."""
        says = await self.door.ask(lambda: self.door.instance(name))
        return Parts(len(says.cpus), says.memory, tuple(says.devices))

    async def unload(self, name: str) -> None:
        """Unload its kernel, if it has one; the instance stays, with what it has."""

        def work() -> None:
            if self.door.status(name) == "loaded":
                number = self.door.instance(name).id
                try:
                    calls.unload(number)
                except OSError as error:
                    raise calls.told(error, f"{name} cannot be unloaded") from None

        await self.door.ask(work, CHANGE_SECONDS)

    async def remove(self, name: str) -> None:
        """Remove an instance that does not run; what it has goes to the pool. Nothing to do if somebody has removed it."""
        if not await self.door.ask(lambda: self.door.has(name)):
            return
        await self.unload(name)
        overlay = library("kerf.dtc.overlay").OverlayGenerator().generate_removal_overlay(name)
        await self._apply(lambda: bytes(overlay))

    async def create(self, name: str, cpus: int, memory: int) -> None:
        """Make an instance of so many free CPUs, the lowest, and bytes. Raises ENODEV, ENOMEM, and that kernel's words."""

        def build() -> bytes:
            pool = self.door.pool()
            if len(pool.free) < cpus:
                words = f"the pool of multikernel has {len(pool.free)} free CPUs, and not {cpus}"
                raise NineError(errno.ENODEV, words if pool.live else f"{words}: say baseline to pool/multikernel/ctl")
            models, overlay = library("kerf.models"), library("kerf.dtc.overlay").OverlayGenerator()
            made = models.Instance(name, None, _resources(pool.free[:cpus], memory))
            return bytes(overlay.generate_overlay(_tree({}), _tree({name: made})))

        await self._apply(build)

    async def _apply(self, build: Any) -> None:
        await self.door.ask(lambda: self.door.apply(build), CHANGE_SECONDS)

    # plans
    async def plan(self, kind: str, given: Any, source: str, target: str) -> list[Step]:
        """Return the steps of a move between instances, or an instance and the pool."""
        if kind == "dev":
            given = await self._device(str(given), source)
        wanted = given if isinstance(given, list) else [given]
        if source == POOL:
            await self._must_be_free(kind, wanted)
        else:
            await self._must_be_held(kind, wanted, source)
        steps: list[Step] = []
        for one in wanted:
            steps += [_step(kind, "del", source, one)] if source != POOL else []
            steps += [_step(kind, "add", target, one)] if target != POOL else []
        return steps

    async def _must_be_free(self, kind: str, wanted: list[Any]) -> None:
        pool = await self._pool()
        if kind == "cpu" and (missing := [n for n in wanted if n not in pool.free]):
            raise NineError(errno.ENODEV, f"CPU {missing[0]} is not free in the pool of multikernel")
        if kind == "mem" and pool.free_memory < wanted[0]:
            raise NineError(
                errno.ENOMEM, f"the pool of multikernel has {pool.free_memory} free bytes, and not {wanted[0]}"
            )
        if kind == "mem":
            _whole(pool, wanted[0])

    async def _must_be_held(self, kind: str, wanted: list[Any], source: str) -> None:
        says = await self.door.ask(lambda: self.door.instance(source))
        if kind == "cpu" and (missing := [n for n in wanted if n not in says.cpus]):
            raise NineError(errno.ENODEV, f"{source} has no CPU {missing[0]}")
        if kind == "cpu" and len(wanted) == len(says.cpus):
            raise NineError(errno.EBUSY, f"CPU {wanted[-1]} is the last of {source}")
        if kind == "mem" and says.memory <= wanted[0]:
            raise NineError(errno.ENOMEM, f"{source} has {says.memory} bytes, and not more than {wanted[0]}")

    async def _device(self, name: str, source: str) -> str:
        """Return the address of a device that somebody names by it, or by its other name."""
        held = source != POOL
        says = await (self.door.ask(lambda: self.door.instance(source)) if held else self._pool())
        wanted = library("kerf.devices").normalize_pci_id(name) or name
        found = next((pci for pci, alias in says.devices.items() if wanted in (pci, alias)), None)
        if found is None:
            where = f"{source} has no" if held else "the pool of multikernel has no free"
            raise NineError(errno.ENODEV, f"{where} device {name}")
        return found

    async def _pool(self) -> PoolSays:
        await self.door.ask(self.door.need)
        pool = await self.door.ask(self.door.pool)
        if not pool.live:
            raise NineError(errno.ENODEV, "multikernel has no pool yet: say baseline to pool/multikernel/ctl")
        return pool

    async def plan_baseline(self, cpus: list[int], memory: int) -> list[Step]:
        """Return the step that makes the pool. Raises EBUSY if there is one."""
        await self.door.ask(self.door.need)
        if (await self.door.ask(self.door.pool)).live:
            raise NineError(errno.EBUSY, "multikernel has its pool: cpu, mem and dev add to it")
        node, _ = await self.door.ask(lambda: library("kerf.init.main").pick_memory_node(cpus, set(), []))
        return [_step("baseline", "put", POOL, listed(cpus), memory, node)]

    async def plan_pool(self, kind: str, do: str, given: Any, alias: str = "") -> list[Step]:
        """Return the steps of a change between the pool and this machine."""
        pool = await self._pool()
        if kind == "cpu":
            there = pool.free if do == "del" else pool.cpus
            wrong = [n for n in given if (n in there) == (do == "add")]
            if wrong:
                what = "is in the pool of multikernel" if do == "add" else "is not free in the pool of multikernel"
                raise NineError(errno.EEXIST if do == "add" else errno.ENODEV, f"CPU {wrong[0]} {what}")
            return [_step("cpu", do, POOL, n) for n in given]
        if kind == "mem":
            if do == "del":
                _chunks(pool, given)
            return [_step("mem", do, POOL, given)]
        if do == "del":
            return [_step("dev", do, POOL, await self._device(given, POOL))]
        address = library("kerf.devices").normalize_pci_id(given)
        if address is None:
            raise NineError(errno.EINVAL, f"{given}: want an address of PCI, as 0000:09:00.0")
        return [_step("dev", "add", POOL, address, *([alias] if alias else []))]

    async def status(self) -> str:
        """Return what the pool has, as key value lines; "" where there is no multikernel."""
        if not await self.door.ask(lambda: self.door.there):
            return ""
        pool = await self.door.ask(self.door.pool)
        return fields(
            {
                "cpus": listed(pool.free),
                "memory": pool.free_memory,
                "devices": " ".join(pool.devices),
                "all_cpus": listed(pool.cpus),
                "all_memory": pool.memory,
                "granule": pool.granule,
            }
        )

    # steps
    async def note(self, words: Words) -> str:
        """Return how the thing is before a step: this boot of the machine, the life of the instance, and how much of the thing is there."""
        says = await self._says(words[3])
        if says is None:
            raise NineError(errno.ENOENT, f"no instance {words[3]}")
        return join([f"{boot():x}", _life(says), _measure(words, says)])

    async def _says(self, who: str) -> PoolSays | InstanceSays | None:
        if who == POOL:
            return await self.door.ask(self.door.pool)
        try:
            return await self.door.ask(lambda: self.door.instance(who))
        except FileNotFoundError:
            return None

    async def perform(self, words: Words) -> None:
        """Do a step: one overlay."""
        _, kind, do, who, *args = words
        if kind == "baseline":
            await (self._baseline(args) if do == "put" else self._return_all())
        elif who == POOL:
            await self._apply(partial(self._pool_overlay, kind, do, args))
        else:
            await self._apply(partial(self._overlay, kind, do, who, args))

    async def restore(self, words: Words, note: str) -> None:
        """Have it as it was. What was of another boot, or of an instance that is gone, is no more, and its parts are in the pool."""
        _, kind, _, who, *args = words
        began, life, was = split(note)
        if began != f"{boot():x}":
            return
        says = await self._says(who)
        if says is None or _life(says) != life:
            return
        more = _measure(words, says) - int(was)
        if kind == "baseline":
            if more:
                await self._return_all()
        elif more:
            amount = [str(abs(more))] if kind == "mem" else args
            await self.perform((MARK, kind, "del" if more > 0 else "add", who, *amount))

    async def _baseline(self, args: list[str]) -> None:
        list_, memory, node = args

        def build() -> bytes:
            models = library("kerf.models")
            cpus = numbers(list_)
            tree = _tree({})
            tree.hardware.cpus = models.CPUAllocation(max(cpus) + 1, [], cpus)
            tree.hardware.memory = models.MemoryAllocation(int(memory), 0, requested={int(node): int(memory)})
            return bytes(library("kerf.dtc.extractor").InstanceExtractor().generate_global_dtb(tree))

        await self.door.ask(lambda: self.door.take_baseline(build), CHANGE_SECONDS)
        there = (await self.door.ask(self.door.pool)).cpus
        if listed(there) != list_:
            raise NineError(errno.EIO, f"multikernel has put CPUs {listed(there)} into the pool, and not {list_}")

    async def _return_all(self) -> None:
        def build() -> bytes:
            pool = self.door.pool()
            pools = library("kerf.pool_diff")
            back = [library("kerf.models").PoolMemoryRegion(c.base, c.size, c.node) for c in pool.chunks]
            devices = sorted(pool.devices)
            return _generated(
                pools.PoolDiff(cpus_to_host=list(pool.cpus), devices_to_host=devices, memory_to_host=back)
            )

        await self._apply(build)

    def _pool_overlay(self, kind: str, do: str, args: list[str]) -> bytes:
        pools, way = library("kerf.pool_diff"), "to_pool" if do == "add" else "to_host"
        if kind == "cpu":
            return _generated(pools.PoolDiff(**{f"cpus_{way}": [int(args[0])]}))
        if kind == "dev":
            names = {args[0]: args[1]} if len(args) > 1 and do == "add" else {}
            return _generated(pools.PoolDiff(**{f"devices_{way}": [args[0]]}, device_aliases=names))
        pool = self.door.pool()
        if do == "del":
            back = _chunks(pool, int(args[0]))
            return _generated(pools.PoolDiff(memory_to_host=back))
        node = pool.chunks[0].node if pool.chunks else 0
        return _generated(pools.PoolDiff(memory_to_pool=[(node, int(args[0]))]))

    def _overlay(self, kind: str, do: str, who: str, args: list[str]) -> bytes:
        says, sign = self.door.instance(who), 1 if do == "add" else -1
        cpus, memory, devices = set(says.cpus), says.memory, set(says.devices)
        if kind == "cpu":
            cpus ^= {int(args[0])}
        elif kind == "dev":
            devices ^= {args[0]}
        else:
            memory += sign * int(args[0])
        models, resources = library("kerf.models"), library("kerf.resources")
        old = models.Instance(who, says.id, _resources(says.cpus, says.memory, says.devices))
        new = models.Instance(who, says.id, _resources(cpus, memory, devices))
        base, regions = None, []
        if kind == "mem":
            granule = self.door.pool().granule
            with self.door.map_file() as path:
                regions = resources.get_instance_regions_from_iomem(says.id, who, path)
                base = (
                    resources.find_free_range_from_iomem(memory - says.memory, granule, path) if do == "add" else None
                )
            if do == "add" and base is None:
                raise NineError(
                    errno.ENOMEM, f"no chunk of the pool of multikernel has {args[0]} free bytes in one piece"
                )
        made = library("kerf.dtc.overlay").OverlayGenerator()
        return bytes(made.generate_update_overlay(who, old, new, {}, regions, base))


def _life(says: PoolSays | InstanceSays) -> str:
    return says.life if isinstance(says, InstanceSays) else POOL


def _measure(words: Words, says: PoolSays | InstanceSays) -> int:
    """Return how much there is of what words change: bytes, or 1 and 0 for one that is there or not."""
    _, kind, _, _, *args = words
    if kind == "mem":
        return says.memory
    if kind == "baseline":
        return int(isinstance(says, PoolSays) and says.live)
    return int(int(args[0]) in says.cpus if kind == "cpu" else args[0] in says.devices)


def _resources(cpus: Iterable[int], memory: int, devices: Iterable[str] = ()) -> Any:
    return library("kerf.models").InstanceResources(sorted(cpus), 0, memory, sorted(devices))


def _tree(instances: dict[str, Any]) -> Any:
    models = library("kerf.models")
    hardware = models.HardwareInventory(models.CPUAllocation(0, [], []), models.MemoryAllocation(0, 0), devices={})
    return models.GlobalDeviceTree(hardware, instances, {})


def _generated(diff: Any) -> bytes:
    return bytes(library("kerf.dtc.overlay").OverlayGenerator().generate_pool_overlay(diff))


def _whole(pool: PoolSays, size: int) -> None:
    if size % pool.granule:
        raise NineError(errno.EINVAL, f"memory of multikernel moves in pieces of {pool.granule} bytes: {size}")


def _chunks(pool: PoolSays, size: int) -> list[Any]:
    """Return idle chunks that make up so many bytes. Raises EBUSY: memory leaves the pool in whole idle chunks."""
    idle = sorted((c for c in pool.chunks if not c.busy), key=lambda c: -c.size)
    taken, left = [], size
    for chunk in idle:
        if chunk.size <= left:
            taken.append(library("kerf.models").PoolMemoryRegion(chunk.base, chunk.size, chunk.node))
            left -= chunk.size
    if left:
        there = " ".join(str(chunk.size) for chunk in idle) or "none"
        raise NineError(errno.EBUSY, f"memory leaves the pool of multikernel in whole idle chunks: {there}")
    return taken
