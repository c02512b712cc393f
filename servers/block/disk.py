"""One disk: where it is, how large, which parts it has. A block device of sysfs, or a plain file that serves as one.

The kernel's word comes first: the partitions that it knows are those of sysfs. Where it knows none (a loop device, a plain file, a disk that it
was told not to examine), this module reads the table. Then come, in memory alone, the parts that `part` made and `delpart` removed.

The disk keeps its length, because every read needs it. It looks again when a read or write would go past the length, and when the kernel says that
the disk has changed. Whoever notices first that the disk is gone sets `gone`, once; then everything that is open answers EIO.
"""

import errno
import os
from typing import Final

import attrs
import trio

from mk9p.errors import NineError
from mk9p.servers.block import tables
from mk9p.servers.block.tables import Part, Table
from mk9p.sysfs import text

KERNEL_SECTOR: Final = 512  # the unit of `size` and `start` in sysfs, whatever the size of the disk's own sectors
TAKEN: Final = frozenset({"ctl", "data", "raw", "error", ".", ".."})
_THREADS: Final = 8  # that may wait for one disk: a dead disk must not block all threads


def number(path: str, default: int = 0) -> int:
    said = text(path)
    return int(said) if said.isdecimal() else default


@attrs.define(eq=False)
class Disk:
    """The disk `name` at the device file `path`; `sysfs` is its directory below /sys, empty for a plain file of sectors of `sector` bytes."""

    name: str
    path: str
    sysfs: str = ""
    sector: int = KERNEL_SECTOR
    length: int = attrs.field(default=0, init=False)
    readonly: bool = attrs.field(default=False, init=False)
    gone: bool = attrs.field(default=False, init=False)
    table: Table | None = attrs.field(default=None, init=False)
    made: dict[str, Part] = attrs.field(factory=dict, init=False)
    hidden: set[str] = attrs.field(factory=set, init=False)
    users: dict[str, int] = attrs.field(factory=dict, init=False)
    threads: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(_THREADS), init=False)

    def __attrs_post_init__(self) -> None:
        if self.sysfs:
            whole = self.sysfs if os.path.isdir(f"{self.sysfs}/queue") else os.path.dirname(self.sysfs)
            self.sector = number(f"{whole}/queue/logical_block_size", KERNEL_SECTOR)
        self.look()

    # what it is

    def look(self) -> int:
        """Return the present length in bytes; a disk that is gone has none."""
        if self.gone:
            return 0
        try:
            if self.sysfs:
                with open(f"{self.sysfs}/size") as file:
                    self.length = int(file.read()) * KERNEL_SECTOR
                self.readonly = text(f"{self.sysfs}/ro") == "1"
            else:
                self.length = os.stat(self.path).st_size // self.sector * self.sector
        except OSError:
            self.gone, self.length = True, 0
        return self.length

    def here(self) -> None:
        """Raise EIO if the disk is gone."""
        if self.gone:
            raise NineError(errno.EIO, f"{self.name} is gone")

    @property
    def sectors(self) -> int:
        return self.length // self.sector

    def inquiry(self) -> str:
        """Return in words what the disk is: vendor and model, or what stands behind it."""
        if not self.sysfs:
            return f"file {self.path}"
        device = [text(f"{self.sysfs}/device/{name}") for name in ("vendor", "model", "rev")]
        if device[1]:  # a virtio disk has a vendor, a number, and no model
            return " ".join(filter(None, device))
        for name, kind in (("loop/backing_file", "loop"), ("dm/name", "dm"), ("md/level", "md"), ("serial", "disk")):
            if said := text(f"{self.sysfs}/{name}"):
                return f"{kind} {said}"
        return self.name

    # its parts

    @property
    def known(self) -> bool:
        """Tell whether the parts are known without reading the disk."""
        return self.gone or self.table is not None or bool(self._of_kernel())

    async def study(self) -> None:
        """Read the partition table, if the kernel knows none and it has not been read yet."""
        if not self.known:
            self.table = await trio.to_thread.run_sync(self.read_table, limiter=self.threads)

    def read_table(self) -> Table:
        """Read the partition table from the disk; may block. A disk that cannot be read has no table, and the table says why."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return Table()  # no medium, or no permission: there is nothing to see, and opening `data` gives the reason
        try:
            return tables.find(
                lambda start, count: os.pread(fd, count * self.sector, start * self.sector), self.sectors, self.sector
            )
        except (OSError, OverflowError) as error:
            return Table(wrong=f"unreadable: {error}")
        finally:
            os.close(fd)

    def forget(self) -> None:
        """Forget what is on the disk, because it has changed."""
        self.table = None
        self.look()

    def _of_kernel(self) -> dict[str, Part]:
        if not self.sysfs:
            return {}
        try:
            names = sorted(os.listdir(self.sysfs))
        except OSError:
            return {}
        ratio = self.sector // KERNEL_SECTOR
        found: dict[int, Part] = {}
        for name in names:
            if name.startswith(os.path.basename(self.sysfs)) and (n := number(f"{self.sysfs}/{name}/partition")):
                start, size = number(f"{self.sysfs}/{name}/start"), number(f"{self.sysfs}/{name}/size")
                found[n] = Part(f"p{n}", start // ratio, (start + size) // ratio)
        return {found[n].name: found[n] for n in sorted(found)}

    def parts(self) -> dict[str, Part]:
        """Return all parts by name, without `data`. Call `study` first."""
        there = self._of_kernel() or {part.name: part for part in (self.table.parts if self.table else ())}
        return {name: part for name, part in there.items() if name not in self.hidden} | self.made

    def part(self, name: str, start: int, end: int) -> None:
        """Make a part in memory. Raises EINVAL for a part that does not lie on the disk, EEXIST for a name of another part."""
        self.here()
        new = Part(name, start, end)
        if new == (self.parts() | {"data": Part("data", 0, self.sectors)}).get(name):
            return  # the part exists already: a client can write back what it read from ctl
        if name in TAKEN or not name or len(name) > 64 or not all(c.isprintable() and c not in "/ '" for c in name):
            raise NineError(errno.EINVAL, f"{name!r} cannot be a part's name")
        if name in self.parts():
            raise NineError(errno.EEXIST, f"there is another part {name}: delpart {name} first")
        if not 0 <= start < end <= self.sectors:
            raise NineError(errno.EINVAL, f"a part lies between 0 and {self.sectors}, its end after its start")
        self.made[name] = new

    def delpart(self, name: str) -> None:
        """Remove a part from memory. Raises ENOENT, EBUSY while somebody has it open, EPERM for the whole disk."""
        if name == "data":
            raise NineError(errno.EPERM, "data is the disk itself")
        if name not in self.parts():
            raise NineError(errno.ENOENT, f"no part {name}")
        if self.users.get(name):
            raise NineError(errno.EBUSY, f"part {name} is open")
        if self.made.pop(name, None) is None:
            self.hidden.add(name)
