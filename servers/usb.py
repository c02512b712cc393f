"""usb: the USB devices of this kernel, by bus and port. The files are those of docs/files/usb.md.

The server reads everything from sysfs when somebody asks (Documentation/ABI/testing/sysfs-bus-usb, drivers/usb/core/sysfs.c). It keeps only the
devices that existed at the last event. A name is the kernel's: `usb1` is the root hub of bus 1, `1-2.4` is at port 4 of the hub at port 2 of bus
1.
"""

import errno
import fcntl
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Literal

import attrs

from mk9p import uevents
from mk9p.devices import Bus, bound, changing, rebind, release, there
from mk9p.errors import NineError
from mk9p.ktext import split_words
from mk9p.sysfs import link, names, put, text
from mk9p.tree import Block, Ctl, Dir, Lazy, Node, Text, fields, join

NAME: Final = re.compile(r"usb\d+|\d+-\d+(\.\d+)*")
INTERFACE: Final = re.compile(r"[^:]+:\d+\.\d+")
_NONE: Final = 0x20000000 if os.uname().machine.startswith(("alpha", "mips", "ppc", "sparc")) else 0  # their _IO()
_USBDEVFS_RESET: Final = _NONE | 0x5514
_WHOLE: Final = "usb"  # the driver of a device as a whole, which configures it


@asynccontextmanager
async def tree(*, root: str = "/") -> AsyncIterator[Dir]:
    """Serve the USB devices of the kernel whose /sys and /dev are below `root`."""
    bus = Devices(root.rstrip("/"))
    async with uevents.told(bus.told, bus.present.look, root=root):
        yield bus.tree()


class Devices(Bus):
    """The USB devices of one kernel."""

    def __init__(self, root: str) -> None:
        super().__init__(root, "usb", NAME, lambda name: [self.ids(name)])

    def tree(self) -> Dir:
        return Dir({"status": Text(self.status), "events": self.events}, Lazy(self.names, self.device, key=self.key))

    def ids(self, name: str) -> str:
        base = self.base(name)
        return f"{said(f'{base}/idVendor')}:{said(f'{base}/idProduct')}"

    def device(self, name: str) -> Node:
        device = Device(name, self.base(name), self, f"{self.root}/dev/bus/usb")
        words: dict[str, Callable[..., Any]] = {
            "bind": device.bind,
            "unbind": device.unbind,
            "reset": device.reset,
            "power": device.power,
        }
        return Dir(
            {
                "ctl": Ctl(words, device.settings),
                "status": Text(device.status),
                "raw": Block(device.descriptors, mode=0o400),
            }
        )

    def status(self) -> str:
        """Return a line for each device: NAME VENDOR:PRODUCT SPEED 'WORDS'; the words are what the device says it is."""
        lines = []
        for name in self.names():
            base = self.base(name)
            words = " ".join(word for key in ("manufacturer", "product") if (word := said(f"{base}/{key}", "")))
            lines.append(join([name, self.ids(name), said(f"{base}/speed"), words or "-"]) + "\n")
        return "".join(lines)


@attrs.frozen(eq=False)
class Device:
    """One device: its directory in sysfs, its bus, and where the device files are."""

    name: str
    base: str
    bus: Bus
    files: str

    def interfaces(self) -> list[str]:
        return sorted(filter(INTERFACE.fullmatch, names(self.base)))

    def settings(self) -> str:
        return f"power {self.powered()}\n" + bound(self.base)

    def powered(self) -> str:
        return "on" if said(f"{self.base}/authorized", "1") != "0" else "off"

    def status(self) -> str:
        base = there(self.name, self.base)
        values = {
            "name": self.name,
            "vendor": said(f"{base}/idVendor"),
            "product": said(f"{base}/idProduct"),
            "manufacturer": said(f"{base}/manufacturer"),
            "model": said(f"{base}/product"),
            "serial": said(f"{base}/serial"),
            "version": said(f"{base}/version"),
            "speed": said(f"{base}/speed"),
            "class": said(f"{base}/bDeviceClass"),
            "driver": link(f"{base}/driver"),
            "bus": said(f"{base}/busnum"),
            "address": said(f"{base}/devnum"),
            "configuration": said(f"{base}/bConfigurationValue"),
            "power": self.powered(),
            "milliamps": said(f"{base}/bMaxPower").removesuffix("mA"),
        }
        return fields(values) + "".join(self.of_interfaces())

    def of_interfaces(self) -> list[str]:
        """Return a line for each interface: `interface NAME CLASS SUBCLASS PROTOCOL DRIVER`."""
        lines = []
        for name in self.interfaces():
            base = f"{self.base}/{name}"
            kinds = [said(f"{base}/bInterface{what}") for what in ("Class", "SubClass", "Protocol")]
            lines.append(join(["interface", name, *kinds, link(f"{base}/driver")]) + "\n")
        return lines

    def descriptors(self, count: int, offset: int) -> bytes:
        """Return the descriptors of the device and of its configurations (USB 2.0, 9.5), as the device gave them."""
        with open(f"{self.base}/descriptors", "rb") as file:
            return file.read()[offset : offset + count]

    # words

    async def bind(self, driver: str = _WHOLE) -> None:
        """Give the device to `usb`, which configures it and finds drivers, or each of its interfaces to another driver."""
        await changing(partial(self._bind, driver), f"{self.name} cannot be bound to {driver}")

    async def unbind(self) -> None:
        """Take the device from all its drivers; a device without drivers is no error."""
        await changing(partial(release, self.name, self.base), f"{self.name} cannot be unbound")

    async def reset(self) -> None:
        """Reset the port, and set the device up again as it was."""
        await changing(self._reset, f"{self.name} cannot be reset")

    async def power(self, how: Literal["on", "off"]) -> None:
        """Let the device be used, or not. A device that is off has no configuration, and may draw at most 100 mA."""
        authorize = partial(put, f"{self.base}/authorized", "1" if how == "on" else "0")
        await changing(authorize, f"{self.name} cannot be switched {how}")

    def _bind(self, driver: str) -> None:
        place = self.bus.driver(driver)
        if driver == _WHOLE:
            if not os.path.exists(f"{self.base}/driver"):
                put(f"{place}/bind", self.name)
            return
        if not self.interfaces():
            raise NineError(errno.ENODEV, f"{self.name} has no interfaces: bind it to {_WHOLE} first")
        for name in self.interfaces():
            rebind(name, f"{self.base}/{name}", place)

    def _reset(self) -> None:
        numbers = [said(f"{self.base}/{name}", "") for name in ("busnum", "devnum")]
        if not all(map(str.isdecimal, numbers)):
            raise NineError(errno.ENODEV, f"{self.name} is gone")
        bus, address = map(int, numbers)
        fd = os.open(f"{self.files}/{bus:03}/{address:03}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _USBDEVFS_RESET)
        finally:
            os.close(fd)


def said(path: str, default: str = "-") -> str:
    """Return what a file says, on one line: a device may say anything of itself."""
    return " ".join(split_words(text(path))) or default
