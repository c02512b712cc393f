"""The fast way to another server: what is waited for and flushed, and how things end; servers that die, choke, or answer nonsense."""

import errno
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from mk9p.server.hops import Far
from mk9p.testing import Line, Memory, until
from mk9p.tree import Dir, Log, Node, settle
from mk9p.wire import Qid
from mk9p.wire import messages as m
from tests.server.relaying import ON, Lab, a_tree, cat, fails, lab, only, opened, pack, read, replies, walk, with_client
from tests.server.talk import Talk

idle = trio.testing.wait_all_tasks_blocked


def backend(found: Lab, number: int = 0) -> Far:
    (c,) = found.front.connections
    return list(c.backends.values())[number]


async def test_a_read_that_waits_is_flushed(tmp_path: Path) -> None:
    log = Log()
    async with with_client(tmp_path, Dir({"events": log, "d": a_tree()})) as (found, talk):
        await opened(talk, 5, "events")
        for round_ in range(3):
            await talk.send(m.Tread, 10, 5, 0, 100)
            assert await cat(talk, "d", "x") == b"on top"  # others go on meanwhile
            assert isinstance(await talk.rpc(m.Tflush, 11, 10), m.Rflush)
            await talk.send(m.Tread, 10, 5, 0, 100)  # the tag is free again
            await talk.send(m.Tread, 12, 5, 0, 100)
            await talk.send(m.Tflush, 13, 10)
            await talk.send(m.Tflush, 14, 13)
            got = await replies(talk, 2)
            assert {type(reply) for reply in got.values()} == {m.Rflush}
            assert isinstance(await talk.rpc(m.Tflush, 15, 4711), m.Rflush)
            assert isinstance(await talk.rpc(m.Tflush, 15, 15), m.Rflush)
            assert set(backend(found).asked) == {12}, round_
            assert await fails(talk, m.Tgetattr, 5, 0x7FF, tag=12) == errno.EINVAL
            assert await fails(talk, m.Tflush, 10, tag=12) == errno.EINVAL
            assert isinstance(await talk.rpc(m.Tflush, 15, 12), m.Rflush)
            assert not backend(found).asked
        await talk.send(m.Tread, 10, 5, 0, 100)
        log.emit("it", "happens")
        assert bytes((await replies(talk, 1))[10].data).endswith(b"it happens\n")


async def test_blocked_readers_and_traffic(tmp_path: Path) -> None:
    log = Log()
    async with with_client(tmp_path, Dir({"events": log, "d": a_tree()})) as (_, talk):
        for fid in range(100, 200):
            await opened(talk, fid, "events")
        for fid in range(100, 200):
            await talk.send(m.Tread, fid, fid, 0, 100)
        for _ in range(50):
            assert await cat(talk, "d", "x") == b"on top"
        log.emit("all")
        got = await replies(talk, 100)
        assert set(got) == set(range(100, 200))


async def test_what_was_asked_of_a_server_that_dies_is_answered_once(tmp_path: Path) -> None:
    log = Log()
    tree = a_tree()
    async with with_client(tmp_path, Dir({"events": log, "d": tree}), a_tree()) as (found, talk):
        await walk(talk, 0, 2, "k1")
        await opened(talk, 5, "events")
        await opened(talk, 6, "d", "x")
        await walk(talk, ON, 7, "d")
        await walk(talk, ON, 8, "d", "d", "f")
        await opened(talk, 9, "d")
        for tag in range(10, 20):
            await talk.send(m.Tread, tag, 5, 0, 100)
        await idle()
        await found.hosts[0].stop()
        got = await replies(talk, 10)
        assert {reply.ecode for reply in got.values()} == {errno.EIO}
        assert not backend(found).asked
        assert await cat(talk, "d", "f", fid=2) == b"0123456789"
        # all is EIO as long as there is no server
        assert await fails(talk, m.Tread, 6, 0, 1) == errno.EIO
        assert await fails(talk, m.Tgetattr, 7, 0x7FF) == errno.EIO
        assert await fails(talk, m.Tlink, 2, 8, "l") == errno.EIO
        assert await fails(talk, m.Twalk, 7, 30, ("x",)) == errno.EIO
        assert await fails(talk, m.Txattrwalk, 6, 30, "") == errno.EIO
        # fids end whatever there is
        await walk(talk, 0, 31)
        for fid in (9, 31):
            assert isinstance(await talk.rpc(m.Tclunk, 1, fid), m.Rclunk)
        await found.hosts[0].start()
        await walk(talk, ON, 9, "d")
        assert await read(talk, 6, 0, 1) == b"o"
        assert (await read(talk, 5, 0)).split()[2] == b"restarted"
        for fid in (5, 6):
            assert isinstance(await talk.rpc(m.Tclunk, 1, fid), m.Rclunk)
            await walk(talk, ON, fid, "d", "x")
        # these work again, several requests at once too
        for tag in range(10, 20):
            await talk.send(m.Tgetattr, tag, 7, 0x7FF)
        got = await replies(talk, 10)
        assert {type(reply) for reply in got.values()} == {m.Rgetattr}
        assert await cat(talk, fid=8) == b"0123456789"
        assert await cat(talk, "x", fid=7) == b"on top"
        assert not backend(found).dead


