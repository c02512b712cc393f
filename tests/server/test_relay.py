"""The fast way to another server: that it is taken, and what becomes of fids on it."""

import errno
import itertools
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from mk9p.auth import Policy
from mk9p.client import connect as client
from mk9p.server.hops import ROOT
from mk9p.testing import Memory, address_of
from mk9p.wire import NOFID, NONUNAME, Dialect, unpack_dirents
from mk9p.wire import messages as m
from tests.server.relaying import ON, Lab, a_tree, cat, fails, lab, only, opened, pack, read, replies, walk, with_client
from tests.server.talk import talk_to
from tests.servers.trees import names


async def the_only(found: Lab) -> Any:
    (c,) = found.front.connections
    return c


async def test_the_fast_way_is_taken(tmp_path: Path) -> None:
    async with with_client(tmp_path, a_tree()) as (found, talk):
        await opened(talk, 5, "d", "f")
        c = await the_only(found)
        assert set(c.relays) == {ON, 5}
        assert set(c.session.fids) == {0, ON}
        assert c.relays[5].names == ("d", "f")
        assert c.relays[5].opened
        assert await read(talk, 5) == b"0123456789"
        assert len(found.hosts[0].server.connections) == 2  # the general way's, and this client's own
        for fid in (5, ON):
            assert isinstance(await talk.rpc(m.Tclunk, 1, fid), m.Rclunk)
        assert not c.relays
        assert set(c.session.fids) == {0}
        (own,) = (b for b in found.hosts[0].server.connections if ROOT in b.session.fids)
        assert set(own.session.fids) == {ROOT}


async def test_servers_that_cannot_be_dialled_again_go_the_general_way(tmp_path: Path) -> None:
    async with with_client(tmp_path, a_tree(), fast=False) as (found, talk):
        assert await cat(talk, "d", "f") == b"0123456789"
        assert not found.crossings


@pytest.mark.parametrize("dialect", [Dialect.P9, Dialect.U])
async def test_other_dialects_go_the_general_way(tmp_path: Path, dialect: Dialect) -> None:
    async with lab(tmp_path, a_tree()) as found:
        talk = await found.client(dialect=dialect)
        await walk(talk, ON, 5, "d", "f")
        assert not found.crossings


async def test_an_msize_that_the_server_does_not_take_goes_the_general_way(tmp_path: Path) -> None:
    async with lab(tmp_path, a_tree(), msize=8192) as found:
        talk = await found.client(msize=65536)
        assert await cat(talk, "d", "f") == b"0123456789"
        assert await cat(talk, "x") == b"on top"
        c = await the_only(found)
        assert not c.relays
        assert len(c.backends) == 1  # it was tried once, and not for each walk
        assert await cat(await found.client(msize=8192), "d", "f") == b"0123456789"
        assert found.crossings


@pytest.mark.parametrize("readonly", ["mount", "listener"])
async def test_what_is_read_only_goes_the_general_way(tmp_path: Path, readonly: str) -> None:
    mount = readonly == "mount"
    async with lab(tmp_path, a_tree(), flags="-r" if mount else "-c") as found:
        talk = await found.client(policy=Policy(readonly=not mount))
        assert await cat(talk, "d", "f") == b"0123456789"
        await walk(talk, ON, 5, "d")
        await walk(talk, ON, 6, "d", "f")
        assert await fails(talk, m.Tmkdir, 5, "n", 0o755, 0) == errno.EROFS
        assert await fails(talk, m.Tunlinkat, 5, "f", 0) == errno.EROFS
        assert await fails(talk, m.Tlopen, 6, 1) == errno.EROFS
        assert not found.crossings


async def test_creation_at_a_mount_point_is_the_mount_tables_to_allow(tmp_path: Path) -> None:
    async with with_client(tmp_path, a_tree(), flags="") as (found, talk):
        assert await fails(talk, m.Tmkdir, ON, "n", 0o755, 0) == errno.EPERM
        await walk(talk, ON, 5, "d")
        assert isinstance(await talk.rpc(m.Tmkdir, 1, 5, "n", 0o755, 0), m.Rmkdir)
        await found.ns.run(f"mount -c {found.hosts[0].address} /k0\n")
        assert isinstance(await talk.rpc(m.Tmkdir, 1, ON, "n", 0o755, 0), m.Rmkdir)
        await walk(talk, ON, 6, "n")


