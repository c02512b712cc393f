"""Leases, wishes and entries as they are written to etcd: JSON, read at one door.

lease/Q0/Q1/HOME.NUMBER   a lease or a wish: Q0 and Q1 are the first two names of its key, percent-encoded, so what may be in each other's way is
                          together. For each further resource it touches MARK there, which tells those who decide about it that something is new
registry/NAME             an entry
"""

import errno
import json
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import attrs

from mk9p.errors import NineError
from mk9p.lease.registry import Entry
from mk9p.lease.wish import Key, Resource, Wish
from mk9p.said import from_json
from mk9p.tree.words import split

LEASE: Final = "lease/"
REGISTRY: Final = "registry/"
MARK: Final = "+"  # instead of HOME.NUMBER
MARKS: Final = 100  # in one transaction, of which etcd takes 128 parts
ALONE: Final = "="  # instead of the second name of a key that has one: no encoded name is this


def life() -> str:
    """Return what tells by which clock a time of CLOCK_BOOTTIME is: the machine's present life, and the time namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().rstrip("\n")
    return f"{boot} {Path('/proc/self/ns/time').readlink()}"


def boottime() -> int:
    """Return the time since the machine began, ns."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _quoted(name: str) -> str:
    return quote(name, safe="", errors="surrogateescape")


def place(key: Key, home: str, number: int) -> str:
    """Return where a lease or a wish is, below `lease/`."""
    first, second = _quoted(key[0]), _quoted(key[1]) if len(key) > 1 else ALONE
    return f"{LEASE}{first}/{second}/{home}.{number}"


def marks(wish: Wish) -> list[str]:
    """Return where else a wish is to be noticed than at its place. Raises ENOSPC."""
    _, *more = dict.fromkeys(place(key, "", 0).rpartition("/")[0] for _, key in wish.resources)
    if len(more) > MARKS:
        raise NineError(errno.ENOSPC, f"a lease is for what {MARKS} kernels have at most")
    return [f"{at}/{MARK}" for at in more]


def near(wish: Wish) -> list[str]:
    """Return the prefixes below which everything is that may be in the way of a wish, and little else."""
    return list(dict.fromkeys(prefix for _, key in wish.resources for prefix in _near(key)))


def _near(key: Key) -> list[str]:
    first = _quoted(key[0])
    if len(key) == 1:
        return [f"{LEASE}{first}/"]
    return [f"{LEASE}{first}/{_quoted(key[1])}/", f"{LEASE}{first}/{ALONE}/"]


def owner_of(place: str) -> tuple[str, int]:
    """Return whose a lease or a wish is, and its number there. Raises ValueError."""
    home, _, number = place.rpartition("/")[2].rpartition(".")
    if not home or not number.isascii() or not number.isdecimal() or len(number) > 18:
        raise ValueError(f"{place!r} is nobody's")
    return home, int(number)


@attrs.frozen
class Written:
    """What is written of a lease or a wish. `token` is 0 in the record that grants it: the record's revision is the token."""

    wish: Wish
    held: bool
    token: int
    life: str
    end: int
    """When it ends, by CLOCK_BOOTTIME of that life, ns."""
    note: str
    """By which its writer knows it again."""

    def value(self) -> str:
        wish = self.wish
        return json.dumps(
            {
                "path": wish.path,
                "key": wish.key,
                "mode": wish.mode,
                "holder": wish.holder,
                "uid": wish.uid,
                "term": wish.term,
                "held": self.held,
                "token": self.token,
                "life": self.life,
                "end": self.end,
                "note": self.note,
                "more": wish.more,
            }
        )

    @classmethod
    def read(cls, value: bytes, number: int, home: str, there: int = 0) -> "Written":
        """Read it. Raises ValueError, and EINVAL, which is one, for a term."""
        said = _said(value)
        mode, key = said.get("mode"), said.get("key")
        if mode != "shared" and mode != "exclusive":
            raise ValueError("a lease says what none can")
        further = said.get("more", [])
        if not isinstance(further, list):
            raise ValueError("a lease says what none can")
        wish = Wish(
            number,
            _text(said.get("path")),
            _key(key),
            mode,
            _text(said.get("holder")),
            _whole(said.get("term")),
            _whole(said.get("uid")),
            home,
            there,
            tuple(_resource(one) for one in further),
        )
        held = said.get("held") is True
        life, end, note = _text(said.get("life")), _whole(said.get("end")), _text(said.get("note"))
        return cls(wish, held, _whole(said.get("token")), life, end, note)


def entry_value(entry: Entry, home: str, note: str) -> str:
    """Return an entry as it is written."""
    return json.dumps(
        {"owner": entry.owner, "line": entry.line, "home": home, "persists": entry.persists, "note": note}
    )


def read_entry(value: bytes, name: str) -> Entry:
    """Read an entry. Raises ValueError."""
    said = _said(value)
    words = split(_text(said.get("line")))
    persists = said.get("persists") is True
    entry = Entry.parse([name, *words[1:], *(["persist", "1"] if persists else [])], _text(said.get("owner")))
    return entry if persists else attrs.evolve(entry, home=_text(said.get("home")))


def note_of(value: bytes) -> str:
    """Return by what a writer knows a record again; nothing for one that says none."""
    try:
        return _text(_said(value).get("note"))
    except ValueError:
        return ""


def _said(value: bytes) -> dict[str, Any]:
    said = from_json(value)
    if not isinstance(said, dict):
        raise ValueError("no record")
    return said


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 1 << 16 or "\n" in value or "\0" in value:
        raise ValueError(f"{value!r:.80} is no text")
    return value


def _key(value: object) -> Key:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{value!r:.80} is no key")
    return tuple(_text(name) for name in value)


def _resource(value: object) -> Resource:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"{value!r:.80} is no resource")
    return Resource(_text(value[0]), _key(value[1]))


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise ValueError(f"{value!r:.80} is no number")
    return value
