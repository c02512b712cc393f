"""`Federation`: composers of several machines that have one store show each other's kernels (far.py).

Theory
* Each composer writes a record for each of its kernels that others can dial. The records stay when it goes; that it is there, its session says
  (etcd/session.py). So a machine that dies costs one write, and one that comes back another, however many kernels it has.
* What the store says is not the last word. A machine whose composer is gone may still answer; and a composer that has lost the store knows nothing
  of the others. So who is suspected is asked: a machine where nobody answers is out, its connections are ended, and requests for it fail at once.
  It is asked again and again, and is back by itself.
"""

import errno
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from random import sample
from typing import Final

import attrs
import trio

from mk9p.auth import ROOT
from mk9p.client.capability import of_mount
from mk9p.compose.entering import Entering
from mk9p.compose.far import Far, Kernel, Machine
from mk9p.compose.far_records import KERNEL, Said, dialable, owner_of, place
from mk9p.compose.far_server import FarServer
from mk9p.compose.namespace import KERNELS, Namespace
from mk9p.compose.remote import Server
from mk9p.compose.table import Item
from mk9p.dial import dial
from mk9p.errors import NineError
from mk9p.etcd.address import is_name
from mk9p.etcd.records import Json, Record, delete, put, same
from mk9p.etcd.session import HOMES
from mk9p.lease.registry import Entry
from mk9p.lease.shared import Shared
from mk9p.tree import Node, settle

log = logging.getLogger("mk9p.compose")

GATHER: Final = 0.1  # seconds in which changes of our kernels come together in one write
BATCH: Final = 100  # records in one write: etcd takes 128
LOOK: Final = 0.5  # seconds between two looks for machines to suspect
PATIENCE: Final = 5.0  # seconds for a kernel's first answer
PROBE: Final = 2.0  # seconds in which a machine must answer
ASKED: Final = 3  # kernels of a machine that are asked: one may be down by itself
CALL: Final = 10.0  # seconds until a kernel of ours that is down is called again
AGAIN: Final = 1.0  # seconds until a write that failed is tried again
_ALIVE: Final = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.EPROTO, errno.EACCES})
"""Errors of dialling that show that the machine answers."""


