"""A server for the tests of clients: files stored in memory, and some that are made up. `python stored_tree.py DIAL` serves it until it is ended;
`serving_stored` has that done.
"""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import trio

from mk9p.errors import NineError
from mk9p.serving import serve_tree
from mk9p.testing import Memory, child
from mk9p.tree import Ctl, Dir, Node, Stream, Text


@contextmanager
def serving_stored(folder: Path) -> Iterator[str]:
    """Serve the tree from a process of its own, and give where: at a socket in a folder."""
    where = f"unix!{folder / 'socket'}"
    with child([sys.executable, __file__, where], "listening"):
        yield where


@attrs.define
class Counts:
    """What the tests ask about: what the last writes to ctl were, readers that wait."""

    waiting: int = 0
    offline: int = 0
    added: list[int] = attrs.field(factory=list)


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


def reads(node: Node) -> int:
    """Return how often the files at and below a node were read."""
    return node.reads + sum(map(reads, node.children.values())) if isinstance(node, Memory) else 0


def tree() -> Dir:
    counts, top = Counts(), Memory()

    def add(n: int) -> None:
        counts.added.append(n)

    def offline(n: int) -> None:
        counts.offline = n

    return Dir(
        {
            "top": top,
            "text": Text("made up\n"),
            "ctl": Ctl({"add": add}),
            "added": Text(lambda: f"{counts.added}\n"),
            "reads": Text(lambda: f"{reads(top)}\n"),
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
