"""The files of segments.

The bits of a segment's directory say who may use it: r to read and to map it, w also to write it. It is memory, so mkdir gives others no right;
chmod does.
"""

import errno
from typing import Literal

from mk9p.auth import READ, WRITE, Principal, may
from mk9p.errors import NineError
from mk9p.ktext import trim, whole
from mk9p.servers.seg.memory import Memory
from mk9p.tree import Block, Buffer, Ctl, Dir, Node, Owned, Stat, Text, settings

NAMES = 4096  # segments: each is a descriptor
MASK = 0o711  # applied to the mode that mkdir asks for, as create(5) of Plan 9 applies its directory's


class Segment(Owned):
    """One segment's directory. Its memory is made when its size is set."""

    def __init__(self, owner: "Segments", name: str, perm: int, who: Principal) -> None:
        self.owner, self.name = owner, name
        self.memory = Memory(name, root=owner.root)
        super().__init__(
            {
                "ctl": Ctl({"size": self.set_size, "hugetlb": self.set_hugetlb}, self.settings),
                "status": Text(self.status),
            },
            self._data(perm),
            mode=perm,
        )
        self.owned(who.uid, who.group)

    def used(self, perm: int) -> None:
        self.children[1] = self._data(perm)

    def _data(self, perm: int) -> dict[str, Node]:
        data = Block(self.read, self.write, size=lambda: self.memory.size, mode=perm & 0o666)
        return {"data": data, "fd": Text(self.where, mode=perm & 0o444)}

    def read(self, count: int, offset: int) -> Buffer:
        self._there()
        return self.memory.read(count, offset)

    def write(self, data: memoryview, offset: int) -> int:
        self._there()
        return self.memory.write(data, offset)

    def _there(self) -> None:
        if self.memory.fd < 0:
            raise NineError(errno.EIO, f"segment {self.name} was removed")

    def where(self) -> str:
        """Say where programs get the descriptor: the kernel by its boot id, the socket, and the name to ask for."""
        return f"{_boot_id(self.owner.root)} {self.owner.address} {self.name}\n"

    def set_size(self, bytes_: int) -> None:
        """Set the size in bytes."""
        self._there()
        self.memory.resize(bytes_)

    def set_hugetlb(self, how: Literal["on", "off"]) -> None:
        """Choose huge pages or ordinary ones; the old content is gone. Raises EBUSY when it has a size."""
        self._there()
        if self.memory.size:
            raise NineError(errno.EBUSY, "it has memory already: say hugetlb before size, or size 0")
        if self.memory.huge != (how == "on"):
            made = Memory(self.name, huge=how == "on", root=self.owner.root)
            self.memory.close()
            self.memory = made

    def settings(self) -> str:
        return settings({"hugetlb": "on" if self.memory.huge else "off", "size": self.memory.size})

    def status(self) -> str:
        memory = self.memory
        values = {"size": memory.size, "hugetlb": "on" if memory.huge else "off", "page": memory.page}
        return settings({**values, "fixed": "yes" if memory.sealed else "no"})


class Segments(Dir):
    """The directory of segments. `address` is where programs get descriptors."""

    def __init__(self, root: str, address: str) -> None:
        self.root, self.address = root, address
        self.named: dict[str, Node] = {}
        super().__init__(self.named, mode=0o755)

    def mkdir(self, name: str, perm: int, who: Principal) -> Node:
        """Make a segment, without any memory yet. Raises EEXIST, ENOSPC if there are too many, EINVAL for a name that a line cannot contain."""
        if name in self.named:
            raise NineError(errno.EEXIST)
        if any(char.isspace() for char in name):
            raise NineError(errno.EINVAL, "a segment's name has no blanks")
        if len(self.named) >= NAMES:
            raise NineError(errno.ENOSPC, f"there are {NAMES} segments already")
        made = self.named[name] = Segment(self, name, perm & MASK, who)
        return made

    def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> None:
        """Remove a segment. A program that has mapped it keeps the memory."""
        segment = self.named.get(name)
        if segment is None:
            raise NineError(errno.ENOENT)
        if directory is False:
            raise NineError(errno.EISDIR)
        assert isinstance(segment, Segment)
        del self.named[name]
        segment.memory.close()

    def descriptor(self, name: str, who: Principal) -> tuple[int, bool]:
        """Return a new descriptor of a segment's memory, and whether it can be written, as a user of this machine may have it."""
        segment = self.named.get(name)
        if not isinstance(segment, Segment):
            raise NineError(errno.ENOENT, f"no segment {name}")
        stat = segment.stat()
        assert isinstance(stat, Stat)
        if not may(who, stat.mode, stat.uid, stat.gid, READ):
            raise NineError(errno.EACCES)
        write = may(who, stat.mode, stat.uid, stat.gid, WRITE)
        return segment.memory.descriptor(write=write), write

    def close(self) -> None:
        """Let go of all memory."""
        for segment in self.named.values():
            assert isinstance(segment, Segment)
            segment.memory.close()
        self.named.clear()


def _boot_id(root: str) -> str:
    return trim(whole(f"{root}/proc/sys/kernel/random/boot_id"))
