"""Random sessions with a server that is killed at any message: what an answer promises must be so, and nothing may be done twice.

The model is small: a stored file of bytes, a file that is appended to, a ctl whose words are counted, and a directory of names. With an error that
says that it may have been done, both are right.
"""

import errno
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mk9p.auth import ROOT
from mk9p.dial import Link, dial
from mk9p.errors import NineError
from mk9p.testing import Faults, FlakyLink
from mk9p.tree import Handle, Open, settle
from tests.compose.test_recovery import LONG, Lab, lab

SIZE = 64
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "read", "append", "word", "mkdir", "rmdir", "listed", "stat", "sync"]),
        st.integers(0, SIZE - 8),  # where
        st.none() | st.integers(0, 40),  # rounds of the scheduler until the server is killed; None: it is not
    ),
    min_size=5,
    max_size=25,
)


@attrs.define(eq=False)
class Session:
    """A client, what it knows, and what may be so as well."""

    it: Lab
    stored: Handle
    appended: Handle
    data: bytearray = attrs.field(factory=lambda: bytearray(SIZE))
    unsure: set[int] = attrs.field(factory=set)  # offsets of bytes whose write failed
    number: int = 0
    added: dict[str, bool] = attrs.field(factory=dict)  # by word: whether it is known to be done
    pieces: dict[bytes, bool] = attrs.field(factory=dict)
    names: dict[str, bool | None] = attrs.field(factory=dict)  # None: nobody knows

    async def step(self, what: str, at: int) -> None:
        self.number += 1
        await getattr(self, what)(at)

    async def write(self, at: int) -> None:
        piece = f"{self.number:08}".encode()
        try:
            assert await settle(self.stored.write(at, memoryview(piece))) == len(piece)
        except NineError as error:
            self.allowed(error)
            self.unsure |= set(range(at, at + len(piece)))
        else:
            self.unsure -= set(range(at, at + len(piece)))
        self.data[at : at + len(piece)] = piece

    async def read(self, at: int) -> None:
        if (data := await self.ask(lambda: self.stored.read(at, 8))) is not None:
            self.same(at, bytes(data))

    def same(self, at: int, data: bytes) -> None:
        for where, byte in enumerate(data, at):
            assert byte == self.data[where] or where in self.unsure, (where, data)

    async def append(self, at: int) -> None:
        piece = f"<{self.number:06}>".encode()
        self.pieces[piece] = await self.once(lambda: self.appended.write(0, memoryview(piece)))

    async def word(self, at: int) -> None:
        word = str(self.number)

        async def say() -> None:
            ctl = await self.it.opened("ctl", write=True)
            try:
                await settle(ctl.write(0, memoryview(f"add {word}\n".encode())))
            finally:
                await settle(ctl.close())

        self.added[word] = await self.once(say)

    async def mkdir(self, at: int) -> None:
        name = f"n{at % 4}"
        try:
            await (await self.directory()).mkdir(name, 0o755, ROOT)
        except NineError as error:
            if error.errno != errno.EEXIST:
                self.allowed(error)
                self.names[name] = None
                return
            assert self.names.get(name, False) is not False, name
        self.names[name] = True

    async def rmdir(self, at: int) -> None:
        name = f"n{at % 4}"
        try:
            await (await self.directory()).remove(name, ROOT, directory=True)
        except NineError as error:
            if error.errno != errno.ENOENT:
                self.allowed(error)
                self.names[name] = None
                return
            assert self.names.get(name, False) is not True, name
        self.names[name] = False

    async def listed(self, at: int) -> None:
        async def names() -> set[str]:
            return {name for name, _ in await (await self.directory()).entries(ROOT)}

        if (found := await self.ask(names)) is not None:
            for name, there in self.names.items():
                assert there is None or (name in found) is there, name

    async def stat(self, at: int) -> None:
        if (stat := await self.ask(self.stored.stat)) is not None:
            assert stat.length == SIZE

    async def sync(self, at: int) -> None:
        await self.ask(self.stored.sync)

    async def directory(self) -> Any:
        return await (await self.it.server.tree(ROOT).walk("fs", ROOT)).walk("d", ROOT)

    async def ask(self, question: Callable[[], Any]) -> Any:
        """Ask what may be asked again. Where the client waits for the server, there is no error."""
        try:
            return await settle(question())
        except NineError as error:
            self.allowed(error)
            if self.it.server.wait and "synced" not in error.ename:
                raise AssertionError("it should have waited") from error
            return None

    async def once(self, work: Callable[[], Any]) -> bool:
        """Do what may not be said again; return whether it is known to be done."""
        try:
            await settle(work())
        except NineError as error:
            self.allowed(error)
            return False
        return True

    def allowed(self, error: NineError) -> None:
        assert error.errno == errno.EIO, error

    async def at_the_end(self) -> None:
        found = (self.it.home / "f").read_bytes()
        assert len(found) == SIZE
        self.same(0, found)
        self.exactly(self.pieces, (self.it.home / "d/a").read_bytes().replace(b">", b"> ").split())
        self.exactly(self.added, self.it.done)
        for name, there in self.names.items():
            assert there is None or (self.it.home / "d" / name).exists() is there

    def exactly(self, said: dict[Any, bool], done: list[Any]) -> None:
        """Check that all that was answered was done once, what failed at most once, and nothing else."""
        for what, known in said.items():
            assert done.count(what) == 1 or (not known and done.count(what) == 0), (what, done)
        assert set(done) <= set(said)


async def play(home: Path, wait: float, steps: list[tuple[str, int, int | None]], breaks: list[int]) -> None:
    left = iter(breaks)

    async def dialler(address: str) -> Link:
        """Dial a line that breaks after so many operations: then an answer may be lost although all was done."""
        return FlakyLink(await dial(address), Faults(next(left, 0)))

    async with lab(home, wait) as it:
        it.server.dialler = dialler
        (it.home / "f").write_bytes(bytes(SIZE))
        tree = await it.server.tree(ROOT).walk("fs", ROOT)
        appended = await (await (await tree.walk("d", ROOT)).walk("a", ROOT)).open(
            Open(ROOT, read=False, write=True, append=True)
        )
        session = Session(it, await it.opened("fs/f", write=True), appended)

        await it.restart()  # the next line is one that breaks

        async def killed(rounds: int) -> None:
            for _ in range(rounds):
                await trio.lowlevel.checkpoint()
            await it.host.stop()
            await it.start()

        for what, at, rounds in steps:
            async with trio.open_nursery() as nursery:
                if rounds is not None:
                    nursery.start_soon(killed, rounds)
                await session.step(what, at)
            await trio.sleep(it.server.backoff)
        await session.at_the_end()
        await settle(session.stored.close())
        await settle(session.appended.close())


@pytest.mark.parametrize("wait", [0.0, LONG])
def test_answers_hold_and_nothing_is_done_twice(wait: float, long: bool) -> None:
    @settings(max_examples=500 if long else 40, suppress_health_check=[HealthCheck.too_slow])
    @given(STEPS, st.lists(st.integers(8, 28), min_size=5, max_size=25))
    def sessions(steps: list[tuple[str, int, int | None]], breaks: list[int]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run: Callable[..., Awaitable[None]] = play
            trio.run(
                run, Path(folder), wait, steps, [0, *breaks], clock=trio.testing.MockClock(autojump_threshold=0.01)
            )

    sessions()
