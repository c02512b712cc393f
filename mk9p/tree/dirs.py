"""`Dir`: a directory is a mapping of names to nodes; walk and listing both read it.

A dict literal is a directory that looks like the output of `ls`. A `Lazy` mapping is one whose children come and go (processes, CPUs, disks).
Several mappings make one directory, with earlier ones first. Beside every `Ctl` is its `error`: `error` for `ctl`, `Xerror` for `Xctl`.
"""

import errno
import stat as st
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.status import Change, Stat, error_name
from mk9p.tree.ctl import Ctl
from mk9p.tree.node import Maybe, Node
from mk9p.wire import QTDIR


class Lazy(Mapping[str, Node]):
    """Children that come and go: `names()` gives those that exist now, `make(name)` builds one at its first walk.

    A child is kept as long as its name exists, so what belongs to it (a last error, an exclusive open) lives as long as it does. `key(name)`
    distinguishes two children of one name (a process number that is used again) and returns None for a name that does not exist; without it,
    `names()` decides.
    """

    def __init__(
        self,
        names: Callable[[], Iterable[str]],
        make: Callable[[str], Node],
        *,
        key: Callable[[str], object] | None = None,
    ) -> None:
        self._names, self._make, self._key = names, make, key
        self._kept: dict[str, tuple[object, Node]] = {}

    def _key_of(self, name: str) -> object:
        if self._key is not None:
            return self._key(name)
        return True if name in self._names() else None

    def __getitem__(self, name: str) -> Node:
        key = self._key_of(name)
        if key is None:
            self._kept.pop(name, None)
            raise KeyError(name)
        kept = self._kept.get(name)
        if kept is None or kept[0] != key:
            kept = self._kept[name] = (key, self._make(name))
        return kept[1]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._key_of(name) is not None

    def __iter__(self) -> Iterator[str]:
        names = list(self._names())
        if len(self._kept) > len(names):
            there = set(names)
            for gone in [name for name in self._kept if name not in there]:
                del self._kept[gone]
        return iter(names)

    def __len__(self) -> int:
        return len(list(self._names()))


class Dir(Node):
    """A directory of the given mappings; mode 0555. Clients can create or remove nothing in it, unless a subclass of Node says otherwise."""

    qtype = QTDIR

    def __init__(self, *children: Mapping[str, Node], mode: int = 0o555) -> None:
        errors = {
            error_name(name): node.error_file()
            for m in children
            if isinstance(m, dict)
            for name, node in m.items()
            if isinstance(node, Ctl)
        }
        self.children = [
            *children,
            {name: node for name, node in errors.items() if not any(name in m for m in children)},
        ]
        self._stat = Stat(st.S_IFDIR | mode, nlink=2)

    def stat(self) -> Maybe[Stat]:
        return self._stat

    def walk(self, name: str, who: Principal) -> Maybe[Node]:
        for mapping in self.children:
            try:
                return mapping[name]
            except KeyError:
                continue
        raise NineError(errno.ENOENT)

    def entries(self, who: Principal) -> Maybe[Iterable[tuple[str, Node]]]:
        found: dict[str, Node] = {}
        for name, mapping in chain.from_iterable(((name, m) for name in m) for m in self.children):
            if name not in found:
                try:
                    found[name] = mapping[name]
                except KeyError:
                    continue  # it went after its name was listed
        return list(found.items())

    def owned(self, uid: int, gid: int) -> None:
        """Give the directory and all synthetic files directly in it to a user."""
        from mk9p.tree.files import File

        self._stat = self._stat._replace(uid=uid, gid=gid)
        for mapping in self.children:
            if isinstance(mapping, dict):
                for node in mapping.values():
                    if isinstance(node, File | Dir):
                        node.owned(uid, gid)


class Owned(Dir):
    """A directory that somebody made and owns: chmod and chown set who may use it, and the owner of its files follows."""

    def used(self, perm: int) -> None:
        """Take new permission bits; those of the files by which clients use the directory follow from them."""

    def change(self, change: Change, who: Principal) -> None:
        """Take another mode or owner. Raises EISDIR for a length."""
        now = self._stat
        if change.length is not None:
            raise NineError(errno.EISDIR)
        if change.mode is not None:
            perm = change.mode & 0o777
            self._stat = now._replace(mode=st.S_IFDIR | perm)
            self.used(perm)
        self.owned(now.uid if change.uid is None else change.uid, now.gid if change.gid is None else change.gid)
