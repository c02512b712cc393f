"""Baselines and overlays, as kerf writes them: what they say, and what the emulated kernel does with it or refuses."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import libfdt
from kerf.dtc.cells import unpack_cpu_ids

from .model import GRANULE, HOST_CPUS, HOST_DEVICES, Instance, Pool, Refused, Region

if TYPE_CHECKING:
    from collections.abc import Iterator

Item = dict[str, bytes]
WISHES = {"cpu-affinity": ("compact", "spread", "local"), "memory-policy": ("local", "interleave", "bind")}


def _tree(data: bytes) -> Any:
    if libfdt.fdt_check_full(bytearray(data), len(data)) != 0:
        raise Refused("no device tree")
    return libfdt.Fdt(data)


def _nodes(tree: Any, node: int) -> Iterator[tuple[str, int]]:
    at = tree.first_subnode(node, libfdt.QUIET_NOTFOUND)
    while at >= 0:
        yield tree.get_name(at), at
        at = tree.next_subnode(at, libfdt.QUIET_NOTFOUND)


def _item(tree: Any, node: int, known: set[str]) -> Item:
    """Return the properties of a node; one that is not known is refused."""
    found: Item = {}
    at = tree.first_property_offset(node, libfdt.QUIET_NOTFOUND)
    while at >= 0:
        property_ = tree.get_property_by_offset(at)
        found[property_.name] = bytes(property_)
        at = tree.next_property_offset(at, libfdt.QUIET_NOTFOUND)
    if not found.keys() <= known:
        raise Refused(f"unknown property {sorted(found.keys() - known)[0]}")
    return found


def _text(item: Item, name: str) -> str:
    if name not in item:
        raise Refused(f"{name} is missing")
    return item[name].rstrip(b"\0").decode()


def _number(item: Item, name: str, default: int | None = None) -> int:
    if name in item:
        return int.from_bytes(item[name])
    if default is None:
        raise Refused(f"{name} is missing")
    return default


def _reg(item: Item) -> tuple[int, int]:
    if len(item.get("reg", b"")) != 16:
        raise Refused("reg is no range")
    base, size = struct.unpack(">QQ", item["reg"])
    return base, size


def baseline(data: bytes) -> Pool:
    """Return the pool that a baseline makes."""
    tree, pool = _tree(data), Pool()
    root = dict(_nodes(tree, 0))
    if not root.keys() <= {"resources", "aliases"} or "resources" not in root:
        raise Refused("a baseline has resources, and no instances")
    resources = root["resources"]
    for cpu in unpack_cpu_ids(_item(tree, resources, {"cpus"})["cpus"]):
        _cpu_to_pool(pool, cpu)
    for name, node in _nodes(tree, resources):
        if name.startswith("memory@"):
            item = _item(tree, node, {"size", "numa-node-id"})
            _memory_to_pool(pool, _number(item, "size"), _number(item, "numa-node-id", 0))
        elif name == "devices":
            known = {"pci-id", "device-type", "compatible", "vendor-id", "device-id"}
            for _, device in _nodes(tree, node):
                _device_to_pool(pool, _item(tree, device, known))
        else:
            raise Refused(f"unknown node {name}")
    if not pool.chunks:
        raise Refused("no memory")
    return pool


def fragments(data: bytes) -> Iterator[tuple[str, list[tuple[str, Any, int]]]]:
    """Yield the path of each fragment, and its changes."""
    tree = _tree(data)
    if _text(_item(tree, 0, {"compatible"}), "compatible") != "linux,multikernel-overlay":
        raise Refused("no overlay")
    for name, node in _nodes(tree, 0):
        inner = dict(_nodes(tree, node))
        if not name.startswith("fragment@") or inner.keys() != {"__overlay__"}:
            raise Refused(f"unknown node {name}")
        path = _text(_item(tree, node, {"target-path"}), "target-path")
        yield path, [(word, tree, at) for word, at in _nodes(tree, inner["__overlay__"])]


def change(pool: Pool, path: str, word: str, tree: Any, node: int) -> None:
    """Do one change, or refuse it."""
    if path == "/instances":
        if word == "instance-create":
            _create(pool, tree, node)
        elif word == "instance-remove":
            _remove(pool, _text(_item(tree, node, {"instance-name"}), "instance-name"))
        else:
            raise Refused(f"unknown change {word}")
        return
    known = {"reg", "size", "numa-node-id", "pci-id", "alias"}
    items = [_item(tree, at, known) for _, at in _nodes(tree, node)]
    if path == "/resources":
        for item in items:
            _pool(pool, word, item)
    elif path.startswith("/instances/") and (one := pool.instances.get(path.removeprefix("/instances/"))):
        for item in items:
            _instance(pool, one, word, item)
    else:
        raise Refused(f"no target {path}")


def _create(pool: Pool, tree: Any, node: int) -> None:
    item = _item(tree, node, {"instance-name", "id"})
    name, nodes = _text(item, "instance-name"), dict(_nodes(tree, node))
    if nodes.keys() != {"resources"}:
        raise Refused("an instance has resources")
    what = _item(tree, nodes["resources"], {"cpus", "memory-bytes", "numa-nodes", "cpu-affinity", "memory-policy"})
    for key, words in WISHES.items():
        if key in what and _text(what, key) not in words:
            raise Refused(f"unknown {key} {_text(what, key)}")
    cpus, size = unpack_cpu_ids(what["cpus"]), _number(what, "memory-bytes")
    if name in pool.instances or not name:
        raise Refused(f"instance {name} is there")
    if not cpus or not set(cpus) <= set(pool.free_cpus):
        raise Refused(f"CPUs {cpus} are not free")
    if not size or size % GRANULE:
        raise Refused(f"{size} bytes are no whole pieces of memory")
    used = {one.id for one in pool.instances.values()}
    number = _number(item, "id", next(n for n in range(1, 512) if n not in used))
    if number in used or not 1 <= number < 512:
        raise Refused(f"id {number} is taken")
    pool.instances[name] = Instance(number, cpus, [pool.place(size)])


def _remove(pool: Pool, name: str) -> None:
    one = pool.instances.get(name)
    if one is None:
        raise Refused(f"no instance {name}")
    if one.status in ("loaded", "active"):
        raise Refused(f"instance {name} is {one.status}")
    del pool.instances[name]


def _cpu(item: Item) -> int:
    if len(item.get("reg", b"")) != 8:
        raise Refused("reg is no CPU")
    return int.from_bytes(item["reg"])


def _instance(pool: Pool, one: Instance, word: str, item: Item) -> None:
    if word == "cpu-add":
        if _cpu(item) not in pool.free_cpus:
            raise Refused(f"CPU {_cpu(item)} is not free")
        one.cpus.append(_cpu(item))
    elif word == "cpu-remove":
        if _cpu(item) not in one.cpus:
            raise Refused(f"CPU {_cpu(item)} is elsewhere")
        if len(one.cpus) == 1:
            raise Refused(f"CPU {_cpu(item)} is the last one")
        one.cpus.remove(_cpu(item))
    elif word == "memory-add":
        new = Region(*_reg(item))
        chunk = next((c for c in pool.chunks if c.base <= new.base and new.end <= c.end), None)
        if chunk is None or new.base % GRANULE or new.size % GRANULE or not new.size:
            raise Refused(f"no chunk has {new.base:#x}+{new.size:#x}")
        if any(m.base < new.end and new.base < m.end for m in pool.used(chunk)):
            raise Refused(f"{new.base:#x}+{new.size:#x} is not free")
        one.memory.append(Region(new.base, new.size, chunk.node))
    elif word == "memory-remove":
        base, size = _reg(item)
        if not any((m.base, m.size) == (base, size) for m in one.memory[1:]):
            raise Refused(f"region {base:#x} stays: the kernel is in it")
        one.memory = [m for m in one.memory if m.base != base]
    elif word == "device-add":
        if _text(item, "pci-id") not in pool.free_devices:
            raise Refused(f"device {_text(item, 'pci-id')} is not free")
        one.devices.append(_text(item, "pci-id"))
    elif word == "device-remove":
        if _text(item, "pci-id") not in one.devices:
            raise Refused(f"device {_text(item, 'pci-id')} is elsewhere")
        one.devices.remove(_text(item, "pci-id"))
    else:
        raise Refused(f"unknown change {word}")


def _pool(pool: Pool, word: str, item: Item) -> None:
    if word == "cpu-add":
        _cpu_to_pool(pool, _cpu(item))
    elif word == "cpu-remove":
        if _cpu(item) not in pool.free_cpus:
            raise Refused(f"CPU {_cpu(item)} is lent, or not in the pool")
        pool.cpus.remove(_cpu(item))
    elif word == "memory-add":
        _memory_to_pool(pool, _number(item, "size"), _number(item, "numa-node-id", 0))
    elif word == "memory-remove":
        base, size = _reg(item)
        chunk = next((c for c in pool.chunks if (c.base, c.size) == (base, size)), None)
        if chunk is None or pool.used(chunk):
            raise Refused(f"chunk {base:#x} is busy, or none")
        pool.chunks.remove(chunk)
    elif word == "device-add":
        _device_to_pool(pool, item)
    elif word == "device-remove":
        if _text(item, "pci-id") not in pool.free_devices:
            raise Refused(f"device {_text(item, 'pci-id')} is lent, or not in the pool")
        del pool.devices[_text(item, "pci-id")]
    else:
        raise Refused(f"unknown change {word}")


def _cpu_to_pool(pool: Pool, cpu: int) -> None:
    if cpu not in HOST_CPUS or cpu in pool.cpus or cpu == 0:
        raise Refused(f"CPU {cpu} is not the host's, or its last")
    pool.cpus.append(cpu)


def _memory_to_pool(pool: Pool, size: int, node: int) -> None:
    if not size or size % GRANULE or node != 0:
        raise Refused(f"no {size} bytes on node {node}")
    pool.chunks.append(Region(pool.next_base, size, node))
    pool.next_base += size + 128 * (1 << 20)


def _device_to_pool(pool: Pool, item: Item) -> None:
    address = _text(item, "pci-id")
    if address not in HOST_DEVICES or address in pool.devices:
        raise Refused(f"device {address} is not the host's")
    pool.devices[address] = _text(item, "alias") if "alias" in item else ""
