"""The top level of a kernel's tree: `ctl`, `status` and `events` of the kernel as a whole.

The files of a part tell what belongs to the part (a CPU taken away, a disk). Here is what is true of the whole kernel: its name, its boot, its
end, and which devices came and went. With a made-up root the server writes, reads by netlink, and ends nothing outside that root.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from mk9p.servers.host.name import HostName
from mk9p.servers.host.power import Power
from mk9p.servers.host.status import Status
from mk9p.servers.host.uevents import Uevents
from mk9p.tree import Ctl, Dir, Log, Text, settings


@asynccontextmanager
async def tree(*, root: str = "/") -> AsyncIterator[Dir]:
    """Give the top level of this kernel's tree, and watch its name and its devices meanwhile.

    `root`: where /proc and /sys are found.
    """
    real = is_real(root)
    events = Log()
    name = HostName(os.path.join(root, "proc/sys/kernel/hostname"), events)
    status, power = Status(root), Power(root, real=real)
    events.emit("start", name.known, status.boot())
    async with trio.open_nursery() as nursery:
        if real:
            nursery.start_soon(name.watch)
            try:
                uevents = Uevents(events, root)
            except (
                OSError
            ) as error:  # a container may have no netlink; then the file says that it will not report devices
                events.emit("uevents", "off", os.strerror(error.errno or 0))
            else:
                nursery.start_soon(uevents.run)
        yield Dir(
            {
                "ctl": Ctl(
                    {"reboot": power.reboot, "halt": power.halt, "panic": power.panic, "hostname": name.set},
                    lambda: settings({"hostname": name.get()}),
                ),
                "status": Text(status.read),
                "events": events,
            }
        )
        nursery.cancel_scope.cancel()


def is_real(root: str) -> bool:
    """Tell whether this is the root of this very machine, and not a made-up one."""
    return os.path.realpath(root) == "/"
