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
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args

import attrs

from mk9p.dial import parse as parse_dial
from mk9p.errors import NineError
from mk9p.restart import Restart
from mk9p.tree import join, split

from .backend import Kind, Spec
from .device import Device
from .hardware import GRANULE
from .moves import cpus as cpu_list
from .policy import Watch
from .words import LONGEST_WAIT, MOST_CPUS, Grant, granted

if TYPE_CHECKING:
    from collections.abc import Mapping

TAKEN: Final = (
    "clone",
    "ctl",
    "status",
    "events",
    "error",
    "pool",
    "tx",
    "desired",
    "diff",
)  # in kernels/, beside kernels

LONGEST: Final = 1 << 20  # characters of a lab file
POOL, NAMESPACE = "pool", "namespace"
_UNITS: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_PLAIN: Final = ("backend", "dial", "qmp", "hostroot", "trust", "boot", "wait")  # one word
_LISTS: Final = ("serve", "device", "show", "modules")  # several words
_FLAGS: Final = {"mount": "abcru", "bind": "abcr"}
_USAGE: Final = {"mount": "mount [-abcru] [-w SECONDS] ADDR OLD [SPEC]", "bind": "bind [-abcr] NEW OLD"}


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
        "pool_memory": _pieces(table, "memory"),
        "devices": {device.name: device for device in devices},
    }


def _namespace(table: Mapping[str, Any]) -> dict[str, Any]:
    _known(table, "lines", "policy")
    lines = _texts(table, "lines")
    for line in lines:
        _require_line(line)
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
    if name in ("kernel", "kernels") and any(isinstance(value, dict) for value in table.values()):
        raise ValueError(f"a kernel has a table of its own: [{next(iter(table))}]")
    _known(table, *own, *_PLAIN, *_LISTS)
    Spec(name=name, kernel="")
    if name in TAKEN:
        raise ValueError("a file of kernels/ has this name")
    settings = {key: _plain(key, _text(table, key)) for key in _PLAIN if key in table}
    settings |= {key: join([key, *_texts(table, key)]) for key in _LISTS if key in table}
    if "show" in table:
        settings["show"] = join(["show", *map(_shown, _texts(table, "show"))])
    if "memory" in table:
        settings["memory"] = f"memory {_size(table, 'memory')}"
    if "restart" in table:
        settings["restart"] = join(["restart", *Restart.read(_text(table, "restart")).words])
    if "watch" in table:
        seconds, _, then = _text(table, "watch").partition(" ")
        if then not in ("tell", "restart", "kill"):
            raise ValueError("watch: want SECONDS tell|restart|kill")
        settings["watch"] = join(["watch", *Watch.parse(float(seconds), then).words])  # type: ignore[arg-type]
    initrd, cmdline = (_text(table, key) if key in table else "" for key in ("initrd", "cmdline"))
    more = [*(["initrd", str(PurePath(initrd))] if initrd else []), *(["cmdline", cmdline] if cmdline else [])]
    kernel = _text(table, "kernel") if "kernel" in table else ""
    state = table.get("state", "active")
    if state not in ("active", "off"):
        raise ValueError(f"state: want active or off: {state}")
    cpus = table.get("cpus")
    if cpus is not None and (not isinstance(cpus, int) or isinstance(cpus, bool) or not 1 <= cpus <= MOST_CPUS):
        raise ValueError(f"cpus: want how many: {cpus}")
    return Wanted(
        name,
        settings,
        cpus=cpus,
        load=join(["load", *([kernel, *more] if kernel or more else [])]),
        grants=_grants(table) if "grants" in table else None,
        runs=state == "active",
        extra_memory=_pieces(table, "extra_memory") if "extra_memory" in table else None,
        devices=_texts(table, "devices") if "devices" in table else None,
        isolated=frozenset(cpu_list(_text(table, "isolated")))
        if table.get("isolated")
        else frozenset()
        if "isolated" in table
        else None,
    )


