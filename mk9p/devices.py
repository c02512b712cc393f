"""What servers of devices have in common: what comes and goes, what changes and how the kernel refuses that, and which driver has what.

A device is a directory in sysfs, and its name is the kernel's. This module keeps of a device only that it was there.
"""

import errno
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import attrs
import trio

from mk9p.errors import NineError
from mk9p.sysfs import link, names, put, refused, threaded
from mk9p.tree import Ctl, Dir, Log, Node, Text, join
from mk9p.uevents import Uevent

__all__ = ["Bus", "Present", "Slow", "bound", "change", "changing", "identity", "rebind", "release", "there"]

T = TypeVar("T")


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


class Slow:
    """A few threads for calls that may be slow in the kernel (a chip on a slow bus, a battery): a dead device must not take all threads of the
    server."""

    def __init__(self, threads: int = 8) -> None:
        self.threads = trio.CapacityLimiter(threads)

    def __call__(self, function: Callable[..., T]) -> Callable[..., Awaitable[T]]:
        """Return the function that does the same in one of the threads (sysfs.threaded)."""
        return threaded(function, self.threads)

    def files(
        self,
        words: Mapping[str, Callable[..., Any]],
        settings: Callable[[], str],
        status: Callable[[], str],
        **more: Node,
    ) -> Dir:
        """Return the directory of a device: `ctl`, `status`, and its other files."""
        slow = {word: self(function) for word, function in words.items()}
        return Dir({"ctl": Ctl(slow, self(settings)), "status": Text(self(status)), **more})


def identity(path: str) -> object:
    """Return what distinguishes the device at a directory of sysfs from an earlier one of its name; None if there is none."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def there(name: str, base: str) -> str:
    """Return the directory of a device; raises ENODEV if the device is gone."""
    if not os.path.exists(base):
        raise NineError(errno.ENODEV, f"{name} is gone")
    return base


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


@attrs.define(eq=False)
class Bus:
    """The devices of one bus of the kernel whose /sys is below `root`: `kind` is the bus's name there, and names of devices match `named`.

    `words` says more of a device that came. `events` reports what comes and goes, and which driver is bound.
    """

    root: str
    kind: str
    named: re.Pattern[str]
    words: Callable[[str], Iterable[object]] = lambda _: ()
    events: Log = attrs.field(factory=Log, init=False)
    present: Present = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.present = Present(self.names, self.events, self.words)

    @property
    def place(self) -> str:
        """The bus's directory."""
        return f"{self.root}/sys/bus/{self.kind}"

    def base(self, name: str) -> str:
        """Return the directory of a device."""
        return f"{self.place}/devices/{name}"

    def names(self) -> list[str]:
        """Return the existing devices, in order."""
        return sorted(filter(self.named.fullmatch, names(f"{self.place}/devices")))

    def key(self, name: str) -> object:
        """Return what distinguishes a device from an earlier one of its name; None if there is none."""
        return identity(self.base(name)) if self.named.fullmatch(name) else None

    def driver(self, name: str) -> str:
        """Return the directory of a driver; raises ENOENT with the drivers that exist."""
        place = f"{self.place}/drivers/{name}"
        if "/" in name or name in (".", "..") or not os.path.isdir(place):
            there_are = " ".join(sorted(names(f"{self.place}/drivers")))
            raise NineError(errno.ENOENT, f"no driver {name}; there are: {there_are}")
        return place

    def told(self, uevent: Uevent) -> None:
        """Take a uevent: devices come and go, and so do drivers of a device or of a part of one."""
        if uevent.subsystem != self.kind:
            return
        name = uevent.name
        if uevent.action == "bind":
            self.events.emit("bind", name, uevent.values.get("DRIVER") or link(f"{self.base(name)}/driver"))
        elif uevent.action == "unbind":
            self.events.emit("unbind", name)
        elif self.named.fullmatch(name):
            if uevent.action == "add":
                self.present.came(name)
            elif uevent.action == "remove":
                self.present.went(name)


def bound(base: str) -> str:
    """Return the ctl line that gives the device at `base` its present driver."""
    driver = link(f"{base}/driver")
    return "unbind\n" if driver == "-" else join(["bind", driver]) + "\n"