async def test_mounts_below_a_crossing_are_seen_by_new_walks(tmp_path: Path) -> None:
    async with with_client(tmp_path, a_tree(), a_tree()) as (found, talk):
        await walk(talk, ON, 5, "d")
        await found.ns.run(f"mount {found.hosts[1].address} /elsewhere\n")
        await walk(talk, ON, 6, "d")  # the table changed, but not here
        c = await the_only(found)
        await walk(talk, ON, 7, "d")
        assert {5, 6, 7} <= set(c.relays)
        await found.ns.run(f"mount {found.hosts[1].address} /k0/d/e\n")
        assert await cat(talk, "d", "e", "x") == b"on top"
        assert await cat(talk, "e", "g", fid=5) == b"g's"  # who was there already does not see it
        await found.ns.run("unmount /k0\n")
        await walk(talk, 5, 10, "f")  # who is there stays there
        assert len((await talk.rpc(m.Twalk, 1, 0, 11, ("k0", "x"))).qids) == 1


async def test_all_of_a_file_in_one_go(tmp_path: Path) -> None:
    async with lab(tmp_path, a_tree()) as found:
        talk = await talk_to(found.front)
        frames: list[Any] = [
            (m.Twalk, 0, 5, ("k0", "d", "f")),
            (m.Tlopen, 5, 0),
            (m.Tread, 5, 0, 100),
            (m.Tgetattr, 5, 0x7FF),
            (m.Tclunk, 5),
        ]
        for _ in range(3):  # the first time the fid is on its way when it is used
            await talk.raw(b"".join(pack(cls, tag, *fields) for tag, (cls, *fields) in enumerate(frames)))
            got = await replies(talk, len(frames))
            assert [type(got[tag]).__name__ for tag in range(5)] == ["Rwalk", "Rlopen", "Rread", "Rgetattr", "Rclunk"]
            assert bytes(got[2].data) == b"0123456789"


async def test_failing_walks_in_one_go_leave_no_fid(tmp_path: Path) -> None:
    async with with_client(tmp_path, a_tree()) as (found, talk):
        frames: list[Any] = [
            (m.Twalk, ON, 5, ("d", "none", "f")),  # goes one name far
            (m.Tlopen, 5, 0),
            (m.Tclunk, 5),
            (m.Twalk, ON, 5, ("none",)),
            (m.Tread, 5, 0, 1),
            (m.Tremove, 5),
            (m.Twalk, ON, 5, ("d", "f")),  # the number is another fid's before the failures are known
            (m.Tlopen, 5, 0),
            (m.Tread, 5, 3, 4),
        ]
        for round_ in range(3):
            await talk.raw(b"".join(pack(cls, tag, *fields) for tag, (cls, *fields) in enumerate(frames)))
            got = await replies(talk, len(frames))
            kinds = [type(got[tag]).__name__[1:] for tag in range(len(frames))]
            assert kinds == ["walk", "lerror", "lerror", "lerror", "lerror", "lerror", "walk", "lopen", "read"], round_
            assert len(got[0].qids) == 1
            assert got[3].ecode == errno.ENOENT
            assert {got[tag].ecode for tag in (1, 2, 4, 5)} == {errno.EBADF}
            assert bytes(got[8].data) == b"3456"
            assert await read(talk, 5) == b"0123456789"
            assert isinstance(await talk.rpc(m.Tclunk, 1, 5), m.Rclunk)
        assert set((await the_only(found)).relays) == {ON}


