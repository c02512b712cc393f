"""The inodes that the kernel knows of a FUSE mount, and which file is which.

Rules
* An inode is a file of the server as long as the kernel knows it: its fids stay, one for each user who came by it. Its names are those by which it
  was found.
* A file's number is qid.path, if that is free; else any. So number 1 belongs only to the root, and no server takes another file's number.
* A user who finds a file by a name under which it is known gets that inode. Under another name it is the same file if the server says so (the same
  qid.path, the same kind) and that is possible: it has several names (a hard link), or the name by which it was known no longer leads to it (it
  was renamed). Otherwise there are two inodes: a server that gives two files one qid.path must not turn one into the other.
"""

import math
import secrets
import stat as st
from typing import Final

import attrs
from pyfuse3 import EntryAttributes

from mk9p.auth import Principal
from mk9p.compose.remote import Remote
from mk9p.tree import Stat

ROOT: Final = 1  # FUSE's own number of the root


@attrs.define(eq=False)
class Inode:
    """A file that the kernel knows: its number, its kind (S_IFMT), its qid.path, and how often the kernel was told of it.

    `parent` is the number of the directory that it was last found in, `name` its name there; `names` are all names by which it was found. `views`
    is the file as each user sees it. `stat` is the last known status, from the time `seen` (of trio's clock); None after a change from here.
    """

    number: int
    kind: int
    path: int | None
    parent: int
    name: str
    views: dict[Principal, Remote]
    known: int = 0
    stored: bool = False  # it had a qid.version at the last look
    contents: tuple[int, int] | None = None  # which the kernel may have kept: see `contents`
    paged: bool = False  # the kernel may have, or be fetching, some of its contents
    believed: float = -math.inf  # until when the kernel may use its name without looking it up
    excused: tuple[int, float] = (0, -math.inf)  # the thread that need not prove its way here, and until when
    stat: Stat | None = None
    entry: EntryAttributes | None = None  # … in the form of FUSE
    seen: float = -math.inf
    depth: int = 0  # names from the root
    searchable: bool = False  # a directory that anybody may search, as far as bits tell
    writes: int = 0  # how often it was changed from here
    names: set[tuple[int, str]] = attrs.field(factory=set)

    def take(self, stat: Stat, entry: EntryAttributes, asked: float) -> None:
        """Note a status, and when it was asked for."""
        self.stat, self.entry, self.seen, self.stored = stat, entry, asked, stat.version != 0
        self.searchable = stat.mode & 0o111 == 0o111

    def changed(self) -> None:
        """Note that the known status is no longer true."""
        self.stat = self.entry = None
        self.writes += 1

    def seen_by(self, who: Principal) -> Remote:
        """Return this file as a user sees it."""
        view = self.views.get(who)
        if view is None:
            view = self.views[who] = self.node.seen_by(who)
        return view

    @property
    def node(self) -> Remote:
        """Return this file as the first user who came sees it: for what needs no permission."""
        return next(iter(self.views.values()))