def _plain(key: str, value: str) -> str:
    """Return the line of a setting as a kernel's config has it. Raises ValueError for one that its word would refuse."""
    if key == "backend" and value not in get_args(Kind):
        raise ValueError(f"backend: want one of {' '.join(get_args(Kind))}: {value}")
    if key in ("hostroot", "trust") and value not in ("on", "off"):
        raise ValueError(f"{key}: want on or off: {value}")
    if key == "wait":
        if not re.fullmatch(r"[0-9]{1,5}", value) or int(value) > LONGEST_WAIT:
            raise ValueError(f"wait: want 0 to {LONGEST_WAIT} seconds: {value}")
        return f"wait {int(value)}"
    if key == "dial":
        parse_dial(value)
    if key == "qmp" and not value.startswith("/"):
        raise ValueError(f"qmp: want the absolute path of a socket: {value}")
    return join([key, value]) if value else key


def _shown(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"show: want absolute paths: {path}")
    return str(PurePath(path))


def _grants(table: Mapping[str, Any]) -> tuple[str, ...]:
    """Return grants as a kernel's config has them."""
    found: tuple[Grant, ...] = ()
    for words in map(split, _texts(table, "grants")):
        if len(words) != 2:
            raise ValueError('grants: want ["PATH ro|rw|OPS", ...]')
        try:
            found = granted(found, *words)
        except NineError as error:
            raise ValueError(f"grants: {error}") from None
    return tuple(map(join, found))


class _Line(NamedTuple):
    """A line of the namespace: its command, the letters of its flags, the seconds of -w, and the other words."""

    command: str
    flags: str
    wait: str
    words: list[str]


def _taken_apart(line: str) -> _Line:
    command, *words = split(line) or [""]
    flags, wait = "", ""
    while words and words[0].startswith("-"):
        flags += words.pop(0)[1:] or "-"
        if flags.endswith("w"):
            flags, wait = flags[:-1], words.pop(0) if words else "-"
    return _Line(command, "".join(sorted(set(flags))), wait, words)


def _require_line(line: str) -> None:
    """Raise ValueError for a line that the namespace would refuse, whatever there is."""
    command, flags, wait, words = _taken_apart(line)
    if command not in _USAGE:
        raise ValueError(f"lines: a line begins with mount or bind: {line}")
    bad = set(flags) - set(_FLAGS[command]) or {"a", "b"} <= set(flags)
    timed = command == "mount" and re.fullmatch(r"[0-9]{1,5}", wait) and int(wait) <= LONGEST_WAIT
    if bad or (wait and not timed) or len(words) not in ((2, 3) if command == "mount" else (2,)):
        raise ValueError(f"lines: {line}: usage: {_USAGE[command]}")
    if command == "mount" and not words[0].startswith("/"):
        parse_dial(words[0])


def canonical(line: str) -> str:
    """Return a line of the namespace as it is compared: `mount -a -rw 060 A /b/` is `mount -ar -w 60 A /b`."""
    command, flags, wait, words = _taken_apart(line)
    paths = [_path(word) if at == 1 or (at == 0 and command == "bind") else word for at, word in enumerate(words)]
    seconds = ["-w", str(int(wait))] if wait.isdecimal() and int(wait) else []
    return join([command, *([f"-{flags}"] if flags else []), *seconds, *paths])


def _path(path: str) -> str:
    """Return a path as the namespace has it."""
    names: list[str] = []
    for name in path.split("/"):
        if name == "..":
            del names[-1:]
        elif name not in ("", "."):
            names.append(name)
    return "/" + "/".join(names)


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


def _pieces(table: Mapping[str, Any], key: str) -> int:
    """Return bytes that can move."""
    count = _size(table, key)
    if count % GRANULE:
        raise ValueError(f"{key}: memory moves in pieces of {GRANULE} bytes: {table[key]}")
    return count


def _size(table: Mapping[str, Any], key: str) -> int:
    """Return bytes of `768M`, or a plain number; 0 where there is none."""
    text = str(table.get(key, 0))
    found = re.fullmatch(r"([0-9]{1,15})([KMGT]?)(i?B)?", text)
    if found is None:
        raise ValueError(f"{key}: not a size: {text}")
    return int(found[1]) * _UNITS.get(found[2], 1)
