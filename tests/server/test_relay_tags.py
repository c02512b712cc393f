"""A tag is one request's, whichever server of a composed namespace answers that: one in use is refused, and nobody else notices."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from mk9p.testing import Memory
from mk9p.tree import Dir, Log, Node
from mk9p.wire import Qid
from mk9p.wire import messages as m
from tests.server.relaying import ON, Lab, a_tree, cat, fails, lab, opened, pack, read, replies, walk, with_client
from tests.server.talk import Talk
from tests.server.test_relay_ends import Frames, Slow, beside, polite

idle = trio.testing.wait_all_tasks_blocked

TWO = 2  # the fid of the second mount point
EVENTS, DIR, FILE = (
    5,
    6,
    7,
)  # an open file of the first server that waits; a directory of the second and an open file in it


async def both(found: Lab) -> Talk:
    """Return a client with fids on both servers and a Tread of tag 5 that waits at the first."""
    talk = await found.client()
    await walk(talk, 0, TWO, "k1")
    await opened(talk, EVENTS, "events")
    await walk(talk, TWO, DIR, "d")
    await opened(talk, FILE, "d", "f", fid=TWO)
    await talk.send(m.Tread, 5, EVENTS, 0, 100)
    return talk


async def goes_on(talk: Talk, log: Log) -> None:
    """Check that the first server's answer, and nothing else, still comes."""
    log.emit("it", "happens")
    got = await replies(talk, 1)
    assert bytes(got[5].data).endswith(b"it happens\n")
    assert await read(talk, FILE, tag=5) == b"0123456789"
    assert await cat(talk, "d", "x") == b"on top"


ELSEWHERE: dict[str, tuple[Any, ...]] = {
    "a plain request": (m.Tgetattr, FILE, 0x7FF),
    "one that changes": (m.Tsetattr, FILE, 1, 0o600, *[0] * 7),
    "a walk": (m.Twalk, DIR, 10, ("e",)),
    "a clunk": (m.Tclunk, FILE),
    "an open": (m.Tlopen, DIR, 0),
}
HERE: dict[str, tuple[Any, ...]] = {
    "a plain request": (m.Tgetattr, 0, 0x7FF),
    "at the mount point": (m.Tgetattr, ON, 0x7FF),
    "a clunk": (m.Tclunk, 0),
    "a walk": (m.Twalk, 0, 10, ("k1", "d")),
    "an unknown fid": (m.Tgetattr, 4711, 0x7FF),
    "no request": (m.Rclunk,),
    "an attach": (m.Tattach, 10, 0xFFFFFFFF, "root", "", 0),
}


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize(
    "request_", [*ELSEWHERE.values(), *HERE.values()], ids=[*(f"elsewhere, {k}" for k in ELSEWHERE), *HERE]
)
async def test_a_tag_in_use_at_another_server_is_refused(
    tmp_path: Path, request_: tuple[Any, ...], apart: bool
) -> None:
    log, second = Log(), a_tree()
    cls, *fields = request_
    async with lab(tmp_path, Dir({"events": log, "d": a_tree()}), second) as found:
        talk = await both(found)
        if apart:
            assert await fails(talk, cls, *fields, tag=5) == errno.EINVAL
        else:  # in one block, with requests around it that are all good
            assert isinstance(await talk.rpc(m.Tflush, 4, 5), m.Rflush)
            good = [pack(m.Tread, tag, FILE, tag, 1) for tag in (8, 9)]
            await talk.raw(good[0] + pack(m.Tread, 5, EVENTS, 0, 100) + pack(cls, 5, *fields) + good[1])
            got = await replies(talk, 3)
            assert got[5].ecode == errno.EINVAL
            assert [bytes(got[tag].data) for tag in (8, 9)] == [b"8", b"9"]
        assert second.at("d/f").mode & 0o777 == 0o644
        (c,) = found.front.connections
        assert 10 not in c.relays
        assert 10 not in c.session.fids
        assert c.in_flight == 1
        await goes_on(talk, log)
        assert c.in_flight == 0
        assert isinstance(await talk.rpc(m.Tgetattr, 5, 0, 0x7FF), m.Rgetattr)


async def test_a_tag_stays_in_use_when_no_fid_is_left_there(tmp_path: Path) -> None:
    log = Log()
    async with with_client(tmp_path, Dir({"events": log})) as (found, talk):
        await opened(talk, EVENTS, "events")
        await talk.send(m.Tread, 5, EVENTS, 0, 100)
        for fid in (EVENTS, ON):
            assert isinstance(await talk.rpc(m.Tclunk, 1, fid), m.Rclunk)
        (c,) = found.front.connections
        assert not c.relays
        assert await fails(talk, m.Tgetattr, 0, 0x7FF, tag=5) == errno.EINVAL
        log.emit("last")
        assert bytes((await replies(talk, 1))[5].data).endswith(b"last\n")
        assert isinstance(await talk.rpc(m.Tgetattr, 5, 0, 0x7FF), m.Rgetattr)


