"""One power supply: a battery, the mains, a UPS (Documentation/ABI/testing/sysfs-class-power). Everything here may block, so call it in threads.

Its `uevent` file has all that it tells, at one moment. The kernel asks a battery through the firmware, which takes milliseconds for each value.
"""

import errno
import re
from collections.abc import Mapping
from typing import Final

import attrs

from mk9p.devices import change
from mk9p.errors import NineError
from mk9p.ktext import split_lines, trim
from mk9p.sysfs import settable, text
from mk9p.tree import fields, join

_PREFIX: Final = "POWER_SUPPLY_"
_CHOSEN: Final = re.compile(r"\[([^]]*)\]")  # of several words, the present one is in brackets
_NOT_OURS: Final = frozenset({"uevent"})


def properties(values: Mapping[str, str]) -> dict[str, str]:
    """Return the properties that a uevent names, by their names in sysfs."""
    return {key.removeprefix(_PREFIX).lower(): value for key, value in values.items() if key.startswith(_PREFIX)}


def brief(of: Mapping[str, str]) -> list[str]:
    """Return KIND VALUE UNIT STATE of a supply: VALUE is a battery's charge in percent; for others it says whether they supply."""
    kind, online = of.get("type", "-").lower(), of.get("online", "-")
    if "capacity" in of or "status" in of:
        return [kind, of.get("capacity", "-"), "%", of.get("status", "-").lower().replace(" ", "-")]
    return [kind, online, "-", {"0": "offline", "-": "-"}.get(online, "online")]


@attrs.frozen(eq=False)
class Supply:
    """The supply `name` at its directory in sysfs."""

    name: str
    base: str

    def properties(self) -> dict[str, str]:
        said = split_lines(text(f"{self.base}/uevent"))
        found = properties(dict(line.split("=", 1) for line in said if "=" in line))
        return {"type": text(f"{self.base}/type", "-")} | found if found else {}

    def reading(self) -> str:
        of = self.properties()
        return join([f"supply/{self.name}", *brief(of), trim(of.get("model_name", "")) or "-"]) + "\n" if of else ""

    def status(self) -> str:
        of = self.properties()
        if not of:
            raise NineError(errno.ENODEV, f"{self.name} is gone")
        first = {"name": self.name, "type": of["type"]}
        return fields({key: trim(value) or "-" for key, value in (first | of).items()})

    def settable(self) -> list[str]:
        return [name for name in settable(self.base) if name not in _NOT_OURS]

    def settings(self) -> str:
        lines = []
        for name in self.settable():
            value = text(f"{self.base}/{name}")
            chosen = _CHOSEN.search(value)
            if value:
                lines.append(join(["set", name, chosen[1] if chosen else value]) + "\n")
        return "".join(lines)

    def set(self, property: str, value: str) -> None:  # noqa: A002  # the usage line says it
        """Set a property by the kernel's name. Raises ENOENT with the names that exist, or what the driver says."""
        there = self.settable()
        if property not in there:
            names = " ".join(there) or "none"
            raise NineError(errno.ENOENT, f"{self.name} has no {property} to set; there are: {names}")
        change(f"{self.base}/{property}", value, f"{property} of {self.name} cannot be {value}")
