"""What a composer says of its kernels to those of other machines: JSON, read at one door.

kernel/HOST/NAME   where a kernel serves, whether it is up, and what it has

An address comes from another machine, and dialling it must not run a command here, nor open a file. So it is one of a network between machines.
"""

import ipaddress
import json
import re
import socket
from typing import Any, Final
from urllib.parse import quote, unquote

import attrs

from mk9p.dial import parse
from mk9p.errors import NineError
from mk9p.etcd.address import is_name
from mk9p.lease.registry import Entry
from mk9p.said import from_json
from mk9p.tree import split
from mk9p.tree.paths import NAME

KERNEL: Final = "kernel/"
BETWEEN: Final = frozenset({"tcp", "tls"})  # networks by which other machines are reached
_HERE: Final = ("localhost", "*")
_LINE: Final = re.compile(r"[\0-\x1f\x7f-\x9f\u2028\u2029]")  # what would end a line, or speak to a terminal
_LONGEST: Final = 1024  # characters of an address, of a tree's name


@attrs.frozen
class Said:
    """What is said of one kernel: `line` is what the registry has of it, empty as long as it has not answered."""

    dial: str
    spec: str = ""
    up: bool = False
    untrusted: bool = True
    line: str = ""

    @property
    def way(self) -> tuple[str, str, bool]:
        """What a server is made from."""
        return self.dial, self.spec, self.untrusted

    def value(self) -> str:
        return json.dumps(attrs.asdict(self))

    @classmethod
    def read(cls, value: bytes, *, local: bool = False) -> "Said":
        """Read it. Raises ValueError; NineError for an address that is none, or that only its own machine can dial."""
        said: Any = from_json(value)
        if not isinstance(said, dict):
            raise ValueError("no record")
        texts = {key: said.get(key) for key in ("dial", "spec", "line")}
        for key, text in texts.items():
            if (
                not isinstance(text, str)
                or len(text) > (16 * _LONGEST if key == "line" else _LONGEST)
                or _LINE.search(text)
            ):
                raise ValueError(f"{key} is {text!r:.80}")
        made = cls(**texts, up=said.get("up") is True, untrusted=said.get("untrusted") is not False)  # type: ignore[arg-type]
        if not dialable(made.dial, local=local):
            raise ValueError(f"{made.dial!r:.80} cannot be dialled from another machine")
        if made.line:
            made.entry("x")
        return made

    def entry(self, name: str) -> Entry | None:
        """Return what the registry has of it, by a name; None if nothing is known. Raises EINVAL."""
        words = split(self.line)
        return Entry.parse([name, *words[1:]], "kernel") if words else None


def dialable(address: str, *, local: bool = False) -> bool:
    """Tell whether another machine can dial an address; `local`: also one that only this machine has, for composers that share it."""
    try:
        where = parse(address)
    except NineError:
        return False
    if where.netns is not None or where.transport.name not in (BETWEEN | {"unix"} if local else BETWEEN):
        return False
    return local or not is_here(where.rest.partition("!")[0])


def is_here(host: str) -> bool:
    """Tell whether a host is the machine itself that dials it, in whatever way its address is written."""
    name = host.lower().rstrip(".")
    if name in _HERE or name.endswith(".localhost"):
        return True
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.IPv4Address(socket.inet_aton(name))
    except (OSError, UnicodeError):
        try:
            six = ipaddress.IPv6Address(name.strip("[]"))
        except ValueError:
            return False
        address = six.ipv4_mapped or six
    return address.is_loopback or address.is_unspecified


def place(host: str, name: str) -> str:
    """Return where a kernel's record is."""
    return f"{KERNEL}{host}/{quote(name, safe='', errors='surrogateescape')}"


def owner_of(at: str) -> tuple[str, str]:
    """Return whose record it is: machine and name. Raises ValueError."""
    host, slash, name = at.removeprefix(KERNEL).partition("/")
    plain = unquote(name, errors="surrogateescape")
    if (
        not is_name(host)
        or not slash
        or "/" in plain
        or plain in ("", ".", "..")
        or len(plain) > NAME
        or _LINE.search(plain)
    ):
        raise ValueError(f"{at!r:.80} is nobody's")
    return host, plain
