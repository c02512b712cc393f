"""power: what this kernel runs on, and how much power it may use: supplies, power caps, frequencies. The files are those of docs/files/power.md.

The server reads everything from sysfs when somebody asks. It keeps only the names that existed at the last event. A few threads do all reading and
setting: a battery's controller may be slow, or dead.
"""

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import attrs

from mk9p import uevents
from mk9p.devices import Present, Slow, identity
from mk9p.servers.power.cap import Cap
from mk9p.servers.power.cpufreq import Boost, Policy
from mk9p.servers.power.supply import Supply, brief, properties
from mk9p.sysfs import names
from mk9p.tree import Ctl, Dir, Lazy, Log, Node, Text
from mk9p.uevents import Uevent

__all__ = ["Power", "tree"]

CPU: Final = "devices/system/cpu"
KINDS: Final[Mapping[str, str]] = {"supply": "class/power_supply", "cap": "class/powercap", "cpufreq": f"{CPU}/cpufreq"}
_SUBSYSTEMS: Final = {"power_supply": "supply", "powercap": "cap"}


@asynccontextmanager
async def tree(*, root: str = "/") -> AsyncIterator[Dir]:
    """Serve the power supplies, caps and frequencies of the kernel whose /sys is below `root`."""
    power = Power(root.rstrip("/"))
    async with uevents.told(power.told, power.present.look, root=root):
        yield power.tree()


@attrs.define(eq=False)
class Power:
    """The power of one kernel."""

    root: str
    events: Log = attrs.field(factory=Log, init=False)
    present: Present = attrs.field(init=False)
    slow: Slow = attrs.field(factory=Slow, init=False)

    def __attrs_post_init__(self) -> None:
        self.present = Present(self.places, self.events)

    def tree(self) -> Dir:
        boost = Boost(f"{self.root}/sys/{CPU}")
        ctl = Ctl({"boost": self.slow(boost.boost)}, self.slow(boost.settings))
        return Dir(
            {
                "status": Text(self.slow(self.status)),
                "events": self.events,
                "supply": Dir(self.lazy("supply", self.supply)),
                "cap": Dir(self.lazy("cap", self.cap)),
                "cpufreq": Dir({"ctl": ctl}, self.lazy("cpufreq", self.policy)),
            }
        )

    def lazy(self, kind: str, make: Callable[[str], Node]) -> Lazy:
        return Lazy(partial(self.names, kind), make, key=partial(self.key, kind))

    def base(self, kind: str, name: str) -> str:
        return f"{self.root}/sys/{KINDS[kind]}/{name}"

    def names(self, kind: str) -> list[str]:
        found = names(f"{self.root}/sys/{KINDS[kind]}")
        if kind != "cpufreq":
            return sorted(found)
        policies = (name for name in found if _is_policy(name))  # the folder also has governors and switches
        return sorted(policies, key=lambda name: int(name.removeprefix("policy")))

    def key(self, kind: str, name: str) -> object:
        if "/" in name or name in (".", "..") or (kind == "cpufreq" and not _is_policy(name)):
            return None
        return identity(self.base(kind, name))

    def places(self) -> list[str]:
        return [f"{kind}/{name}" for kind in KINDS for name in self.names(kind)]

    # the things

    def supply(self, name: str) -> Node:
        supply = Supply(name, self.base("supply", name))
        return self.slow.files({"set": supply.set}, supply.settings, supply.status)

    def cap(self, name: str) -> Node:
        cap = Cap(name, self.base("cap", name))
        words: dict[str, Callable[..., Any]] = {"limit": cap.limit, "window": cap.window, "state": cap.state}
        energy = {"energy": Text(self.slow(cap.energy), mode=0o400)} if os.path.exists(f"{cap.base}/energy_uj") else {}
        return self.slow.files(words, cap.settings, cap.status, **energy)

    def policy(self, name: str) -> Node:
        policy = Policy(name, self.base("cpufreq", name))
        words: dict[str, Callable[..., Any]] = {
            "min": policy.min,
            "max": policy.max,
            "speed": policy.speed,
            "preference": policy.preference,
        }
        return self.slow.files(words, policy.settings, policy.status)

    def status(self) -> str:
        """Return a line for each supply, zone and policy: PLACE KIND VALUE UNIT STATE NAME."""
        makers: dict[str, Callable[[str, str], Supply | Cap | Policy]] = {
            "supply": Supply,
            "cap": Cap,
            "cpufreq": Policy,
        }
        return "".join(
            make(name, self.base(kind, name)).reading() for kind, make in makers.items() for name in self.names(kind)
        )

    # what is told

    def told(self, uevent: Uevent) -> None:
        """Take a uevent: supplies and zones come and go, a supply changes. Policies come and go with their CPUs, without a uevent of their own."""
        if uevent.subsystem == "cpu":
            self.present.look()
            return
        kind = _SUBSYSTEMS.get(uevent.subsystem)
        if kind is None:
            return
        place = f"{kind}/{uevent.name}"
        if uevent.action in ("add", "change"):
            # the kernel does not report that a supply came, only what it is like afterwards
            self.present.came(place)
        elif uevent.action == "remove":
            self.present.went(place)
        if uevent.action == "change" and (of := properties(uevent.values)).keys() - {"name", "type"}:
            self.events.emit("change", place, *brief(of))  # a supply that is going tells only its kind


def _is_policy(name: str) -> bool:
    return name.startswith("policy") and name.removeprefix("policy").isdecimal()
