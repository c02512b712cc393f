"""A raw client behind a composer: what comes to it must answer what it asked, whatever the server behind has said."""

from collections.abc import Callable
from random import Random
from typing import Any

import trio

from mk9p.dial import Link, dial
from mk9p.testing.replies import FILES
from mk9p.wire import NOFID, NOTAG, Dialect, FrameBuffer, codec
from mk9p.wire import messages as m
from tests.server.using import PATIENCE

MSIZE = 8192
WINDOW = 16
Asked = tuple[int, int]  # a request's type, and the bytes it asks for


class Raw:
    """One connection. `asked` is what was not answered yet, by tag; `errors` are the numbers of errors that came."""

    def __init__(self, link: Link, r: Random, errors: set[int]) -> None:
        self.link, self.random, self.errors = link, r, errors
        self.frames = FrameBuffer(MSIZE)
        self.asked: dict[int, Asked] = {}

    async def send(self, cls: type[m.Message], tag: int, *fields: Any) -> None:
        assert tag not in self.asked
        count = fields[2] if cls in (m.Tread, m.Treaddir) else len(fields[2]) if cls is m.Twrite else 0
        self.asked[tag] = cls.type, count
        rest = memoryview(codec(Dialect.L, cls.type).pack(tag, *fields))
        while rest:
            try:
                rest = rest[self.link.send(rest) :]
            except BlockingIOError:
                await self.link.wait_writable()

    async def take(self, most: int) -> None:
        """Receive and check replies until at most `most` are still to come, or nothing comes any more."""
        while len(self.asked) > most:
            while (span := self.frames.next()) is not None:
                self._check(bytes(self.frames.view[slice(*span)]))
            if len(self.asked) <= most:
                return
            try:
                got = self.link.recv_into(self.frames.space())
            except BlockingIOError:
                await self.link.wait_readable()
                continue
            assert got, "the composer hung up"
            self.frames.received(got)

    def _check(self, frame: bytes) -> None:
        number, tag = frame[4], int.from_bytes(frame[5:7], "little")
        assert tag in self.asked, "an answer to nothing"
        type_, count = self.asked.pop(tag)
        if number == m.Rlerror.type:
            assert len(frame) == 11, frame
            self.errors.add(int.from_bytes(frame[7:11], "little"))
            return
        assert number == type_ + 1, f"type {number} in answer to {type_}"
        if type_ in (m.Tread.type, m.Treaddir.type, m.Twrite.type):
            # whether there is as much in the message as it says is for the client's codec to see
            assert int.from_bytes(frame[7:11], "little") <= count

    async def flush(self) -> None:
        """Give up what is not answered, and wait until that is known."""
        for old in list(self.asked):
            tag = 0x8000 + old
            await self.send(m.Tflush, tag, old)
            with trio.move_on_after(PATIENCE):
                while tag in self.asked:
                    await self.take(len(self.asked) - 1)

    async def run(self, enough: Callable[[], bool]) -> None:
        await self.send(m.Tversion, NOTAG, MSIZE, "9P2000.L")
        await self.take(0)
        await self.send(m.Tattach, 0, 0, NOFID, "root", "", 0)
        await self.take(0)
        await self.send(m.Twalk, 0, 0, 1, ("k", "odd"))
        await self.take(0)
        for turn in range(20):
            if enough():
                return
            for tag in range(WINDOW):
                if tag not in self.asked:
                    await self._ask(tag, 2 + (turn * WINDOW + tag) % 64)
            with trio.move_on_after(PATIENCE):
                await self.take(0)
            await self.flush()
            if len(self.asked) > WINDOW:
                return  # the server answers no flush either

    async def _ask(self, tag: int, fid: int) -> None:
        r, old = self.random, self.random.randrange(1, 66)
        count = r.choice((0, 1, 100, 4000, MSIZE - 24))
        match r.randrange(9):
            case 0 | 1 | 2:
                await self.send(m.Twalk, tag, 1, fid, tuple(r.choice(FILES) for _ in range(r.randrange(4))))
            case 3:
                await self.send(m.Tlopen, tag, old, 0)
            case 4:
                await self.send(m.Tread, tag, old, r.choice((0, 5)), count)
            case 5:
                await self.send(m.Treaddir, tag, old, 0, count)
            case 6:
                await self.send(m.Twrite, tag, old, 0, b"x" * min(count, 4000))
            case 7:
                await self.send(m.Tgetattr, tag, old, 0x7FF)
            case 8:
                await self.send(m.Tclunk, tag, max(old, 2))


async def ask_for_a_while(address: str, r: Random, enough: Callable[[], bool]) -> set[int]:
    """Ask, in connections one after the other, until it is enough; return the numbers of errors that came."""
    errors = set[int]()
    while not enough():
        link = await dial(address)
        try:
            await Raw(link, r, errors).run(enough)
        finally:
            link.close()
        await trio.lowlevel.checkpoint()
    return errors
