"""The device trees that the emulated kernel gives: of its pool, and of each instance."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import libfdt
from kerf.dtc.cells import pack_cpu_ids

from .model import GRANULE, HOST_CPUS, HOST_DEVICES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .model import Pool


def _begun() -> Any:
    tree = libfdt.FdtSw()
    tree.finish_reservemap()
    tree.begin_node("")
    return tree


def _done(tree: Any) -> bytes:
    tree.end_node()
    made = tree.as_fdt()
    made.pack()
    return bytes(made.as_bytearray())


def _devices(tree: Any, pool: Pool, addresses: Iterable[str]) -> None:
    """Write devices as that kernel does: in the binding of PCI buses, with their names beside."""
    aliases = {}
    for address in addresses:
        domain, bus, rest = address.split(":")
        slot, function = rest.split(".")
        where = int(bus, 16) << 16 | int(slot, 16) << 11 | int(function, 16) << 8
        bridge, leaf = f"pci@{int(bus, 16):x}", f"device@{int(slot, 16):x},{function}"
        tree.begin_node(bridge)
        tree.property_string("compatible", "multikernel,pci-host-bridge")
        tree.property_u32("linux,pci-domain", int(domain, 16))
        tree.begin_node(leaf)
        tree.property("reg", struct.pack(">5I", where, 0, 0, 0, 0))
        tree.property_u32("vendor-id", HOST_DEVICES[address])
        tree.end_node()
        tree.end_node()
        if pool.devices[address]:
            aliases[pool.devices[address]] = f"/{bridge}/{leaf}"
    if aliases:
        tree.begin_node("aliases")
        for alias, path in aliases.items():
            tree.property_string(alias, path)
        tree.end_node()


def of_pool(pool: Pool) -> bytes:
    """Return the tree of the pool; before there is one, of the host's CPUs."""
    tree = _begun()
    tree.property_string("compatible", "multikernel-v1")
    tree.property_u64("memory-granule", GRANULE)
    tree.begin_node("resources")
    if pool.live:
        tree.property("cpus", pack_cpu_ids(pool.cpus))
        tree.property("cpus-available", pack_cpu_ids(pool.free_cpus))
    else:
        tree.property("cpus", pack_cpu_ids(HOST_CPUS))
    for chunk in pool.chunks:
        tree.begin_node(f"memory@{chunk.base:x}")
        tree.property("reg", struct.pack(">QQ", chunk.base, chunk.size))
        tree.property_u32("numa-node-id", chunk.node)
        tree.end_node()
    tree.end_node()
    _devices(tree, pool, pool.free_devices)
    return _done(tree)


def of_instance(pool: Pool, name: str) -> bytes:
    """Return the tree of an instance."""
    one, tree = pool.instances[name], _begun()
    tree.property_string("model", name)
    tree.property_u32("id", one.id)
    tree.begin_node("resources")
    tree.property("cpus", pack_cpu_ids(one.cpus))
    tree.property_u64("memory-base", one.memory[0].base)
    tree.property_u64("memory-bytes", sum(m.size for m in one.memory))
    tree.end_node()
    _devices(tree, pool, one.devices)
    return _done(tree)
