"""Devices that come and go, as the kernel tells udev: uevents on NETLINK_KOBJECT_UEVENT (lib/kobject_uevent.c).

A message is `ACTION@DEVPATH` and `KEY=VALUE` strings, each ended by NUL. Group 1 has the kernel's own; what udev itself says goes to group 2. This
module reports only devices (not modules, slab caches or drivers), and only changes of which devices there are: add, remove, move.

The kernel drops messages for a receiver whose buffer is full and says ENOBUFS. Each uevent has a number, SEQNUM, so the next message tells the
size of the gap, and the reader gets it as `lost COUNT`. (Uevents of kinds that are not reported count there too: nobody can know what the lost
ones were.)
"""

import os
import socket

from mk9p.tree import Log
from mk9p.uevents import follow

NETLINK_KOBJECT_UEVENT = 15
KERNEL_GROUP = 1
SO_RCVBUFFORCE = 33
TOLD = frozenset({"add", "remove", "move"})
BUFFER = 1 << 20  # hundreds of messages: a hub full of USB devices that come at once


class Uevents:
    """A netlink socket, open from the start so that nothing is missed; what it says goes into `events`."""

    def __init__(self, events: Log, root: str) -> None:
        self.events = events
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT)
        try:
            self.socket.setblocking(False)
            try:
                self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
            except PermissionError:  # without CAP_NET_ADMIN: as large as rmem_max allows
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            self.socket.bind((0, KERNEL_GROUP))
            with open(os.path.join(root, "sys/kernel/uevent_seqnum")) as file:
                self.last = int(file.read())
        except OSError:
            self.socket.close()
            raise
        self.deaf = False

    async def run(self) -> None:
        """Report devices until cancelled."""
        with self.socket:
            await follow(self.socket, self.take, self.missed)

    def missed(self) -> None:
        """Note that there is a gap; the next message tells how large it is."""
        self.deaf = True

    def take(self, message: bytes) -> None:
        """Report one message, and before it the lost ones."""
        head, *pairs = message.decode(errors="replace").rstrip("\0").split("\0")
        action, _, path = head.partition("@")
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        number = int(values.get("SEQNUM", self.last))
        if self.deaf:
            self.deaf = False
            if number > self.last + 1:
                self.events.emit("lost", number - self.last - 1)
        self.last = max(self.last, number)
        if action in TOLD and path.startswith("/devices/"):
            name = [values["DEVNAME"]] if "DEVNAME" in values else []
            self.events.emit(action, values.get("SUBSYSTEM", "-"), path, *name)