async def test_walks_in_place(tmp_path: Path) -> None:
    async with with_client(tmp_path, a_tree()) as (found, talk):
        c = await the_only(found)
        await walk(talk, ON, 5, "d")
        await walk(talk, 5, 5, "e")
        assert await fails(talk, m.Twalk, 5, 5, ("none",)) == errno.ENOENT
        assert len((await talk.rpc(m.Twalk, 1, 5, 5, ("h", "none"))).qids) == 1
        await walk(talk, 5, 5)
        assert c.relays[5].names == ("d", "e")
        # one that fails, one from where that seemed to lead, and one after it
        await talk.raw(
            b"".join(pack(m.Twalk, tag, 5, 5, names) for tag, names in enumerate([("no", "no"), ("h",), ("i",)]))
        )
        got = await replies(talk, 3)
        assert [type(got[tag]) for tag in range(3)] == [m.Rlerror, m.Rwalk, m.Rwalk]
        assert c.relays[5].names == ("d", "e", "h", "i")
        assert await cat(talk, fid=5) == b"deep"
        # a failing one whose fid is clunked and used anew before that is known
        await talk.raw(pack(m.Twalk, 1, 5, 5, ("none",)) + pack(m.Tclunk, 2, 5) + pack(m.Twalk, 3, ON, 5, ("x",)))
        assert len(await replies(talk, 3)) == 3
        assert c.relays[5].names == ("x",)
        assert await cat(talk, fid=5) == b"on top"
        await talk.raw(pack(m.Twalk, 1, 5, 5, ("none",)) + pack(m.Tclunk, 2, 5))
        assert len(await replies(talk, 2)) == 2
        await walk(talk, ON, 5, "d")


async def test_a_crossing_walked_in_place_is_where_it_went(tmp_path: Path) -> None:
    async with with_client(tmp_path, a_tree()) as (found, talk):
        await walk(talk, ON, ON, "d")
        assert await cat(talk, "f") == b"0123456789"
        await walk(talk, ON, ON, "..")
        assert await cat(talk, "x") == b"on top"
        await walk(talk, ON, ON, "..")
        await walk(talk, ON, 5, "k0", "x")
        await walk(talk, ON, ON, "k0")
        await walk(talk, ON, ON, "d", "e")
        assert await cat(talk, "g") == b"g's"
        assert set((await the_only(found)).relays) >= {ON}


async def test_clones(tmp_path: Path) -> None:
    async with with_client(tmp_path, a_tree()) as (_, talk):
        await walk(talk, ON, 5)
        assert await cat(talk, "x", fid=5) == b"on top"
        await walk(talk, ON, 6, "d")
        await walk(talk, 6, 7)
        await opened(talk, 8, fid=6)
        assert isinstance(await talk.rpc(m.Tclunk, 1, 6), m.Rclunk)
        assert await cat(talk, "f", fid=7) == b"0123456789"
        assert len((await talk.rpc(m.Treaddir, 1, 8, 0, 4096)).data) > 24


async def test_up_again(tmp_path: Path) -> None:
    async with with_client(tmp_path, a_tree()) as (found, talk):
        c = await the_only(found)
        await walk(talk, ON, 5, "d", "e")
        for _ in range(3):  # the number is free on both sides each time
            await walk(talk, 5, 6, "..", "f")
            assert await cat(talk, fid=6) == b"0123456789"
            assert isinstance(await talk.rpc(m.Tclunk, 1, 6), m.Rclunk)
            assert 5 in c.relays
            await walk(talk, 5, 6, "..", "..", "..", "k0", "x")
            assert await cat(talk, fid=6) == b"on top"
            assert isinstance(await talk.rpc(m.Tclunk, 1, 6), m.Rclunk)
        await walk(talk, 5, 5, "..")
        assert 5 in c.relays
        assert await cat(talk, "f", fid=5) == b"0123456789"
        await walk(talk, 5, 5, "..", "..")  # the namespace itself
        assert 5 not in c.relays
        assert await cat(talk, "k0", "x", fid=5) == b"on top"
        assert isinstance(await talk.rpc(m.Tclunk, 1, 5), m.Rclunk)
        await walk(talk, ON, 5, "d")
        # an open directory stays open while it is walked from
        await opened(talk, 7, "d")
        await walk(talk, 7, 8, "..")
        assert await fails(talk, m.Twalk, 7, 7, ("..",)) == errno.EBADF
        assert isinstance(await talk.rpc(m.Treaddir, 1, 7, 0, 4096), m.Rreaddir)
        # one just created is where it was created
        await walk(talk, ON, 9, "d")
        assert isinstance(await talk.rpc(m.Tlcreate, 1, 9, "new", 2, 0o644, 0), m.Rlcreate)
        assert c.relays[9].names == ("d", "new")
        assert await fails(talk, m.Twalk, 9, 10, ("..",)) == errno.ENOTDIR


