"""Thermal zones and the devices that cool them (Documentation/driver-api/thermal/sysfs-api.rst). Everything here may block, so call it in threads."""

import errno
import os
import re
from typing import Final, Literal

import attrs

from mk9p.devices import change, there
from mk9p.errors import NineError
from mk9p.ktext import split_words
from mk9p.sysfs import link, names, text
from mk9p.tree import fields, join

_TRIP: Final = re.compile(r"trip_point_(\d+)_type")
_CDEV: Final = re.compile(r"cdev(\d+)")


@attrs.frozen(eq=False)
class Zone:
    """The zone `name`, thermal_zoneN, at its directory in sysfs."""

    name: str
    base: str

    def trips(self) -> list[int]:
        return sorted(int(found[1]) for name in names(self.base) if (found := _TRIP.fullmatch(name)))

    def cooling(self) -> list[int]:
        """Return the numbers under which the zone has its cooling devices."""
        return sorted(int(found[1]) for name in names(self.base) if (found := _CDEV.fullmatch(name)))

    # what is read

    def readings(self) -> list[str]:
        value, kind = text(f"{self.base}/temp", "-"), text(f"{self.base}/type", "-")
        return [join([self.name, "temp", "temp", value, "mC", kind, "-"]) + "\n"]

    def status(self) -> str:
        base = there(self.name, self.base)
        values = {key: text(f"{base}/{key}", "-") for key in ("type", "temp", "mode", "policy")}
        values["policies"] = text(f"{base}/available_policies", "-")
        lines = [fields({"name": self.name, **values})]
        for n in self.trips():
            kind, temp, hyst = (text(f"{base}/trip_point_{n}_{what}", "-") for what in ("type", "temp", "hyst"))
            lines.append(f"trip {n} {kind} {temp} {hyst}\n")
        lines += [
            f"cooling {link(f'{base}/cdev{n}')} {text(f'{base}/cdev{n}_trip_point', '-')}\n" for n in self.cooling()
        ]
        return "".join(lines)

    def settings(self) -> str:
        lines = [f"{word} {value}\n" for word in ("mode", "policy") if (value := text(f"{self.base}/{word}"))]
        for n in self.trips():
            temp, hyst = (f"{self.base}/trip_point_{n}_{what}" for what in ("temp", "hyst"))
            if os.path.exists(temp) and os.stat(temp).st_mode & 0o200:
                more = text(hyst) if os.path.exists(hyst) and os.stat(hyst).st_mode & 0o200 else ""
                lines.append(f"trip {n} {text(temp)} {more}".rstrip() + "\n")
        return "".join(lines)

    # words

    def mode(self, how: Literal["enabled", "disabled"]) -> None:
        """Let the kernel watch the zone and cool it, or not."""
        change(f"{self.base}/mode", how, f"{self.name} cannot be {how}")

    def policy(self, name: str) -> None:
        """Choose what decides how much is cooled. Raises EINVAL with the names that exist."""
        there = split_words(text(f"{self.base}/available_policies"))
        if name not in there:
            raise NineError(errno.EINVAL, f"no policy {name}; there are: {' '.join(there)}")
        change(f"{self.base}/policy", name, f"{self.name} cannot have policy {name}")

    def trip(self, n: int, temp: int, hyst: int | None = None) -> None:
        """Set where trip `n` is, in millidegrees, and how far below it the trip is over. Raises ENOENT for a trip that the zone does not have."""
        if n not in self.trips():
            raise NineError(errno.ENOENT, f"{self.name} has no trip {n}")
        for what, value in (("temp", temp), ("hyst", hyst)):
            file = f"trip_point_{n}_{what}"
            if value is None:
                continue
            if not os.path.exists(f"{self.base}/{file}") or not os.stat(f"{self.base}/{file}").st_mode & 0o200:
                raise NineError(errno.EOPNOTSUPP, f"the {what} of trip {n} of {self.name} is fixed")
            change(f"{self.base}/{file}", value, f"the {what} of trip {n} of {self.name} cannot be {value}")


@attrs.frozen(eq=False)
class Cooler:
    """The cooling device `name`, cooling_deviceN, at its directory in sysfs."""

    name: str
    base: str

    def readings(self) -> list[str]:
        value, kind = text(f"{self.base}/cur_state", "-"), text(f"{self.base}/type", "-")
        return [join([self.name, "state", "cooling", value, "-", kind, "-"]) + "\n"]

    def status(self) -> str:
        base = there(self.name, self.base)
        values = {"type": "type", "state": "cur_state", "max": "max_state"}
        return fields({"name": self.name} | {key: text(f"{base}/{file}", "-") for key, file in values.items()})

    def settings(self) -> str:
        state = text(f"{self.base}/cur_state")
        return f"state {state}\n" if state else ""

    def state(self, n: int) -> None:
        """Cool as much as state `n` says: 0 is not at all. The zone's policy may change it again."""
        most = text(f"{there(self.name, self.base)}/max_state")
        if most.isdecimal() and not 0 <= n <= int(most):
            raise NineError(errno.EINVAL, f"{self.name} has states 0 to {most}")
        change(f"{self.base}/cur_state", n, f"{self.name} cannot be in state {n}")
