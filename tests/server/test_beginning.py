"""Lines that do not hang up: who begins anew on one where somebody was killed in the middle of a frame is heard, and no file gets his bytes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from mk9p.auth import Policy
from mk9p.dial import SocketLink, dial, listen
from mk9p.server.beginning import QUIET
from mk9p.testing import SOON
from mk9p.tree import Block, Dir
from mk9p.wire import NOBODY, NOTAG, Dialect, codec
from mk9p.wire import messages as m
from tests.server.talk import Talk, connect, serving, talk_to

ROOM = 30_000
REPEAT = 0.5  # s; as the client says it again
VERSION = codec(Dialect.L, m.Tversion.type).pack(NOTAG, 65536, "9P2000.L")


@attrs.define(eq=False)
class Line:
    """A line to a server, with a file open as fid 1, and what the file holds."""

    talk: Talk
    disk: bytearray
    pieces: list[int]

    async def version(self) -> None:
        """Wait for the answer to a Tversion, and that there is no other before the next answer."""
        reply = await self.talk.receive()
        assert isinstance(reply, m.Rversion), reply
        await self.talk.attach(0)

    def write(self, data: bytes) -> bytes:
        return codec(Dialect.L, m.Twrite.type).pack(5, 1, 0, data)


@asynccontextmanager
async def line(*, lossy: bool = True) -> AsyncIterator[Line]:
    disk, pieces = bytearray(ROOM), list[int]()

    def write(data: memoryview, offset: int) -> int:
        disk[offset : offset + len(data)] = data
        pieces.append(len(data))
        return len(data)

    tree = Dir({"disk": Block(lambda count, at: disk[at : at + count], write, size=lambda: ROOM, mode=0o666)})
    with trio.fail_after(SOON):
        async with serving(tree) as server:
            talk = await talk_to(server, lossy=lossy)
            assert isinstance(await talk.open(1, "disk", mode=2), m.Rlopen)
            yield Line(talk, disk, pieces)


async def quiet() -> None:
    await trio.sleep(REPEAT)


@pytest.mark.parametrize("left", [1, 3, 4, 7, 20, 4096, 20_000, -30, -22, -20, -1])
async def test_half_a_write_and_then_a_version(left: int, autojump_clock: trio.testing.MockClock) -> None:
    async with line() as a:
        await a.talk.raw(a.write(b"x" * 20_000)[:left])
        await quiet()
        await a.talk.raw(VERSION)
        await a.version()
        assert a.pieces == []  # nothing of it was written
        assert isinstance(await a.talk.open(1, "disk", mode=2), m.Rlopen)
        assert (await a.talk.rpc(m.Twrite, 1, 1, 0, b"right")).count == 5
        assert a.disk == b"right".ljust(ROOM, b"\0")


async def test_a_version_right_behind_the_half_is_lost_and_the_next_is_found(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with line() as a:
        await a.talk.raw(a.write(b"x" * 20_000)[:9000] + VERSION)
        await quiet()
        await a.talk.raw(VERSION)
        await a.version()
        assert a.pieces == []


async def test_a_version_that_comes_in_pieces(autojump_clock: trio.testing.MockClock) -> None:
    async with line() as a:
        await a.talk.raw(a.write(b"x" * 20_000)[:9000])
        await quiet()
        for byte in VERSION:
            await a.talk.raw(bytes((byte,)))
            await trio.sleep(0.01)
        await a.version()


async def test_written_versions_are_data(autojump_clock: trio.testing.MockClock) -> None:
    async with line() as a:
        data = VERSION * 1000
        frame = a.write(data)
        head = len(frame) - len(data)
        # the line stops before one, and after one, but never before and after the same
        await a.talk.raw(frame[: head + 10 * len(VERSION)])
        await quiet()
        await a.talk.raw(frame[head + 10 * len(VERSION) :][: 2 * len(VERSION)])
        await quiet()
        await a.talk.raw(frame[head + 12 * len(VERSION) :][: len(VERSION)])
        await trio.sleep(0.1)
        await a.talk.raw(frame[head + 13 * len(VERSION) :])
        assert (await a.talk.receive()).count == len(data)
        assert a.disk.startswith(data)


async def test_a_conversation_within_the_conversation(autojump_clock: trio.testing.MockClock) -> None:
    async with line() as a:
        frame = a.write(VERSION)
        await a.talk.raw(frame[: -len(VERSION)])
        await quiet()
        await a.talk.raw(VERSION)
        assert (await a.talk.receive()).count == len(VERSION)
        assert a.disk.startswith(VERSION)


async def test_where_the_end_of_a_client_is_told_nothing_is_sought(autojump_clock: trio.testing.MockClock) -> None:
    async with line(lossy=False) as a:
        frame = a.write(VERSION * 2)
        await a.talk.raw(frame[: -2 * len(VERSION)])
        await quiet()
        await a.talk.raw(VERSION)
        await quiet()
        await a.talk.raw(VERSION)
        assert (await a.talk.receive()).count == 2 * len(VERSION)


async def test_a_listener_is_told_that_its_links_do_not_hang_up(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """As the composer does for the socket that QEMU connects to a guest's port."""
    async with serving(Dir({})) as server, trio.open_nursery() as nursery:
        listener = await listen(f"unix!{tmp_path}/port")
        nursery.start_soon(partial(server.listen, listener, Policy(trust=True), lossy=True))
        emulator = await dial(listener.address)
        assert isinstance(emulator, SocketLink)
        async with trio.SocketStream(trio.socket.from_stdlib_socket(emulator.sock)) as stream:
            talk = Talk(stream, server=server)
            with trio.fail_after(SOON):
                await talk.raw(b"what was left" * 10)
                await talk.start()
                await talk.raw(VERSION[:4])
                await quiet()
                await talk.raw(VERSION)
                assert isinstance(await talk.receive(), m.Rversion)
        nursery.cancel_scope.cancel()
    await listener.aclose()


async def test_who_goes_on_with_a_server_that_has_just_begun_hears_that_there_is_no_conversation(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clunk = codec(Dialect.L, m.Tclunk.type).pack(7, 1)
    with trio.fail_after(SOON):
        async with serving(Dir({})) as server:
            talk = connect(server, lossy=True)
            # what is no request is not answered, however long it is silent
            for stale in (b"login: ", clunk[:5], b"\r\n"):
                await quiet()
                await talk.raw(stale)
            for _ in range(2):
                await quiet()
                await talk.raw(clunk)
                said = await talk.receive()
                assert (said.tag, said.msize, said.version) == (NOTAG, NOBODY, "unknown")
            await quiet()
            await talk.raw(clunk + clunk)
            await trio.sleep(QUIET / 2)
            await talk.start()  # its answer is the first thing that comes
            assert isinstance(await talk.rpc(m.Tclunk, 1, 0), m.Rclunk)
            await quiet()
            assert isinstance(await talk.rpc(m.Tclunk, 1, 0), m.Rlerror)  # in a conversation, a request is a request


async def test_what_a_line_has_when_it_is_opened_is_not_answered(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(SOON):
        async with serving(Dir({})) as server:
            talk = connect(server, lossy=True)
            await talk.raw(codec(Dialect.L, m.Tclunk.type).pack(7, 1))
            await quiet()
            await talk.start()
