"""What a graph, a task, or a kernel may cost the composer: time and memory have an end."""

import errno
from collections import deque
from collections.abc import Awaitable, Callable
from time import process_time

import attrs
import pytest
import trio

from mk9p.auth import ROOT
from mk9p.errors import NineError
from mk9p.servers.tf import farm, pipes
from mk9p.servers.tf.farm import Dealing
from mk9p.servers.tf.graph import ATTRIBUTES, LONGEST, TASKS, parse
from mk9p.servers.tf.pipes import Held, Lines
from mk9p.servers.tf.places import fits
from mk9p.testing import SOON, until
from mk9p.tree import Log, Open, settle
from mk9p.tree import log as logs


def test_a_short_text_that_wants_a_million_workers_is_refused_before_they_are_made() -> None:
    text = "".join(f"a{n} k c\nb{n} k c\n[{TASKS}] a{n} ||| b{n}\n" for n in range(LONGEST // 40))
    began = process_time()
    with pytest.raises(NineError) as caught:
        parse(text)
    assert caught.value.errno == errno.E2BIG
    assert process_time() - began < 2, "making them takes four seconds and more"
    assert len(parse(f"a k c\nb k c\n[{TASKS - 1}] a ||| b\n").tasks) == TASKS


def test_what_is_wanted_of_a_kernel_is_short() -> None:
    graph = parse("a {release 6.*} c\n")
    assert fits(graph.tasks["a"].where, {"release": "6.1"})
    many = " ".join(f"a{n} b" for n in range(ATTRIBUTES + 1))
    for inside in (f"release {'*a' * 200}", f"{'r' * 300} x", many):
        with pytest.raises(NineError) as caught:
            parse(f"a {{{inside}}} c\n")
        assert caught.value.errno == errno.EINVAL


async def test_lines_without_an_end_have_one_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "PARTS", 100_000)
    held = Held()

    async def endless() -> bytes:
        return b"x" * 30_000

    async def ends() -> bytes:
        return pieces.popleft()

    pieces = deque([b"y" * 90_000, b""])
    assert await Lines(ends, held=held).next() == b"y" * 90_000 + b"\n"
    assert held.bytes == 0
    pieces = deque([b"a\n", b"y" * 50_000])
    one = Lines(ends, held=held)
    assert await one.next() == b"a\n"
    with pytest.raises(IndexError):
        await one.next()
    assert held.bytes == 50_000
    with pytest.raises(NineError) as caught:
        await Lines(endless, held=held).next()
    assert caught.value.errno == errno.EMSGSIZE


@attrs.define(eq=False)
class Fake:
    """A task that says what it is given to say (servers/tf/work.py)."""

    said: Callable[[], Awaitable[bytes]]
    taken: list[bytes] = attrs.field(factory=list)
    takes: trio.Event = attrs.field(factory=trio.Event)
    kernel: str = "k1"

    async def read(self) -> bytes:
        return await self.said()

    async def write(self, data: bytes) -> None:
        await self.takes.wait()
        self.taken.append(data)

    async def end_input(self) -> None:
        return

    async def wait(self) -> str:
        return ""

    async def close(self) -> None:
        return


async def test_long_jobs_and_answers_wait_with_who_gives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farm, "MUCH", 100_000)
    given = 0
    line = b"x" * 29_999 + b"\n"

    async def jobs() -> bytes:
        nonlocal given
        await trio.lowlevel.checkpoint()
        given += 1
        return line if given <= 50 else b""

    async def nothing() -> bytes:
        await trio.sleep_forever()
        return b""

    dealing = Dealing(Fake(jobs), {"w.0": Fake(nothing)}, None, lambda *what: None)  # type: ignore[arg-type, dict-item]
    dealing.alive = 1
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dealing._feed)
            await until(lambda: dealing.asked >= 100_000)
            await trio.testing.wait_all_tasks_blocked()
            assert given <= 6
            assert dealing.asked < 200_000
            nursery.cancel_scope.cancel()


async def test_a_log_keeps_few_bytes_whatever_the_lines_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MOST", 1000)
    log = Log(50)
    for n in range(40):
        log.emit("x", n)
    assert len(log.lines) < 40
    assert log.size == sum(map(len, log.lines)) <= 1000
    for _ in range(60):
        log.emit("y")
    assert log.size == sum(map(len, log.lines)) <= 1000
    log.emit("z" * 5000)
    assert len(log.lines) == 1
    handle = await settle(log.open(Open(ROOT)))
    said = bytes(await settle(handle.read(0, 1 << 16))).decode()
    assert "z" * 5000 in said
