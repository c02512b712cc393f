"""sensors: what this kernel measures: chips of hwmon, thermal zones, and what cools them. The files are those of docs/files/sensors.md.

The server reads everything from sysfs when somebody asks. It keeps only the names that existed at the last event. A value may take long to come,
over a slow bus or from a disk, so a few threads do all reading and setting: a dead bus must not take all threads of the server.

hwmon shows each zone a second time, which is left out here. The kernel reports from three sides: uevents say what comes and goes; where the driver
does it (hwmon_notify_event), they also say that an alarm has changed; netlink's family `thermal` says which trips were crossed.
"""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import attrs
import trio

from mk9p import uevents
from mk9p.devices import Present, Slow, identity
from mk9p.errors import NineError
from mk9p.servers.sensors import thermal
from mk9p.servers.sensors.chip import Chip
from mk9p.servers.sensors.zone import Cooler, Zone
from mk9p.sysfs import link, names, text
from mk9p.tree import Dir, Lazy, Log, Node, Text
from mk9p.uevents import Uevent

__all__ = ["Sensors", "tree"]

NAME: Final = re.compile(r"(hwmon|thermal_zone|cooling_device)(\d+)")


@asynccontextmanager
async def tree(*, root: str = "/") -> AsyncIterator[Dir]:
    """Serve the sensors of the kernel whose /sys is below `root`."""
    sensors = Sensors(root.rstrip("/"))
    heat = thermal.listen() if root == "/" else None
    async with trio.open_nursery() as nursery, uevents.told(sensors.told, sensors.present.look, root=root):
        nursery.start_soon(sensors.tell_alarms)
        if heat is not None:
            nursery.start_soon(thermal.follow, heat, sensors.heated, sensors.missed)
        try:
            yield sensors.tree()
        finally:
            nursery.cancel_scope.cancel()
            if heat is not None:
                heat.close()


@attrs.define(eq=False)
class Sensors:
    """The sensors of one kernel. `alarms` has those that the kernel reported and that nobody has read since."""

    root: str
    events: Log = attrs.field(factory=Log, init=False)
    present: Present = attrs.field(init=False)
    alarms: dict[tuple[str, str], None] = attrs.field(factory=dict, init=False)
    lot: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    slow: Slow = attrs.field(factory=Slow, init=False)

    def __attrs_post_init__(self) -> None:
        self.present = Present(self.names, self.events, lambda name: [self.kind(name)])

    def tree(self) -> Dir:
        return Dir(
            {"status": Text(self.slow(self.status)), "events": self.events},
            Lazy(self.names, self.node, key=self.key),
        )

    def base(self, name: str) -> str:
        return f"{self.root}/sys/class/{'hwmon' if name.startswith('hwmon') else 'thermal'}/{name}"

    def names(self) -> list[str]:
        """Return all names, chips first, each kind by its numbers."""
        found = (
            NAME.fullmatch(name) for kind in ("hwmon", "thermal") for name in names(f"{self.root}/sys/class/{kind}")
        )
        order = ("hwmon", "thermal_zone", "cooling_device")
        there = sorted((order.index(match[1]), int(match[2]), match[0]) for match in found if match)
        return [name for _, _, name in there if not self.is_zone(name)]

    def key(self, name: str) -> object:
        if NAME.fullmatch(name) is None or self.is_zone(name):
            return None
        return identity(self.base(name))

    def is_zone(self, name: str) -> bool:
        """Tell whether a chip is only a thermal zone, shown a second time."""
        return name.startswith("hwmon") and link(f"{self.base(name)}/device").startswith("thermal_zone")

    def thing(self, name: str) -> Chip | Zone | Cooler:
        base = self.base(name)
        if name.startswith("hwmon"):
            return Chip(name, base)
        return Zone(name, base) if name.startswith("thermal_zone") else Cooler(name, base)

    def node(self, name: str) -> Node:
        thing = self.thing(name)
        if isinstance(thing, Chip):
            words: dict[str, Callable[..., Any]] = {"set": thing.set, "pwm": thing.pwm, "auto": thing.automatic}
        elif isinstance(thing, Zone):
            words = {"mode": thing.mode, "policy": thing.policy, "trip": thing.trip}
        else:
            words = {"state": thing.state}
        return self.slow.files(words, thing.settings, thing.status)

    def status(self) -> str:
        """Return a line for each sensor and for each cooling device: NAME SENSOR KIND VALUE UNIT CHIP LABEL."""
        lines: list[str] = []
        for name in self.names():
            with suppress(NineError):  # it went after it was listed
                lines += self.thing(name).readings()
        return "".join(lines)

    # what is told

    def told(self, uevent: Uevent) -> None:
        """Take a uevent: things come and go, and alarms change."""
        name = uevent.name
        if uevent.subsystem not in ("hwmon", "thermal") or NAME.fullmatch(name) is None:
            return
        if uevent.action == "add" and not self.is_zone(name):
            self.present.came(name)
        elif uevent.action == "remove":
            self.present.went(name)
        elif uevent.action == "change" and uevent.subsystem == "hwmon" and (alarm := uevent.values.get("NAME")):
            self.alarms[name, alarm] = None
            self.lot.unpark_all()

    def kind(self, name: str) -> str:
        thing = self.thing(name)
        return thing.chip if isinstance(thing, Chip) else text(f"{thing.base}/type", "-")

    async def tell_alarms(self) -> None:
        """Read the alarms that the kernel reported, and send an event for each. An alarm that changes faster gets fewer events, with its last
        value."""
        while True:
            while not self.alarms:
                await self.lot.park()
            name, alarm = next(iter(self.alarms))
            del self.alarms[name, alarm]
            value = await self.slow(text)(f"{Chip(name, self.base(name)).place}/{alarm}", "-")
            self.events.emit("alarm", name, alarm, value)

    def heated(self, event: int, of: thermal.Attributes) -> None:
        """Take an event of the thermal core. Ignore an event of a future kernel that lacks what it should have."""
        with suppress(KeyError):
            if words := thermal.words(event, of):
                self.events.emit(*words)

    def missed(self) -> None:
        """Report that the thermal core said more than the server could take; the kernel does not tell how much more."""
        self.events.emit("lost", "-")