async def test_a_tag_in_use_here_is_refused_elsewhere(tmp_path: Path) -> None:
    slow = Slow()
    slow.children["f"] = Memory()
    async with lab(tmp_path, a_tree()) as found:
        found.ns.resolver.made.children[0]["slow"] = slow  # type: ignore[attr-defined]
        talk = await found.client()
        await opened(talk, FILE, "d", "f")
        await talk.send(m.Twalk, 5, 0, 10, ("slow", "f"))
        await slow.asked.wait()
        assert await fails(talk, m.Tread, FILE, 0, 4, tag=5) == errno.EINVAL
        assert await read(talk, FILE, tag=6) == b"0123456789"
        slow.go.set()
        assert isinstance((await replies(talk, 1))[5], m.Rwalk)
        assert await read(talk, FILE, tag=5) == b"0123456789"


async def test_a_flush_is_of_the_request_that_has_the_tag(tmp_path: Path) -> None:
    log, other = Log(), Log()
    trees = (Dir({"events": log, "d": a_tree()}), Dir({"events": other, "d": a_tree().children["d"]}))
    async with lab(tmp_path, *trees) as found:
        talk = await both(found)
        await opened(talk, 12, "events", fid=TWO)
        await talk.send(m.Tread, 6, 12, 0, 100)
        for tag, oldtag in ((6, 5), (5, 6), (5, 5), (6, 4711)):  # that of the flush is in use
            assert await fails(talk, m.Tflush, oldtag, tag=tag) == errno.EINVAL
        assert await fails(talk, m.Tgetattr, FILE, 0x7FF, tag=5) == errno.EINVAL
        assert isinstance(await talk.rpc(m.Tflush, 7, 5), m.Rflush)  # not of what was refused
        (c,) = found.front.connections
        assert c.in_flight == 1
        assert await read(talk, FILE, tag=5) == b"0123456789"
        log.emit("nobody reads it")
        other.emit("second")
        assert bytes((await replies(talk, 1))[6].data).endswith(b"second\n")
        await talk.send(m.Tread, 5, 12, 1000, 100)
        await talk.send(m.Tflush, 6, 5)
        assert isinstance((await replies(talk, 1))[6], m.Rflush)
        assert not c.in_flight


@pytest.mark.parametrize("same", [True, False])
async def test_a_tag_that_is_used_again_before_its_flush_is_answered(tmp_path: Path, same: bool) -> None:
    """What the flush was of has been answered: the next request with its tag is none of the flush's business."""
    flush, again = trio.Event(), trio.Event()

    async def late(stream: trio.SocketStream) -> None:
        requests = Frames(stream)
        q = await polite(stream, requests, m.Tread)
        f = await requests.next()
        assert isinstance(f, m.Tflush)
        await stream.send_all(pack(m.Rread, q.tag, b"first"))
        if same:
            q = await requests.next()
        await flush.wait()
        await stream.send_all(pack(m.Rflush, f.tag))
        await again.wait()
        if same:
            await stream.send_all(pack(m.Rread, q.tag, b"0123456789"))
        await trio.sleep_forever()

    slow = Log()
    async with beside(tmp_path, late) as found:
        top = found.hosts[0].tree
        assert isinstance(top, Memory)
        children: dict[str, Any] = top.children
        children["events"] = slow
        talk = await found.client(on="k1")
        await walk(talk, 0, TWO, "k0")
        await opened(talk, FILE, "f")
        await opened(talk, EVENTS, "events", fid=TWO)
        await talk.raw(pack(m.Tread, 5, FILE, 0, 10) + pack(m.Tflush, 6, 5))
        assert bytes((await replies(talk, 1))[5].data) == b"first"
        await talk.send(m.Tread, 5, FILE if same else EVENTS, 0, 100)
        await idle()
        flush.set()
        assert isinstance((await replies(talk, 1))[6], m.Rflush)
        again.set()
        if not same:
            slow.emit("0123456789")
        assert b"0123456789" in bytes((await replies(talk, 1))[5].data)
        assert found.crossings


