"""Devices that come and go, as the kernel tells udev: uevents, on NETLINK_KOBJECT_UEVENT (lib/kobject_uevent.c). For servers of device classes.

A uevent is `ACTION@DEVPATH`, then `KEY=value` strings, each ended by NUL. Group 1 has the kernel's own; what udev says goes to group 2. Everybody
with CAP_NET_ADMIN can send to a netlink socket: only messages from port 0, the kernel, count. A user may ask the kernel to send one again
(`udevadm trigger`, or udev itself when a written disk is closed). Such a uevent carries SYNTH_UUID and reports no change, so it is ignored.

The kernel drops messages for a receiver whose buffer is full and says ENOBUFS. Then the device class must be looked at again.
"""

import errno
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

__all__ = ["Uevent", "follow", "listen", "parse", "told"]

_NETLINK_KOBJECT_UEVENT: Final = 15
_KERNEL_GROUP: Final = 1
_SO_RCVBUFFORCE: Final = 33
_BUFFER: Final = 1 << 20  # hundreds of messages: a hub full of devices that come at once
_LARGEST: Final = 8192  # UEVENT_BUFFER_SIZE is 2048, and the headers of some drivers are longer


@attrs.frozen
class Uevent:
    """What happened (add, remove, change, move, online, offline, bind, unbind) to the device `path`, below /sys and beginning with a slash."""

    action: str
    path: str
    values: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def name(self) -> str:
        """The device's name in sysfs."""
        return self.path.rpartition("/")[2]

    @property
    def subsystem(self) -> str:
        return self.values.get("SUBSYSTEM", "")


def parse(message: bytes) -> Uevent | None:
    """Return what a message says; None for a message that is no uevent, or that somebody only asked for again."""
    head, *strings = message.decode("utf-8", "replace").rstrip("\0").split("\0")
    action, at, path = head.partition("@")
    values = dict(s.split("=", 1) for s in strings if "=" in s)
    return Uevent(action, path, values) if at and "SYNTH_UUID" not in values else None


def listen() -> socket.socket | None:
    """Return a socket that gets uevents; None where the kernel has none or does not permit it."""
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_KOBJECT_UEVENT)
    except OSError:
        return None
    try:
        sock.setblocking(False)
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        except PermissionError:  # without CAP_NET_ADMIN: as large as rmem_max allows
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        sock.bind((0, _KERNEL_GROUP))
    except OSError:
        sock.close()
        return None
    return sock


async def follow(
    sock: socket.socket, take: Callable[[bytes], None], lost: Callable[[], None], *, largest: int = _LARGEST
) -> None:
    """Call `take(message)` for each message that the kernel sends to a netlink socket, and `lost()` after a gap. Only cancellation ends it.

    `largest` is the most bytes that a message of this kind of netlink has (netlink(7)).
    """
    while True:
        try:
            message, (sender, _) = sock.recvfrom(largest)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(sock)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            lost()
        else:
            if sender == 0:  # the kernel; any other process may send here too
                take(message)
            await trio.lowlevel.checkpoint()  # a flood of them must not stop the server


@asynccontextmanager
async def told(take: Callable[[Uevent], None], lost: Callable[[], None], *, root: str = "/") -> AsyncIterator[bool]:
    """Follow the kernel's uevents inside the block, and give whether there are any: a made-up `root` gets none of the real kernel."""
    sock = listen() if root == "/" else None
    if sock is None:
        yield False
        return

    def each(message: bytes) -> None:
        if (uevent := parse(message)) is not None:
            take(uevent)

    with sock:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, sock, each, lost)
            yield True
            nursery.cancel_scope.cancel()
