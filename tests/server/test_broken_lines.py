"""Lines that break at a bad moment."""

import errno
import logging
from typing import TYPE_CHECKING

import pytest
import trio

from mk9p.testing import SOON, until
from mk9p.tree import Dir, Handle, Open, Text
from mk9p.wire import messages as m
from tests.server.talk import connect, serving

if TYPE_CHECKING:
    from collections.abc import Callable


class Breaking(Text):
    """A file whose opening waits for `open_now`. The first read is answered at once and breaks the line, the second waits in a scope."""

    def __init__(self) -> None:
        super().__init__("")
        self.open_now = trio.Event()
        self.ended = trio.Event()
        self.break_line: Callable[[], None]

    async def open(self, how: Open) -> Handle:
        await self.open_now.wait()
        return Reads(self)


class Reads(Handle):
    def __init__(self, file: Breaking) -> None:
        self.file, self.first = file, True

    def read(self, offset: int, count: int) -> object:  # type: ignore[override]
        if self.first:
            self.first = False
            self.file.break_line()
            return b"first"
        return self._wait()

    async def _wait(self) -> bytes:
        with trio.CancelScope():
            try:
                await trio.sleep_forever()
            finally:
                self.file.ended.set()
        raise AssertionError


async def test_a_request_that_has_begun_goes_to_its_end_when_the_line_breaks_just_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = Breaking()
    caplog.set_level(logging.ERROR)
    async with serving(Dir({"file": file})) as server:
        talk = connect(server)
        await talk.start()
        (c,) = server.connections

        def broken(_: object) -> int:
            raise OSError(errno.EPIPE, "broken pipe")

        file.break_line = lambda: monkeypatch.setattr(c, "link", Broken(c.link, broken))
        assert isinstance(await talk.rpc(m.Twalk, 1, 0, 1, ("file",)), m.Rwalk)
        await talk.send(m.Tlopen, 2, 1, 0)
        await talk.send(m.Tread, 3, 1, 0, 9)
        await talk.send(m.Tread, 4, 1, 5, 9)
        await until(lambda: len(c.session.tags) == 3)
        file.open_now.set()
        with trio.fail_after(SOON):
            await file.ended.wait()
            await until(lambda: not server.connections)
    assert not caplog.records, caplog.text


class Broken:
    """A link that takes nothing any more."""

    def __init__(self, link: object, send: object) -> None:
        self._link, self.send, self.sendmsg = link, send, send

    def __getattr__(self, name: str) -> object:
        return getattr(self._link, name)
