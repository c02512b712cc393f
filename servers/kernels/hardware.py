"""The machine of a QEMU that runs: stopped, reset and dumped; its memory and its devices changed (backend.Machine).

What was learned:
* Memory goes by virtio-mem and not by DIMMs: it comes and goes in pieces of 2 MiB, and says how far it is. A guest that does not give a piece back
  is not forced to.
* QEMU opens nothing: it gets descriptors. So it can be a user without rights, and its image lock is on what we opened: two machines never write to
  one file (`Failed to get "write" lock`).
* A device is gone with DEVICE_DELETED, which may come twice, and what is behind it is free up to 0.4 s later.
* The guest may refuse by doing nothing. Then it may still do it later.
"""

from __future__ import annotations

import errno
import os
import stat as st
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from mk9p.errors import NineError

from . import backend

if TYPE_CHECKING:
    from collections.abc import Callable

    from .device import Device
    from .qmp import Qmp

GRANULE: Final = 2 << 20  # bytes: what virtio-mem moves at once (a huge page)
MOST_ROOM: Final = 8 << 30  # bytes that can be plugged in: address space, which costs nothing
MOVE_SECONDS: Final = 30.0  # for memory and devices to go: 3.4 s were seen, beside work
DUMP_SECONDS: Final = 600.0
FREE_SECONDS: Final = 5.0  # until what is behind a device that has gone is free
STEP: Final = 0.02  # s between two looks
LOCKED: Final = 'Failed to get "write" lock'  # QEMU's words for a file that somebody else may write to
USB_BUS: Final = "usb-bus"
MEMORY: Final = "more-memory"
_PATH: Final = f"/machine/peripheral/{MEMORY}"
_DRIVERS: Final = {"disk": "virtio-blk-pci", "usb": "usb-storage", "net": "virtio-net-pci"}