FORGED: dict[str, Callable[[int], bytes]] = {
    "a reply": lambda tag: pack(m.Rread, tag, b"forged"),
    "an error": lambda tag: pack(m.Rlerror, tag, errno.EPERM),
    "a walk": lambda tag: pack(m.Rwalk, tag + 1, [(0, 0, 1)]),
    "an error of a walk": lambda tag: pack(m.Rlerror, tag + 1, errno.EPERM),
    "a flush": lambda tag: pack(m.Rflush, tag + 1),
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", FORGED)
async def test_a_server_cannot_answer_for_another(tmp_path: Path, kind: str, first: bool) -> None:
    async def rogue(stream: trio.SocketStream) -> None:
        q = await polite(stream, Frames(stream), m.Treadlink)
        await stream.send_all(pack(m.Rreadlink, q.tag, "good") + FORGED[kind](5))
        await trio.sleep_forever()

    log, slow = Log(), Slow()
    slow.children["f"] = Memory("at last")
    async with beside(tmp_path, rogue) as found:
        top = found.hosts[0].tree
        assert isinstance(top, Memory)
        children: dict[str, Any] = top.children
        children.update(slow=slow, events=log)
        talk = await found.client(on="k1" if first else "k0")
        await walk(talk, 0, TWO, "k0" if first else "k1")
        good, bad = (TWO, ON) if first else (ON, TWO)
        await opened(talk, EVENTS, "events", fid=good)
        await walk(talk, good, DIR, "slow")
        await walk(talk, bad, FILE, "f")
        await talk.send(m.Tread, 5, EVENTS, 0, 100)
        await talk.send(m.Twalk, 6, DIR, 10, ("f",))
        await slow.asked.wait()
        await talk.raw(pack(m.Treadlink, 7, FILE) + pack(m.Treadlink, 8, FILE))
        got = await replies(talk, 2)
        assert got[7].target == "good"
        assert got[8].ecode == errno.EIO
        slow.go.set()
        log.emit("it", "happens")
        got = await replies(talk, 2)
        assert bytes(got[5].data).endswith(b"it happens\n")
        assert isinstance(got[6], m.Rwalk)
        assert await cat(talk, fid=10) == b"at last"


async def test_a_server_cannot_answer_what_we_ask_of_another(tmp_path: Path) -> None:
    """Two trees of one address are two connections: of the second, the walk to its mount point is held back."""
    held, go = trio.Event(), trio.Event()
    hold: list[int] = []

    async def rogue(stream: trio.SocketStream) -> None:
        requests = Frames(stream)
        while True:
            q = await polite(stream, requests, (m.Twalk, m.Treadlink))
            if isinstance(q, m.Treadlink):
                await stream.send_all(pack(m.Rreadlink, q.tag, "good") + pack(m.Rwalk, hold[0], []))
            elif q.tag > 0xF000 and found.crossings:
                hold.append(q.tag)
                held.set()
                await go.wait()
            if isinstance(q, m.Twalk):
                await stream.send_all(pack(m.Rwalk, q.tag, [Qid(0x80, 0, len(name)) for name in q.names]))

    async with beside(tmp_path, rogue) as found:
        await found.ns.run(f"mount -c unix!{tmp_path}/rogue /k2 other\n")
        talk = await found.client(on="k1")
        await walk(talk, ON, FILE, "f")
        (c,) = found.crossings
        await talk.send(m.Twalk, 9, 0, TWO, ("k2",))
        await held.wait()
        first = c.relays[ON].backend
        assert (await talk.rpc(m.Treadlink, 7, FILE)).target == "good"
        assert first.dead
        go.set()
        assert isinstance((await replies(talk, 1))[9], m.Rwalk)
        assert not c.relays[TWO].backend.dead
        assert c.in_flight == 0


async def test_a_server_that_dies_takes_no_other_requests_with_it(tmp_path: Path) -> None:
    tops: list[dict[str, Node]] = [{"d": a_tree()} for _ in range(3)]
    async with with_client(tmp_path, *map(Dir, tops)) as (found, talk):
        (c,) = found.front.connections
        for round_ in range(3):  # the one that comes back is told from the others as well
            logs = [Log(), Log(), Log()]
            for k in range(3):
                tops[k]["events"] = logs[k]
                await walk(talk, 0, 10 + k, f"k{k}")
                await opened(talk, 20 + k, "events", fid=10 + k)
                await opened(talk, 30 + k, "d", "d", "f", fid=10 + k)
            await talk.raw(b"".join(pack(m.Tread, tag, 20 + tag % 3, 0, 100) for tag in range(40, 52)))
            await talk.raw(b"".join(pack(m.Tread, tag, 30 + tag % 3, tag % 7, 2) for tag in range(100, 130)))
            got = await replies(talk, 30)
            assert all(bytes(got[tag].data) == b"0123456789"[tag % 7 : tag % 7 + 2] for tag in got)
            assert c.in_flight == 12
            host = found.hosts[round_]
            await host.stop()
            got = await replies(talk, 4)
            assert {tag % 3 for tag in got} == {round_}
            assert {reply.ecode for reply in got.values()} == {errno.EIO}
            assert c.in_flight == 8
            for k in {0, 1, 2} - {round_}:
                logs[k].emit("it", "happens")
            got = await replies(talk, 8)
            assert not [reply for reply in got.values() if not bytes(reply.data).endswith(b"it happens\n")]
            assert not c.in_flight
            await host.start()
            for k in range(3):
                for fid in (10 + k, 20 + k, 30 + k):
                    assert isinstance(await talk.rpc(m.Tclunk, 1, fid), m.Rclunk)


async def test_a_tag_is_free_in_a_new_conversation(tmp_path: Path) -> None:
    async with lab(tmp_path, Dir({"events": Log(), "d": a_tree()}), a_tree()) as found:
        talk = await both(found)
        await talk.send(m.Tversion, 0xFFFF, 65536, "9P2000.L")
        assert isinstance(await talk.receive(), m.Rversion)
        await talk.attach(0)
        assert isinstance(await talk.rpc(m.Tgetattr, 5, 0, 0x7FF), m.Rgetattr)
        await walk(talk, 0, TWO, "k1", tag=5)
        assert await cat(talk, "x", fid=TWO) == b"on top"
