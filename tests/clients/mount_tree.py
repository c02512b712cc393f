"""A made-up tree for the tests of mounting, served by a process that can be killed: `python mount_tree.py DIAL`."""

import errno
import sys

import trio

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.serving import serve_tree
from mk9p.tree import Block, Ctl, Dir, Log, Text

DISK = bytes(range(256)) * 12_000  # three messages of the largest size, nearly
NOBODY = 65534


class Kept(Dir):
    """A directory that tells how often it was put where it survives, and what of it; the third time it fails."""

    def __init__(self) -> None:
        super().__init__({"asked": Text(lambda: " ".join(self.asked))}, mode=0o777)
        self.asked: list[str] = []

    def sync(self, who: Principal, *, data: bool = False) -> None:
        self.asked.append(f"{who.uid}:{'data' if data else 'all'}")
        if len(self.asked) > 2:
            raise NineError(errno.EIO)


def tree() -> Dir:
    events = Log()
    disk = bytearray(DISK)
    color = ["red"]

    def write(data: memoryview, offset: int) -> int:
        disk[offset : offset + len(data)] = data
        return len(data)

    def paint(name: str) -> None:
        color[0] = name
        events.emit("color", name)

    def emit(*words: str) -> None:
        events.emit(*words)

    theirs = Text("for nobody\n", mode=0o400)
    theirs.owned(NOBODY, NOBODY)
    return Dir(
        {
            "kept": Kept(),
            "name": Text("k1\n"),
            "long": Text("".join(f"line {n}\n" for n in range(100_000))),
            "ctl": Ctl({"color": paint, "emit": emit}, read=lambda: f"color {color[0]}\n"),
            "events": events,
            "disk": Block(lambda count, at: disk[at : at + count], write, size=lambda: len(disk), mode=0o644),
            "secret": Text("for root\n", mode=0o600),
            "theirs": theirs,
            "sub": Dir({name: Text(f"{name}\n") for name in "abc"}),
        }
    )


if __name__ == "__main__":
    trio.run(serve_tree, tree(), [sys.argv[1]])
