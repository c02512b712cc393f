"""The files of one disk: `ctl`, `data`, `raw`, and one for each part."""

import errno
from collections.abc import Iterable
from functools import partial
from typing import Any, Literal

import trio

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.ktext import split_words
from mk9p.servers.block import device
from mk9p.servers.block.disk import TAKEN, Disk
from mk9p.servers.block.extent import Extent
from mk9p.servers.block.raw import Raw
from mk9p.tree import Ctl, Dir, Lazy, Maybe, Node, join


class Words:
    """The words of a disk's ctl, and what it reads, after sd(3). A thread does what may wait for the disk."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk

    def ctl(self) -> Ctl:
        return Ctl(
            {
                "part": self.part,
                "delpart": self.delpart,
                "flush": self.flush,
                "rescan": self.rescan,
                "readonly": self.readonly,
                "discard": self.discard,
                "inquiry": self.inquiry,
                "geometry": self.geometry,
            },
            self.settings,
        )

    async def settings(self) -> str:
        disk = self.disk
        await disk.study()
        disk.look()
        disk.here()
        lines: list[list[object]] = [["inquiry", *split_words(disk.inquiry())], ["geometry", disk.sectors, disk.sector]]
        lines += [["part", "data", 0, disk.sectors]]
        lines += [["part", part.name, part.start, part.end] for part in disk.parts().values()]
        lines += [["readonly", "on" if disk.readonly else "off"]]
        return "".join(join(line) + "\n" for line in lines)

    async def part(self, name: str, start: int, end: int) -> None:
        await self.disk.study()
        self.disk.look()
        self.disk.part(name, start, end)

    async def delpart(self, name: str) -> None:
        await self.disk.study()
        self.disk.delpart(name)

    async def flush(self) -> None:
        await self._do(device.flush)

    async def rescan(self) -> None:
        """Read size and table again; parts that `delpart` removed come back. Raises EINVAL, in words, for a damaged table."""
        disk = self.disk
        disk.here()
        try:
            if disk.sysfs:
                await trio.to_thread.run_sync(device.resize, disk.sysfs, limiter=disk.threads)
                await self._do(device.reread_partitions)
        finally:
            disk.forget()
            disk.hidden.clear()
            disk.made = {name: part for name, part in disk.made.items() if part.end <= disk.sectors}
        table = await trio.to_thread.run_sync(disk.read_table, limiter=disk.threads)
        disk.table = table
        if table.wrong:
            raise NineError(errno.EINVAL, f"{disk.name}: {table.wrong}")

    async def readonly(self, how: Literal["on", "off"]) -> None:
        """Make the kernel refuse writes, or stop that. Only a difference makes a change: a client can write back what it read from ctl."""
        disk = self.disk
        disk.look()
        if disk.readonly != (how == "on"):
            await self._do(partial(device.set_readonly, on=how == "on"))
            disk.readonly = how == "on"

    async def discard(self, start: int, end: int) -> None:
        disk = self.disk
        disk.look()
        if not 0 <= start < end <= disk.sectors:
            raise NineError(errno.EINVAL, f"sectors are 0 to {disk.sectors}, the end after the start")
        if disk.readonly:
            raise NineError(errno.EROFS)
        await self._do(partial(device.discard, start=start * disk.sector, length=(end - start) * disk.sector))

    def inquiry(self, *what: str) -> None:
        self._same("inquiry", " ".join(what), " ".join(split_words(self.disk.inquiry())))

    def geometry(self, sectors: int, secsize: int) -> None:
        self._same("geometry", f"{sectors} {secsize}", f"{self.disk.look() // self.disk.sector} {self.disk.sector}")

    def _same(self, word: str, said: str, true: str) -> None:
        """Accept what ctl itself gives, which changes nothing; raises EPERM for anything else."""
        if said != true:
            raise NineError(errno.EPERM, f"{word} of {self.disk.name} is {true}, and cannot be changed")

    async def _do(self, work: Any) -> None:
        self.disk.here()
        await trio.to_thread.run_sync(work, self.disk.path, limiter=self.disk.threads)


class DiskDir(Dir):
    """NAME/. The first look at a part reads the table; only then the parts are known."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        super().__init__(
            {"ctl": Words(disk).ctl(), "data": Extent(disk), "raw": Raw(disk)},
            Lazy(
                lambda: disk.parts(),
                lambda name: Extent(disk, disk.parts()[name]),
                key=lambda name: disk.parts().get(name),
            ),
        )

    def walk(self, name: str, who: Principal) -> Maybe[Node]:
        return super().walk(name, who) if self.disk.known or name in TAKEN else self._walk(name, who)

    async def _walk(self, name: str, who: Principal) -> Node:
        await self.disk.study()
        node = super().walk(name, who)
        assert isinstance(node, Node)
        return node

    async def entries(self, who: Principal) -> Iterable[tuple[str, Node]]:
        await self.disk.study()
        found = super().entries(who)
        assert isinstance(found, list)
        return found
