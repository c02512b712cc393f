"""A server for the tests of clients: files stored in memory, and some that are made up. `python stored_tree.py DIAL` serves it until it is ended;
`serving_stored` has that done.
"""

import errno
import stat as st
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import trio

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.serving import serve_tree
from mk9p.tree import Buffer, Change, Ctl, Dir, Handle, Node, Open, Stat, Stream, Text
from mk9p.wire import QTDIR


@contextmanager
def serving_stored(folder: Path) -> Iterator[str]:
    """Serve the tree from a process of its own, and give where: at a socket in a folder."""
    where = f"unix!{folder / 'socket'}"
    with subprocess.Popen([sys.executable, __file__, where], stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            assert b"listening" in process.stderr.readline()
            yield where
        finally:
            process.terminate()


@attrs.define
class Counts:
    """What the tests ask about: reads of stored files, what the last writes to ctl were, readers that wait."""

    reads: int = 0
    waiting: int = 0
    offline: int = 0
    added: list[int] = attrs.field(factory=list)


@attrs.define(eq=False)
class StoredHandle(Handle):
    file: "Stored"
    append: bool

    def read(self, offset: int, count: int) -> Buffer:
        self.file.counts.reads += 1
        return bytes(self.file.data[offset : offset + count])

    def write(self, offset: int, data: memoryview) -> int:
        at = len(self.file.data) if self.append else offset
        self.file.data[at : at + len(data)] = data
        self.file.time = time.time_ns()
        return len(data)


class Stored(Node):
    """A file whose bytes are kept."""

    def __init__(self, counts: Counts, mode: int) -> None:
        self.counts, self.data = counts, bytearray()
        self.mode, self.time = st.S_IFREG | mode, time.time_ns()

    def stat(self) -> Stat:
        return Stat(self.mode, length=len(self.data), mtime=self.time, ctime=self.time, version=1)

    def open(self, how: Open) -> Handle:
        if how.truncate:
            del self.data[:]
        return StoredHandle(self, how.append)

    def change(self, change: Change, who: Principal) -> None:
        if change.length is not None:
            del self.data[change.length :]
        self.time = time.time_ns()


class Folder(Node):
    """A directory in which names are made, removed and moved."""

    qtype = QTDIR

    def __init__(self, counts: Counts) -> None:
        self.counts, self.names = counts, dict[str, Node]()

    def stat(self) -> Stat:
        return Stat(st.S_IFDIR | 0o755, nlink=2)

    def walk(self, name: str, who: Principal) -> Node:
        try:
            return self.names[name]
        except KeyError:
            raise NineError(errno.ENOENT) from None

    def entries(self, who: Principal) -> Iterable[tuple[str, Node]]:
        return list(self.names.items())

    def create(self, name: str, perm: int, how: Open) -> tuple[Node, Handle]:
        if name in self.names:
            raise NineError(errno.EEXIST)
        new = self.names[name] = Stored(self.counts, perm)
        return new, new.open(how)

    def mkdir(self, name: str, perm: int, who: Principal) -> Node:
        if name in self.names:
            raise NineError(errno.EEXIST)
        new = self.names[name] = Folder(self.counts)
        return new

    def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> None:
        node = self.walk(name, who)
        if isinstance(node, Folder) and node.names:
            raise NineError(errno.ENOTEMPTY)
        del self.names[name]

    def rename(self, name: str, to: Node, newname: str, who: Principal, *, replace: bool = True) -> None:
        if not isinstance(to, Folder):
            raise NineError(errno.EXDEV)
        to.names[newname] = self.walk(name, who)
        del self.names[name]


class Waiting:
    """One reader of `wait`, which nothing ever comes to."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        counts.waiting += 1

    async def receive(self) -> bytes:
        await trio.sleep_forever()
        return b""

    def send(self, data: bytes) -> int | None:
        raise NineError(errno.EACCES)

    def close(self) -> None:
        self.counts.waiting -= 1


def tree() -> Dir:
    counts = Counts()

    def add(n: int) -> None:
        counts.added.append(n)

    def offline(n: int) -> None:
        counts.offline = n

    return Dir(
        {
            "top": Folder(counts),
            "text": Text("made up\n"),
            "ctl": Ctl({"add": add}),
            "added": Text(lambda: f"{counts.added}\n"),
            "reads": Text(lambda: f"{counts.reads}\n"),
            "waiting": Text(lambda: f"{counts.waiting}\n"),
            "k": Dir(
                {
                    "k1": Dir(
                        {
                            "cpu": Dir(
                                {
                                    "ctl": Ctl({"offline": offline}, read=lambda: f"{counts.offline}\n"),
                                    "status": Text("0 on\n"),
                                    "1": Dir({"status": Text("on\n")}),
                                }
                            )
                        }
                    )
                }
            ),
            "wait": Stream(per_open=lambda how: Waiting(counts), mode=0o444),
        }
    )


if __name__ == "__main__":
    trio.run(serve_tree, tree(), [sys.argv[1]])
