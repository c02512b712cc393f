"""What a server behind the relay may say: what answers nothing, is too much, or is no error, ends the way to that server alone."""

import errno
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

from mk9p.testing import odd
from mk9p.testing.replies import CONTENT, Replies
from mk9p.wire import QTDIR, Qid, pack_dirents, unpack_dirents
from mk9p.wire import messages as m
from tests.server.relaying import Lab, a_tree, fails, lab, opened, pack, replies, walk

Says = Callable[[Any, bytes], bytes]
ODD, FID = 50, 51  # fids of the mount point, and of a file below


@attrs.define
class Rule:
    """The replies of a good server, but for requests of one kind, as long as there is a rule for them."""

    cls: type[m.Message] | None = None
    says: Says = lambda request, reply: reply


@asynccontextmanager
async def behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Lab, Any, Rule]]:
    """Give a client of a composer, whose fid ODD is on the relay to a server that keeps a rule, and the good one's is 1."""
    rule = Rule()

    class Ruled(Replies):
        def _reply(self, request: Any) -> bytes:
            right = super()._reply(request)
            return rule.says(request, right) if rule.cls is type(request) else right

    monkeypatch.setattr(sys.modules["mk9p.testing.odd"], "Replies", Ruled)
    async with odd(f"unix!{tmp_path}/odd", 1, often=0) as server, lab(tmp_path, a_tree()) as found:
        await found.ns.run(f"mount -c {server.address} /odd\n")
        talk = await found.client()
        await walk(talk, 0, ODD, "odd")
        await walk(talk, ODD, FID, "d1")
        yield found, talk, rule


async def the_neighbour_is_there(talk: Any) -> None:
    await walk(talk, 1, 77, "d", "f")
    assert isinstance(await talk.rpc(m.Tclunk, 1, 77), m.Rclunk)


def frame(cls: type[m.Message], request: Any, *fields: Any) -> bytes:
    return pack(cls, request.tag, *fields)


TOO_MUCH: dict[str, tuple[type[m.Message], tuple[Any, ...], Says]] = {
    "read": (m.Tread, (0, 10), lambda q, _: frame(m.Rread, q, b"x" * 11)),
    "read, untruly": (m.Tread, (0, 10), lambda q, _: frame(m.Rread, q, b"x" * 9).replace(b"\t\0\0\0x", b"\x0b\0\0\0x")),
    "read, of nothing": (m.Tread, (0, 0), lambda q, _: frame(m.Rread, q, b"x")),
    "read, cut": (m.Tread, (0, 10), lambda q, _: b"\x09\0\0\0" + frame(m.Rread, q, b"")[4:9]),
    "write": (m.Twrite, (0, b"abc"), lambda q, _: frame(m.Rwrite, q, 4)),
    "write, all ones": (m.Twrite, (0, b"abc"), lambda q, _: frame(m.Rwrite, q, 0xFFFFFFFF)),
    "listing": (m.Treaddir, (0, 100), lambda q, _: frame(m.Rreaddir, q, b"\0" * 101)),
    "listing, cut": (
        m.Treaddir,
        (0, 100),
        lambda q, _: frame(m.Rreaddir, q, pack_dirents([(Qid(0, 0, 1), 1, 8, "abc")])[:-1]),
    ),
    "error, cut": (m.Tread, (0, 10), lambda q, _: b"\x09\0\0\0" + frame(m.Rlerror, q, 5)[4:9]),
    "another's type": (m.Tread, (0, 10), lambda q, _: frame(m.Rwrite, q, 4)),
    "another's tag": (m.Tread, (0, 10), lambda q, _: pack(m.Rread, q.tag + 1, b"x")),
    "a frame above msize": (m.Tread, (0, 10), lambda q, _: (1 << 20).to_bytes(4, "little") + b"x" * 10),
    "status, cut": (m.Tgetattr, (0x7FF,), lambda q, right: b"\x10\0\0\0" + right[4:16]),
}


@pytest.mark.parametrize("name", TOO_MUCH)
async def test_an_answer_that_none_is_ends_the_way_to_its_server_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls, fields, says = TOO_MUCH[name]
    async with behind(tmp_path, monkeypatch) as (_, talk, rule):
        rule.cls, rule.says = cls, says
        assert await fails(talk, cls, FID, *fields) == errno.EIO
        await the_neighbour_is_there(talk)
        rule.cls = None
        await opened(talk, FID + 1, "f1", fid=ODD)  # the general way, or a new one
        reply = await talk.rpc(m.Tread, 1, FID + 1, 0, 20)
        assert bytes(reply.data) == CONTENT[:20]


