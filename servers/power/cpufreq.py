"""One policy of cpufreq: CPUs that share their frequency (Documentation/admin-guide/pm/cpufreq.rst). Everything here may block, so call it in
threads.

A word of cpu/ctl sets the governor, for all CPUs at once. Here are the bounds within which the governor chooses. Frequencies are in kHz, as in the
kernel.
"""

import errno
import os
from typing import Final, Literal

import attrs

from mk9p.devices import change, there
from mk9p.errors import NineError
from mk9p.ktext import split_words
from mk9p.sysfs import text
from mk9p.tree import fields, join

_STATUS: Final = {  # our key: the kernel's file
    "cpus": "affected_cpus",
    "driver": "scaling_driver",
    "governor": "scaling_governor",
    "frequency": "scaling_cur_freq",
    "min": "scaling_min_freq",
    "max": "scaling_max_freq",
    "lowest": "cpuinfo_min_freq",
    "highest": "cpuinfo_max_freq",
    "frequencies": "scaling_available_frequencies",
    "preference": "energy_performance_preference",
    "preferences": "energy_performance_available_preferences",
}


@attrs.frozen(eq=False)
class Policy:
    """The policy `name`, policyN, at its directory in sysfs."""

    name: str
    base: str

    def reading(self) -> str:
        frequency, governor, driver = (
            text(f"{self.base}/scaling_{of}", "-") for of in ("cur_freq", "governor", "driver")
        )
        return join([f"cpufreq/{self.name}", "cpufreq", frequency, "kHz", governor, driver]) + "\n"

    def status(self) -> str:
        there(self.name, self.base)
        return fields({"name": self.name} | {key: text(f"{self.base}/{file}", "-") for key, file in _STATUS.items()})

    def settings(self) -> str:
        """Return the settings; a speed is a setting only under the governor `userspace`."""
        files = {
            "min": _STATUS["min"],
            "max": _STATUS["max"],
            "preference": _STATUS["preference"],
            "speed": "scaling_setspeed",
        }
        values = {word: text(f"{self.base}/{file}") for word, file in files.items()}
        if not values["speed"].isdecimal():  # <unsupported>
            del values["speed"]
        return "".join(f"{word} {value}\n" for word, value in values.items() if value)

    # words

    def min(self, khz: int) -> None:
        """Go no slower. The driver takes the next frequency that it has."""
        change(f"{self.base}/scaling_min_freq", str(khz), f"{self.name} cannot have min {khz}")

    def max(self, khz: int) -> None:
        """Go no faster."""
        change(f"{self.base}/scaling_max_freq", str(khz), f"{self.name} cannot have max {khz}")

    def speed(self, khz: int) -> None:
        """Go at one frequency. Raises EBUSY under a governor that chooses itself."""
        if not text(f"{self.base}/scaling_setspeed").isdecimal():
            raise NineError(
                errno.EBUSY, f"{self.name} is governed by {text(f'{self.base}/scaling_governor')}, not by userspace"
            )
        change(f"{self.base}/scaling_setspeed", str(khz), f"{self.name} cannot have speed {khz}")

    def preference(self, name: str) -> None:
        """Set what the hardware prefers. Raises EINVAL with the names that exist."""
        there = split_words(text(f"{self.base}/energy_performance_available_preferences"))
        if not there:
            raise NineError(errno.EOPNOTSUPP, f"{self.name} has no preferences")
        if name not in there:
            raise NineError(errno.EINVAL, f"no preference {name}; there are: {' '.join(there)}")
        change(f"{self.base}/energy_performance_preference", name, f"{self.name} cannot have preference {name}")


@attrs.frozen(eq=False)
class Boost:
    """Whether CPUs may go faster for a while than they can for long: one switch for all, of cpufreq or of intel_pstate, which has the opposite
    sense."""

    base: str

    def _switch(self) -> tuple[str, str]:
        """Return the file, and what it says when boost is on; an empty name where there is none."""
        for file, on in ((f"{self.base}/cpufreq/boost", "1"), (f"{self.base}/intel_pstate/no_turbo", "0")):
            if os.path.exists(file):
                return file, on
        return "", ""

    def settings(self) -> str:
        file, on = self._switch()
        return f"boost {'on' if text(file) == on else 'off'}\n" if file else ""

    def boost(self, how: Literal["on", "off"]) -> None:
        file, on = self._switch()
        if not file:
            raise NineError(errno.ENODEV, "this kernel cannot switch boost")
        value = on if how == "on" else {"1": "0", "0": "1"}[on]
        change(file, value, f"boost cannot be switched {how}")
