"""A walk crosses once: what goes over for it, and that its answer is the one that walking name by name has."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from mk9p.testing import Memory
from mk9p.tree import qids
from mk9p.wire import Qid
from mk9p.wire import messages as m
from tests.server.relaying import Lab, a_tree, cat, fails, lab, pack, replies, walk
from tests.server.talk import Talk
from tests.server.test_relay_ends import Frames, Rogue, beside

TABLE = (
    "bind /k0/d /n/b\n"
    "bind /k0/d /n/u\nbind -a /k1 /n/u\n"
    "bind /k0/none /n/none\n"
    "bind /n/u/only /n/guessed\n"
    "bind /k1/d /k0/in/side\n"
)
NAMES = ("k0", "k1", "n", "b", "u", "none", "guessed", "in", "side", "d", "e", "f", "g", "x", "only", ".", "..")


@asynccontextmanager
async def two(tmp_path: Path, **more: Any) -> AsyncIterator[Lab]:
    second = Memory({"only": {"f": b"second"}, "d": {"f": b"other"}})
    async with lab(tmp_path, a_tree(), second, **more) as found:
        await found.ns.run(TABLE)
        yield found


def asked(found: Lab, host: int = 0) -> dict[str, int]:
    """Return how many requests of each kind a host was asked, by all that are connected to it now."""
    total: dict[str, int] = {}
    for c in found.hosts[host].server.connections:
        for cls in m.MESSAGES:
            row = c.counts.rows[cls.type]
            if row is not None and row.count:
                total[cls.__name__] = total.get(cls.__name__, 0) + row.count
    return total


async def test_a_walk_is_one_twalk_on_the_clients_own_connection(tmp_path: Path) -> None:
    async with lab(tmp_path, a_tree()) as found:
        talk = await found.client(on=None)
        await walk(talk, 0, 5, "k0", "d", "e", "g")
        assert asked(found) == {"Tversion": 1, "Tattach": 1, "Twalk": 1}
        await walk(talk, 0, 6, "k0", "d", "f")
        assert asked(found) == {"Tversion": 1, "Tattach": 1, "Twalk": 2}


async def test_the_general_way_walks_any_depth_in_one_twalk(tmp_path: Path) -> None:
    async with lab(tmp_path, a_tree(), flags="-r") as found:
        talk = await found.client(on=None)
        await walk(talk, 0, 5, "k0", "d", "e", "h", "i")
        assert asked(found) == {"Tversion": 1, "Tattach": 1, "Twalk": 1}
        assert not found.crossings


@pytest.mark.parametrize("breaks", [False, True])
async def test_a_new_clients_connection_attach_and_first_walk_go_out_together(tmp_path: Path, breaks: bool) -> None:
    """To a server that is known to keep order; one that has lost that (`breaks`) is asked one by one."""
    together: list[list[str]] = []

    async def server(stream: trio.SocketStream) -> None:
        requests = Frames(stream)
        first = [await requests.next()]
        if together and not (breaks and len(together) > 1):
            first += [await requests.next(), await requests.next()]
        together.append([type(q).__name__ for q in first])
        if breaks and len(together) == 2:
            await stream.aclose()
            return
        for q in first:
            await stream.send_all(plain(q))
        while True:
            await stream.send_all(plain(await requests.next()))

    async with beside(tmp_path, server) as found:
        for _ in range(2):
            talk = await found.client(on=None)
            await walk(talk, 0, 5, "k1", "aaa")
    at_once = ["Tversion", "Tattach", "Twalk"]
    assert together == [["Tversion"], at_once, *([["Tversion"]] if breaks else [])]


def plain(q: Any) -> bytes:
    """Answer as a server of one file for each name would, whose root is mk9p's."""
    if isinstance(q, m.Tversion):
        return pack(m.Rversion, q.tag, q.msize, q.version)
    if isinstance(q, m.Tattach):
        return pack(m.Rattach, q.tag, Qid(0x80, 0, qids.ROOT))
    if isinstance(q, m.Twalk):
        paths = [qids.ROOT if name == ".." else len(name) for name in q.names]
        return pack(m.Rwalk, q.tag, [Qid(0x80, 0, path) for path in paths])
    return pack(m.Rclunk, q.tag)


async def _said(talk: Talk, fid: int, names: tuple[str, ...]) -> Any:
    """Return what a walk says: the qids, or the errno; and what is there then."""
    reply = await talk.rpc(m.Twalk, 1, fid, 9, names)
    if isinstance(reply, m.Rlerror):
        return reply.ecode
    if len(reply.qids) < len(names):
        return reply.qids
    stat = await talk.rpc(m.Tgetattr, 1, 9, 0x7FF)
    await talk.rpc(m.Tclunk, 1, 9)
    return reply.qids, getattr(stat, "qid", stat)


async def says_as_name_by_name(talk: Talk, names: tuple[str, ...]) -> None:
    """Assert that a walk says the same as it crosses, as it crosses again, and as its names are walked one by one, each from a fid of its own."""
    said = await _said(talk, 0, names)
    assert await _said(talk, 0, names) == said, names
    step, told = 0, list[Qid]()
    for name in names:
        reply = await talk.rpc(m.Twalk, 1, step, 20 + len(told), (name,))
        if isinstance(reply, m.Rlerror):
            break
        step = 20 + len(told)
        told += reply.qids
    if len(told) == len(names):
        assert said[0] == tuple(told), names
    else:
        assert said == (tuple(told) if told else reply.ecode), names
    for fid in range(20, 20 + len(told)):
        await talk.rpc(m.Tclunk, 1, fid)


