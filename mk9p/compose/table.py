"""The mount table: what is at which lexical path. Pure data; nothing here waits or knows a server.

Rules (bind(1), namespace(6), Plan 9's port/chan.c `cmount`; each difference has its reason):
* A path is a name in the composed namespace, cleaned of `.`, `..` and double slashes. A mount point is its path, not, as in Plan 9, the file that
  was found there: kernels come and go, and a table of names is the same again when they are back.
* A mount point has a list of items: a mounted server, the tree at another name (bind), or what lies underneath. The first mount or bind with `-b`
  or `-a` puts the new item before or after what lies underneath, as `cmount` does; without either it replaces everything.
* A bind follows the *name* that was bound: if another server is mounted there later, clients see that one. Where a name leads back through its own
  bind (`bind -b /x/y /x`), that bind is left out, and the name means what else is there; so no table recurses without end.
* The same thing, bound or mounted again at the same place, moves to where it is wanted now and takes the new flags: a script may run twice.
* A mount point needs no file of its name: what does not exist appears, with the directories in between. So a namespace can be built from servers
  that are still booting.
* The root keeps its own files, last by default: after somebody mounts something over `/` and it goes away, `ctl` must still be there.
* A walk can reach every path here: it has at most as many names, and each has at most the same length. And the table has an end (`MOST`), because
  each path takes memory for each of the paths that it leads through.
* `-u` on a mounted server: nothing that it says is believed (untrusted.py).
* `-c` on an item lets clients create files in it; a mount point without one forbids creation in its own directory, not in those below (cmount's
  MCREATE). `bind -c OLD OLD` gives it to what lies underneath.
"""

import errno
from collections.abc import Callable, Iterator
from time import time_ns
from typing import Final, Literal, TypeAlias

import attrs

from mk9p.errors import NineError
from mk9p.tree import Node, join
from mk9p.tree.paths import DEPTH, NAME, PATH
from mk9p.wire import QTDIR

Order: TypeAlias = Literal["replace", "before", "after"]

# bytes of everything in a table, and of the paths that lead to it: tens of thousands of usual mount points
MOST: Final = 16 << 20

LONGEST: Final = 86400  # seconds that a request may wait for a server: whoever waits for longer has forgotten it

_ORDERS: Final[dict[str, Order]] = {"a": "after", "b": "before"}


def clean(path: str) -> str:
    """Return a path as the table has it: `/a/b`, and the empty string for the root.

    Raises EINVAL for a path that no line can contain, ENAMETOOLONG for one that no walk could reach.
    """
    names: list[str] = []
    for name in path.split("/"):
        if name == "..":
            del names[-1:]
        elif name not in ("", "."):
            names.append(name)
    if "\n" in path or "\0" in path:
        raise NineError(errno.EINVAL, "illegal name")
    if len(names) > DEPTH:
        raise NineError(errno.ENAMETOOLONG, f"a path has {DEPTH} names at most")
    if any(len(name) > NAME for name in names) or len(path) > PATH:
        raise NineError(errno.ENAMETOOLONG)
    return "".join("/" + name for name in names)


def parent(path: str) -> str:
    """Return the directory that a path is in."""
    return path.rpartition("/")[0]


def within(path: str, top: str) -> bool:
    """Tell whether a path is `top` or below it."""
    return path == top or path.startswith(top + "/")


@attrs.frozen
class Flags:
    """The flags `-abcru`, and `-w SECONDS`."""

    order: Order = "replace"
    create: bool = False
    readonly: bool = False
    wait: int = 0  # seconds that requests wait for a server that is down
    untrusted: bool = False

    @classmethod
    def parse(cls, words: list[str]) -> "Flags | None":
        """Take the flags off the front of a command's words; None if they are not `-abcru` and `-w SECONDS`, or both `-a` and `-b`."""
        seen: set[str] = set()
        at = wait = 0
        while at < len(words) and words[at].startswith("-"):
            letters, at = words[at][1:] or "-", at + 1
            seen |= set(letters)
            if letters.endswith("w"):  # the seconds are a word of their own
                seconds, at = words[at] if at < len(words) else "", at + 1
                if not (seconds.isascii() and seconds.isdecimal() and 0 < len(seconds) < 8 and int(seconds) <= LONGEST):
                    return None
                wait = int(seconds)
            elif "w" in letters:
                return None
        del words[:at]
        orders = seen & _ORDERS.keys()
        if seen - set("abcruw") or len(orders) > 1:
            return None
        return cls(_ORDERS[orders.pop()] if orders else "replace", "c" in seen, "r" in seen, wait, "u" in seen)

    def words(self) -> list[str]:
        """Return them as words of a command."""
        letters = {"replace": "", "before": "b", "after": "a"}[self.order]
        letters += "c" * self.create + "r" * self.readonly + "u" * self.untrusted
        return (["-" + letters] if letters else []) + (["-w", str(self.wait)] if self.wait else [])


