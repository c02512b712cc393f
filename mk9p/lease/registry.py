"""The rules of the registry (Inferno's registry(4)): names with attributes, and which of them somebody looks for. Pure.

An entry is a line, `NAME ATTR VALUE…`. A search is `ATTR VALUE…` too: an entry is found if it has all of these attributes, with a value that the
pattern matches (`*` any letters, `?` one; `*` alone also says that the attribute is there). `name` is an attribute of each.
"""

import errno
import re
from collections.abc import Generator, Sequence
from functools import cached_property
from typing import Final

import attrs

from mk9p.errors import NineError
from mk9p.tree.patterns import Pattern
from mk9p.tree.words import join

MOST: Final = 4096  # entries; more is ENOSPC
SHARE: Final = 256  # entries of one user, so that others can have some too
TEXT: Final = 1 << 20  # bytes of the entries of one user
HEARD: Final = 1 << 17  # entries that other composers have: a thousand of them with a hundred kernels each
WORDS: Final = 64  # attributes of an entry
_LONGEST: Final = 255  # characters of a name, an attribute, a value
_NAME: Final = re.compile(r"[^\s/\0-\x1f\x7f]+")
RESERVED: Final = frozenset({"name", "persist"})


@attrs.frozen
class Entry:
    """One service: its name, its attributes in their order, and the user who entered it."""

    name: str
    attributes: tuple[tuple[str, str], ...]
    owner: str
    persists: bool = False
    home: str = ""
    """The composer that it goes with; empty for this one, and for one that persists."""

    @classmethod
    def parse(cls, words: list[str], owner: str) -> "Entry":
        """Read `NAME ATTR VALUE…`. Raises EINVAL."""
        if not words or len(words) % 2 == 0:
            raise NineError(errno.EINVAL, "usage: NAME ATTR VALUE...")
        name, pairs = words[0], list(zip(words[1::2], words[2::2], strict=True))
        if not _NAME.fullmatch(name) or len(name) > _LONGEST or name in (".", ".."):
            raise NineError(errno.EINVAL, f"bad name {name!r}")
        attributes = dict(pairs)
        persist = attributes.pop("persist", "0")
        if persist not in ("0", "1"):
            raise NineError(errno.EINVAL, "usage: persist 0|1")
        if len(attributes) + ("persist" in dict(pairs)) != len(pairs) or len(attributes) > WORDS:
            raise _too_many()
        for key, value in attributes.items():
            if key in RESERVED or not key or max(len(key), len(value)) > _LONGEST or "\n" in key + value:
                raise NineError(errno.EINVAL, f"bad attribute {key!r}")
        return cls(name, tuple(attributes.items()), owner, persist == "1")

    def with_(self, more: "Entry") -> "Entry":
        """Return it with further attributes, or other values of them. Raises EINVAL if these are too many."""
        both = dict(self.attributes) | dict(more.attributes)
        if len(both) > WORDS:
            raise _too_many()
        return attrs.evolve(self, attributes=tuple(both.items()), persists=more.persists)

    @cached_property
    def line(self) -> str:
        """The entry as a line, without `persist`."""
        return join([self.name, *(word for pair in self.attributes for word in pair)])

    @property
    def size(self) -> int:
        """What it takes, in bytes as they are written."""
        return len(self.name.encode()) + sum(len(f"{key}{value}".encode()) for key, value in self.attributes)

    @property
    def by(self) -> str:
        """Who entered it, as others are told of them."""
        return f"{self.owner} at {self.home}" if self.home else self.owner

    def matches(self, wanted: Sequence[tuple[str, Pattern]]) -> bool:
        """Tell whether it has all that somebody looks for."""
        mine = {**dict(self.attributes), "name": self.name}
        return all(key in mine and pattern.matches(mine[key]) for key, pattern in wanted)


def _too_many() -> NineError:
    return NineError(errno.EINVAL, f"an attribute is there once, and there are at most {WORDS}")


def search(words: list[str]) -> list[tuple[str, Pattern]]:
    """Read `ATTR VALUE…`. Raises EINVAL."""
    if len(words) % 2 or len(words) > 2 * WORDS or any(len(word) > _LONGEST for word in words):
        raise NineError(errno.EINVAL, "usage: ATTR VALUE...")
    return [(key, Pattern(value)) for key, value in zip(words[::2], words[1::2], strict=True)]


@attrs.define
class Registry:
    """The entries, by name."""

    entries: dict[str, Entry] = attrs.field(factory=dict)

    def add(self, entry: Entry) -> None:
        """Enter a service. Raises EEXIST if its name is taken, ENOSPC."""
        if entry.name in self.entries:
            raise NineError(errno.EEXIST, f"{entry.name} is entered already, by {self.entries[entry.name].by}")
        if len(self.entries) >= MOST:
            raise NineError(errno.ENOSPC, f"all {MOST} entries are in use")
        self.entries[entry.name] = entry

    def require_share(self, more: Entry) -> None:
        """Raise ENOSPC if its owner has too many entries, or too much in them, to have another one, or more in one of theirs."""
        theirs = {name: entry for name, entry in self.entries.items() if entry.owner == more.owner and not entry.home}
        before = theirs.get(more.name)
        if before is None and len(theirs) >= SHARE:
            raise NineError(errno.ENOSPC, f"{more.owner} has {SHARE} entries already")
        theirs[more.name] = more if before is None else before.with_(more)
        if sum(entry.size for entry in theirs.values()) > TEXT:
            raise NineError(errno.ENOSPC, f"the entries of {more.owner} have {TEXT} bytes at most")

    def find(self, words: list[str]) -> Generator[None, None, list[Entry]]:
        """Return the entries that have what is looked for, by name; yield after each that was looked at. Raises EINVAL."""
        wanted = search(words)
        found = []
        for entry in self.all():
            if entry.matches(wanted):
                found.append(entry)
            yield
        return found

    def all(self) -> list[Entry]:
        """Return all entries, by name."""
        return [entry for _, entry in sorted(self.entries.items())]