@pytest.mark.parametrize("seed", range(4))
async def test_what_a_walk_says_is_what_walking_name_by_name_says(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    async with two(tmp_path) as found:
        talk = await found.client(on=None)
        for _ in range(150):
            names = tuple(random.choice(NAMES) for _ in range(random.randint(1, 6)))
            await says_as_name_by_name(talk, names)


@pytest.mark.parametrize(
    ("names", "data"),
    [
        (("k0", "d", "f"), b"0123456789"),
        (("n", "b", "f"), b"0123456789"),
        (("n", "u", "f"), b"0123456789"),
        (("n", "u", "only", "f"), b"second"),
        (("n", "guessed", "f"), b"second"),
        (("k0", "in", "side", "f"), b"other"),
    ],
)
@pytest.mark.parametrize("times", [1, 3])
async def test_what_follows_a_walk_in_one_go_comes_to_its_file(
    tmp_path: Path, names: tuple[str, ...], data: bytes, times: int
) -> None:
    async with two(tmp_path) as found:
        talk = await found.client(on=None)
        for _ in range(times):
            await talk.raw(
                pack(m.Twalk, 1, 0, 5, names)
                + pack(m.Tlopen, 2, 5, 0)
                + pack(m.Tread, 3, 5, 0, 99)
                + pack(m.Tclunk, 4, 5)
            )
            got = await replies(talk, 4)
            assert not [reply for reply in got.values() if isinstance(reply, m.Rlerror)]
            assert bytes(got[3].data) == data
        assert found.front.connections


async def test_a_walk_in_a_union_that_is_flushed_lets_go_what_waits_for_it(tmp_path: Path) -> None:
    async with two(tmp_path) as found:
        talk = await found.client(on=None)
        await walk(talk, 0, 5, "n", "u", "f")
        await talk.raw(pack(m.Twalk, 1, 0, 6, ("n", "u", "e", "g")) + pack(m.Tlopen, 2, 6, 0) + pack(m.Tflush, 3, 1))
        got = await replies(talk, 2)
        while not {2, 3} <= got.keys():
            got |= await replies(talk, 1)
        assert isinstance(got[3], m.Rflush)


async def test_a_mount_that_changes_is_another_for_the_next_walk(tmp_path: Path) -> None:
    async with two(tmp_path) as found:
        talk = await found.client(on=None)
        assert await cat(talk, "k0", "d", "f", fid=0) == b"0123456789"
        assert await cat(talk, "k0", "d", "f", fid=0) == b"0123456789"
        await found.ns.run(f"mount {found.hosts[1].address} /k0\n")
        assert await cat(talk, "k0", "d", "f", fid=0) == b"other"
        found.ns.unmount("/k0")
        reply = await talk.rpc(m.Twalk, 1, 0, 7, ("k0", "d", "f"))
        assert len(reply.qids) < 3


async def test_who_may_not_search_a_mounted_root_walks_no_further(tmp_path: Path) -> None:
    closed = a_tree()
    closed.mode = 0o40700
    async with lab(tmp_path, closed) as found:
        talk = await found.client(on=None, uname="nobody")
        for _ in range(2):
            reply = await talk.rpc(m.Twalk, 1, 0, 5, ("k0", "d", "f"))
            assert len(reply.qids) == 1
            assert await fails(talk, m.Tgetattr, 5, 0x7FF) == errno.EBADF


@pytest.mark.parametrize("up", ["refused", "elsewhere"])
async def test_a_server_whose_root_has_a_parent_is_walked_name_by_name(tmp_path: Path, up: str) -> None:
    """It refuses `..` of its root, or leads out of what is mounted: what it says then is not believed."""

    def answer(q: Any) -> bytes:
        if isinstance(q, m.Tversion):
            return pack(m.Rversion, q.tag, q.msize, q.version)
        if isinstance(q, m.Tattach):
            return pack(m.Rattach, q.tag, Qid(0x80, 0, 1))
        if isinstance(q, m.Twalk) and up == "refused" and ".." in q.names:
            return pack(m.Rlerror, q.tag, errno.EINVAL)
        if isinstance(q, m.Twalk):
            return pack(m.Rwalk, q.tag, [Qid(0x80, 0, 99 if name == ".." else len(name)) for name in q.names])
        if isinstance(q, m.Tgetattr):
            return pack(m.Rgetattr, q.tag, 0x7FF, Qid(0x80, 7, 1), 0o40755, 0, 0, 1, 0, 0, 4096, *[0] * 11)
        return pack(m.Rclunk, q.tag)

    walked: list[tuple[str, ...]] = []

    async def parent(stream: trio.SocketStream) -> None:
        requests = Frames(stream)
        while True:
            q = await requests.next()
            if isinstance(q, m.Twalk):
                walked.append(q.names)
            await stream.send_all(answer(q))

    rogue: Rogue = parent
    async with beside(tmp_path, rogue) as found:
        talk = await found.client(on=None)
        for _ in range(2):
            reply = await walk(talk, 0, 5, "k1", "aaa")
            assert reply.qids[0].version == 7
            assert isinstance(await talk.rpc(m.Tclunk, 1, 5), m.Rclunk)
        assert sum(".." in names for names in walked) <= 2, "it is asked for that again and again"
