"""Devices that move between kernels: what one is, as words.

disk FILE       a disk whose contents are a file, or a block device, of this machine
usb FILE        the same as a USB stick
net             a network card behind which QEMU's own network is (this machine as 10.0.2.2, and through it the world)
net closed      the same without a way out: the card is there, and its network has nothing in it
"""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING, Final

import attrs

from mk9p.errors import NineError

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS: Final = ("disk", "usb", "net")
NAME: Final = re.compile(
    r"[A-Za-z][A-Za-z0-9.-]{0,19}"
)  # it becomes an id of QEMU, and a serial number, which has 20 letters


@attrs.frozen
class Device:
    """A device of the pool. `args` are a file, or how a network is."""

    name: str
    kind: str
    args: tuple[str, ...] = ()

    @classmethod
    def parse(cls, words: Sequence[str]) -> Device:
        """Return the device of `NAME KIND ARGS…`; raises EINVAL saying what is wrong."""
        name, kind, args = words[0], words[1] if len(words) > 1 else "", tuple(words[2:])
        if not NAME.fullmatch(name):
            raise NineError(
                errno.EINVAL, f"a device's name is a letter, then letters, digits, - and ., 20 in all: {name!r}"
            )
        if kind in ("disk", "usb"):
            good = len(args) == 1 and args[0].startswith("/") and "\0" not in args[0]
        else:
            good = kind == "net" and args in ((), ("closed",))
        if not good:
            raise NineError(
                errno.EINVAL, f"a device is NAME disk FILE, NAME usb FILE, or NAME net [closed]: {' '.join(words)}"
            )
        return cls(name, kind, args)

    @property
    def words(self) -> tuple[str, ...]:
        """Return the words that `parse` takes."""
        return (self.name, self.kind, *self.args)

    @property
    def file(self) -> str:
        """Return the file that has its contents, "" for none."""
        return self.args[0] if self.kind in ("disk", "usb") else ""
