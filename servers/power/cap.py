"""One zone of powercap: a part of the machine whose power is measured and limited (Documentation/power/powercap/powercap.rst).

A zone has constraints, each a limit of the mean power over a window of time. The kernel numbers them, and their names say which they are. Only
root may know how much energy was used: others have used it to read secrets of other processes (CVE-2020-8694). So it is in a file of its own.
"""

import errno
import os
import re
import time
from typing import Final, Literal

import attrs

from mk9p.devices import change, there
from mk9p.errors import NineError
from mk9p.sysfs import names, text
from mk9p.tree import join

_LIMIT: Final = re.compile(r"constraint_(\d+)_power_limit_uw")


@attrs.frozen(eq=False)
class Cap:
    """The zone `name` at its directory in sysfs; or a way of control (intel-rapl), which can only be switched on and off, for all its zones."""

    name: str
    base: str

    def constraints(self) -> dict[str, str]:
        """Return the constraints by name, with the prefix of their files. A constraint without a name has its number."""
        numbers = sorted(int(found[1]) for name in names(self.base) if (found := _LIMIT.fullmatch(name)))
        return {text(f"{self.base}/constraint_{n}_name", str(n)): f"{self.base}/constraint_{n}" for n in numbers}

    def enabled(self) -> str:
        return {"1": "enabled", "0": "disabled"}.get(text(f"{self.base}/enabled"), "-")

    def zone(self) -> str:
        return text(f"{self.base}/name", "-")

    # what is read

    def reading(self) -> str:
        """Return a line for the zone with its first limit, which is that of the longest window; nothing for a way of control."""
        first = next(iter(self.constraints().values()), "")
        limit = text(f"{first}_power_limit_uw", "-") if first else "-"
        zone = self.zone()
        return join([f"cap/{self.name}", "cap", limit, "uW", self.enabled(), zone]) + "\n" if zone != "-" else ""

    def status(self) -> str:
        there(self.name, self.base)
        lines = [f"name {self.name}\n", f"zone {self.zone()}\n", f"state {self.enabled()}\n"]
        for name, file in self.constraints().items():
            what = ("power_limit_uw", "time_window_us", "min_power_uw", "max_power_uw")
            lines.append(join(["limit", name, *(text(f"{file}_{of}", "-") for of in what)]) + "\n")
        return "".join(lines)

    def settings(self) -> str:
        lines = [f"state {state}\n"] if (state := self.enabled()) != "-" else []
        for name, file in self.constraints().items():
            for word, of in (("limit", "power_limit_uw"), ("window", "time_window_us")):
                if value := text(f"{file}_{of}"):
                    lines.append(join([word, name, value]) + "\n")
        return "".join(lines)

    def energy(self) -> str:
        """Return `TIME_NS ENERGY_UJ RANGE_UJ`: when it was read, what was used, and where the counter begins again at 0."""
        now = time.time_ns()
        return f"{now} {text(f'{self.base}/energy_uj', '-')} {text(f'{self.base}/max_energy_range_uj', '-')}\n"

    # words

    def limit(self, constraint: str, uw: int) -> None:
        """Set how many microwatts are allowed."""
        change(f"{self._of(constraint)}_power_limit_uw", uw, f"the limit {constraint} of {self.name} cannot be {uw}")

    def window(self, constraint: str, us: int) -> None:
        """Set the window of the limit in microseconds: the limit is for the mean over it."""
        change(f"{self._of(constraint)}_time_window_us", us, f"the window {constraint} of {self.name} cannot be {us}")

    def state(self, how: Literal["enabled", "disabled"]) -> None:
        """Turn the limits on or off."""
        if not os.path.exists(f"{self.base}/enabled"):
            raise NineError(errno.EOPNOTSUPP, f"{self.name} cannot be {how}")
        change(f"{self.base}/enabled", int(how == "enabled"), f"{self.name} cannot be {how}")

    def _of(self, constraint: str) -> str:
        there = self.constraints()
        if constraint not in there:
            raise NineError(
                errno.ENOENT, f"{self.name} has no limit {constraint}; there are: {' '.join(there) or 'none'}"
            )
        return there[constraint]
