"""pci: the PCI devices of this kernel, by slot. The files are those of docs/files/pci.md.

The server reads everything from sysfs when somebody asks (Documentation/ABI/testing/sysfs-bus-pci, drivers/pci/pci-sysfs.c). It keeps only the
slots that existed at the last event. What the kernel does for a word (probing a driver, resetting) may take seconds, so a thread does it.
"""

import errno
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import attrs

from mk9p import uevents
from mk9p.devices import Bus, bound, changing, rebind, release, there
from mk9p.errors import NineError
from mk9p.ktext import split_lines, split_words
from mk9p.sysfs import link, put, text
from mk9p.tree import Block, Ctl, Dir, Lazy, Node, Text, fields, join

SLOT: Final = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_FLAGS: Final = ((0x100, "io"), (0x200, "mem"), (0x2000, "prefetch"), (0x100000, "64bit"))  # include/linux/ioport.h


@asynccontextmanager
async def tree(*, root: str = "/") -> AsyncIterator[Dir]:
    """Serve the PCI devices of the kernel whose /sys is below `root`."""
    bus = Devices(root.rstrip("/"), "pci", SLOT)
    async with uevents.told(bus.told, bus.present.look, root=root):
        yield bus.tree()


class Devices(Bus):
    """The PCI devices of one kernel."""

    def tree(self) -> Dir:
        return Dir(
            {"ctl": Ctl({"rescan": self.rescan}), "status": Text(self.status), "events": self.events},
            Lazy(self.names, self.device, key=self.key),
        )

    def device(self, slot: str) -> Node:
        device = Device(slot, self.base(slot), self)
        words: dict[str, Callable[..., Any]] = {
            "bind": device.bind,
            "unbind": device.unbind,
            "reset": device.reset,
            "remove": device.remove,
        }
        return Dir(
            {
                "ctl": Ctl(words, device.settings),
                "status": Text(device.status),
                "config": Block(device.config, size=device.config_size, mode=0o400),
            }
        )

    async def rescan(self) -> None:
        """Look for devices on all buses."""
        await changing(partial(put, f"{self.place}/rescan", "1"), "the buses cannot be rescanned")

    def status(self) -> str:
        """Return a line for each device: SLOT VENDOR:DEVICE CLASS DRIVER."""
        lines = []
        for slot in self.names():
            base = self.base(slot)
            ids = f"{_hex(base, 'vendor')}:{_hex(base, 'device')}"
            lines.append(join([slot, ids, _hex(base, "class"), link(f"{base}/driver")]) + "\n")
        return "".join(lines)


@attrs.frozen(eq=False)
class Device:
    """One device, its directory in sysfs, and its bus."""

    slot: str
    base: str
    bus: Bus

    def settings(self) -> str:
        return bound(self.base)

    def status(self) -> str:
        base = there(self.slot, self.base)
        subsystem = f"{_hex(base, 'subsystem_vendor')}:{_hex(base, 'subsystem_device')}"
        values = {
            "slot": self.slot,
            "vendor": _hex(base, "vendor"),
            "device": _hex(base, "device"),
            "subsystem": subsystem,
            "class": _hex(base, "class"),
            "revision": _hex(base, "revision"),
            "driver": link(f"{base}/driver"),
            "numa_node": text(f"{base}/numa_node", "-"),
            "iommu_group": link(f"{base}/iommu_group"),
            "irq": text(f"{base}/irq", "-"),
            "enabled": "yes" if text(f"{base}/enable", "0") != "0" else "no",
            "power": text(f"{base}/power_state", "-"),
        }
        return fields(values) + "".join(self.resources())

    def resources(self) -> list[str]:
        """Return a line for each resource: `resource N START END FLAGS`, with both bounds in hexadecimal and inclusive."""
        lines = []
        for n, line in enumerate(split_lines(text(f"{self.base}/resource"))):
            start, end, flags = (int(field, 16) for field in split_words(line))
            if flags:
                kinds = ",".join(name for bit, name in _FLAGS if flags & bit) or "-"
                lines.append(f"resource {n} {start:#x} {end:#x} {kinds}\n")
        return lines

    def config(self, count: int, offset: int) -> bytes:
        fd = os.open(f"{self.base}/config", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, count, offset)
        finally:
            os.close(fd)

    def config_size(self) -> int:
        try:
            return os.stat(f"{self.base}/config").st_size
        except OSError:
            return 0

    # words

    async def bind(self, driver: str) -> None:
        """Give the device to a driver, whatever ids the driver knows; if it refuses, the device gets its old driver back."""
        await changing(partial(self._bind, driver), f"{self.slot} cannot be bound to {driver}")

    async def unbind(self) -> None:
        """Take the device from its driver; a device without a driver is no error."""
        await changing(partial(release, self.slot, self.base), f"{self.slot} cannot be unbound")

    async def reset(self) -> None:
        """Reset only this function, where that is possible; its driver goes on afterwards if it can."""
        await changing(self._reset, f"{self.slot} cannot be reset")

    async def remove(self) -> None:
        """Forget the device, as if somebody pulled it out; `rescan` above finds it again."""
        await changing(partial(put, f"{self.base}/remove", "1"), f"{self.slot} cannot be removed")

    def _bind(self, driver: str) -> None:
        place, override = self.bus.driver(driver), text(f"{self.base}/driver_override", "(null)")
        try:
            rebind(self.slot, self.base, place, partial(put, f"{self.base}/driver_override"))
        finally:
            put(f"{self.base}/driver_override", "\n" if override == "(null)" else override)

    def _reset(self) -> None:
        if not os.path.exists(f"{self.base}/reset"):
            raise NineError(errno.EOPNOTSUPP, f"{self.slot} cannot be reset alone")
        put(f"{self.base}/reset", "1")


def _hex(base: str, name: str) -> str:
    """Return an id without its 0x, as lspci(8) shows it."""
    return text(f"{base}/{name}", "-").removeprefix("0x")