def room() -> int:
    """Return how many bytes can be plugged into a kernel: half of what this machine has, so that Linux lets QEMU have that much address space
    (vm.overcommit_memory). QEMU cannot ask for space that is not counted, for it sees nothing of /proc/sys."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(MOST_ROOM, total // 2 // GRANULE * GRANULE)


def mac(name: str) -> str:
    """Return the address of a network card, which it keeps wherever it goes: a local one (the second bit), made of its name."""
    return ":".join(["52", "54", *(f"{byte:02x}" for byte in zlib.crc32(name.encode()).to_bytes(4))])


@attrs.define(eq=False)
class Hardware:
    """One QEMU's machine, through QMP. It may have `most` CPUs."""

    qmp: Qmp
    most: int
    files: dict[str, int] = attrs.Factory(dict)  # by device: the set of descriptors that QEMU has of its file
    lost: Callable[[str], None] = backend.unseen
    _going: set[str] = attrs.Factory(set)
    _bus: bool = False
    _memory: bool = False

    def happens(self, name: str, data: dict[str, Any]) -> None:
        """Take an event: a device that goes by itself is lost."""
        device = data.get("device")
        if name == "DEVICE_DELETED" and isinstance(device, str) and device not in (*self._going, USB_BUS, MEMORY):
            self.lost(device)

    async def freeze(self) -> None:
        """Stop its CPUs and its clock."""
        await self.qmp.order("stop")

    async def thaw(self) -> None:
        """Let it go on."""
        await self.qmp.order("cont")

    async def reset(self) -> None:
        """Press its reset button."""
        await self.qmp.order("system_reset")

    async def dump(self, file: int) -> None:
        """Write its memory and registers to a descriptor, as an ELF core file that crash(8) reads. It stands still meanwhile."""
        await self.qmp.order("getfd", give=[file], fdname="dump")
        _, data = await self.qmp.order_until(
            ["DUMP_COMPLETED"],
            lambda data: True,
            "dump-guest-memory",
            seconds=DUMP_SECONDS,
            paging=False,
            protocol="fd:dump",
            detach=True,
        )
        if "error" in data:
            raise NineError(errno.EIO, f"the memory cannot be dumped: {data['error']}")

    async def memory(self) -> int:
        """Return how many bytes are plugged in beside those that it began with."""
        return await self._get("size") if self._memory else 0

    async def set_memory(self, wanted: int) -> None:
        """Have so many bytes plugged in. Raises EBUSY if the guest does not take or give them: then as many as it was at are there."""
        if wanted > room():
            raise NineError(errno.ENOSPC, f"there is room for {room()} bytes")
        if not self._memory:
            if not wanted:
                return
            await self._make_room()
        await self.qmp.order("qom-set", path=_PATH, property="requested-size", value=wanted)
        with trio.move_on_after(MOVE_SECONDS):
            while await self._get("size") != wanted:  # noqa: ASYNC110 - its event comes at most once a second
                await trio.sleep(STEP)
            return
        now = await self._get("size")
        await self.qmp.order("qom-set", path=_PATH, property="requested-size", value=now)
        raise NineError(errno.EBUSY, f"the guest stays at {now} bytes of {wanted} in {MOVE_SECONDS:.0f} s")

    async def _make_room(self) -> None:
        """Have a place for memory, with nothing in it."""
        behind = f"{MEMORY}-ram"
        await self.qmp.order("object-add", qom_type="memory-backend-ram", id=behind, size=room())
        try:
            await self.qmp.order("device_add", driver="virtio-mem-pci", id=MEMORY, memdev=behind, node=0)
        except NineError:
            await self.qmp.order("object-del", id=behind)
            raise
        self._memory = True

    async def _get(self, name: str) -> int:
        value = await self.qmp.order("qom-get", path=_PATH, property=name)
        if not isinstance(value, int):
            raise NineError(errno.EIO, f"QEMU says what is no size: {value!r:.40}")
        return value

    async def plugged(self) -> frozenset[str]:
        """Return the names of the devices that were plugged in."""
        found = await self.qmp.order("qom-list", path="/machine/peripheral")
        names = (entry.get("name") for entry in found if isinstance(entry, dict)) if isinstance(found, list) else ()
        return frozenset(name for name in names if isinstance(name, str) and name not in (USB_BUS, MEMORY, "type"))

    async def plug(self, device: Device) -> None:
        """Plug a device in. Raises the OSError of its file, EBUSY if another machine has that, EIO in QEMU's words; then nothing of it is there."""
        properties: dict[str, Any] = {"driver": _DRIVERS[device.kind], "id": device.name}
        if device.kind == "usb":
            await self._need_bus()
            properties["bus"] = f"{USB_BUS}.0"
        try:
            if device.file:
                await self._give(device)
                properties |= {"drive": device.name, "serial": device.name}
            else:
                await self.qmp.order("netdev_add", type="user", id=device.name, restrict=device.args == ("closed",))
                properties |= {"netdev": device.name, "mac": mac(device.name)}
            await self.qmp.order("device_add", **properties)
        except BaseException as error:
            with trio.CancelScope(shield=True), suppress(NineError):  # the first error is the one to tell
                await self._take_behind(device)
            if isinstance(error, NineError) and LOCKED in error.ename:
                raise NineError(errno.EBUSY, f"{device.file} is in use: {error.ename}") from None
            raise

    async def unplug(self, device: Device) -> None:
        """Unplug a device. Raises EBUSY if the guest does not let it go."""
        self._going.add(device.name)
        try:
            word, _ = await self._deleted(device.name)
        finally:
            self._going.discard(device.name)
        if word != "DEVICE_DELETED":
            raise NineError(errno.EBUSY, f"the guest does not let {device.name} go")
        await self._take_behind(device)

    async def forget(self, device: Device) -> None:
        """Take back what is behind a device that was lost."""
        with suppress(NineError):  # it went with the device
            await self._take_behind(device)

    async def _deleted(self, name: str) -> tuple[str, dict[str, Any]]:
        try:
            return await self.qmp.order_until(
                ["DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR"],
                lambda data: data.get("device") == name,
                "device_del",
                seconds=MOVE_SECONDS,
                id=name,
            )
        except TimeoutError:
            raise NineError(errno.EBUSY, f"the guest does not let {name} go in {MOVE_SECONDS:.0f} s") from None

    async def _need_bus(self) -> None:
        """Have a USB controller. It stays."""
        if not self._bus:
            await self.qmp.order("device_add", driver="qemu-xhci", id=USB_BUS)
            self._bus = True

    async def _give(self, device: Device) -> None:
        """Give QEMU the file of a device, and make it the block node of that name."""
        try:
            file = os.open(device.file, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise NineError(error.errno or errno.EIO, f"{device.file}: {error.strerror}") from None
        try:
            mode = os.fstat(file).st_mode
            if not (st.S_ISREG(mode) or st.S_ISBLK(mode)):
                raise NineError(errno.EINVAL, f"{device.file}: a disk is a file or a block device")
            added = await self.qmp.order("add-fd", give=[file], opaque=device.name)
        finally:
            os.close(file)
        number = added.get("fdset-id") if isinstance(added, dict) else None
        if not isinstance(number, int):
            raise NineError(errno.EIO, "QEMU says what is no set of descriptors")
        self.files[device.name] = number
        driver = "file" if st.S_ISREG(mode) else "host_device"
        behind = {"driver": driver, "filename": f"/dev/fdset/{number}", "locking": "on"}
        await self.qmp.order("blockdev-add", driver="raw", node_name=device.name, file=behind)

    async def _take_behind(self, device: Device) -> None:
        """Take back what is behind a device that has gone."""
        error: NineError | None = None
        with trio.move_on_after(FREE_SECONDS):
            while True:
                try:
                    if device.file:
                        await self.qmp.order("blockdev-del", node_name=device.name)
                    else:
                        await self.qmp.order("netdev_del", id=device.name)
                    error = None
                    break
                except NineError as refused:
                    error = refused
                    if "in use" not in str(refused):
                        break
                await trio.sleep(STEP)
        number = self.files.pop(device.name, None)
        if number is not None:
            with suppress(NineError):  # the node had it, and it went with the node
                await self.qmp.order("remove-fd", fdset_id=number)
        if error is not None:
            raise error