async def test_fids_and_tags_in_use(tmp_path: Path) -> None:
    async with with_client(tmp_path, a_tree()) as (found, talk):
        await walk(talk, ON, 5, "d")
        await walk(talk, 0, 6)
        for used in (0, ON, 5):
            for fid, names in ((5, ("f",)), (5, ("..",)), (5, ()), (6, ("k0",)), (6, ())):
                assert fid == used or await fails(talk, m.Twalk, fid, used, names) == errno.EEXIST
            assert await fails(talk, m.Txattrwalk, 5, used, "") == errno.EEXIST
            assert await fails(talk, m.Tattach, used, NOFID, "root", "", NONUNAME) == errno.EEXIST
        assert await fails(talk, m.Tauth, 5, "root", "", NONUNAME) == errno.ENOENT
        assert await fails(talk, m.Twalk, 5, NOFID, ("f",)) == errno.EBADF
        assert await cat(talk, "f", fid=5) == b"0123456789"
        c = await the_only(found)
        (b,) = c.backends.values()
        assert not b.asked


async def test_two_fids(tmp_path: Path) -> None:
    async with with_client(tmp_path, a_tree(), a_tree()) as (found, talk):
        await walk(talk, 0, 2, "k1", "d")
        await walk(talk, ON, 5, "d")
        await walk(talk, 5, 6, "e")
        await walk(talk, 5, 7, "f")
        assert isinstance(await talk.rpc(m.Trenameat, 1, 5, "f", 6, "f2"), m.Rrenameat)
        assert isinstance(await talk.rpc(m.Tlink, 1, 5, 7, "f3"), m.Rlink)
        assert await cat(talk, "f3", fid=5) == b"0123456789"
        for cls, *fields in (
            (m.Trenameat, 5, "f3", 2, "f"),
            (m.Trenameat, 2, "f", 5, "f"),
            (m.Tlink, 2, 7, "l"),
            (m.Trename, 7, 2, "r"),
            (m.Trenameat, 5, "f3", 0, "f"),
        ):
            assert await fails(talk, cls, *fields) == errno.EXDEV, cls
        # from the mount point, which is ours too, into the tree
        await walk(talk, 5, 8, "f3")
        for cls, *fields in ((m.Trenameat, ON, "x", 5, "x2"), (m.Tlink, ON, 8, "l")):
            reply = await talk.rpc(cls, 1, *fields)
            assert reply.type == cls.type + 1, reply
        assert await cat(talk, "d", "x2") == b"on top"
        assert await cat(talk, "l") == b"0123456789"
        # and back
        for cls, *fields in ((m.Trenameat, 5, "x2", ON, "x3"), (m.Trename, 8, ON, "x4")):
            reply = await talk.rpc(cls, 1, *fields)
            assert reply.type == cls.type + 1, reply
        assert await cat(talk, "x3") == b"on top"
        assert await cat(talk, "x4") == b"0123456789"
        c = await the_only(found)
        assert {5, 6, 7, 8} <= set(c.relays)
        assert not {5, 6, 7, 8} & set(c.session.fids)
        assert await fails(talk, m.Tlink, 5, 4711, "l") == errno.EBADF
        assert await fails(talk, m.Trenameat, 4711, "a", 5, "l") == errno.EBADF


async def test_a_renamed_file_is_walked_up_from_where_it_is(tmp_path: Path) -> None:
    async with with_client(tmp_path, a_tree()) as (found, talk):
        await walk(talk, ON, 5, "d", "f")
        await walk(talk, ON, 6, "d", "e", "h")
        reply = await talk.rpc(m.Trename, 1, 5, 6, "moved")
        assert isinstance(reply, m.Rrename)
        assert (await the_only(found)).relays[5].names == ("d", "e", "h", "moved")


