"""One chip of hwmon: what it measures, what can be set (Documentation/hwmon/sysfs-interface.rst).

The kernel names an attribute by what it measures, a number and a property: `temp1_input`, `fan2_min`, `pwm1`. `temp1` is then called a sensor
here. Some drivers were never converted and have their attributes beside the device and not in the hwmon directory. Attributes that only root may
read are left out: what a processor has used tells its secrets (CVE-2020-8694).

A chip behind a slow bus takes milliseconds for each value, and some chips, or disks, take seconds: everything here may block, so call it in
threads.
"""

import errno
import os
import re
from typing import Final

import attrs

from mk9p.devices import change
from mk9p.errors import NineError
from mk9p.sysfs import link, settable, text
from mk9p.tree import fields, join

KINDS: Final = {  # the kernel's word: ours, and the unit
    "temp": ("temp", "mC"),
    "fan": ("fan", "rpm"),
    "pwm": ("pwm", "-"),
    "in": ("voltage", "mV"),
    "curr": ("current", "mA"),
    "power": ("power", "uW"),
    "energy": ("energy", "uJ"),
    "humidity": ("humidity", "m%"),
    "freq": ("frequency", "Hz"),
    "intrusion": ("intrusion", "-"),
}
_ATTRIBUTE: Final = re.compile(
    rf"({'|'.join(KINDS)}|cpu)(\d+)(_\w+)?|({'|'.join(KINDS)})_\w+|update_interval|beep_\w+|alarms|vrm"
)
_READING: Final = re.compile(r"([a-z]+\d+)_(?:input|average)|(pwm\d+)|(intrusion\d+)_alarm")
_AUTOMATIC: Final = "2"  # pwmN_enable: 0 is full speed, 1 by hand, and from here on the chip's own ways
_FULL: Final = 255


def order(name: str) -> tuple[str, int, str]:
    """Return the key that attributes are sorted by: temp10 comes after temp2, and pwm1 after pwm1_enable, without which it cannot be set."""
    kind, number, rest = _ATTRIBUTE.fullmatch(name).group(1, 2, 3)  # type: ignore[union-attr]  # all of them are such names
    return (kind, int(number), rest or "~") if kind else ("~", 0, name)


@attrs.define(eq=False)
class Chip:
    """The chip `name`, hwmonN, at its directory in sysfs. `auto` is what pwmN_enable was before `pwm` changed it."""

    name: str
    base: str
    auto: dict[int, str] = attrs.field(factory=dict, init=False)

    @property
    def place(self) -> str:
        return self.base if os.path.exists(f"{self.base}/name") else f"{self.base}/device"

    @property
    def chip(self) -> str:
        return text(f"{self.place}/name", "-")

    def attributes(self) -> list[str]:
        """Return the names of the attributes that everybody may read, in order. Raises ENODEV for a chip that is gone."""
        try:
            with os.scandir(self.place) as files:
                return sorted((f.name for f in files if _ATTRIBUTE.fullmatch(f.name) and _public(f)), key=order)
        except (FileNotFoundError, NotADirectoryError):
            raise NineError(errno.ENODEV, f"{self.name} is gone") from None

    def settable(self) -> list[str]:
        return sorted(filter(_ATTRIBUTE.fullmatch, settable(self.place)), key=order)

    # what is read

    def readings(self) -> list[str]:
        """Return a line for each sensor: `NAME SENSOR KIND VALUE UNIT CHIP LABEL`. A sensor that the chip calls faulty has no value."""
        place, chip, names = self.place, self.chip, self.attributes()
        lines = []
        for name in names:
            match = _READING.fullmatch(name)
            if match is None:
                continue
            sensor = match[1] or match[2] or match[3]
            if name.endswith("_average") and f"{sensor}_input" in names:
                continue
            kind, unit = KINDS[sensor.rstrip("0123456789")]
            label = text(f"{place}/{sensor}_label", "-") if f"{sensor}_label" in names else "-"
            fault = f"{sensor}_fault" in names and text(f"{place}/{sensor}_fault") not in ("", "0")
            value = "-" if fault else text(f"{place}/{name}", "-")
            lines.append(join([self.name, sensor, kind, value, unit, chip, label]) + "\n")
        return lines

    def status(self) -> str:
        names, place = self.attributes(), self.place
        device = f"{self.base}/device"
        head = {"name": self.name, "chip": self.chip, "device": link(device), "driver": link(f"{device}/driver")}
        return fields(head | {name: text(f"{place}/{name}", "-") for name in names})

    def settings(self) -> str:
        """Return the attributes that can be set and their values. The speed of a fan that the chip controls is not a setting."""
        values = {name: text(f"{self.place}/{name}") for name in self.settable()}
        governed = {name.removesuffix("_enable") for name in values if name.endswith("_enable") and values[name] != "1"}
        return "".join(
            join(["set", name, value]) + "\n" for name, value in values.items() if value and name not in governed
        )

    # words

    def set(self, attribute: str, value: int) -> None:
        """Set an attribute by the kernel's name. Raises ENOENT with the names that exist, or what the driver says."""
        there = self.settable()
        if attribute not in there:
            raise NineError(
                errno.ENOENT, f"{self.name} has no {attribute} to set; there are: {' '.join(there) or 'none'}"
            )
        self._put(attribute, str(value))

    def pwm(self, n: int, value: int) -> None:
        """Hold output `n` at `value` of 255, whatever the temperature; if the chip refuses, it controls the output as before."""
        self._has(n)
        if not 0 <= value <= _FULL:
            raise NineError(errno.EINVAL, f"a pwm is 0 to {_FULL}: {value}")
        enable = f"pwm{n}_enable"
        before = text(f"{self.place}/{enable}", "1")
        if before != "1":
            self._put(enable, "1")
        try:
            self._put(f"pwm{n}", str(value))
        except NineError:
            if before != "1":
                self._put(enable, before)
            raise
        if before not in ("0", "1"):
            self.auto[n] = before

    def automatic(self, n: int) -> None:
        """Let the chip control output `n` itself, in the way it did before `pwm`. It is no error if it does so already."""
        self._has(n)
        enable = f"pwm{n}_enable"
        now = text(f"{self.place}/{enable}")
        if not now:
            raise NineError(errno.EOPNOTSUPP, f"{self.name} cannot control pwm{n} itself")
        if now in ("0", "1"):
            self._put(enable, self.auto.get(n, _AUTOMATIC))

    def _has(self, n: int) -> None:
        if not os.path.exists(f"{self.place}/pwm{n}"):
            raise NineError(errno.ENOENT, f"{self.name} has no pwm{n}")

    def _put(self, attribute: str, value: str) -> None:
        change(f"{self.place}/{attribute}", value, f"{attribute} of {self.name} cannot be {value}")


def _public(file: "os.DirEntry[str]") -> bool:
    return file.is_file() and bool(file.stat().st_mode & 0o004)
