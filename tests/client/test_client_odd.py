"""A server that answers what nobody asked, or names what no file is called: nothing of that is believed, and nothing else is lost."""

import errno
from typing import Any

import attrs
import pytest
import trio

from mk9p.client import Connection, files, requests, stored
from mk9p.errors import NineError
from mk9p.wire import Dialect, WireStat, pack_dirents, pack_stat
from mk9p.wire import messages as m
from tests.client.helpers_client import DIR, FILE, Hand, by_hand


@pytest.mark.parametrize(
    ("ask", "request_", "reply"),
    [
        (lambda c: requests.read(c, 5, 0, 10), m.Tread, lambda tag: m.Rread(tag, b"x" * 11)),
        (lambda c: requests.write(c, 5, 0, b"x"), m.Twrite, lambda tag: m.Rwrite(tag, 2)),
        (lambda c: requests.write(c, 5, 0, b"x"), m.Twrite, lambda tag: m.Rwrite(tag, 0xFFFFFFFF)),
        (lambda c: c.rpc(m.Treaddir, 5, 0, 10), m.Treaddir, lambda tag: m.Rreaddir(tag, b"x" * 11)),
    ],
)
async def test_a_reply_of_more_bytes_than_were_asked_for_fails_its_call_alone(
    ask: Any, request_: type[m.Message], reply: Any
) -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(NineError, match="were asked for") as caught:
                await ask(c)
            assert caught.value.errno == errno.EIO
            assert await requests.read(c, 5, 0, 3) == b"abc"

        nursery.start_soon(call)
        await hand.say(reply((await hand.next(request_)).tag))
        await hand.say(m.Rread((await hand.next(m.Tread)).tag, b"abc"))


async def test_a_walk_that_is_answered_with_more_qids_than_names_ends_the_connection() -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:

        async def walk() -> None:
            with pytest.raises(NineError, match="broke the protocol: 3 qids for a walk of 2 names"):
                await requests.walk(c, 99, ("a", "b"))

        nursery.start_soon(walk)
        await hand.say(m.Rwalk((await hand.next(m.Twalk)).tag, (DIR,) * 3))


async def test_a_walk_through_a_file_is_refused_whatever_the_server_says() -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:

        async def walk() -> None:
            with pytest.raises(NotADirectoryError):
                await requests.walk(c, 99, ("a", "b", "c"))

        nursery.start_soon(walk)
        asked = await hand.next(m.Twalk)
        await hand.say(m.Rwalk(asked.tag, (DIR, FILE, DIR)))
        assert (await hand.next(m.Tclunk)).fid == asked.newfid