async def test_remove_takes_the_fid_whatever_comes_of_it(tmp_path: Path) -> None:
    async with with_client(tmp_path, a_tree()) as (_, talk):
        for name, error in (("d", errno.ENOTEMPTY), ("x", 0)):
            await walk(talk, ON, 5, name)
            reply = await talk.rpc(m.Tremove, 1, 5)
            assert getattr(reply, "ecode", 0) == error
            assert await fails(talk, m.Tgetattr, 5, 0x7FF) == errno.EBADF


async def test_extended_attributes(tmp_path: Path) -> None:
    tree = a_tree()
    tree.at("d/f").attributes["user.a"] = b"value"
    async with with_client(tmp_path, tree) as (found, talk):
        await walk(talk, ON, 5, "d", "f")
        c = await the_only(found)
        assert await fails(talk, m.Txattrwalk, 5, 6, "user.none") == errno.ENODATA
        assert set(c.relays) == {ON, 5}
        for name, value in (("user.a", b"value"), ("", b"user.a\0")):
            assert (await talk.rpc(m.Txattrwalk, 1, 5, 6, name)).size == len(value)
            assert await read(talk, 6) == value
            assert isinstance(await talk.rpc(m.Tclunk, 1, 6), m.Rclunk)
        await walk(talk, 5, 6)
        await talk.rpc(m.Txattrcreate, 1, 6, "user.b", 2, 0)
        assert (await talk.rpc(m.Twrite, 1, 6, 0, b"bb")).count == 2
        assert tree.at("d/f").attributes["user.b"] == b"bb"


async def test_permission_is_each_users_own(tmp_path: Path) -> None:
    tree = a_tree()
    tree.children["secret"] = Memory("his", mode=0o600, uid=1234)
    tree.children["box"] = Memory({"in": "in"}, mode=0o700, uid=1234)
    async with lab(tmp_path, tree) as found:
        talk = await talk_to(found.front)
        for fid, uid in ((10, 1234), (20, 1235)):
            assert isinstance(await talk.rpc(m.Tattach, 1, fid, NOFID, "", "", uid), m.Rattach)
            await walk(talk, fid, fid + 1, "k0")
            await walk(talk, fid + 1, fid + 2, "secret")
        assert isinstance(await talk.rpc(m.Tlopen, 1, 12, 2), m.Rlopen)
        assert await fails(talk, m.Tlopen, 22, 0) == errno.EACCES
        assert await cat(talk, "box", "in", fid=11) == b"in"
        reply = await talk.rpc(m.Twalk, 1, 21, 30, ("box", "in"))
        assert len(reply.qids) == 1
        assert await fails(talk, m.Tgetattr, 30, 0x7FF) == errno.EBADF
        c = await the_only(found)
        assert {b.who.uid for b in c.backends.values()} == {1234, 1235}
        assert {11, 12, 21, 22} <= set(c.relays)


async def test_exclusive_use_is_exclusive_between_clients(tmp_path: Path) -> None:
    tree = a_tree()
    tree.at("x").exclusive = True
    async with lab(tmp_path, tree) as found:
        first, second = await found.client(), await found.client()
        await opened(first, 5, "x")
        await walk(second, ON, 5, "x")
        assert await fails(second, m.Tlopen, 5, 0) == errno.EBUSY
        await first.rpc(m.Tclunk, 1, 5)
        assert isinstance(await second.rpc(m.Tlopen, 1, 5, 0), m.Rlopen)


async def test_an_attach_in_another_server(tmp_path: Path) -> None:
    async with lab(tmp_path, a_tree()) as found:
        talk = await talk_to(found.front)
        reply = await talk.rpc(m.Tattach, 1, 5, NOFID, "root", "k0/d", NONUNAME)
        assert isinstance(reply, m.Rattach)
        assert await cat(talk, "e", "g", fid=5) == b"g's"
        await walk(talk, 5, 6, "..", "..", "f")
        assert await cat(talk, fid=6) == b"0123456789"
        assert 5 in (await the_only(found)).relays