async def test_what_was_asked_for_passes_whatever_was_asked_for_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts are of each request, not of those that came with it."""
    counts = [0, 10, 10, 3000, 1, 0, 4096]
    async with behind(tmp_path, monkeypatch) as (found, talk, _):
        await opened(talk, FID + 1, "f1", fid=ODD)
        await talk.raw(b"".join(pack(m.Tread, tag, FID + 1, 0, count) for tag, count in enumerate(counts)))
        for count in counts:
            assert bytes((await talk.receive()).data) == CONTENT[:count]
        assert found.crossings


@pytest.mark.parametrize(("number", "told"), [(0, 5), (1, 1), (2, 2), (4095, 4095), (4096, 5), (0xFFFFFFFF, 5)])
@pytest.mark.parametrize("cls", [m.Tgetattr, m.Twalk, m.Tlopen])
async def test_an_error_that_is_none_is_told_as_eio(
    cls: type[m.Message], number: int, told: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {m.Tgetattr: (FID, 0x7FF), m.Twalk: (FID, 60, ("d1",)), m.Tlopen: (FID, 0)}[cls]
    async with behind(tmp_path, monkeypatch) as (found, talk, rule):
        rule.cls, rule.says = cls, lambda q, _: frame(m.Rlerror, q, number)
        assert await fails(talk, cls, *fields) == told
        rule.cls = None
        assert isinstance(await talk.rpc(m.Tgetattr, 1, FID, 0x7FF), m.Rgetattr)
        (c,) = found.crossings
        assert FID in c.relays, "the way is still there"


async def test_a_walk_that_is_answered_with_more_qids_than_names_ends_that_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with behind(tmp_path, monkeypatch) as (_, talk, rule):
        rule.cls, rule.says = m.Twalk, lambda q, _: frame(m.Rwalk, q, (Qid(QTDIR, 0, 1),) * (len(q.names) + 1))
        assert await fails(talk, m.Twalk, FID, 60, ("d1",)) == errno.EIO
        await the_neighbour_is_there(talk)


async def test_a_reply_that_comes_twice_ends_that_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with behind(tmp_path, monkeypatch) as (found, talk, rule):
        (c,) = found.crossings
        (b,) = [b for b in c.backends.values() if "odd" in b.way.address]
        rule.cls, rule.says = m.Tgetattr, lambda q, right: 2 * right
        assert isinstance(await talk.rpc(m.Tgetattr, 1, FID, 0x7FF), m.Rgetattr)
        while not b.dead:
            await the_neighbour_is_there(talk)


def walked_to(qid: Qid, q: Any, _: bytes) -> bytes:
    return frame(m.Rwalk, q, (qid,) * len(q.names))


def listing(qid: Qid, q: Any, _: bytes) -> bytes:
    return frame(m.Rreaddir, q, pack_dirents([(qid, 1, 4, "d2")]))


async def test_a_server_cannot_give_its_files_the_paths_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it chooses its numbers, in walks, status and listings: not the path of a place of ours, and it can't know which it will be."""
    async with behind(tmp_path, monkeypatch) as (found, talk, rule):
        top = (await talk.rpc(m.Tgetattr, 1, 0, 0x7FF)).qid.path
        victim = (await walk(talk, 1, 78, "d", "f")).qids[-1].path
        seen = set()
        for wish in (1, top, victim, top ^ victim, (1 << 64) - 1):
            rule.cls, rule.says = m.Twalk, partial(walked_to, Qid(QTDIR, 0, wish))
            (got,) = (await walk(talk, FID, 61, "d2")).qids
            rule.cls, rule.says = m.Treaddir, partial(listing, Qid(QTDIR, 0, wish))
            (entry,) = unpack_dirents((await talk.rpc(m.Treaddir, 1, FID, 0, 1000)).data)
            assert entry[0] == got, "one file, whichever way it is told of"
            assert got.path not in (wish, top, victim, 1)
            assert got.path < 1 << 63 <= top, "places are where no server's files are"
            seen.add(got.path)
            assert isinstance(await talk.rpc(m.Tclunk, 1, 61), m.Rclunk)
        assert len(seen) == 5
        assert found.crossings


@pytest.mark.parametrize("name", ["", "a/b", "../x", "x\0y", "x" * 300])
async def test_a_listing_has_no_names_that_no_file_can_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Linux's v9fs would say EIO for them, and list nothing else of the directory."""
    names = ("d1", name, "f\udcff", name, ".", "..", "x" * 255)

    def says(names: tuple[str, ...], q: Any, _: bytes) -> bytes:
        return frame(m.Rreaddir, q, pack_dirents([(Qid(0, 0, at), at, 8, each) for at, each in enumerate(names, 1)]))

    async with behind(tmp_path, monkeypatch) as (_, talk, rule):
        rule.cls, rule.says = m.Treaddir, partial(says, names)
        good = [(at, each) for at, each in enumerate(names, 1) if each != name]
        # in one go: what is before a reply that becomes shorter stays before it
        await talk.raw(
            pack(m.Tgetattr, 5, FID, 0x7FF)
            + pack(m.Treaddir, 6, FID, 0, 2000)
            + pack(m.Treaddir, 7, FID, 0, 2000)
            + pack(m.Tgetattr, 8, FID, 0x7FF)
        )
        got = await replies(talk, 4)
        assert got[5].qid == got[8].qid
        for tag in (6, 7):
            assert [(offset, each) for _, offset, _, each in unpack_dirents(got[tag].data)] == good
        rule.says = partial(says, (name, name))
        (entry,) = unpack_dirents((await talk.rpc(m.Treaddir, 1, FID, 0, 1000)).data)
        assert entry[1:] == (2, 4, "."), "none would be the end of the directory"
        await the_neighbour_is_there(talk)
