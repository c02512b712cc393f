"""The lab file: what kernels there are to be. Pure.

A lab file is TOML: a table for each kernel, and two more.

    [pool]                                what there is to move
    cpus = "4-7"
    memory = "2G"
    devices = ["usb0 usb /srv/stick.img"]

    [namespace]                           words of the namespace's ctl
    lines = ["mount unix!/run/other /k/other", "bind /k/k1/fs /shared"]
    policy = ["deny none rwcnd /**"]      who may do what, all the rules (auth)

    [k1]                                  a kernel; a key is a word of its ctl, but for:
    kernel = "6.1"                        what `load` takes
    grants = ["/k/k2 rw"]                 `grant`, all of them
    state = "active"                      or "off"
    extra_memory = "512M"                 from the pool
    devices = ["usb0"]                    from the pool
    isolated = "1"                        CPUs for nobody else
"""

from __future__ import annotations

import errno
import re
import tomllib
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

import attrs

from mk9p.auth import granted_as
from mk9p.errors import NineError
from mk9p.restart import Restart
from mk9p.tree import join, split

from .device import Device
from .moves import cpus as cpu_list
from .policy import Watch

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST: Final = 1 << 20  # characters of a lab file
POOL, NAMESPACE = "pool", "namespace"
_UNITS: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_PLAIN: Final = ("backend", "dial", "qmp", "hostroot", "trust", "boot", "wait")  # one word
_LISTS: Final = ("serve", "device", "show", "modules")  # several words


@attrs.frozen
class Wanted:
    """What one kernel is to be. `settings` are ctl lines by their first word; None and empty are what the file does not say."""

    name: str
    settings: dict[str, str]
    cpus: int | None = None
    load: str = ""
    grants: tuple[str, ...] | None = None
    runs: bool = True
    extra_memory: int | None = None
    devices: tuple[str, ...] | None = None
    isolated: frozenset[int] | None = None


@attrs.frozen
class Desired:
    """A lab file."""

    kernels: dict[str, Wanted] = attrs.Factory(dict)
    pool_cpus: frozenset[int] = frozenset()
    pool_memory: int = 0
    devices: dict[str, Device] = attrs.Factory(dict)
    lines: tuple[str, ...] = ()
    policy: tuple[str, ...] | None = None

    @property
    def rules(self) -> str | None:
        """The text of the rules, as `auth/policy` has it; None where the file says nothing of them."""
        return None if self.policy is None else "".join(f"{line}\n" for line in self.policy)


def parse(text: str) -> Desired:
    """Return what a lab file says. Raises EINVAL that says what is wrong with it, and where."""
    if len(text) > LONGEST:
        raise NineError(errno.EFBIG, f"a lab file has at most {LONGEST} characters")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise NineError(errno.EINVAL, str(error)) from None
    kernels: dict[str, Wanted] = {}
    rest: dict[str, Any] = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise NineError(errno.EINVAL, f"{name}: want a table: [{name}]")
        try:
            if name == POOL:
                rest |= _pool(table)
            elif name == NAMESPACE:
                rest |= _namespace(table)
            else:
                kernels[name] = _kernel(name, table)
        except (ValueError, OSError) as error:
            raise NineError(errno.EINVAL, f"{name}: {error}") from None
    return Desired(kernels, **rest)


def _pool(table: Mapping[str, Any]) -> dict[str, Any]:
    _known(table, "cpus", "memory", "devices")
    devices = [Device.parse(split(line)) for line in _texts(table, "devices")]
    if len({device.name for device in devices}) < len(devices):
        raise ValueError("devices: two have one name")
    return {
        "pool_cpus": frozenset(cpu_list(_text(table, "cpus"))) if "cpus" in table else frozenset(),
        "pool_memory": _size(table, "memory"),
        "devices": {device.name: device for device in devices},
    }


def _namespace(table: Mapping[str, Any]) -> dict[str, Any]:
    _known(table, "lines", "policy")
    lines = _texts(table, "lines")
    for line in lines:
        if split(line)[:1] not in (["mount"], ["bind"]):
            raise ValueError(f"lines: a line begins with mount or bind: {line}")
    found: dict[str, Any] = {"lines": tuple(map(canonical, lines))}
    if "policy" in table:
        found["policy"] = _texts(table, "policy")
        for line in found["policy"]:
            if split(line)[:1] not in (["allow"], ["deny"], ["ask"], ["patience"]):
                raise ValueError(f"policy: a rule begins with allow, deny or ask: {line}")
    return found