async def test_names_that_are_not_utf8_and_names_that_no_file_has(tmp_path: Path) -> None:
    async with with_client(tmp_path, a_tree()) as (_, talk):
        await walk(talk, ON, 5, "d")
        whole = bytearray(pack(m.Twalk, 1, 5, 6, ("ab",)))
        for bad in (b"\xff\xfe", b"a/", b"\0\0"):
            whole[-2:] = bad
            await talk.raw(bytes(whole))
            assert isinstance(await talk.receive(), m.Rlerror)
        await talk.raw(len(whole[:-1]).to_bytes(4, "little") + bytes(whole[4:-1]))  # a name cut short
        assert isinstance(await talk.receive(), m.Rlerror)
        assert await fails(talk, m.Twalk, 5, 6, ("",)) in (errno.EINVAL, errno.ENOENT)
        await walk(talk, 5, 6, ".", "f")
        assert isinstance(await talk.rpc(m.Tclunk, 1, 6), m.Rclunk)
        await walk(talk, 5, 6, "f")


async def test_requests_cut_anywhere(tmp_path: Path) -> None:
    async with with_client(tmp_path, a_tree()) as (found, talk):
        whole = (
            pack(m.Twalk, 1, ON, 5, ("d", "f"))
            + pack(m.Tlopen, 2, 5, 2)
            + pack(m.Twrite, 3, 5, 10, b"abcdef")
            + pack(m.Tread, 4, 5, 8, 100)
            + pack(m.Tclunk, 5, 5)
        )
        c = await the_only(found)
        for cut in range(1, len(whole)):
            await talk.raw(whole[:cut])
            await trio.testing.wait_all_tasks_blocked()
            await talk.raw(whole[cut:])
            got = await replies(talk, 5)
            assert bytes(got[4].data) == b"89abcdef"
        assert set(c.relays) == {ON}


async def test_big_messages(tmp_path: Path) -> None:
    async with lab(tmp_path, a_tree()) as found:
        talk = await found.client(msize=1 << 20)
        await opened(talk, 5, "d", "f", flags=2)
        size = (1 << 20) - 24
        data = bytes(itertools.islice(itertools.cycle(range(251)), size))
        for tag in range(2):
            assert (await talk.rpc(m.Twrite, tag, 5, tag * size, data)).count == size
        for tag in range(8):
            await talk.send(m.Tread, tag, 5, tag % 2 * size, size)
        got = await replies(talk, 8)
        assert all(bytes(got[tag].data) == data for tag in range(8))


async def test_many_clients_at_once(tmp_path: Path) -> None:
    async with lab(tmp_path, a_tree(), a_tree()) as found:

        async def use(number: int) -> None:
            talk = await found.client(on=f"k{number % 2}")
            for fid in range(10, 20):
                await opened(talk, fid, "d", "f")
            for tag in range(100):
                await talk.send(m.Tread, tag, 10 + tag % 10, tag % 10, 1)
            got = await replies(talk, 100)
            assert [bytes(got[tag].data) for tag in range(100)] == [b"%d" % (tag % 10) for tag in range(100)]

        async with trio.open_nursery() as nursery:
            for number in range(64):
                nursery.start_soon(use, number)
        assert len(found.crossings) == 64


async def test_requests_to_several_servers_in_one_go(tmp_path: Path) -> None:
    async with with_client(tmp_path, a_tree(), a_tree()) as (_, talk):
        await walk(talk, 0, 2, "k1")
        await opened(talk, 10, "d", "f")
        await opened(talk, 11, "d", "f", fid=2)
        await opened(talk, 12, "x", fid=2)
        whole = b"".join(pack(m.Tread, tag, 10 + tag % 3, tag % 7, 2) for tag in range(30))
        odd = (
            pack(m.Tread, 6, 10, 0, 5),
            pack(m.Tread, 40, 99, 0, 5),
            bytes((11, 0, 0, 0, 250, 41, 0, 10, 0, 0, 0)),
            pack(m.Tgetattr, 42, 0, 1),
        )
        await talk.raw(whole + b"".join(odd) + pack(m.Tread, 43, 11, 0, 3))
        got: dict[int, list[Any]] = {}
        for _ in range(35):
            reply: Any = await talk.receive()
            got.setdefault(reply.tag, []).append(reply)
        for tag in range(30):
            content = b"on top" if tag % 3 == 2 else b"0123456789"
            assert [bytes(r.data) for r in got[tag] if isinstance(r, m.Rread)] == [content[tag % 7 : tag % 7 + 2]]
        errors = {tag: r.ecode for tag, rs in got.items() for r in rs if isinstance(r, m.Rlerror)}
        assert errors == {6: errno.EINVAL, 40: errno.EBADF, 41: errno.EOPNOTSUPP}
        assert isinstance(got[42][0], m.Rgetattr)
        assert bytes(got[43][0].data) == b"012"


