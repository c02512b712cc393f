"""The kernel's own word on CPUs that come and go: uevents, over a plain netlink socket.

A uevent is `ACTION@DEVPATH`, then `KEY=value` strings, each ended by NUL (lib/kobject_uevent.c). A user may ask for one to be sent again
(`udevadm trigger`); such a one carries SYNTH_UUID, tells of no change and is passed over. Anybody with CAP_NET_ADMIN can send to a netlink socket:
only what comes from port 0, the kernel, counts.
"""

import errno
import socket
from collections.abc import Callable

import trio

_NETLINK_KOBJECT_UEVENT = 15
_KERNEL_GROUP = 1  # group 2 is udevd's own
_MAX = 8192  # a uevent is at most 2048 bytes of strings and a header (UEVENT_BUFFER_SIZE)
_CPU = "/devices/system/cpu/cpu"
ACTIONS = frozenset({"online", "offline", "add", "remove"})


def told(uevent: bytes) -> tuple[str, int] | None:
    """Return the action and the CPU that a uevent tells of; None if it is of something else, or was only asked for again."""
    head, *strings = uevent.decode("utf-8", "replace").split("\0")
    action, _, path = head.partition("@")
    number = path.removeprefix(_CPU)
    if action not in ACTIONS or number == path or not (number.isascii() and number.isdigit()):
        return None
    if any(s.startswith("SYNTH_UUID=") for s in strings):
        return None
    return action, int(number)


async def listen() -> trio.socket.SocketType | None:
    """Return a socket that uevents come to; None where the kernel has none or does not permit it."""
    try:
        sock = trio.socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_KOBJECT_UEVENT)
    except OSError:
        return None
    try:
        await sock.bind((0, _KERNEL_GROUP))
    except OSError:
        sock.close()
        return None
    return sock


async def receive(sock: trio.socket.SocketType) -> bytes:
    """Wait for the next uevent of the kernel itself; raises ENOBUFS when some were lost."""
    while True:
        data, address = await sock.recvfrom(_MAX)
        if address[0] == 0:
            return bytes(data)


async def follow(sock: trio.socket.SocketType, change: Callable[[str, int], None], lost: Callable[[], None]) -> None:
    """Call `change(action, cpu)` for each change that the kernel tells, and `lost()` after a gap. Ends by cancellation only."""
    while True:
        try:
            uevent = await receive(sock)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            lost()
            continue
        if said := told(uevent):
            change(*said)
