"""`registry/`: services by name and attribute, as files (Inferno's registry(4)).

An entry lasts as long as the file `new` is open by which it was entered: so it goes with its client, and with its line. One that persists is in the
store, and lasts until somebody removes it.
"""

import errno
import logging
from collections.abc import Iterable
from typing import Final

import attrs

from mk9p.auth import NO_ID, Principal, unlimited
from mk9p.errors import NineError
from mk9p.lease.registry import HEARD, Entry, Registry
from mk9p.lease.stores import Store
from mk9p.tree import Dir, Handle, Log, Maybe, Node, Open, Text, decoded, split
from mk9p.tree.files import File
from mk9p.tree.slices import in_slices

log = logging.getLogger("mk9p.lease")

WEIGHT: Final = 4  # bytes that a letter takes at most
FIXED: Final = ("new", "index", "find", "event")


class RegistryTree(Dir):
    """The directory `registry`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.registry, self.event = Registry(), Log()
        self._again: set[str] = set()
        """Entries of ours that the store had let go, and has again."""

        self.registry.entries |= store.entries()
        store.entered = self._entered
        super().__init__(
            {"new": _New(self), "index": Text(self.index), "find": _Find(self.registry), "event": self.event}
        )

    def index(self) -> str:
        """Return all entries, a line each."""
        return "".join(f"{entry.line}\n" for entry in self.registry.all())

    def walk(self, name: str, who: Principal) -> Maybe[Node]:
        if name not in FIXED and (entry := self.registry.entries.get(name)) is not None:
            return _Shown(entry)
        return super().walk(name, who)

    def entries(self, who: Principal) -> Iterable[tuple[str, Node]]:
        fixed = super().entries(who)
        assert isinstance(fixed, Iterable)
        return [*fixed, *((entry.name, _Shown(entry)) for entry in self.registry.all())]

    async def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> None:
        """Remove an entry: the bits let only root do this."""
        entry = self.registry.entries.get(name)
        if entry is None:
            raise NineError(errno.EPERM if name in FIXED else errno.ENOENT)
        await self.store.remove(entry)
        self._forget(entry)

    def forget(self, entry: Entry) -> None:
        """Let an entry go, if it is still that one."""
        if self._has(entry):
            self._forget(self.registry.entries[entry.name])
            self.store.leave(entry)

    def _has(self, entry: Entry) -> bool:
        found = self.registry.entries.get(entry.name)
        return found is entry or (
            found is not None
            and entry.name in self._again
            and (found.owner, found.home, found.persists) == (entry.owner, entry.home, entry.persists)
        )

    def _forget(self, entry: Entry) -> None:
        if self.registry.entries.get(entry.name) is entry:
            del self.registry.entries[entry.name]
            self._again.discard(entry.name)
            self.event.emit("gone", entry.name)

    def _entered(self, name: str, entry: Entry | None) -> None:
        """Hear what another composer has entered, or let go; and one of ours that others have removed."""
        before = self.registry.entries.get(name)
        if entry is not None:
            if name in FIXED or (before is None and len(self.registry.entries) >= HEARD):
                log.error("the entry %r that another composer has is left out", name)
            elif before is None or before.line != entry.line or before.by != entry.by:
                self.registry.entries[name] = entry
                if not entry.home:
                    self._again.add(name)
                self.event.emit("new" if before is None else "changed", *split(entry.line))
        elif before is not None:
            self._forget(before)

    async def enter(self, entry: Entry, instead: Entry | None) -> Entry:
        """Enter a service, or change what it has; return it. Raises EEXIST, EINVAL, ENOSPC, and what the store says."""
        if entry.name in FIXED:
            raise NineError(errno.EEXIST, f"{entry.name} is a file of the registry")
        there = self.registry.entries.get(entry.name)
        if instead is None and there is not None and there.persists and there.owner == entry.owner:
            instead = there  # who entered it has it in hand again
        if instead is None:
            self.registry.add(entry)
        elif entry.name != instead.name or not self._has(instead):
            raise NineError(errno.EINVAL, f"this file entered {instead.name}")
        else:
            instead = self.registry.entries[instead.name]
            entry = instead.with_(entry)
            self.registry.entries[entry.name] = entry
        try:
            await self.store.enter(entry, instead)
        except BaseException:
            if self.registry.entries.get(entry.name) is entry:
                del self.registry.entries[entry.name]
                if instead is not None:
                    self.registry.entries[entry.name] = instead
            raise
        self._again.discard(entry.name)
        self.event.emit("new" if instead is None else "changed", *split(entry.line))
        return entry


class _Shown(File):
    """The file of an entry: an attribute a line."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(0o444)
        self.entry = entry

    def open(self, how: Open) -> Maybe[Handle]:
        pairs = [*self.entry.attributes, ("by", self.entry.by)]
        return Text("".join(f"{key} {value}\n" for key, value in pairs)).open(how)


class _New(File):
    """`new`: a write enters a service, which lasts while this file is open."""

    def __init__(self, tree: RegistryTree) -> None:
        super().__init__(0o666)
        self.tree = tree

    def open(self, how: Open) -> Maybe[Handle]:
        if how.who.uid == NO_ID:
            raise NineError(errno.EACCES, f"nobody knows who {how.who.name} is")
        return _Entering(self.tree, how.who)


@attrs.define(eq=False)
class _Entering(Handle):
    tree: RegistryTree
    who: Principal
    entry: Entry | None = None
    keeps = True

    def read(self, offset: int, count: int) -> bytes:
        line = b"" if self.entry is None else f"{self.entry.line}\n".encode()
        return line[offset : offset + count]

    async def write(self, offset: int, data: memoryview) -> int:
        count = len(data)
        entry = Entry.parse(split(decoded(data)), self.who.name)
        if not unlimited(self.who):
            self.tree.registry.require_share(entry)
        if self.keeper is not None:
            self.keeper.check(WEIGHT * entry.size)
        self.entry = await self.tree.enter(entry, self.entry)
        if self.keeper is not None and not self.entry.persists:
            self.keeper.keep_text(WEIGHT * self.entry.size)
        return count

    def close(self) -> None:
        if self.entry is not None and not self.entry.persists:
            self.tree.forget(self.entry)


class _Find(File):
    """`find`: write what is looked for, and read the names that have it from the same open file."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(0o666)
        self.registry = registry

    def open(self, how: Open) -> Maybe[Handle]:
        return _Finding(self.registry)


@attrs.define(eq=False)
class _Finding(Handle):
    registry: Registry
    answer: bytes = b""
    base: int = 0
    keeps = True

    def read(self, offset: int, count: int) -> bytes:
        at = offset - self.base if offset >= self.base else offset
        return self.answer[at : at + count]

    async def write(self, offset: int, data: memoryview) -> int:
        size = len(data)
        found = await in_slices(self.registry.find(split(decoded(data))))
        answer = "".join(f"{entry.name}\n" for entry in found).encode()
        if self.keeper is not None:
            self.keeper.keep_text(0)
            self.answer = b""
            self.keeper.check(len(answer))
            self.keeper.keep_text(len(answer))
        self.answer = answer
        self.base = offset + size  # v9fs reads on from there
        return size