async def test_a_frame_too_large_ends_its_conversation_alone(tmp_path: Path) -> None:
    async with lab(tmp_path, a_tree()) as found:
        talk, other = await found.client(msize=8192), await found.client()
        await opened(talk, 5, "d", "f", flags=2)
        await opened(other, 5, "d", "f")
        await talk.raw(pack(m.Tread, 1, 5, 0, 3) + (8193).to_bytes(4, "little") + pack(m.Tread, 2, 5, 0, 3)[4:])
        assert await talk.receive() is None
        assert await read(other, 5) == b"0123456789"


async def test_walks_that_cross_at_once_share_one_connection(tmp_path: Path) -> None:
    async with lab(tmp_path, a_tree()) as found:
        talk = await talk_to(found.front)
        for tag in range(32):
            await talk.send(m.Twalk, tag, 0, 10 + tag, ("k0", "d", "f"))
        got = await replies(talk, 32)
        assert all(isinstance(reply, m.Rwalk) for reply in got.values())
        assert set((await the_only(found)).relays) == set(range(10, 42))
        await only(found.hosts[0], 1)


async def test_a_blocked_request_of_ours_does_not_spoil_what_was_passed_on(tmp_path: Path) -> None:
    async with with_client(tmp_path, a_tree(), a_tree()) as (_, talk):
        await walk(talk, ON, 5, "d", "f")
        await opened(talk, 6, "d", "f", flags=2)
        for fid in (7, 8, 9):
            await talk.raw(
                pack(m.Tgetattr, 1, 5, 0x7FF)
                + pack(m.Twalk, 2, 0, fid, ("k1", "d", "f"))
                + pack(m.Twrite, 3, 6, 0, b"A" * 10)
                + pack(m.Tlopen, 4, fid, 2)
                + pack(m.Tread, 5, 6, 0, 4)
                + pack(m.Twrite, 6, fid, 0, b"Z")
                + pack(m.Tread, 7, fid, 0, 4)
                + pack(m.Tclunk, 8, fid)
            )
            got = await replies(talk, 8)
            assert not [reply for reply in got.values() if isinstance(reply, m.Rlerror)]
            assert bytes(got[7].data) == b"Z123"


async def test_the_python_client_through_it(tmp_path: Path) -> None:
    async with lab(tmp_path, a_tree()) as found, client(address_of(found.front)) as ns:
        assert await names(ns, "k0/d") == ["f", "e"]
        await ns.write("k0/d/f", "new")
        assert await ns.read("k0/d/f") == "new"
        await ns.mkdir("k0/d/n")
        await ns.remove("k0/d/n")
        assert found.crossings


async def test_listings_have_the_paths_that_walks_have(tmp_path: Path) -> None:
    async with with_client(tmp_path, a_tree()) as (_, talk):
        await opened(talk, 5, "d")
        listed = unpack_dirents((await talk.rpc(m.Treaddir, 1, 5, 0, 4096)).data)
        entries = {name: qid.path for qid, _, _, name in listed}
        for fid, name in ((6, "f"), (7, "e")):
            reply = await walk(talk, ON, fid, "d", name)
            got = await talk.rpc(m.Tgetattr, 1, fid, 0x7FF)
            assert reply.qids[-1].path == got.qid.path == entries[name]