async def test_names_that_lead_to_another_file_when_a_server_is_back_are_stale(tmp_path: Path) -> None:
    tree = a_tree()
    old = tree.children["d"]
    old.path = 71
    async with with_client(tmp_path, tree) as (found, talk):
        await walk(talk, ON, 5, "d")
        await walk(talk, ON, 6, "d", "e")
        await walk(talk, 5, 7)
        await walk(talk, 5, 8, "f")
        await walk(talk, 0, 9, "k0", "d")
        assert isinstance(await talk.rpc(m.Tmkdir, 1, 5, "made", 0o755, 0), m.Rmkdir)
        await walk(talk, 7, 10, "made")
        await found.hosts[0].stop()
        tree.children["d"], tree.children["dd"] = a_tree().children["d"], old
        await found.hosts[0].start()
        for fid in range(5, 11):
            assert await fails(talk, m.Tgetattr, fid, 0x7FF) == (errno.ENOENT if fid == 10 else errno.ESTALE), fid
            assert await fails(talk, m.Tmkdir, fid, "new", 0o755, 0) in (errno.ENOENT, errno.ESTALE), fid
        assert "new" not in tree.at("d").children
        tree.children["d"] = tree.children.pop("dd")
        for fid in range(5, 11):
            assert isinstance(await talk.rpc(m.Tgetattr, 1, fid, 0x7FF), m.Rgetattr)


async def test_fids_that_were_not_open_can_be_clunked_and_removed_when_the_server_is_gone(tmp_path: Path) -> None:
    async with with_client(tmp_path, a_tree()) as (found, talk):
        await walk(talk, ON, 5, "d")
        await walk(talk, ON, 6, "d")
        await opened(talk, 7, "x")
        await found.hosts[0].stop()
        await idle()
        assert isinstance(await talk.rpc(m.Tclunk, 1, 5), m.Rclunk)
        assert await fails(talk, m.Tremove, 6) == errno.EIO
        assert await fails(talk, m.Tremove, 7) == errno.EIO
        (c,) = found.front.connections
        assert set(c.relays) == {ON}
        await walk(talk, 0, 5)
        await walk(talk, 0, 6)


async def test_an_open_that_fails_does_not_make_a_fid_die(tmp_path: Path) -> None:
    async with with_client(tmp_path, a_tree()) as (found, talk):
        await walk(talk, ON, 5, "d")
        assert await fails(talk, m.Tlopen, 5, 1) == errno.EISDIR
        assert await fails(talk, m.Tlcreate, 5, "", 0, 0o644, 0) == errno.EINVAL
        await found.hosts[0].stop()
        await found.hosts[0].start()
        assert isinstance(await talk.rpc(m.Tgetattr, 1, 5, 0x7FF), m.Rgetattr)


async def test_tversion_and_leaving_drop_the_connections(tmp_path: Path) -> None:
    log, tree = Log(), a_tree()
    async with lab(tmp_path, Dir({"events": log, "d": tree})) as found:
        for end in ("version", "leave"):
            talk = await found.client()
            await opened(talk, 5, "events")
            await opened(talk, 6, "d", "x")
            host = found.hosts[0]
            await only(host, 2)
            assert tree.at("x").open_now == 1
            await talk.raw(b"".join(pack(m.Tread, tag, 5, 0, 100) for tag in range(20, 30)))
            if end == "version":
                await talk.send(m.Tversion, 0xFFFF, 65536, "9P2000.L")
                assert isinstance(await talk.receive(), m.Rversion)
                await talk.attach(0)
                assert await fails(talk, m.Tgetattr, 5, 0x7FF) == errno.EBADF
                await only(host, 1)
                await walk(talk, 0, ON, "k0")
                assert await cat(talk, "d", "x") == b"on top"
            await talk.stream.aclose()
            await only(host, 1)
            await until(lambda: not tree.at("x").open_now and not found.front.connections)
        assert not found.front.links.by_fd


