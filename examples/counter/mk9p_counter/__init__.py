"""counter: a resource server in twenty lines. The files are those of counter.md."""

import attrs
from mk9p.tree import Ctl, Dir, Log, Text


@attrs.define
class Counter:
    value: int = 0
    events: Log = attrs.field(factory=Log)

    def tree(self) -> Dir:
        return Dir(
            {
                "count": Text(lambda: f"{self.value}\n"),
                "ctl": Ctl({"add": self.add, "reset": self.reset}),
                "events": self.events,
            }
        )

    def add(self, n: int) -> None:
        self.value += n
        self.events.emit("added", n)

    def reset(self) -> None:
        self.value = 0


def tree() -> Dir:
    """Give the tree of a new counter."""
    return Counter().tree()
