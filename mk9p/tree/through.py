"""`ThroughHandle`: an open file that shows another, with something added.

All that a handle can be asked is passed on here, once, so that no kind of showing forgets a method.
"""

from mk9p.status import Buffer, Change, Lock, Stat
from mk9p.tree.node import Handle, Keeper, Maybe


class ThroughHandle(Handle):
    """Pass everything on to `handle`. A kind that closes in its own way is no longer `prompt`."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.duplex, self.keeps, self.truncates = handle.duplex, handle.keeps, handle.truncates
        self.prompt = handle.prompt and type(self).close is ThroughHandle.close

    @property
    def locks(self) -> int:  # type: ignore[override]
        return self.handle.locks

    @property
    def keeper(self) -> Keeper | None:
        return self.handle.keeper

    @keeper.setter
    def keeper(self, keeper: Keeper | None) -> None:
        self.handle.keeper = keeper

    def read(self, offset: int, count: int) -> Maybe[Buffer]:
        return self.handle.read(offset, count)

    def write(self, offset: int, data: memoryview) -> Maybe[int]:
        return self.handle.write(offset, data)

    def stat(self) -> Maybe[Stat] | None:
        return self.handle.stat()

    def change(self, change: Change) -> Maybe[None] | None:
        return self.handle.change(change)

    def lock(self, lock: Lock) -> Maybe[bool]:
        return self.handle.lock(lock)

    def locked(self, lock: Lock) -> Maybe[Lock | None]:
        return self.handle.locked(lock)

    def sync(self, *, data: bool = False) -> Maybe[None]:
        return self.handle.sync(data=data)

    def close(self) -> Maybe[None]:
        return self.handle.close()