@attrs.define(eq=False)
class Federation:
    """The federation, as one composer takes part in it. `entering` has what its own kernels say of themselves, `local`:
    all are on one machine."""

    store: Shared
    far: Far
    ns: Namespace
    entering: Entering
    local: bool = False
    _wanted: dict[str, Said] = attrs.field(factory=dict, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _refused: set[str] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        for key, one in self.store.mirror.kept.items():
            self._heard(key, one)
        self.store.mirror.heard.append(self._heard)
        self.ns.table.on_change.append(self.look)
        self.ns.forgets = self.forget
        self.entering.alone, came = False, self.entering.came

        def changed() -> None:
            self.look()
            came()

        self.entering.came = changed

    @property
    def home(self) -> str:
        return self.far.this

    # what the others say

    def _heard(self, key: str, one: Record | None) -> None:
        at = key.removeprefix(self.store.prefix)
        try:
            if at.startswith(HOMES):
                if not is_name(at.removeprefix(HOMES)):
                    raise ValueError("no composer has such a name")
                self.far.there(at.removeprefix(HOMES), one is not None)
            elif at.startswith(KERNEL):
                host, name = owner_of(at)
                self.far.hear(host, name, None if one is None else Said.read(one.value, local=self.local))
                self._list(host, name)
                return
            else:
                return
        except (ValueError, NineError) as error:
            log.error("what etcd has at %r is not understood: %s", key, error)
            return
        for name in self.far.machine(at.removeprefix(HOMES)).kernels:
            self._list(at.removeprefix(HOMES), name)

    def _list(self, host: str, name: str) -> None:
        """Have a kernel in the registry as long as it is up."""
        machine = self.far.machine(host)
        kernel = machine.kernels.get(name)
        full = f"{host}.{name}"
        entry = None if kernel is None or not kernel.said.up or not machine.there else kernel.said.entry(full)
        if entry is not None:
            more = (("host", host), ("kernel", name))
            kept = tuple(pair for pair in entry.attributes if pair[0] not in ("host", "kernel"))
            entry = attrs.evolve(entry, attributes=(*kept, *more), home="" if host == self.home else host)
        self.store.entered(full, entry)

    def known(self) -> dict[str, Entry]:
        """Return what all kernels say of themselves, by the name that each has where it is there once."""
        found = dict(self.entering.entries)
        for kernel in self.far.full.values():
            name = self.far.shortest(kernel)
            if kernel.machine.name != self.home and (entry := kernel.said.entry(name)) is not None:
                found[name] = entry
        return found

    # what we say

    def look(self) -> None:
        """Look whether something of ours is to be said anew."""
        self._changed.set()

    def _own(self) -> dict[str, Said]:
        """Return what is to be said of our kernels."""
        said: dict[str, Said] = {}
        entries = self.entering.entries
        top = f"{KERNELS}/"
        for point, items in self.ns.table.points.items():
            name = point.removeprefix(top)
            item = _mounted(items)
            if not point.startswith(top) or "/" in name or item is None:
                continue
            if not dialable(item.what, local=self.local):
                if point not in self._refused:
                    self._refused.add(point)
                    log.warning("%s is for this machine only: no other can dial %s", point, item.what)
                continue
            entry = entries.get(name)
            said[name] = Said(
                item.what, item.spec, entry is not None, item.untrusted, "" if entry is None else entry.line
            )
        return said

    async def _publish(self) -> None:
        """Keep what others read of our kernels, until cancelled."""
        while True:
            await trio.sleep(GATHER)
            self._changed = trio.Event()
            changes = self._changes()
            if not changes:
                await self._changed.wait()
                continue
            try:
                await self._write(changes[:BATCH])
            except OSError as error:
                log.info("others do not hear of our kernels yet: %s", error)
                await trio.sleep(AGAIN)

    def _changes(self) -> list[Json]:
        there = {name: kernel.said for name, kernel in self.far.machine(self.home).kernels.items()}
        wanted = self._own()
        keys = {name: f"{self.store.prefix}{place(self.home, name)}" for name in {**there, **wanted}}
        gone = [delete(keys[name]) for name in there if name not in wanted]
        return [*gone, *(put(keys[name], said.value()) for name, said in wanted.items() if there.get(name) != said)]

    async def _write(self, changes: list[Json], *compare: Json) -> None:
        session = self.store.session
        session.require()
        with trio.CancelScope(shield=True):
            await session.settle()
            try:
                outcome = await self.store.client.txn([session.ours(), *compare], changes, [])
            except NineError:
                session.unsure = True
                raise
        if not outcome.done:
            raise NineError(errno.EAGAIN, "the store has changed meanwhile: say it again")
        await self.store.mirror.reached(outcome.revision)

    async def forget(self, host: str) -> None:
        """Forget the kernels of a machine that is gone for ever. Raises ENOENT, EBUSY while its composer is there, EAGAIN."""
        machine = self.far.machines.get(host)
        if machine is None or not machine.kernels:
            raise NineError(errno.ENOENT, f"no machine {host} has kernels here")
        if machine.there:
            raise NineError(errno.EBUSY, f"the composer of {host} is there: unmount them at {host}")
        absent = same(f"{self.store.prefix}{HOMES}{host}", 0)
        keys = [f"{self.store.prefix}{place(host, name)}" for name in machine.kernels]
        for at in range(0, len(keys), BATCH):
            await self._write([delete(key) for key in keys[at : at + BATCH]], absent)

    async def _call(self) -> None:
        """Call our kernels that have not answered yet, so that all hear of them; and those that are down, until they are back."""
        while True:
            entries = self.entering.entries
            for name in self._own():
                if name not in entries:
                    with suppress(OSError), trio.move_on_after(PROBE):
                        node = await settle(self.ns.root.walk(KERNELS[1:], ROOT))
                        await settle((await settle(node.walk(name, ROOT))).stat())
            with trio.move_on_after(CALL):
                await self._changed.wait()
                await trio.sleep(GATHER)

    # who is there

    async def _watch(self) -> None:
        """Find machines where nobody answers, and those that are back, until cancelled."""
        while True:
            alone = self._alone()
            async with trio.open_nursery() as nursery:
                for machine in tuple(self.far.machines.values()):
                    if machine.name == self.home:
                        continue
                    if alone or machine.doubted or machine.out or not machine.there:
                        nursery.start_soon(self._ask, machine)
            await trio.sleep(LOOK)

    def _alone(self) -> bool:
        """Tell whether the store has been lost, so that nobody tells us of the others."""
        try:
            self.store.session.require()
        except NineError:
            return True
        return False

    async def _ask(self, machine: Machine) -> None:
        """Ask a machine whether it is there."""
        if not machine.kernels:
            return
        addresses = sorted({kernel.said.dial for kernel in machine.kernels.values()})
        answers = False

        async def one(address: str) -> None:
            nonlocal answers
            try:
                link = await dial(address)
            except OSError as error:
                answers = answers or error.errno in _ALIVE
            else:
                link.close()
                answers = True
            if answers:
                nursery.cancel_scope.cancel()

        with trio.move_on_after(PROBE):
            async with trio.open_nursery() as nursery:
                for address in sample(addresses, min(ASKED, len(addresses))):
                    nursery.start_soon(one, address)
        machine.doubted = False
        self.far.out(machine, not answers)

    async def run(self) -> None:
        """Take part, until cancelled."""
        async with trio.open_nursery() as nursery:
            for task in (self._publish, self._call, self._watch):
                nursery.start_soon(task)


def far_of(store: Shared, nursery: trio.Nursery, secret: bytes, ns: Callable[[], Namespace]) -> Far:
    """Return the directory of all machines' kernels, whose connections run in `nursery`."""

    def make(kernel: Kernel) -> FarServer:
        def changed(_: Server, up: bool, reason: str) -> None:
            kernel.since, kernel.reason = time.time_ns(), None if up else reason
            kernel.machine.doubted = not up
            ns().events.emit("up" if up else "down", kernel.full, *([] if up else [reason]))

        def doubted() -> None:
            kernel.machine.doubted = True

        return FarServer(
            kernel.said.dial,
            nursery,
            aname=of_mount(kernel.said.spec),
            secret=secret,
            called=lambda: kernel.full,
            deadline=PATIENCE,
            on_change=[changed],
            doubted=doubted,
        )

    def here(name: str) -> Node | None:
        item = _mounted(ns().table.points.get(f"{KERNELS}/{name}", ()))
        return None if item is None else item.node

    def told(name: str, what: str) -> None:
        ns().events.emit("machine", name, what)

    return Far(store.session.name, make, here, told)


def _mounted(items: tuple[Item, ...]) -> Item | None:
    """Return the server that is mounted at a place; None if it is something else, or more than one thing."""
    return items[0] if len(items) == 1 and items[0].kind == "mount" else None