async def test_a_client_that_leaves_without_its_replies_harms_nobody(tmp_path: Path) -> None:
    tree = a_tree()
    tree.at("x").data[:] = bytes(1 << 20)
    async with lab(tmp_path, tree) as found:
        other = await found.client()
        for _ in range(20):
            talk = await found.client()
            await opened(talk, 5, "x")
            await talk.raw(b"".join(pack(m.Tread, tag, 5, 0, 60000) for tag in range(50)))
            await trio.lowlevel.checkpoint()
            await talk.stream.aclose()
            await walk(other, ON, 6, "x")
            assert isinstance(await other.rpc(m.Tclunk, 1, 6), m.Rclunk)
        await only(found.hosts[0], 2)


async def test_a_client_that_does_not_read_is_not_read_for(tmp_path: Path) -> None:
    tree = a_tree()
    tree.at("x").data[:] = bytes(1 << 20)
    async with lab(tmp_path, tree) as found:
        talk, other = await found.client(), await found.client()
        await opened(talk, 5, "x")
        await talk.raw(b"".join(pack(m.Tread, tag, 5, 0, 60000) for tag in range(400)))
        (c,) = (c for c in found.front.connections if 5 in c.relays)
        await until(lambda: c.blocked)
        for _ in range(20):
            assert await cat(other, "d", "f") == b"0123456789"
        assert c.out_size < 2 << 20
        assert len(await replies(talk, 400)) == 400
        assert not c.blocked
        assert not c.out_size


async def test_a_server_that_dies_while_the_client_does_not_read_costs_nothing(tmp_path: Path) -> None:
    tree = a_tree()
    tree.at("x").data[:] = bytes(1 << 20)
    async with with_client(tmp_path, tree) as (found, talk):
        await opened(talk, 5, "x")
        await talk.raw(b"".join(pack(m.Tread, tag, 5, 0, 60000) for tag in range(200)))
        (c,) = found.front.connections
        await until(lambda: c.blocked)
        await found.hosts[0].stop()
        await idle()  # would never come if its hang-up were told again and again
        got = await replies(talk, 200)
        assert len(got) == 200
        assert all(len(reply.data) == 60000 for reply in got.values() if isinstance(reply, m.Rread))


# Servers that misbehave

Rogue = Callable[[trio.SocketStream], Awaitable[None]]


class Frames(Line):
    """What the other side of a rogue server sends, one message at a time."""

    async def next(self) -> Any:
        return await self.receive() or await trio.sleep_forever()


async def polite(
    stream: trio.SocketStream, requests: Frames, until: type[m.Message] | tuple[type[m.Message], ...]
) -> Any:
    """Answer as a server of one file for each name would; returns the first request of a type."""
    while True:
        q: Any = await requests.next()
        if isinstance(q, until):
            return q
        if isinstance(q, m.Tversion):
            reply = pack(m.Rversion, q.tag, q.msize, q.version)
        elif isinstance(q, m.Tattach):
            reply = pack(m.Rattach, q.tag, Qid(0x80, 0, 1))
        elif isinstance(q, m.Twalk):
            reply = pack(m.Rwalk, q.tag, [Qid(0x80, 0, len(name)) for name in q.names])
        elif isinstance(q, m.Tgetattr):
            reply = pack(m.Rgetattr, q.tag, 0x7FF, Qid(0x80, 0, 1), 0o40755, 0, 0, 1, 0, 0, 4096, *[0] * 11)
        elif isinstance(q, m.Tclunk):
            reply = pack(m.Rclunk, q.tag)
        else:
            reply = pack(m.Rlopen, q.tag, Qid(0, 0, 1), 0)
        for byte in reply:  # a byte at a time
            await stream.send_all(bytes((byte,)))


@asynccontextmanager
async def beside(tmp_path: Path, rogue: Rogue) -> AsyncIterator[Lab]:
    """A lab whose /k1 is a server that does as it likes."""
    async with lab(tmp_path, a_tree()) as found, trio.open_nursery() as nursery:
        sock = trio.socket.socket(trio.socket.AF_UNIX)
        await sock.bind(f"{tmp_path}/rogue")
        sock.listen()
        nursery.start_soon(trio.serve_listeners, rogue, [trio.SocketListener(sock)])
        await found.ns.run(f"mount -c unix!{tmp_path}/rogue /k1\n")
        yield found
        nursery.cancel_scope.cancel()


