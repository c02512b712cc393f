"""What servers of devices have in common: what comes and goes, what changes and how the kernel refuses that, and which driver has what.

A device is a directory in sysfs, and its name is the kernel's. This module keeps of a device only that it was there.
"""

import errno
import os
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import trio

from mk9p.errors import NineError
from mk9p.sysfs import link, names, put, refused
from mk9p.tree import Log

__all__ = ["Present", "change", "changing", "driver_of", "identity", "rebind", "release"]


@attrs.define(eq=False)
class Present:
    """The things of a kind that existed at the last event. `names` gives those that exist now; `words` says more about one that came.

    `key` distinguishes a device from another of its name, None for none; `gone` is called for each that no longer exists.
    """

    names: Callable[[], Iterable[str]]
    events: Log
    words: Callable[[str], Iterable[object]] = lambda _: ()
    key: Callable[[str], object] = lambda _: True
    gone: Callable[[str], object] = lambda _: None
    seen: dict[str, object] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.seen = {name: self.key(name) for name in self.names()}

    def came(self, name: str) -> None:
        """Report that a device is there, once; and before that, that another of its name is gone."""
        key = self.key(name)
        if self.seen.get(name) != key:
            self.went(name)
            if key is not None:
                self.seen[name] = key
                self.events.emit("add", name, *self.words(name))

    def went(self, name: str) -> None:
        """Report that a device is gone, once."""
        if name in self.seen:
            del self.seen[name]
            self.gone(name)
            self.events.emit("remove", name)

    def look(self) -> None:
        """Report everything that came and went since the last event, because some uevents were lost."""
        now = list(self.names())
        for name in sorted(self.seen.keys() - set(now)):
            self.went(name)
        for name in now:
            self.came(name)


def identity(path: str) -> object:
    """Return what distinguishes the device at a directory of sysfs from an earlier one of its name; None if there is none."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def change(path: str, value: object, failure: str) -> None:
    """Write a value to a file of the kernel; raises its refusal as `failure: why`."""
    try:
        put(path, str(value))
    except OSError as error:
        raise refused(error, failure) from None


async def changing(work: Callable[[], Any], failure: str) -> None:
    """Do in a thread what the kernel may take seconds for; raises its refusal as `failure: why`. If cancelled, it waits for the end: half done is
    worse."""
    try:
        await trio.to_thread.run_sync(work)
    except NineError:
        raise
    except OSError as error:
        raise refused(error, failure) from None


def rebind(name: str, place: str, driver: str, override: Callable[[str], None] | None = None) -> None:
    """Give the device `name` at `place` to the driver whose directory is `driver`; if that refuses, the device gets its old driver back.

    `override` tells the kernel which driver may have it, whatever ids the driver knows. Raises OSError as the kernel says.
    """
    before = link(f"{place}/driver")
    drivers, wanted = os.path.split(driver)
    if before == wanted:
        return
    allow = override or (lambda _: None)
    allow(wanted)
    release(name, place)
    try:
        put(f"{driver}/bind", name)
    except OSError:
        if before != "-":
            allow(before)
            put(f"{drivers}/{before}/bind", name)
        raise


def release(name: str, place: str) -> None:
    """Take a device from its driver; a device without a driver is no error. Raises OSError as the kernel says."""
    if os.path.exists(f"{place}/driver"):
        put(f"{place}/driver/unbind", name)


def driver_of(bus: str, name: str) -> str:
    """Return the directory of a driver; raises ENOENT with the drivers that exist."""
    place = f"{bus}/drivers/{name}"
    if "/" in name or name in (".", "..") or not os.path.isdir(place):
        raise NineError(errno.ENOENT, f"no driver {name}; there are: {' '.join(sorted(names(f'{bus}/drivers')))}")
    return place