def _kernel(name: str, table: Mapping[str, Any]) -> Wanted:
    own = (
        "cpus",
        "memory",
        "kernel",
        "initrd",
        "cmdline",
        "grants",
        "state",
        "extra_memory",
        "devices",
        "isolated",
        "restart",
        "watch",
    )
    _known(table, *own, *_PLAIN, *_LISTS)
    settings = {key: join([key, _text(table, key)]) for key in _PLAIN if key in table}
    settings |= {key: join([key, *_texts(table, key)]) for key in _LISTS if key in table}
    if "memory" in table:
        settings["memory"] = f"memory {_size(table, 'memory')}"
    if "restart" in table:
        settings["restart"] = join(["restart", *Restart.read(_text(table, "restart")).words])
    if "watch" in table:
        seconds, _, then = _text(table, "watch").partition(" ")
        if then not in ("tell", "restart", "kill"):
            raise ValueError("watch: want SECONDS tell|restart|kill")
        settings["watch"] = join(["watch", *Watch.parse(float(seconds), then).words])  # type: ignore[arg-type]
    more = [word for key in ("initrd", "cmdline") if key in table for word in (key, _text(table, key))]
    state = table.get("state", "active")
    if state not in ("active", "off"):
        raise ValueError(f"state: want active or off: {state}")
    grants = tuple(_grant(split(grant)) for grant in _texts(table, "grants"))
    cpus = table.get("cpus")
    if cpus is not None and (not isinstance(cpus, int) or not 1 <= cpus <= 1024):
        raise ValueError(f"cpus: want how many: {cpus}")
    return Wanted(
        name,
        settings,
        cpus=cpus,
        load=join(["load", *([_text(table, "kernel"), *more] if "kernel" in table else [])]),
        grants=grants if "grants" in table else None,
        runs=state == "active",
        extra_memory=_size(table, "extra_memory") if "extra_memory" in table else None,
        devices=_texts(table, "devices") if "devices" in table else None,
        isolated=frozenset(cpu_list(_text(table, "isolated")))
        if table.get("isolated")
        else frozenset()
        if "isolated" in table
        else None,
    )


def _grant(words: list[str]) -> str:
    """Return a grant as a kernel's config has it."""
    if len(words) != 2:
        raise ValueError('grants: want ["PATH ro|rw|OPS", ...]')
    try:
        return join([words[0], granted_as(words[1])])
    except NineError as error:
        raise ValueError(f"grants: {error}") from None


def canonical(line: str) -> str:
    """Return a line of the namespace as it is compared: `mount -a -r A B` is `mount -ar A B`."""
    found = split(line)
    flags: set[str] = set()
    rest: list[str] = []
    at = 1
    while at < len(found):
        if found[at] == "-w" and at + 1 < len(found):
            rest += found[at : at + 2]
            at += 1
        elif found[at].startswith("-") and len(found[at]) > 1:
            flags |= set(found[at][1:])
        else:
            rest.append(found[at])
        at += 1
    return join([*found[:1], *(["-" + "".join(sorted(flags))] if flags else []), *rest])


def _known(table: Mapping[str, Any], *keys: str) -> None:
    for key in table:
        if key not in keys:
            near = get_close_matches(key, keys)
            hint = f"similar: {' '.join(near)}" if near else f"there are: {' '.join(keys)}"
            raise ValueError(f"unknown key {key!r}; {hint}")


def _text(table: Mapping[str, Any], key: str) -> str:
    """Return a text, also from a number, or the words of a list as one line."""
    value = table[key]
    if isinstance(value, bool) or not isinstance(value, str | int | float | list):
        raise ValueError(f"{key}: want a text")
    return join(_texts(table, key)) if isinstance(value, list) else str(value)


def _texts(table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(
        isinstance(one, str | int) and not isinstance(one, bool) for one in value
    ):
        raise ValueError(f'{key}: want a list of texts: ["A", "B"]')
    return tuple(map(str, value))


def _size(table: Mapping[str, Any], key: str) -> int:
    """Return bytes of `768M`, or a plain number; 0 where there is none."""
    text = str(table.get(key, 0))
    found = re.fullmatch(r"([0-9]{1,15})([KMGT]?)(i?B)?", text)
    if found is None:
        raise ValueError(f"{key}: not a size: {text}")
    return int(found[1]) * _UNITS.get(found[2], 1)
