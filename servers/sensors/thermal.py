"""What the kernel reports about heat as it happens: generic netlink's family `thermal`, group `event` (drivers/thermal/thermal_netlink.c, 5.9 and
later).

A message is nlmsghdr (16 bytes), genlmsghdr (4), then attributes: length, type, value, padded to 4 bytes. All numbers are in the machine's own
byte order. The numbers of family and group are different at each boot; the family `nlctrl` gives them by name. The family exists only in the first
network namespace: a server in another namespace hears nothing.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from mk9p import uevents

Attributes: TypeAlias = Mapping[int, bytes]

# include/uapi/linux/thermal.h: attributes
TZ_ID, TZ_TEMP, TRIP_ID, TRIP_TEMP, CDEV_ID, CDEV_STATE, GOV_NAME = 2, 3, 5, 7, 15, 16, 19
# and events
DISABLE, ENABLE, TRIP_UP, TRIP_DOWN, TRIP_CHANGE, CDEV_UPDATE, GOV_CHANGE = 3, 4, 5, 6, 7, 12, 13

_NETLINK_GENERIC: Final = 16
_GENL_ID_CTRL: Final = 16
_CTRL_CMD_GETFAMILY: Final = 3
_FAMILY_ID, _FAMILY_NAME, _GROUPS = 1, 2, 7  # CTRL_ATTR_*
_GROUP_NAME, _GROUP_ID = 1, 2  # CTRL_ATTR_MCAST_GRP_*
_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP: Final = 1
_NLMSG_ERROR: Final = 2
_NLM_F_REQUEST: Final = 1
_HEADERS: Final = 20
_LARGEST: Final = 1 << 16


def attributes(data: bytes) -> dict[int, bytes]:
    """Split netlink attributes; leave out what is cut off."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]  # two bits say how the value is coded
        at += length + 3 & ~3
    return found


def number(value: bytes) -> int:
    """Return an attribute's number, of 1, 2 or 4 bytes; temperatures may be below zero."""
    return int.from_bytes(value, "little" if struct.pack("=H", 1)[0] else "big", signed=True)


def words(event: int, of: Attributes) -> list[str]:
    """Return an event in words, WHAT and its arguments; nothing for an event that does not matter here. Raises KeyError if it lacks what it should
    have."""

    def told(attribute: int) -> str:
        return str(number(of[attribute]))

    if event in (TRIP_UP, TRIP_DOWN):
        temp = told(TZ_TEMP) if TZ_TEMP in of else "-"  # the first kernels that report trips do not tell it
        return ["trip", f"thermal_zone{told(TZ_ID)}", told(TRIP_ID), "up" if event == TRIP_UP else "down", temp]
    if event == TRIP_CHANGE:
        return ["trip", f"thermal_zone{told(TZ_ID)}", told(TRIP_ID), "set", told(TRIP_TEMP)]
    if event in (ENABLE, DISABLE):
        return ["mode", f"thermal_zone{told(TZ_ID)}", "enabled" if event == ENABLE else "disabled"]
    if event == GOV_CHANGE:
        return ["policy", f"thermal_zone{told(TZ_ID)}", of[GOV_NAME].rstrip(b"\0").decode()]
    if event == CDEV_UPDATE:
        return ["state", f"cooling_device{told(CDEV_ID)}", told(CDEV_STATE)]
    return []


def listen() -> socket.socket | None:
    """Return a socket that gets the events; None where the kernel has none or does not permit it."""
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_GENERIC)
    except OSError:
        return None
    try:
        sock.setblocking(False)
        sock.bind((0, 0))
        name = b"thermal\0"
        asked = struct.pack("=BBHHH", _CTRL_CMD_GETFAMILY, 1, 0, 4 + len(name), _FAMILY_NAME) + name
        sock.send(struct.pack("=IHHII", 16 + len(asked), _GENL_ID_CTRL, _NLM_F_REQUEST, 1, 0) + asked)
        said = sock.recv(_LARGEST)  # the kernel answers before send returns
        if struct.unpack_from("=H", said, 4)[0] == _NLMSG_ERROR:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        groups = map(attributes, attributes(attributes(said[_HEADERS:])[_GROUPS]).values())
        group = next(number(g[_GROUP_ID]) for g in groups if g[_GROUP_NAME] == b"event\0")
        sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    except (OSError, KeyError, StopIteration):
        sock.close()
        return None
    return sock


async def follow(sock: socket.socket, take: Callable[[int, Attributes], None], lost: Callable[[], None]) -> None:
    """Call `take(event, attributes)` for each event of the kernel, and `lost()` after a gap. Only cancellation ends it."""

    def each(message: bytes) -> None:
        if len(message) >= _HEADERS:
            take(message[16], attributes(message[_HEADERS:]))

    await uevents.follow(sock, each, lost, largest=_LARGEST)