async def test_replies_cut_anywhere(tmp_path: Path) -> None:
    async def slow(stream: trio.SocketStream) -> None:
        await polite(stream, Frames(stream), m.Treaddir)

    async with beside(tmp_path, slow) as found:
        talk = await found.client(on="k1")
        await walk(talk, ON, 5, "some", "where")
        for cls, fields in ((m.Tgetattr, (5, 0x7FF)), (m.Tlopen, (5, 0)), (m.Tgetattr, (5, 0x7FF)), (m.Tclunk, (5,))):
            reply = await talk.rpc(cls, 3, *fields)
            assert reply.type == cls.type + 1
        assert found.crossings


GARBAGE: dict[str, Callable[[int], bytes]] = {
    "an unknown tag": lambda tag: pack(m.Rread, tag + 1000, b"x"),
    "another reply": lambda tag: pack(m.Rwrite, tag, 1),
    "a request": lambda tag: pack(m.Tclunk, tag, 1),
    "a size that is none": lambda tag: b"\1\0\0\0" + bytes(20),
    "a huge size": lambda tag: b"\xff\xff\xff\xff" + bytes(20),
    "its end": lambda tag: b"",
    "a walk of ours": lambda tag: pack(m.Rwalk, 0xFFFE, []),
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_nonsense_ends_that_connection_only(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async def rogue(stream: trio.SocketStream) -> None:
        requests = Frames(stream)
        q = await polite(stream, requests, m.Tread)
        await idle()
        good = pack(m.Rread, q.tag - 1, b"good") if q.tag == 21 else b""
        await stream.send_all(good + GARBAGE[kind](q.tag))
        await stream.aclose()

    caplog.set_level(logging.ERROR)
    async with beside(tmp_path, rogue) as found:
        talk = await found.client(on="k1")
        await walk(talk, 0, 2, "k0", "d")
        await opened(talk, 5, "f")
        await talk.raw(pack(m.Tread, 20, 5, 0, 10) + pack(m.Tread, 21, 5, 0, 10) + pack(m.Tflush, 22, 21))
        got = await replies(talk, 3)
        assert got[20].ecode == got[21].ecode == errno.EIO
        assert isinstance(got[22], m.Rflush)
        assert await cat(talk, "f", fid=2) == b"0123456789"
        assert not caplog.records


@pytest.mark.parametrize("reply", [b"\7\0\0\0\x19", b"\7\0\0\0\x6f"], ids=["Rgetattr", "Rwalk"])
async def test_a_reply_that_is_too_short(tmp_path: Path, reply: bytes, caplog: pytest.LogCaptureFixture) -> None:
    walks = reply[4] == m.Rwalk.type

    async def rogue(stream: trio.SocketStream) -> None:
        requests = Frames(stream)
        q = await polite(stream, requests, m.Treadlink)
        await stream.send_all(pack(m.Rreadlink, q.tag, "good"))
        q = await requests.next()
        await stream.send_all(reply + q.tag.to_bytes(2, "little"))
        await trio.sleep_forever()

    caplog.set_level(logging.ERROR)
    async with beside(tmp_path, rogue) as found:
        talk = await found.client(on="k1")
        await walk(talk, ON, 5, "f")
        assert (await talk.rpc(m.Treadlink, 1, 5)).target == "good"
        cls, *fields = (m.Twalk, 5, 6, ("x",)) if walks else (m.Tgetattr, 5, 0x7FF)
        assert await fails(talk, cls, *fields) == errno.EIO
        (c,) = found.front.connections
        assert 6 not in c.relays
        assert not caplog.records


@asynccontextmanager
async def choking(found: Lab, talk: Talk) -> AsyncIterator[tuple[Any, list[int]]]:
    """Write to a server that does not read until nothing more is taken; give the front's connection and the tags of all writes."""
    (c,) = (c for c in found.front.connections if 5 in c.relays)
    data = pack(m.Twrite, 3, 5, 0, bytes(60000))
    tags: list[int] = []
    full = False

    async def send() -> None:
        while not full:
            tags.append(100 + len(tags))
            frame = bytearray(data)
            frame[5:7] = tags[-1].to_bytes(2, "little")
            await talk.raw(bytes(frame))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await until(lambda: c.choked)
        full = True
        yield c, tags
        nursery.cancel_scope.cancel()


async def test_a_server_that_does_not_read(tmp_path: Path) -> None:
    go = trio.Event()

    async def rogue(stream: trio.SocketStream) -> None:
        requests = Frames(stream)
        q = await polite(stream, requests, m.Tfsync)
        await stream.send_all(pack(m.Rfsync, q.tag))
        await go.wait()
        while True:
            q = await requests.next()
            await stream.send_all(pack(m.Rwrite, q.tag, len(q.data)))

    async with beside(tmp_path, rogue) as found:
        talk, other = await found.client(on="k1"), await found.client()
        await opened(talk, 5, "f", flags=2)
        await talk.rpc(m.Tfsync, 1, 5, 0)
        async with choking(found, talk) as (c, tags):
            for _ in range(20):
                assert await cat(other, "d", "f") == b"0123456789"
            (b,) = c.choked
            assert sum(len(data) for data in b.out) < 1 << 20
            go.set()
            got = await replies(talk, len(tags))
        assert all(isinstance(reply, m.Rwrite) for reply in got.values())
        assert not c.choked
        await walk(talk, 0, 6, "k0", "x")


async def test_a_client_that_leaves_while_its_server_does_not_read(tmp_path: Path) -> None:
    ended = trio.Event()

    async def rogue(stream: trio.SocketStream) -> None:
        requests = Frames(stream)
        q = await polite(stream, requests, m.Tfsync)
        await stream.send_all(pack(m.Rfsync, q.tag))
        await ended.wait()

    async with beside(tmp_path, rogue) as found:
        talk = await found.client(on="k1")
        await opened(talk, 5, "f", flags=2)
        await talk.rpc(m.Tfsync, 1, 5, 0)
        async with choking(found, talk):
            pass
        await talk.stream.aclose()
        await until(lambda: not found.front.connections)
        await idle()
        ended.set()


async def test_a_flushed_walk_makes_no_fid_while_the_fast_way_is_made(tmp_path: Path) -> None:
    """Connections to the server are accepted, and never answered."""
    connections = 0

    async def rogue(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        await trio.sleep_forever()

    async with beside(tmp_path, rogue) as found:
        talk = await found.client(on=None)
        for _ in range(3):
            await talk.send(m.Twalk, 7, 0, 5, ("k1", "f"))
            while not connections:
                await trio.lowlevel.checkpoint()
            await idle()
            assert isinstance(await talk.rpc(m.Tflush, 8, 7), m.Rflush)
            connections = 0
        await walk(talk, 0, 5, "k0")


async def test_a_fast_way_that_cannot_be_made_is_not_waited_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mk9p.server.asking.PATIENCE", 0.05)
    connections = 0

    async def rogue(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            await polite(stream, Frames(stream), m.Treaddir)
        await trio.sleep_forever()

    async with beside(tmp_path, rogue) as found:
        talk = await found.client(on="k1")
        assert connections == 2
        for fid in range(5, 10):
            await walk(talk, ON, fid, "f")
        assert connections == 2


async def test_nothing_is_left_registered(tmp_path: Path) -> None:
    async with lab(tmp_path, a_tree(), a_tree()) as found:
        front = found.front
        for _ in range(5):
            talk = await found.client()
            await walk(talk, 0, 2, "k1", "d")
            assert await cat(talk, "f", fid=2) == b"0123456789"
            (c,) = front.connections
            assert len(front.links.by_fd) == 3
            await found.hosts[1].stop()
            await found.hosts[1].start()
            await until(lambda: len(front.links.by_fd) == 2)
            assert await cat(talk, "f", fid=2) == b"0123456789"
            await talk.stream.aclose()
            await until(lambda: not front.connections)
            assert not front.links.by_fd
            assert not c.relays
            assert not c.backends


class Slow(Memory):
    """A directory whose files are found when it is allowed."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = trio.Event(), trio.Event()

    async def walk(self, name: str, who: Any) -> Node:
        self.asked.set()
        await self.go.wait()
        return await settle(super().walk(name, who))


async def test_a_walk_that_was_passed_on_is_flushed(tmp_path: Path) -> None:
    slow = Slow()
    slow.children["f"] = Memory("at last")
    top = a_tree()
    top.children["slow"] = slow
    async with with_client(tmp_path, top) as (found, talk):
        await walk(talk, ON, 4, "slow")
        await talk.send(m.Twalk, 7, 4, 5, ("f",))
        await slow.asked.wait()
        assert isinstance(await talk.rpc(m.Tflush, 8, 7), m.Rflush)
        (c,) = found.front.connections
        assert 5 not in c.relays
        slow.go.set()
        assert await cat(talk, "f", fid=4, newfid=5) == b"at last"