async def test_a_bug_of_ours_in_a_reply_ends_its_connection_and_no_other(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with by_hand() as (c, hand), by_hand() as (other, good), trio.open_nursery() as nursery:

        async def read(connection: Connection) -> None:
            await requests.read(connection, 5, 0, 10)

        async def fails() -> None:
            with pytest.raises(NineError, match="internal error"):
                await read(c)

        monkeypatch.setattr(c, "_answer", lambda *_: [][0])
        nursery.start_soon(fails)
        nursery.start_soon(read, other)
        await hand.say(m.Rread((await hand.next(m.Tread)).tag, b""))
        await c.closed.wait()
        await good.say(m.Rread((await good.next(m.Tread)).tag, b""))
    assert "IndexError" in caplog.text


async def _listed(c: Connection, hand: Hand, *replies: Any) -> None:
    """Answer a listing's walk and open, then its reads one by one, and its clunk."""
    walk = await hand.next(m.Twalk)
    await hand.say(m.Rwalk(walk.tag, ()))
    linux = c.dialect is Dialect.L
    opened = await hand.next(m.Tlopen if linux else m.Topen)
    await hand.say((m.Rlopen if linux else m.Ropen)(opened.tag, DIR, 0))
    for reply in replies:
        asked = await hand.next(m.Treaddir if linux else m.Tread)
        assert asked.count <= 1 << 16
        await hand.say(attrs.evolve(reply, tag=asked.tag))
    assert (await hand.next(m.Tclunk)).fid == walk.newfid


ODD = ["good", "", ".", "..", "a/b", "/etc/passwd", "../up", "x" * 300, "nul\0x", "caf\udce9"]


@pytest.mark.parametrize("dialect", Dialect)
async def test_names_that_no_file_can_have_are_left_out_of_listings(
    dialect: Dialect, caplog: pytest.LogCaptureFixture
) -> None:
    async with by_hand(dialect) as (c, hand), trio.open_nursery() as nursery:

        async def listing() -> None:
            for _ in range(2):
                assert [name for name, *_ in await requests.entries(c, 99)] == ["good", "caf\udce9"]

        nursery.start_soon(listing)
        if dialect is Dialect.L:
            entries = pack_dirents((FILE, at, 8, name) for at, name in enumerate(ODD, 1))
            replies: list[m.Message] = [m.Rreaddir(0, entries), m.Rreaddir(0, b"")]
        else:
            entry = WireStat(0, 0, FILE, 0o644, 0, 0, 0, "", "me", "us", "me")
            data = b"".join(pack_stat(dialect, entry._replace(name=name)) for name in ODD)
            replies = [m.Rread(0, data), m.Rread(0, b"")]
        await _listed(c, hand, *replies)
        await _listed(c, hand, *replies)
    (record,) = caplog.records
    assert "lists a file that no file can be called" in record.message
    assert "\0" not in record.message


async def test_a_listing_that_goes_in_circles_is_refused() -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:

        async def listing() -> None:
            with pytest.raises(NineError, match="goes in circles") as caught:
                await requests.entries(c, 99)
            assert caught.value.errno == errno.EIO

        nursery.start_soon(listing)
        first, second = (m.Rreaddir(0, pack_dirents([(FILE, at, 8, "same")])) for at in (7, 9))
        await _listed(c, hand, first, second, first)


@pytest.mark.parametrize("dialect", Dialect)
async def test_a_listing_without_end_is_given_up(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_ENTRIES", 20)
    async with by_hand(dialect) as (c, hand), trio.open_nursery() as nursery:

        async def listing() -> None:
            with pytest.raises(NineError, match="more than 20 entries") as caught:
                await requests.entries(c, 99)
            assert caught.value.errno == errno.EFBIG

        nursery.start_soon(listing)
        entry = WireStat(0, 0, FILE, 0o644, 0, 0, 0, "/", "me", "us", "me")
        pieces: list[m.Message] = []
        for at in range(1, 22, 3):
            linux = pack_dirents((FILE, at + i, 8, "/") for i in range(3))
            plan9 = 3 * pack_stat(dialect, entry)
            pieces.append(m.Rreaddir(0, linux) if dialect is Dialect.L else m.Rread(0, plan9))
        await _listed(c, hand, *pieces)


@pytest.mark.parametrize("size", [65537, 1 << 63])
async def test_an_attribute_longer_than_linux_has_any_is_refused(size: int) -> None:
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(NineError, match=f"an attribute of {size} bytes"):
                await stored.xattr(c, 99, "user.x")

        nursery.start_soon(ask)
        asked = await hand.next(m.Txattrwalk)
        await hand.say(m.Rxattrwalk(asked.tag, size))
        assert (await hand.next(m.Tclunk)).fid == asked.newfid


async def test_a_line_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_LINE", 10)
    async with by_hand() as (c, hand), trio.open_nursery() as nursery:

        async def lines() -> None:
            async with files.File(c, 5, "events", FILE, 100) as file:
                found = aiter(file)
                assert await anext(found) == b"one\n"
                with pytest.raises(NineError, match="events: a line of more than 10 bytes") as caught:
                    await anext(found)
                assert caught.value.errno == errno.EMSGSIZE

        nursery.start_soon(lines)
        for data in (b"one\n12345", b"67890", b"x"):
            await hand.say(m.Rread((await hand.next(m.Tread)).tag, data))
        await hand.say(m.Rclunk((await hand.next(m.Tclunk)).tag))
