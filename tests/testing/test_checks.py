"""The checks of every tree find what is wrong with one; lines that break do so when they are told to."""

import errno
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.testing import SOON, Faults, FlakyStream, check_tree
from mk9p.testing.check import MOST
from mk9p.tree import Block, Buffer, Change, Conversations, Ctl, Dir, Handle, Log, Maybe, Node, Open, Stream, Text


class Careless(Text):
    """A file that lets everybody in, whatever its bits say."""

    guards = True


class Stubborn(Text):
    def change(self, change: Change, who: Principal) -> Maybe[None]:
        raise NineError(1)


class Forgetful(Dir):
    """A directory that lists what cannot be walked to."""

    def entries(self, who: Principal) -> Any:
        return [("a", Text("a", mode=0o400)), ("b", Dir({}))]

    def walk(self, name: str, who: Principal) -> Maybe[Node]:
        return Dir({"a": Dir({}), "b": Dir({})}).walk(name, who)


class Immortal:
    """A conversation whose number stays."""

    def tree(self) -> Dir:
        return Dir({"ctl": Ctl({"keep": lambda: None})})

    def close(self) -> None:
        return None


class Changing(Text):
    """A file that is another at every offset."""

    def open(self, how: Open) -> Maybe[Handle]:
        return Pieces()


class Pieces(Handle):
    def __init__(self) -> None:
        self.numbers = itertools.count()

    def read(self, offset: int, count: int) -> bytes:
        return (f"{next(self.numbers):20}" * 100)[offset : offset + count].encode()


numbers = itertools.count()  # of files, each with another name


class Stopping(Text):
    """A file that ends too early when it is read in small pieces."""

    def open(self, how: Open) -> Maybe[Handle]:
        handle = super().open(how)
        assert isinstance(handle, Handle)
        return StoppingHandle(handle)


class StoppingHandle(Handle):
    def __init__(self, handle: Handle) -> None:
        self.handle = handle

    def read(self, offset: int, count: int) -> Maybe[Buffer]:
        return b"" if count < 5000 and offset > 1000 else self.handle.read(offset, count)


class Slow(Text):
    """A file that takes long, and says something else each time."""

    def __init__(self) -> None:
        super().__init__(self.render)

    async def render(self) -> str:
        for _ in range(20_000):
            await trio.lowlevel.checkpoint()
        return f"{next(numbers)}\n"


class Full:
    """A reader of messages that fill its reads: there is no end of a record between them."""

    def __init__(self) -> None:
        self.messages = [bytes([n]) * (1 << 16) for n in range(12)]

    async def receive(self) -> bytes:
        if not self.messages:
            await trio.sleep_forever()
        return self.messages.pop(0)

    send: Any = None

    def close(self) -> None:
        return None


class Losing:
    """A reader that forgets what came when it is cancelled."""

    def __init__(self) -> None:
        self.messages = [b"one\n", b"two\n"]

    async def receive(self) -> bytes:
        if not self.messages:
            await trio.sleep_forever()
        message = self.messages.pop(0)
        await trio.sleep(0.001)
        return message

    send: Any = None

    def close(self) -> None:
        return None


def good() -> Dir:
    events = Log()
    events.emit("start")
    return Dir(
        {
            "ctl": Ctl({"add": lambda n: None}, lambda: "add 1\n"),
            "text": Text("text\n" * 100, lambda text: None),
            "secret": Text("secret", mode=0o600),
            "bytes": Block(lambda count, offset: bytes(1000)[offset : offset + count], size=lambda: 1000, mode=0o444),
            "events": events,
            "talks": Conversations(lambda number, who: Immortal(), mode=0o666),
            "below": Dir({"more": Text("more")}),
        }
    )


async def test_a_good_tree_passes() -> None:
    seen = await check_tree(good)
    assert "below/more" in seen
    assert "talks/clone" in seen
    assert "error" in seen


async def test_large_and_slow_trees_pass() -> None:
    data = bytes(range(251)) * 4000
    assert len(data) > 3 * MOST
    files = {
        "stream": Stream(per_open=lambda how: Full(), mode=0o444),
        "text": Text(data),
        "disk": Block(lambda count, offset: data[offset : offset + count], size=lambda: len(data), mode=0o444),
        "zero": Block(lambda count, offset: bytes(count), mode=0o444),
        "slow": Slow(),
    }
    with trio.fail_after(SOON):
        assert await check_tree(lambda: Dir(files)) == list(files)


async def test_what_goes_while_it_is_looked_at_passes() -> None:
    class Going(Dir):
        """A directory whose file is gone when it has been looked at a few times."""

        def walk(self, name: str, who: Principal) -> Maybe[Node]:
            if name == "f" and not next(left, 0):
                raise NineError(errno.ENOENT)
            return super().walk(name, who)

    for looks in range(1, 30):
        left = iter([1] * looks)
        seen = await check_tree(lambda: Dir({"1": Going({"f": Text("x"), "g": Text("y")})}))
        assert "1/g" in seen


BAD: dict[str, tuple[Callable[[], Node], str]] = {
    "bits": (lambda: Dir({"f": Careless("x", mode=0o600)}), "`none` opens it"),
    "truncation": (lambda: Dir({"f": Stubborn("x", lambda text: None)}), "size=0"),
    "kinds": (lambda: Forgetful({}), "tell different"),
    "names": (lambda: Dir({f"f{next(numbers)}": Text("x")}), "other instance|No such file"),
    "pieces": (lambda: Dir({"f": Changing("x")}), "in pieces"),
    "stopping": (lambda: Dir({"f": Stopping("x" * 9000)}), "in pieces"),
    "stopping, large": (lambda: Dir({"f": Stopping("x" * (4 * MOST))}), "in pieces"),
    "losing": (lambda: Dir({"f": Stream(per_open=lambda how: Losing(), mode=0o444)}), "lost"),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_is_wrong_is_found(name: str) -> None:
    make, words = BAD[name]
    with trio.fail_after(SOON):
        with pytest.raises((AssertionError, OSError, BaseExceptionGroup)) as found:
            await check_tree(make)
    error: BaseException = found.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert any(word in str(error) for word in words.split("|")), error


async def test_a_stream_breaks_at_its_nth_operation() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    flaky = FlakyStream(ours, Faults(3, short=True))
    await flaky.send_all(b"one")
    await flaky.send_all(b"two")  # the last before it breaks: a byte of it
    assert bytes(await theirs.receive_some()) == b"onet"
    with pytest.raises(trio.BrokenResourceError):
        await flaky.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await flaky.send_all(b"three")
    await flaky.aclose()
