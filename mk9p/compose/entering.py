"""Kernels enter themselves in the registry: what is mounted at /k/NAME has an entry NAME as long as it is up, with what its tree says of it.

arch, release   of its `status`
cpus            how many there are
has             the parts of its tree, a blank between: `has '* usb *'` finds them
"""

import logging
from collections.abc import Callable
from typing import Final

import attrs
import trio

from mk9p.auth import ROOT, Principal
from mk9p.compose.namespace import KERNELS, Namespace
from mk9p.errors import NineError
from mk9p.ktext import split_lines
from mk9p.lease.entries import RegistryTree
from mk9p.lease.registry import Entry
from mk9p.tree import Node, Open, settle

log = logging.getLogger("mk9p.compose")

PATIENCE: Final = 5.0  # seconds for what a kernel says of itself
_LONGEST: Final = 200  # characters of an attribute
_TOLD: Final = ("arch", "release")


@attrs.define(eq=False)
class Entering:
    """Follows what comes and goes in a namespace. `owner` is whose the entries are."""

    ns: Namespace
    registry: RegistryTree
    nursery: trio.Nursery
    owner: str = "kernel"
    came: Callable[[], None] = attrs.field(default=lambda: None)
    """Called when a kernel has been entered, or has gone."""
    alone: bool = True
    """Whether it enters them in the registry; otherwise a federation does (federation.py)."""
    entries: dict[str, Entry] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.ns.events.heard.append(self._heard)

    def _heard(self, what: str, args: tuple[object, ...]) -> None:
        name = str(args[0]) if args else ""
        if what == "up" and f"{KERNELS}/{name}" in self.ns.table.points:
            self.nursery.start_soon(self._enter, name)
        elif what == "down" and (entry := self.entries.pop(name, None)) is not None:
            self._forget(entry)
            self.came()

    def _forget(self, entry: Entry) -> None:
        if self.alone:
            self.registry.forget(entry)

    async def _enter(self, name: str) -> None:
        try:
            pairs: dict[str, str] = {}
            with trio.move_on_after(PATIENCE):
                pairs = await described(await self._at(name), ROOT)
            old = self.entries.pop(name, None)
            if old is not None:
                self._forget(old)
            entry = Entry.parse([name, *(word for pair in pairs.items() for word in pair)], self.owner)
            self.entries[name] = await self.registry.enter(entry, None) if self.alone else entry
            self.came()
        except NineError as error:  # its name is taken, or is none for the registry
            log.warning("kernel %s is not in the registry: %s", name, error)

    async def _at(self, name: str) -> Node:
        return await settle((await settle(self.ns.root.walk(KERNELS[1:], ROOT))).walk(name, ROOT))


async def described(tree: Node, who: Principal) -> dict[str, str]:
    """Return what a kernel says of itself to a user. Raises what its tree says."""
    said: dict[str, str] = {}
    parts = sorted([name for name, _ in await settle(tree.entries(who))])
    said["has"] = f" {' '.join(parts)} "[:_LONGEST]
    if "status" in parts:
        handle = await settle((await settle(tree.walk("status", who))).open(Open(who)))
        try:
            text = bytes(await settle(handle.read(0, 1 << 16))).decode(errors="replace")
        finally:
            await settle(handle.close())
        for line in split_lines(text):
            key, _, value = line.partition(" ")
            if key in _TOLD and value and key not in said:
                said[key] = value[:_LONGEST]
    if "cpu" in parts:
        names = [name for name, _ in await settle((await settle(tree.walk("cpu", who))).entries(who))]
        said["cpus"] = str(sum(name.isdecimal() for name in names))
    return said
