"""mem: the memory of this kernel. The files are those of docs/files/mem.md.

The server reads everything from the kernel when somebody asks (proc_meminfo(5), Documentation/admin-guide/mm/memory-hotplug.rst,
drivers/base/memory.c). There are blocks only where the kernel can switch memory at all. A kernel without NUMA has no nodes.
"""

import errno
import os
from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias

import attrs
import trio

from mk9p.errors import NineError, wording
from mk9p.ktext import trim
from mk9p.sysfs import names, put, text
from mk9p.tree import Ctl, Dir, Lazy, Node, Text, fields

Policy: TypeAlias = Literal["offline", "online", "online_kernel", "online_movable"]


def tree(*, root: str = "/") -> Dir:
    """Serve the memory of the kernel whose /sys and /proc are below `root`."""
    return Memory(root.rstrip("/")).tree()


@attrs.frozen(eq=False)
class Memory:
    """The memory of one kernel."""

    root: str

    @property
    def blocks(self) -> str:
        return f"{self.root}/sys/devices/system/memory"

    @property
    def nodes(self) -> str:
        return f"{self.root}/sys/devices/system/node"

    def tree(self) -> Dir:
        return Dir(
            {
                "ctl": Ctl({"auto_online": self.auto_online}, self.settings),
                "status": Text(self.status),
                "node": Dir(_numbered(self.nodes, "node", self.node)),
                "block": Dir(_numbered(self.blocks, "memory", self.block)),
            }
        )

    def node(self, name: str) -> Dir:
        return Dir({"status": Text(lambda: self.status_of_node(name))})

    def block(self, name: str) -> Dir:
        words = {word: partial(self.switch, name, word) for word in ("online", "online_movable", "offline")}
        return Dir(
            {
                "ctl": Ctl(words, lambda: self.setting_of_block(name)),
                "status": Text(lambda: self.status_of_block(name)),
            }
        )

    # what is read

    def status(self) -> str:
        """Render /proc/meminfo in bytes, then the size of a block where there are blocks."""
        lines = _in_bytes(text(f"{self.root}/proc/meminfo"))
        if size := self.block_size():
            lines.append(f"block_size {size}\n")
        return "".join(lines)

    def status_of_node(self, n: str) -> str:
        base = f"{self.nodes}/node{n}"
        cpus, distances = text(f"{base}/cpulist"), text(f"{base}/distance")
        return "".join([f"cpus {cpus or '-'}\n", f"distance {distances or '-'}\n", *_in_bytes(text(f"{base}/meminfo"))])

    def status_of_block(self, n: str) -> str:
        base, size = f"{self.blocks}/memory{n}", self.block_size()
        values = {
            "block": n,
            "state": text(f"{base}/state") or "-",
            "node": next((d[4:] for d in names(base) if d.startswith("node")), "-"),
            "zones": text(f"{base}/valid_zones") or "-",
            "removable": text(f"{base}/removable") or "-",
            "start": int(n) * size if size else "-",
            "size": size or "-",
        }
        return fields(values)

    def setting_of_block(self, n: str) -> str:
        if text(f"{self.blocks}/memory{n}/state") != "online":
            return "offline\n"
        return "online_movable\n" if text(f"{self.blocks}/memory{n}/valid_zones") == "Movable" else "online\n"

    def settings(self) -> str:
        policy = text(f"{self.blocks}/auto_online_blocks")
        return f"auto_online {policy}\n" if policy else ""

    def block_size(self) -> int:
        """Return the size of a memory block in bytes, 0 where there are none."""
        return int(text(f"{self.blocks}/block_size_bytes") or "0", 16)

    # what is done

    def auto_online(self, policy: Policy) -> None:
        """Set what happens to memory that is added; raises ENODEV where the kernel cannot add any."""
        path = f"{self.blocks}/auto_online_blocks"
        if not os.path.exists(path):
            raise NineError(errno.ENODEV, "this kernel has no memory blocks")
        put(path, policy)

    async def switch(self, n: str, how: str) -> None:
        """Bring a block online or take it offline, in a thread: the kernel first moves everything in it, for as long as that takes.

        A block that is already in the wanted state is left as it is; the kernel itself would call that an error. A flushed `offline` goes on in
        the kernel.
        """
        now = self.setting_of_block(n)[:-1]
        if how == now or (how == "online" and now == "online_movable"):
            return
        if how == "online_movable" and now == "online":
            raise NineError(errno.EBUSY, f"block {n} is online as ordinary memory: take it offline first")
        try:
            await trio.to_thread.run_sync(put, f"{self.blocks}/memory{n}/state", how, abandon_on_cancel=True)
        except OSError as error:
            number = error.errno or errno.EIO
            what = "taken offline" if how == "offline" else "brought online"
            raise NineError(number, f"block {n} cannot be {what}: {wording(number)}") from None


def _numbered(base: str, prefix: str, make: Callable[[str], Node]) -> Lazy:
    """Return the children that sysfs has as `PREFIXn` in `base`, by their number."""

    def numbers() -> list[str]:
        found = (name.removeprefix(prefix) for name in names(base) if name.startswith(prefix))
        return sorted((name for name in found if name.isdigit()), key=int)

    def key(name: str) -> object:
        return True if name.isdigit() and os.path.isdir(f"{base}/{prefix}{name}") else None

    return Lazy(numbers, make, key=key)


def _in_bytes(meminfo: str) -> list[str]:
    """Return meminfo's lines as `key value` with sizes in bytes. A value without a unit is a count (of huge pages) and does not change."""
    lines = []
    for line in meminfo.split("\n"):
        name, colon, value = line.partition(":")
        number, _, unit = trim(value).partition(" ")
        if colon and number.isdigit():
            lines.append(f"{name.rpartition(' ')[2]} {int(number) * 1024 if unit == 'kB' else number}\n")
    return lines
