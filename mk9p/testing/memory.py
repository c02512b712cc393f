"""`Memory`: a directory tree in memory, for tests of stored files. Clients can do everything to it that they can do to files.

    tree = Memory({"hello": "text", "d": {"f": b"data"}, "ctl": Ctl({"word": print})})

It refuses what a file system refuses (open(2), unlink(2), rename(2), link(2), xattr(7)). The server decides by the bits who may do what.
"""

import errno
import os
import stat as st
import time
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.tree import NOW, Buffer, Change, Handle, Maybe, Node, Open, Stat, StatFs
from mk9p.wire import QTDIR, QTFILE, QTSYMLINK

Content: TypeAlias = Mapping[str, Any] | bytes | str


class Memory(Node):
    """A file: a directory if `content` is a mapping of names to contents or to any nodes, else a regular file with these bytes.

    `mode` is its permission bits, and its type if that is another one. Tests may look at and change `data`, `children`, `attributes`,
    `open_now`, the number of opens, and `reads`, how often it was read.
    """

    exclusive = False

    def __init__(self, content: Content | None = None, *, mode: int | None = None, uid: int = 0, gid: int = 0) -> None:
        self.children: dict[str, Node] = {}
        self.data = bytearray()
        self.attributes: dict[str, bytes] = {}
        self.target, self.uid, self.gid, self.nlink, self.version = "", uid, gid, 1, 1
        self.open_now = self.reads = 0
        if content is None or isinstance(content, Mapping):
            for name, child in (content or {}).items():
                self.children[name] = child if isinstance(child, Node) else Memory(child)
            usual = st.S_IFDIR | 0o755
        else:
            self.data += content.encode() if isinstance(content, str) else content
            usual = st.S_IFREG | 0o644
        self.mode = usual if mode is None else mode if st.S_IFMT(mode) else st.S_IFMT(usual) | mode
        self.qtype = {st.S_IFDIR: QTDIR, st.S_IFLNK: QTSYMLINK}.get(st.S_IFMT(self.mode), QTFILE)
        self.atime = self.mtime = time.time_ns()

    def at(self, path: str) -> "Memory":
        """Return the file of memory at a path. Raises KeyError."""
        found: Node = self
        for name in path.split("/"):
            assert isinstance(found, Memory), path
            found = found.children[name]
        assert isinstance(found, Memory), path
        return found

    def touched(self) -> None:
        """Note that the contents have changed."""
        self.mtime = time.time_ns()
        self.version += 1

    def stat(self) -> Maybe[Stat]:
        return Stat(
            self.mode,
            self.uid,
            self.gid,
            length=len(self.data),
            nlink=self.nlink,
            atime=self.atime,
            mtime=self.mtime,
            ctime=self.mtime,
            version=0 if self.qtype & QTDIR else self.version,
            exclusive=self.exclusive,
        )

    def statfs(self) -> Maybe[StatFs]:
        return StatFs(blocks=len(self.children))

    def walk(self, name: str, who: Principal) -> Maybe[Node]:
        if not self.qtype & QTDIR:
            raise NineError(errno.ENOTDIR)
        try:
            return self.children[name]
        except KeyError:
            raise NineError(errno.ENOENT) from None

    def entries(self, who: Principal) -> Maybe[Iterable[tuple[str, Node]]]:
        if not self.qtype & QTDIR:
            raise NineError(errno.ENOTDIR)
        return list(self.children.items())

    def open(self, how: Open) -> Maybe[Handle]:
        return self._opened(how)

    def _opened(self, how: Open) -> "MemoryHandle":
        if how.truncate:
            self.data.clear()
            self.touched()
        return MemoryHandle(self, append=how.append)

    def readlink(self) -> Maybe[str]:
        if self.qtype != QTSYMLINK:
            raise NineError(errno.EINVAL)
        return self.target

    def change(self, change: Change, who: Principal) -> Maybe[None]:
        if change.mode is not None:
            self.mode = st.S_IFMT(self.mode) | change.mode
        self.uid = self.uid if change.uid is None else change.uid
        self.gid = self.gid if change.gid is None else change.gid
        if change.length is not None:
            if self.qtype & QTDIR:
                raise NineError(errno.EISDIR)
            self.data[:] = self.data.ljust(change.length, b"\0")[: change.length]
            self.touched()
        if change.atime is not None:
            self.atime = time.time_ns() if change.atime == NOW else change.atime
        if change.mtime is not None:
            self.mtime = time.time_ns() if change.mtime == NOW else change.mtime
        return None

    # what is done to the names of a directory

    def create(self, name: str, perm: int, how: Open) -> Maybe[tuple[Node, Handle]]:
        found = self.children.get(name)
        if isinstance(found, Memory) and how.reuses:
            if found.qtype & QTDIR:
                raise NineError(errno.EISDIR)
            return found, found._opened(how)
        made = self._put(name, Memory(b"", mode=st.S_IFREG | perm, uid=how.who.uid))
        return made, made._opened(how)

    def mkdir(self, name: str, perm: int, who: Principal) -> Maybe[Node]:
        return self._put(name, Memory(mode=st.S_IFDIR | perm, uid=who.uid))

    def symlink(self, name: str, target: str, who: Principal) -> Maybe[Node]:
        made = self._put(name, Memory(mode=st.S_IFLNK | 0o777, uid=who.uid))
        made.target = target
        return made

    def mknod(self, name: str, mode: int, rdev: int, who: Principal) -> Maybe[Node]:
        return self._put(name, Memory(b"", mode=mode, uid=who.uid))

    def link(self, name: str, target: Node, who: Principal) -> Maybe[None]:
        if not isinstance(target, Memory) or target.qtype & QTDIR:
            raise NineError(errno.EPERM)
        self._put(name, target)
        target.nlink += 1
        return None

    def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> Maybe[None]:
        child = self._child(name)
        if directory is not None and directory != bool(child.qtype & QTDIR):
            raise NineError(errno.ENOTDIR if directory else errno.EISDIR)
        self._gone(child)
        del self.children[name]
        return None

    def rename(self, name: str, to: Node, newname: str, who: Principal, *, replace: bool = True) -> Maybe[None]:
        if not isinstance(to, Memory):
            raise NineError(errno.EXDEV)
        child, there = self._child(name), to.children.get(newname)
        if there is child:
            return None
        if isinstance(child, Memory) and child.holds(to):
            raise NineError(errno.EINVAL, "a directory is not moved into itself")
        if there is not None:
            if not replace:
                raise NineError(errno.EEXIST)
            if (there.qtype ^ child.qtype) & QTDIR:
                raise NineError(errno.EISDIR if there.qtype & QTDIR else errno.ENOTDIR)
            self._gone(there)
        del self.children[name]
        to.children[newname] = child
        return None

    def holds(self, node: Node) -> bool:
        """Tell whether this is a directory, or one above it."""
        return node is self or any(isinstance(child, Memory) and child.holds(node) for child in self.children.values())

    def _child(self, name: str) -> Node:
        if name not in self.children:
            raise NineError(errno.ENOENT)
        return self.children[name]

    def _put(self, name: str, node: "Memory") -> "Memory":
        if name in self.children:
            raise NineError(errno.EEXIST)
        self.children[name] = node
        return node

    @staticmethod
    def _gone(node: Node) -> None:
        """Note that a file has lost a name. Raises ENOTEMPTY."""
        if isinstance(node, Memory):
            if node.children:
                raise NineError(errno.ENOTEMPTY)
            node.nlink -= 1

    # extended attributes

    def xattr(self, name: str, who: Principal) -> Maybe[bytes]:
        try:
            return self.attributes[name]
        except KeyError:
            raise NineError(errno.ENODATA) from None

    def xattrs(self, who: Principal) -> Maybe[Iterable[str]]:
        return list(self.attributes)

    def set_xattr(self, name: str, value: bytes, who: Principal, *, flags: int = 0) -> Maybe[None]:
        if flags & os.XATTR_CREATE and name in self.attributes:
            raise NineError(errno.EEXIST)
        if flags & os.XATTR_REPLACE:
            self.xattr(name, who)
        self.attributes[name] = value
        return None

    def remove_xattr(self, name: str, who: Principal) -> Maybe[None]:
        self.xattr(name, who)
        del self.attributes[name]
        return None


class MemoryHandle(Handle):
    """A file of memory, open."""

    def __init__(self, node: Memory, *, append: bool = False) -> None:
        self.node, self.append = node, append
        node.open_now += 1

    def read(self, offset: int, count: int) -> Maybe[Buffer]:
        self.node.reads += 1
        return bytes(self.node.data[offset : offset + count])

    def write(self, offset: int, data: memoryview) -> Maybe[int]:
        content = self.node.data
        at = len(content) if self.append else offset
        content.extend(bytes(max(at - len(content), 0)))
        content[at : at + len(data)] = data
        self.node.touched()
        return len(data)

    def close(self) -> None:
        self.node.open_now -= 1
