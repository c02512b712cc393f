"""A tree with one of every kind of file, plain and `async`, at which generated frames are thrown; and what must be gone when all clients are."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import trio

from mk9p.server import Server
from mk9p.testing import until
from mk9p.tree import Block, Conversations, Ctl, Dir, Handle, Lazy, Log, Node, Open, Stream, Text
from tests.leftovers import descriptors as open_now
from tests.server.left_open import left

PATHS = (
    *("text", "slow", "ctl", "error", "data", "events", "stream", "odd", "only", "few", "few/a", "few/b"),
    *("talks", "talks/clone", "talks/clone", "talks/0/ctl", "talks/0/data", "talks/1/data", "deep/deep/a/deep"),
)


class Counted(Handle):
    """A handle that is counted until it is closed."""

    def __init__(self, open_now: set[Handle]) -> None:
        self.open_now = open_now
        open_now.add(self)

    def read(self, offset: int, count: int) -> bytes:
        return b"counted\n"[offset : offset + count]

    def write(self, offset: int, data: memoryview) -> int:
        return len(data)

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        self.open_now.remove(self)


class Odd(Text):
    """A file whose opening waits, and whose handle must be closed."""

    def __init__(self, open_now: set[Handle], *, exclusive: bool = False) -> None:
        super().__init__("", mode=0o666, exclusive=exclusive)
        self.open_now = open_now

    async def open(self, how: Open) -> Handle:
        await trio.lowlevel.checkpoint()
        return Counted(self.open_now)


class Never(Stream):
    """A file of which no read and no write ever ends."""

    def __init__(self) -> None:
        super().__init__(trio.sleep_forever, self.full, mode=0o666)

    async def full(self, data: bytes) -> None:
        await trio.sleep_forever()


class Deep(Dir):
    """A directory that is in itself, without an end."""

    def __init__(self) -> None:
        super().__init__({"text": Text("deep\n")})
        self.children.append({"deep": self, "a": self})


@attrs.define(eq=False)
class Talk:
    alive: set["Talk"]

    def tree(self) -> Dir:
        self.alive.add(self)
        return Dir({"ctl": Ctl({"word": lambda n: None}), "data": Stream(trio.sleep_forever, self.send)})

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        self.alive.remove(self)


@attrs.define(eq=False)
class World:
    """The tree, and what of it is in use."""

    open_now: set[Handle] = attrs.field(factory=set)
    alive: set[Talk] = attrs.field(factory=set)
    log: Log = attrs.field(factory=lambda: Log(history=64))
    kept: bytearray = attrs.field(factory=lambda: bytearray(1 << 16))
    talks: Conversations = attrs.field(init=False)
    root: Dir = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.talks = Conversations(lambda number, who: Talk(self.alive), mode=0o666)
        few: dict[str, Node] = {"a": Text("a"), "b": Text("b")}
        self.root = Dir(
            {
                "text": Text("text " * 5000, lambda text: None, mode=0o666),
                "slow": Text(self.slow, self.take, mode=0o666),
                "ctl": Ctl({"word": self.word, "slow": self.slow_word}, lambda: "word 1\n", mode=0o666),
                "data": Block(self.read, self.write, size=lambda: len(self.kept), mode=0o666),
                "events": self.log,
                "stream": Stream(trio.sleep_forever, self.send, mode=0o666),
                "odd": Odd(self.open_now),
                "only": Odd(self.open_now, exclusive=True),
                "talks": self.talks,
                "few": Dir(Lazy(lambda: [*few], few.__getitem__)),
                "deep": Deep(),
            }
        )

    async def slow(self) -> str:
        await trio.lowlevel.checkpoint()
        return "slow\n"

    async def take(self, text: str) -> None:
        await trio.lowlevel.checkpoint()

    def word(self, n: int) -> None:
        self.log.emit("word", n)

    async def slow_word(self) -> None:
        await trio.lowlevel.checkpoint()

    def read(self, count: int, offset: int) -> bytes:
        return bytes(self.kept[offset : offset + count])

    def write(self, data: memoryview, offset: int) -> int:
        piece = self.kept[offset : offset + len(data)]
        self.kept[offset : offset + len(piece)] = data[: len(piece)]
        return len(piece)

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def alone(server: Server, others: int = 0) -> None:
    """Wait until a server has buried all clients but some."""
    await until(lambda: not (len(server.connections) > others))


@contextmanager
def nothing_left(world: World) -> Iterator[None]:
    """Check that when all clients are gone, all of theirs is."""
    before = open_now()
    yield
    gc.collect()
    assert not left(before, open_now())
    assert not world.open_now
    assert not world.alive
    assert not world.talks.talks