class Inodes:
    """All inodes of a mount."""

    def __init__(self, root: Remote) -> None:
        self.root = Inode(ROOT, st.S_IFDIR, None, ROOT, "", {root.who: root})
        self.by_number = {ROOT: self.root}
        self._by_name: dict[tuple[int, str], Inode] = {}
        self._by_path: dict[int, Inode] = {}  # the latest of each qid.path

    def known(self, parent: int, name: str, node: Remote, kind: int) -> Inode | None:
        """Return the inode of a file that was found by a name under which it is known."""
        inode = self._by_name.get((parent, name))
        if inode is None or not _same(inode, node, kind) or (inode.parent, inode.name) != (parent, name):
            return None
        if node.who not in inode.views:
            inode.views[node.who] = node
        return inode

    def route(self, inode: Inode, now: float, thread: int = -1) -> "tuple[Inode, list[Inode]]":
        """Return the names by which the kernel may have come to an inode without looking them up, as inodes, and the inode where these begin.

        That is also where a thread is excused.
        """
        below: list[Inode] = []
        while inode.believed > now and (inode.parent, inode.name) in inode.names:
            if inode.excused[0] == thread and inode.excused[1] > now:
                break
            above = self.by_number.get(inode.parent)
            if above is None:
                break
            below.append(inode)
            inode = above
        below.reverse()
        return inode, below

    def by_name(self, parent: int, name: str) -> Inode | None:
        """Return the inode that is known by a name."""
        return self._by_name.get((parent, name))

    def listed(self, parent: int, name: str, node: Remote) -> Inode | None:
        """Return the inode that a name of a listing may be: known by it, with its qid.path."""
        inode = self._by_name.get((parent, name))
        return inode if inode is not None and inode.path == node.path else None

    async def found(self, parent: int, name: str, node: Remote, kind: int, nlink: int) -> Inode:
        """Return the inode of a file that was found by a name. The kernel must learn of it: count that in `known` before waiting for anything."""
        inode = self._by_name.get((parent, name))
        if inode is None or not _same(inode, node, kind):
            elsewhere = await self._elsewhere(node, kind, nlink)
            inode = self._by_name.get((parent, name))  # another task may have been faster
            inode = inode if inode is not None and _same(inode, node, kind) else elsewhere
        if inode is None:
            inode = Inode(self._number(node.path), kind, node.path, parent, name, {})
            self.by_number[inode.number] = inode
        if node.path is not None:
            self._by_path[node.path] = inode
        inode.views.setdefault(node.who, node)
        self._name(inode, parent, name)
        return inode

    async def _elsewhere(self, node: Remote, kind: int, nlink: int) -> Inode | None:
        """Return the inode of a file that is known by another name, None if it is not known."""
        inode = self._by_path.get(node.path or 0)
        if inode is None or not _same(inode, node, kind):
            return None
        if nlink > 1 and kind != st.S_IFDIR:
            return inode
        directory = self.by_number.get(inode.parent)
        if directory is None or (inode.parent, inode.name) not in inode.names:
            return inode  # its known name is gone
        try:
            there = await directory.seen_by(node.who).walk(inode.name, node.who)
        except FileNotFoundError:
            return inode if inode.known else None
        except OSError:
            return None
        return inode if there.path != node.path and inode.known else None

    def _number(self, path: int | None) -> int:
        number = path or 0
        while number <= ROOT or number in self.by_number:
            number = secrets.randbits(64)
        return number

    def _name(self, inode: Inode, parent: int, name: str) -> None:
        """Note the name by which an inode was found last."""
        known = self._by_name.get((parent, name))
        if known is not None and known is not inode:
            known.names.discard((parent, name))
        self._by_name[parent, name] = inode
        inode.names.add((parent, name))
        if (inode.parent, inode.name) == (parent, name):
            return
        inode.parent, inode.name = parent, name
        directory = self.by_number.get(parent)
        if directory is not None:
            inode.depth = directory.depth + 1
            for who, view in inode.views.items():
                view.moved(directory.seen_by(who), name)

    def removed(self, parent: int, name: str) -> None:
        """Note that a name no longer exists."""
        inode = self._by_name.pop((parent, name), None)
        if inode is not None:
            inode.names.discard((parent, name))
            inode.changed()

    def renamed(self, parent: int, name: str, to: int, newname: str) -> None:
        """Note that a file was renamed: the kernel goes on using its inode, and may not look it up again."""
        inode = self._by_name.get((parent, name))
        self.removed(parent, name)
        self.removed(to, newname)
        if inode is not None:
            self._name(inode, to, newname)

    def forget(self, number: int, times: int) -> None:
        """Note that the kernel has forgotten an inode so many times."""
        inode = self.by_number.get(number)
        if inode is None or inode is self.root:
            return
        inode.known -= times
        if inode.known > 0:
            return
        del self.by_number[number]
        for place in inode.names:
            del self._by_name[place]
        if inode.path is not None and self._by_path.get(inode.path) is inode:
            del self._by_path[inode.path]


def _same(inode: Inode, node: Remote, kind: int) -> bool:
    return inode.path == node.path and inode.kind == kind
