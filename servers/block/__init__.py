"""block: the disks of this kernel, after sd(3). The files are those of docs/files/block.md.

The server reads from sysfs which disks there are when somebody asks. A loop or network device that stands for nothing now is no disk. What it
keeps of a disk belongs to the disk and not to its name: the kernel numbers every disk and every change of medium (diskseq), and sysfs every
directory.
"""

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs

from mk9p import uevents
from mk9p.devices import Present, identity
from mk9p.errors import NineError
from mk9p.ktext import split_lines
from mk9p.servers.block.disk import KERNEL_SECTOR, Disk, number
from mk9p.servers.block.files import DiskDir
from mk9p.sysfs import names, text
from mk9p.tree import Dir, Lazy, Log, Node, Text, join
from mk9p.uevents import Uevent

__all__ = ["Disks", "tree"]


@asynccontextmanager
async def tree(file: str | None = None, *, root: str = "/", sector: str = str(KERNEL_SECTOR)) -> AsyncIterator[Dir]:
    """Serve the disks of the kernel whose /sys and /dev are below `root`; or, if `file` is given, one file or device as a disk of its own.

    `sector` is the size in bytes of a plain file's sectors. Raises ENOENT for a file that does not exist, EINVAL for a wrong sector.
    """
    if file is not None:
        yield DiskDir(single(file, root, sector))
        return
    disks = Disks(root.rstrip("/"))
    async with uevents.told(disks.told, disks.present.look, root=root):
        yield disks.tree()


def single(file: str, root: str, sector: str) -> Disk:
    """Return a plain file, or any block device by its path, as a disk."""
    size = int(sector) if sector.isdecimal() else 0
    if size < KERNEL_SECTOR or size & (size - 1):
        raise NineError(errno.EINVAL, f"a sector has {KERNEL_SECTOR} bytes, or twice as many, or ...: {sector}")
    found, path = os.stat(file), os.path.abspath(file)
    if os.path.isdir(path):
        raise NineError(errno.EISDIR, f"{file} is a directory")
    sysfs = os.path.realpath(f"{root.rstrip('/')}/sys/dev/block/{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}")
    return Disk(os.path.basename(path), path, sysfs if found.st_rdev else "", size)


@attrs.define(eq=False)
class Disks:
    """All disks of one kernel."""

    root: str
    events: Log = attrs.field(factory=Log, init=False)
    disks: dict[str, Disk] = attrs.field(factory=dict, init=False)
    present: Present = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.present = Present(self.names, self.events, key=self.key, gone=self.gone)

    def tree(self) -> Dir:
        return Dir(
            {"status": Text(self.status), "events": self.events},
            Lazy(self.names, self.make, key=self.key),
        )

    def sysfs(self, name: str) -> str:
        return f"{self.root}/sys/block/{name}"

    def names(self) -> list[str]:
        return sorted(name for name in names(f"{self.root}/sys/block") if self.key(name) is not None)

    def key(self, name: str) -> object:
        """Return what distinguishes this disk from an earlier one of its name; None if there is none. An empty drive counts as a disk."""
        if "/" in name or name in (".", ".."):
            return None
        base = self.sysfs(name)
        inode = identity(base)
        if inode is None or (not number(f"{base}/size") and text(f"{base}/removable") != "1"):
            return None
        return inode, text(f"{base}/diskseq")

    def make(self, name: str) -> Node:
        if (old := self.disks.get(name)) is not None:
            old.gone = True
        return DiskDir(self.disk(name))

    def disk(self, name: str) -> Disk:
        base = self.sysfs(name)
        uevent = dict(line.partition("=")[::2] for line in split_lines(text(f"{base}/uevent")))
        device = uevent.get("DEVNAME") or name.replace("!", "/")
        disk = self.disks[name] = Disk(name, f"{self.root}/dev/{device}", os.path.realpath(base))
        return disk

    def status(self) -> str:
        """Return a line for each disk: NAME BYTES SECSIZE ro|rw fixed|removable INQUIRY."""
        lines = []
        for name in self.names():
            base = self.sysfs(name)
            disk = Disk(name, "", os.path.realpath(base))
            kind = "removable" if text(f"{base}/removable") == "1" else "fixed"
            lines.append(
                join([name, disk.length, disk.sector, "ro" if disk.readonly else "rw", kind, disk.inquiry()]) + "\n"
            )
        return "".join(lines)

    # what the kernel reports

    def told(self, uevent: Uevent) -> None:
        """Take a uevent: disks come, go and change, and so do their partitions."""
        if uevent.subsystem != "block":
            return
        if uevent.values.get("DEVTYPE") == "partition":
            name, part = uevent.path.split("/")[-2], f"p{uevent.values.get('PARTN', '')}"
            if name in self.disks:
                self.disks[name].forget()
            if uevent.action in ("add", "remove"):
                self.events.emit("part" if uevent.action == "add" else "delpart", name, part)
            return
        if uevent.action == "remove":
            # The uevent comes a moment before the directory goes from sysfs.
            self.present.went(uevent.name)
            return
        before = self.present.seen.get(uevent.name)
        self.present.came(uevent.name)
        if uevent.action == "change" and before is not None and before == self.present.seen.get(uevent.name):
            if uevent.name in self.disks:
                self.disks[uevent.name].forget()
            self.events.emit("change", uevent.name)

    def gone(self, name: str) -> None:
        if name in self.disks:
            self.disks.pop(name).gone = True
