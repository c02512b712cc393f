"""The one tree that all strangers see: each kind of file once, and a shelf on which files are made, renamed and removed.

`conftest.py` serves it from a thread, since the strangers are synchronous programs.
"""

import errno
import stat as st

import attrs

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.tree import (
    NOW,
    Block,
    Buffer,
    Change,
    Conversations,
    Ctl,
    Dir,
    Handle,
    Log,
    Node,
    Open,
    Stat,
    Text,
    settings,
)
from mk9p.wire import QTDIR, QTSYMLINK

BIG = "".join(f"line {n}\n" for n in range(30000))  # longer than any message
DISK = bytes(n * 7 % 251 for n in range(100_000))
MANY = [f"file{n:03}" for n in range(300)]  # more than one message of entries
TOP = ["big", "ctl", "disk", "error", "events", "many", "secret", "shelf", "status", "talks"]


@attrs.define(eq=False)
class Talk:
    """A conversation that echoes what its ctl was told."""

    number: int
    said: str = ""

    def tree(self) -> Dir:
        return Dir({"ctl": Ctl({"say": self.say}), "data": Text(lambda: self.said)})

    def say(self, text: str) -> None:
        self.said = text + "\n"

    def close(self) -> None:
        pass


@attrs.define(eq=False)
class Everything:
    """The state behind the tree."""

    value: int = 0
    disk: bytearray = attrs.field(factory=lambda: bytearray(DISK))
    log: Log = attrs.field(factory=lambda: Log(64))

    def tree(self) -> Dir:
        self.log.emit("born")
        return Dir(
            {
                "status": Text(lambda: f"value {self.value}\n"),
                "ctl": Ctl({"add": self.add, "reset": self.reset}, lambda: settings({"add": self.value})),
                "big": Text(BIG),
                "disk": Block(self.pread, self.pwrite, size=lambda: len(self.disk)),
                "secret": Text("for root\n", mode=0o400),
                "many": Dir({name: Text(f"{name}\n") for name in MANY}),
                "events": self.log,
                "talks": Conversations(lambda number, who: Talk(number), mode=0o666),
                "shelf": Shelf(),
            }
        )

    def add(self, n: int) -> None:
        self.value += n
        self.log.emit("added", n)

    def reset(self) -> None:
        self.value = 0
        self.log.emit("reset")

    def pread(self, count: int, offset: int) -> bytes:
        return bytes(self.disk[offset : offset + count])

    def pwrite(self, data: memoryview, offset: int) -> int:
        data = data[: max(len(self.disk) - offset, 0)]
        self.disk[offset : offset + len(data)] = data
        return len(data)


@attrs.define(eq=False)
class Stored(Node):
    """What lies on a shelf: a file of bytes, a symbolic link, or whatever mknod was asked for."""

    mode: int
    content: bytearray = attrs.field(factory=bytearray)
    mtime: int = 0
    qtype: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.qtype = QTSYMLINK if st.S_ISLNK(self.mode) else 0

    def stat(self) -> Stat:
        return Stat(self.mode, length=len(self.content), mtime=self.mtime)

    def open(self, how: Open) -> Handle:
        if how.truncate:
            self.content.clear()
        return StoredHandle(self)

    def readlink(self) -> str:
        if not st.S_ISLNK(self.mode):
            raise NineError(errno.EINVAL)
        return self.content.decode()

    def change(self, change: Change, who: Principal) -> None:
        if change.mode is not None:
            self.mode = st.S_IFMT(self.mode) | change.mode
        if change.length is not None:
            self.content[:] = self.content.ljust(change.length, b"\0")[: change.length]
        if change.mtime is not None and change.mtime != NOW:
            self.mtime = change.mtime


@attrs.define(eq=False)
class StoredHandle(Handle):
    file: Stored

    def read(self, offset: int, count: int) -> Buffer:
        return bytes(self.file.content[offset : offset + count])

    def write(self, offset: int, data: memoryview) -> int:
        content = self.file.content
        content.extend(bytes(max(offset - len(content), 0)))
        content[offset : offset + len(data)] = data
        return len(data)


@attrs.define(eq=False)
class Shelf(Node):
    """A directory whose files are stored: the one kind of node here that lets everything be done to it."""

    mode: int = st.S_IFDIR | 0o777
    names: dict[str, Node] = attrs.field(factory=dict)
    qtype: int = QTDIR

    def stat(self) -> Stat:
        return Stat(self.mode, nlink=2)

    def walk(self, name: str, who: Principal) -> Node:
        if name not in self.names:
            raise NineError(errno.ENOENT)
        return self.names[name]

    def entries(self, who: Principal) -> list[tuple[str, Node]]:
        return list(self.names.items())

    def _put(self, name: str, node: Node) -> Node:
        if name in self.names:
            raise NineError(errno.EEXIST)
        self.names[name] = node
        return node

    def create(self, name: str, perm: int, how: Open) -> tuple[Node, Handle]:
        node = self._put(name, Stored(st.S_IFREG | perm))
        assert isinstance(node, Stored)
        return node, StoredHandle(node)

    def mkdir(self, name: str, perm: int, who: Principal) -> Node:
        return self._put(name, Shelf(st.S_IFDIR | perm))

    def symlink(self, name: str, target: str, who: Principal) -> Node:
        return self._put(name, Stored(st.S_IFLNK | 0o777, bytearray(target.encode())))

    def link(self, name: str, target: Node, who: Principal) -> None:
        self._put(name, target)

    def mknod(self, name: str, mode: int, rdev: int, who: Principal) -> Node:
        return self._put(name, Stored(mode))

    def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> None:
        found = self.walk(name, who)
        if isinstance(found, Shelf) and found.names:
            raise NineError(errno.ENOTEMPTY)
        if directory not in (None, isinstance(found, Shelf)):
            raise NineError(errno.ENOTDIR if directory else errno.EISDIR)
        del self.names[name]

    def rename(self, name: str, to: Node, newname: str, who: Principal, *, replace: bool = True) -> None:
        if not isinstance(to, Shelf):
            raise NineError(errno.EXDEV)
        to.names[newname] = self.names.pop(name)

    def change(self, change: Change, who: Principal) -> None:
        if change.mode is not None:
            self.mode = st.S_IFDIR | change.mode
