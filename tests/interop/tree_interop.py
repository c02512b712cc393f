"""The one tree that all strangers see: each kind of file once, and a shelf on which files are made, renamed and removed.

`conftest.py` serves it from a thread, since the strangers are synchronous programs.
"""

import attrs

from mk9p.testing import Memory
from mk9p.tree import Block, Conversations, Ctl, Dir, Log, Text, settings

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
                "shelf": Memory(mode=0o777),
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