@attrs.frozen
class Item:
    """One of the things at a mount point.

    `kind` says what `what` is: the address of a mounted server (`node` is its root, `spec` the wanted tree), the path of a bound file, or nothing
    for what lies underneath. `qtype` is its kind at the time of the bind, `since` when it was put there.
    """

    kind: Literal["mount", "bind", "under"]
    what: str = ""
    spec: str = ""
    create: bool = False
    readonly: bool = False
    wait: int = 0
    untrusted: bool = False
    node: Node | None = attrs.field(default=None, eq=False)
    qtype: int = attrs.field(default=QTDIR, eq=False)
    since: int = attrs.field(factory=time_ns, eq=False)

    def same(self, other: "Item") -> bool:
        """Tell whether both are the same thing, whatever their flags."""
        return (self.kind, self.what, self.spec) == (other.kind, other.what, other.spec)

    def command(self, old: str, order: Order) -> str:
        """Return the command that puts it at `old`."""
        flags = Flags(order, self.create, self.readonly, self.wait, self.untrusted).words()
        if self.kind == "mount":
            return join(["mount", *flags, self.what, old or "/", *([self.spec] if self.spec else [])])
        what = old if self.kind == "under" else self.what
        return join(["bind", *flags, what or "/", old or "/"])


UNDER: Final = Item("under")


class Table:
    """Mount points and what is at each; `generation` grows with every change.

    `prefixes` are the paths that have a mount point somewhere below, `names` those paths' next names that lead to one, in sorted order.
    """

    def __init__(self) -> None:
        self.points: dict[str, tuple[Item, ...]] = {}
        self.generation = 0
        self.on_change: list[Callable[[], None]] = []
        self.taken = 0  # bytes, about
        self.prefixes: frozenset[str] = frozenset()
        self.names: dict[str, list[str]] = {}

    def put(self, old: str, item: Item, order: Order) -> None:
        """Put an item at `old`: instead of, before, or after everything that is there. Raises ENOSPC if the table is full."""
        items: tuple[Item, ...] = ()
        if order != "replace":
            items = tuple(other for other in self.points.get(old, (UNDER,)) if not other.same(item))
        if self.taken + _takes(old, (item, *items)) - _takes(old, self.points.get(old, ())) > MOST:
            raise NineError(errno.ENOSPC, "the mount table is full")
        self.set(old, (item, *items) if order == "before" else (*items, item))

    def take(self, old: str, what: str | None = None) -> list[Item]:
        """Remove what is at `old`: the address or path `what`, or all of it; return that. Raises EINVAL if it is not there."""
        items = self.points.get(old, ())
        gone = [item for item in items if what is None or self._is(item, old, what)]
        if not gone:
            raise NineError(errno.EINVAL, "not mounted")
        self.set(old, tuple(item for item in items if item not in gone))
        return gone

    @staticmethod
    def _is(item: Item, old: str, what: str) -> bool:
        if item.kind == "mount":
            return item.what == what
        return clean(what) == (old if item.kind == "under" else item.what)

    def set(self, old: str, items: tuple[Item, ...]) -> None:
        """Let these items be at `old`; none is what lies underneath."""
        if not old and not any(item.kind == "under" for item in items):
            items = (*items, UNDER)
        self.taken -= _takes(old, self.points.get(old, ()))
        if items and items != (UNDER,):
            self.points[old] = items
            self.taken += _takes(old, items)
        else:
            self.points.pop(old, None)
        self.generation += 1
        for tell in self.on_change:
            tell()
        below: dict[str, set[str]] = {}
        for point in self.points:
            while point:
                up, _, name = point.rpartition("/")
                below.setdefault(up, set()).add(name)
                point = up
        self.prefixes = frozenset(below)
        self.names = {path: sorted(names) for path, names in below.items()}

    def items(self) -> Iterator[Item]:
        """Yield all items of all mount points."""
        for items in self.points.values():
            yield from items

    def find(self, item: Item, old: str) -> Item | None:
        """Return that thing as it is at `old`, whatever its flags; None if it is not there."""
        return next((other for other in self.points.get(old, ()) if item.same(other)), None)

    def script(self) -> list[str]:
        """Return the commands that make this table from an empty one; servers come before what may be bound from them."""
        points = sorted(self.points.items(), key=lambda point: any(item.kind == "bind" for item in point[1]))
        return [line for old, items in points for line in _commands(old, items)]

    def commands(self, old: str) -> list[str]:
        """Return the commands that make one mount point; none for what is none."""
        items = self.points.get(old, ())
        return [*_commands(old, items)] if items else []


def _takes(point: str, items: tuple[Item, ...]) -> int:
    """Return roughly how many bytes a mount point takes: its items, and each path that leads to it; 0 if it has no items."""
    if not items:
        return 0
    lead = sum(at for at, char in enumerate(point) if char == "/") + 128 * point.count("/")
    return len(point) + lead + sum(256 + len(item.what) + len(item.spec) for item in items)


def _commands(old: str, items: tuple[Item, ...]) -> Iterator[str]:
    if UNDER in items:  # it is there by itself: the items before it are put there from the last to the first
        at = items.index(UNDER)
        yield from (item.command(old, "before") for item in reversed(items[:at]))
        yield from (item.command(old, "after") for item in items[at + 1 :])
    else:
        yield items[0].command(old, "replace")
        yield from (item.command(old, "after") for item in items[1:])
