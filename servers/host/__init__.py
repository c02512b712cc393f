"""The top level of a kernel's tree: `ctl`, `status` and `events` of the kernel as a whole.

What belongs to a part (a CPU taken away, a disk) is told by the part's own files; here is what is true of all of it: its name, its boot, its end,
and which devices came and went. With a made-up root nothing outside that root is written, read by netlink, or ended.
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
    """Give the top level of this kernel's tree, watching its name and its devices meanwhile.

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
            ) as error:  # a container may have no netlink; then the file says that it will not tell of devices
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
    """Tell the root of this very machine from a made-up one."""
    return os.path.realpath(root) == "/"
