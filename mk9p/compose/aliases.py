"""Which other names a file of the namespace has, as far as the mount table says: rules by path hold for all of them.

A bind gives a name to what has one already, `all/PART/K.X` is `k/K/PART/X`, and a server that is mounted twice has its files twice, also if one of
the mounts is of a part of its tree. Two addresses of one server are two servers here: nobody can know.

From the name that was given, one comes to the file's own, and there is an end to that. The other way there is none: with `bind / /again` each file
has a name more. So `given` goes one step, from each of the own names.
"""

import errno
from collections.abc import Iterator
from typing import Final

import attrs

from mk9p.compose.all import DEVICES
from mk9p.compose.far import Far
from mk9p.compose.namespace import KERNELS
from mk9p.compose.table import Item, Table, within
from mk9p.errors import NineError
from mk9p.scope import CAPABILITY

ALL: Final = "/all"
MOST: Final = 256  # names of one file: a rich namespace gives a file three or four


@attrs.define(eq=False)
class Names:
    """The other names of files, by a mount table."""

    table: Table
    _known: tuple[int, dict[str, list[tuple[str, Item]]]] | None = attrs.field(default=None, init=False)
    far: Far | None = None

    def of(self, path: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the other names of the file at a path, and the paths whose files have names below it. Raises ELOOP for too many."""
        names = self._closed({path})
        below = self._closed({other for name in names for other in self._below(name)})
        return tuple(names - {path}), tuple(below)

    def given(self, path: str) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
        """Return names that somebody has given to the file at a path, each with where; and where names were given to what is below."""
        own = self._closed({path})
        names, below = set[tuple[str, str]](), set[str]()
        shows = any(_shows_kernels(at) for at in own)
        for point, what in self._bound():
            for at in own:
                if within(at, what):
                    names.add((point + at[len(what) :], point))
                elif within(what, at) or (shows and within(what, KERNELS)):
                    below.add(point)
        for at in own:
            if within(at, KERNELS):
                _, _, kernel, part, rest = (*at.split("/", 4), "", "", "")[:5]
                if rest:
                    names |= {(f"{ALL}/{part}/{kernel}.{rest}", ALL)}
                else:
                    below.add(ALL)
            elif within(KERNELS, at):
                below.add(ALL)
        return tuple(names), tuple(below)

    def _bound(self) -> Iterator[tuple[str, str]]:
        for point, items in self.table.points.items():
            for item in items:
                if item.kind == "bind" and item.what != point:
                    yield point, item.what

    def _closed(self, names: set[str]) -> set[str]:
        left = list(names)
        while left:
            for other in self._others(left.pop()):
                if other not in names:
                    if len(names) >= MOST:
                        raise NineError(errno.ELOOP, "too many names of one file")
                    names.add(other)
                    left.append(other)
        return names

    def _others(self, path: str) -> Iterator[str]:
        points = self.table.points
        for point, items in points.items():
            if within(path, point):
                for item in items:
                    if item.kind == "bind":
                        yield item.what + path[len(point) :]
                    elif item.kind == "mount":
                        yield from self._mounted(point, item, path[len(point) :])
        if path.startswith(KERNELS + "/") and self.far is not None:
            _, _, kernel, *rest = path.split("/")
            twin = self.far.twin(kernel)
            if twin is not None:
                yield "/".join([KERNELS, twin, *rest])
        if path.startswith(ALL + "/"):
            _, _, part, *rest = path.split("/")
            if rest:
                for name in self._kernels(rest[0]):
                    names = "/".join([rest[0].removeprefix(name + "."), *rest[1:]])
                    yield f"{KERNELS}/{name}/{part}/{names}"
                    yield f"{KERNELS}/{name}/{DEVICES}/{part}/{names}"

    def _kernels(self, file: str) -> Iterator[str]:
        """Yield the kernels with whose name and a dot a name of `all/PART` begins."""
        at = file.find(".")
        while at >= 0:
            name = file[:at]
            if f"{KERNELS}/{name}" in self.table.points or (self.far is not None and self.far.known(name)):
                yield name
            at = file.find(".", at + 1)

    def _below(self, path: str) -> Iterator[str]:
        for point, items in self.table.points.items():
            if point != path and within(point, path):
                for item in items:
                    if item.kind == "bind":
                        yield item.what
                    elif item.kind == "mount":
                        yield from (other for other, _ in self._again(point, item))
            elif within(path, point):
                for item in items:
                    if item.kind == "mount":
                        here = _tree(item) + path[len(point) :]
                        yield from (
                            other for other, there in self._again(point, item) if there != here and within(there, here)
                        )
        if _shows_kernels(path):
            yield KERNELS
            yield from self._below(KERNELS)

    def _mounted(self, point: str, item: Item, rest: str) -> Iterator[str]:
        """Yield the names of a file of a mounted server, `rest` behind the mount point, where that server is mounted again."""
        here = _tree(item) + rest
        for other, there in self._again(point, item):
            if within(here, there):
                yield other + here[len(there) :]

    def _again(self, point: str, item: Item) -> Iterator[tuple[str, str]]:
        """Yield where else the server of an item is mounted, and which part of its tree."""
        for other, each in self._servers().get(item.what, ()):
            if other != point and ((_is_path(each) and _is_path(item)) or each.spec == item.spec):
                yield other, _tree(each)

    def _servers(self) -> dict[str, list[tuple[str, Item]]]:
        """Return where each address is mounted. It is looked up anew when the table has changed: a thousand kernels are mounted."""
        if self._known is None or self._known[0] != self.table.generation:
            found: dict[str, list[tuple[str, Item]]] = {}
            for point, items in self.table.points.items():
                for item in items:
                    if item.kind == "mount":
                        found.setdefault(item.what, []).append((point, item))
            self._known = self.table.generation, found
        return self._known[1]


def _shows_kernels(path: str) -> bool:
    """Tell whether files of all kernels are below a path, as `all` shows them."""
    return within(ALL, path) or (within(path, ALL) and path.count("/") <= 2)


def _is_path(item: Item) -> bool:
    return not item.spec.startswith(CAPABILITY)


def _tree(item: Item) -> str:
    """Return which part of its server's tree is mounted, "" for all."""
    return "".join(f"/{name}" for name in item.spec.split("/") if name) if _is_path(item) else ""
