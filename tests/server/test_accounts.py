"""What clients make a server keep is counted, bounded for each user and for all, and back to nothing when it ends."""

import errno
import gc
import os
import resource
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from mk9p.dial import TRANSPORTS, Peer
from mk9p.server import Limits, Server
from mk9p.server.accounts import CONNECTION, FID, SPARE, WAITING
from mk9p.server.limits import SMALL
from mk9p.server.stats import clients
from mk9p.servers.fs import locks
from mk9p.servers.fs import tree as stored
from mk9p.servers.fs.export import KNOWN
from mk9p.tree import Dir, Log, Node, Text
from mk9p.tree.paths import NAME
from mk9p.wire import NOFID, NONUNAME, NOTAG, Dialect, codec
from mk9p.wire import messages as m
from tests.server.odd_tree import Deep, Never, alone
from tests.server.talk import Talk, connect, serving, talk_to, talking

USER = Peer(TRANSPORTS["unix"], "pid 7", uid=1007)
OTHER = Peer(TRANSPORTS["unix"], "pid 8", uid=1008)


def tree(*more: dict[str, Node]) -> Dir:
    log = Log()
    for _ in range(100):
        log.emit("line", "x" * 100)
    return Dir(
        {
            "text": Text("text\n"),
            "big": Text("x" * 50_000),
            "log": log,
            "events": Never(),
            "deep": Deep(),
            "many": Dir({f"{n:04}": Text("") for n in range(1000)}),
        },
        *more,
    )


def held(server: Server) -> int:
    """Return the bytes that are on all accounts, but for what each connection takes by itself, and receives into."""
    return sum(
        account.used - (CONNECTION + c.room if account is c.account else 0)
        for c in server.connections
        for account in {c.account, *c.accounts.values()}
    )


def says(reply: Any, number: int) -> None:
    assert isinstance(reply, m.Rlerror), reply
    assert reply.ecode == number, errno.errorcode[reply.ecode]


async def rpc(talk: Talk, cls: type[m.Message], *fields: Any) -> Any:
    reply = await talk.rpc(cls, 1, *fields)
    assert not isinstance(reply, m.Rlerror | m.Rerror), (cls, reply)
    return reply


# a user's share


async def test_a_users_fids_are_those_of_all_their_connections() -> None:
    async with serving(tree(), Limits(user_fids=5)) as server:
        one, two = await talk_to(server, peer=USER), await talk_to(server, peer=USER)
        for fid in (1, 2, 3):
            await rpc(one, m.Twalk, 0, fid, ())
        says(await one.rpc(m.Twalk, 1, 0, 4, ()), errno.EMFILE)
        says(await two.rpc(m.Twalk, 1, 0, 4, ()), errno.EMFILE)
        other = await talk_to(server, peer=OTHER)
        await rpc(other, m.Twalk, 0, 1, ())
        await rpc(one, m.Tclunk, 3)
        await rpc(two, m.Twalk, 0, 4, ())
        says(await one.rpc(m.Twalk, 1, 0, 5, ()), errno.EMFILE)


async def test_users_of_one_connection_have_each_their_share() -> None:
    """v9fs attaches each user of a mount by name, on one connection that is believed."""
    async with serving(tree(), Limits(user_fids=300)) as server:
        talk = await talk_to(server)
        for fid, n_uname in ((1, 1001), (2, 1002)):
            await rpc(talk, m.Tattach, fid, NOFID, "", "", n_uname)
        for n in range(299):
            await rpc(talk, m.Twalk, 1, 1000 + n, ())
        (c,) = server.connections
        accounts = {account.who.uid: account for account in c.accounts.values()}
        assert {uid: account.fids.used for uid, account in accounts.items()} == {0: 1, 1001: 300, 1002: 1}
        assert accounts[1001].used > 300 * FID > accounts[1002].used
        await rpc(talk, m.Twalk, 2, 5000, ())


async def test_a_users_bytes_are_bounded_and_others_have_their_own() -> None:
    async with serving(tree(), Limits(user_bytes=400_000)) as server:
        one, two, other = connect(server, peer=USER), connect(server, peer=USER), connect(server, peer=OTHER)
        for talk in (one, two, other):
            await talk.start()
        await two.open(1, "big")
        texts = 0
        for fid in range(1, 20):
            if isinstance(await one.open(fid, "big"), m.Rlerror):
                break
            reply = await one.rpc(m.Tread, 1, fid, 0, 1)
            if isinstance(reply, m.Rlerror):
                says(reply, errno.ENOMEM)
                break
            texts += 1
        assert 3 <= texts <= 6
        says(await two.rpc(m.Tread, 1, 1, 0, 1), errno.ENOMEM)
        await other.open(1, "big")
        await rpc(other, m.Tread, 1, 0, 1)
        await rpc(one, m.Tclunk, 1)
        await rpc(two, m.Tread, 1, 0, 1)
        await rpc(one, m.Tgetattr, 0, 1)


async def test_the_last_part_of_all_is_for_root() -> None:
    limits = Limits(user_bytes=1 << 20, bytes=1_200_000)
    async with serving(tree(), limits) as server:
        talks = [connect(server, peer=Peer(TRANSPORTS["unix"], f"pid {uid}", uid=uid)) for uid in (1001, 1002)]
        root = connect(server, peer=Peer(TRANSPORTS["unix"], "pid 1", uid=0))
        for talk in (*talks, root):
            await talk.start()
        full = 0
        for talk in talks:
            for fid in range(1, 100):
                await talk.open(fid, "big")
                if isinstance(await talk.rpc(m.Tread, 1, fid, 0, 1), m.Rlerror):
                    full += 1
                    break
        assert full == 2
        assert server.books.bytes.used < 1_000_000
        for fid in range(1, 4):
            await root.open(fid, "big")
            await rpc(root, m.Tread, fid, 0, 1)


async def test_a_users_open_files_are_bounded_where_they_take_descriptors(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    async with stored(str(tmp_path)) as files, serving(tree({"fs": files}), Limits(user_files=3)) as server:
        one, two = await talk_to(server), await talk_to(server)
        for fid in (1, 2, 3):
            assert isinstance(await one.open(fid, "fs", "f"), m.Rlopen)
        says(await one.open(4, "fs", "f"), errno.EMFILE)
        await rpc(two, m.Twalk, 0, 4, ("fs",))
        says(await two.rpc(m.Tlcreate, 1, 4, "new", 0o102, 0o644, 0), errno.EMFILE)
        assert not (tmp_path / "new").exists()
        assert isinstance(await two.open(5, "text"), m.Rlopen)
        await rpc(one, m.Tclunk, 1)
        await rpc(two, m.Tlcreate, 4, "new", 0o102, 0o644, 0)


async def test_all_users_have_the_open_files_that_the_process_has_descriptors_for(tmp_path: Path) -> None:
    """What one was granted in advance is no more than what is left for others."""
    (tmp_path / "f").write_text("x")
    os.chmod(tmp_path, 0o755)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with stored(str(tmp_path)) as files, serving(tree({"fs": files})) as server:
        resource.setrlimit(resource.RLIMIT_NOFILE, (160, hard))
        try:
            talks = [connect(server, peer=Peer(TRANSPORTS["unix"], f"pid {uid}", uid=uid)) for uid in (1001, 1002, 0)]
            for talk in talks:
                await talk.start()
                assert isinstance(await talk.open(1, "fs", "f"), m.Rlopen)
            for fid in range(2, 29):
                assert isinstance(await talks[0].open(fid, "fs", "f"), m.Rlopen)
            says(await talks[1].open(2, "fs", "f"), errno.ENFILE)  # 30 of 40 are open
            for fid in range(2, 12):
                assert isinstance(await talks[2].open(fid, "fs", "f"), m.Rlopen)
            says(await talks[2].open(12, "fs", "f"), errno.ENFILE)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# what is kept comes to an end


async def walked(talk: Talk) -> None:
    await rpc(talk, m.Twalk, 0, 1, ("deep", *("a",) * 10))


async def opened(talk: Talk) -> None:
    await talk.open(1, "text")


async def text_kept(talk: Talk) -> None:
    await talk.open(1, "big")
    await rpc(talk, m.Tread, 1, 0, 1)


async def message_kept(talk: Talk) -> None:
    await talk.open(1, "log")
    await rpc(talk, m.Tread, 1, 0, 1)


async def listed(talk: Talk) -> None:
    await talk.open(1, "many")
    await rpc(talk, m.Treaddir, 1, 0, 100)


async def locked(talk: Talk) -> None:
    await talk.open(1, "fs", "f", mode=2)
    for n in range(10):
        await rpc(talk, m.Tlock, 1, 1, 0, 2 * n, 1, 1, "client")


async def setting(talk: Talk) -> None:
    await rpc(talk, m.Twalk, 0, 1, ("fs", "f"))
    await rpc(talk, m.Txattrcreate, 1, "user.x", 60_000, 0)
    await rpc(talk, m.Twrite, 1, 0, bytes(50_000))


async def made(talk: Talk) -> None:
    await rpc(talk, m.Twalk, 0, 1, ("fs",))
    await rpc(talk, m.Tlcreate, 1, "new", 0o102, 0o644, 0)


async def renamed(talk: Talk) -> None:
    await rpc(talk, m.Twalk, 0, 1, ("fs", "f"))
    await rpc(talk, m.Twalk, 0, 2, ("fs",))
    await rpc(talk, m.Trename, 1, 2, "g")
    await rpc(talk, m.Tclunk, 2)


async def moved(talk: Talk) -> None:
    await rpc(talk, m.Twalk, 0, 1, ("deep",) * 9)
    for _ in range(20):
        await rpc(talk, m.Twalk, 1, 2, ("a",) * 9)
        await rpc(talk, m.Tclunk, 1)
        await rpc(talk, m.Twalk, 2, 1, ("a",))
        await rpc(talk, m.Tclunk, 2)


async def refused(talk: Talk) -> None:
    await rpc(talk, m.Twalk, 0, 1, ("many",))
    says(await talk.rpc(m.Tlopen, 1, 1, 1), errno.EISDIR)
    says(await talk.rpc(m.Tlcreate, 1, 1, "x", 0o102, 0o644, 0), errno.EPERM)
    says(await talk.rpc(m.Twalk, 1, 1, 5, ("nothing",)), errno.ENOENT)


THINGS = (
    *(walked, opened, text_kept, message_kept, listed, locked, setting, made, renamed, moved, refused),
)  # each leaves fid 1


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: thing.__name__)
@pytest.mark.parametrize("end", ["clunk", "version", "close"])
async def test_what_was_kept_is_on_no_account_when_it_ends(
    thing: Callable[[Talk], Awaitable[None]], end: str, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("x")
    async with stored(str(tmp_path)) as files, serving(tree({"fs": files})) as server:
        talk, other = connect(server), connect(server)
        await other.start()
        nobody = held(server)
        await talk.start()
        before = held(server)
        await thing(talk)
        assert held(server) > before
        if end == "clunk":
            await rpc(talk, m.Tclunk, 1)
            assert held(server) == before
        elif end == "version":
            await talk.rpc(m.Tversion, NOTAG, 65536, "9P2000.L")
            assert held(server) == nobody
            await talk.attach(0)
            assert held(server) == before
        await talk.stream.aclose()
        await alone(server, 1)
        assert held(server) == nobody
        (holder,) = server.books.holders.values()
        assert (holder.files.used, holder.fids.used) == (0, 1)
        await other.stream.aclose()
        await alone(server)
        assert server.books.holders == {}
        assert (server.books.bytes.used, server.books.files.used) == (0, 0)


async def test_a_name_costs_as_long_as_a_fid_leads_by_it() -> None:
    """Else a fid at the end of a long way would cost nothing, once those that led there are gone."""
    async with serving(tree()) as server:
        talk = await talk_to(server)
        before = held(server)
        await rpc(talk, m.Twalk, 0, 1, ("deep",))
        one = held(server) - before
        for n in range(50):
            await rpc(talk, m.Twalk, n + 1, n + 2, ("a",) * 16)
            await rpc(talk, m.Tclunk, n + 1)
        assert held(server) - before > one + 50 * 16 * 100
        await rpc(talk, m.Twalk, 51, 51, ("..",) * 16)
        for _ in range(49):
            await rpc(talk, m.Twalk, 51, 51, ("..",) * 16)
        assert held(server) - before == one


async def test_a_listing_is_kept_while_it_is_read_and_no_longer() -> None:
    async with serving(tree()) as server:
        talk = await talk_to(server)
        await talk.open(1, "many")
        before, offset, count = held(server), 0, 0
        while data := bytes((await rpc(talk, m.Treaddir, 1, offset, 4000)).data):
            assert held(server) > before + 28 * 1000
            at = 0
            while at < len(data):
                offset = int.from_bytes(data[at + 13 : at + 21], "little")
                at += 24 + int.from_bytes(data[at + 22 : at + 24], "little")
                count += 1
        assert count == 1002
        assert held(server) == before
        assert bytes((await rpc(talk, m.Treaddir, 1, offset, 4000)).data) == b""
        assert len((await rpc(talk, m.Treaddir, 1, 0, 4000)).data) > 3000


async def test_a_listing_of_9p2000_is_charged_as_it_is_made() -> None:
    async with serving(tree(), Limits(user_bytes=200_000)) as server:
        talk = await talk_to(server, Dialect.P9)
        await talk.open(1, "many")
        before = held(server)
        reply = await talk.rpc(m.Tread, 1, 1, 0, 8000)
        assert isinstance(reply, m.Rerror)
        assert "bytes here already" in reply.ename
        assert held(server) == before
        assert isinstance(await talk.rpc(m.Tstat, 1, 0), m.Rstat)


# stored files


async def test_a_fid_of_a_stored_file_is_charged_what_it_takes_and_a_user_may_have_85_000(tmp_path: Path) -> None:
    """Linux's client keeps one for each name that it caches; the status of all but the last thousand files is kept no more."""
    directory = trio.Path(tmp_path)
    await directory.chmod(0o755)
    for n in range(500):
        await (directory / f"{n:020}").touch()
    async with stored(str(tmp_path)) as files, serving(tree({"fs": files})) as server:
        talk = await talk_to(server, peer=USER)

        async def more(fids: range) -> None:
            for fid in fids:
                await rpc(talk, m.Twalk, 1, fid, (f"{fid % 500:020}",))
                await rpc(talk, m.Tgetattr, fid, 0x7FF)

        tracemalloc.start()
        await rpc(talk, m.Twalk, 0, 1, ("fs",))
        await more(range(2, KNOWN + 101))
        gc.collect()  # what the harness leaves in cycles
        before, already = tracemalloc.get_traced_memory()[0], held(server)
        await more(range(KNOWN + 101, KNOWN + 1101))
        gc.collect()
        takes = (tracemalloc.get_traced_memory()[0] - before) / 1000
        tracemalloc.stop()
        charged = (held(server) - already) / 1000
        assert takes <= charged
        limits = Limits()
        assert 85_000 * charged <= limits.user_bytes * (SPARE - 1) // SPARE
        assert limits.user_fids >= 85_000


async def test_fids_that_are_refused_take_nothing() -> None:
    """A table grows by what is entered and taken out again, too."""
    async with serving(tree(), Limits(user_bytes=400_000)) as server:
        talk = await talk_to(server, peer=USER)
        fid = 1
        while isinstance(await talk.rpc(m.Twalk, 1, 0, fid, ("big",)), m.Rwalk):
            fid += 1
        (c,) = server.connections
        fids, size = c.session.fids, sys.getsizeof(c.session.fids)
        for _ in range(2 * fid):
            says(await talk.rpc(m.Twalk, 1, 0, fid, ("big",)), errno.ENOMEM)
        assert (len(fids), sys.getsizeof(fids)) == (fid, size)


async def test_attributes_that_are_written_are_charged_as_they_are_announced(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    async with stored(str(tmp_path)) as files, serving(tree({"fs": files}), Limits(user_bytes=400_000)) as server:
        talk = await talk_to(server)
        replies = []
        for fid in range(1, 10):
            await rpc(talk, m.Twalk, 0, fid, ("fs", "f"))
            replies.append(await talk.rpc(m.Txattrcreate, 1, fid, "user.x", 65536, 0))
        assert [isinstance(reply, m.Rxattrcreate) for reply in replies] == [True] * 4 + [False] * 5
        says(replies[-1], errno.ENOSPC)
        says(await talk.rpc(m.Txattrcreate, 1, 9, "user." + "x" * 251, 1, 0), errno.ERANGE)
        await rpc(talk, m.Tclunk, 1)
        await rpc(talk, m.Txattrcreate, 9, "user.x", 65536, 0)


async def test_locks_are_noted_as_the_kernel_has_them(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(100))
    async with stored(str(tmp_path)) as files, serving(tree({"fs": files})) as server:
        talk = await talk_to(server)
        await talk.open(1, "fs", "f", mode=2)

        async def lock(kind: int, start: int, length: int, client: str = "c") -> Any:
            return await talk.rpc(m.Tlock, 1, 1, kind, 0, start, length, 1, client)

        def noted() -> list[tuple[int, int, int]]:
            found = [one for files in locks._noted.values() for notes in files.values() for one in notes]
            return [(one.kind, one.start, one.length) for one in found]

        for _ in range(100):
            assert (await lock(1, 0, 10)).status == 0
        assert noted() == [(1, 0, 10)]
        await lock(1, 10, 10)
        assert noted() == [(1, 0, 20)]
        await lock(0, 5, 5)
        assert noted() == [(1, 0, 5), (0, 5, 5), (1, 10, 10)]
        await lock(2, 3, 14)
        assert noted() == [(1, 0, 3), (1, 17, 3)]
        await lock(1, 30, 0)
        await lock(2, 40, 1)
        assert noted() == [(1, 0, 3), (1, 17, 3), (1, 30, 10), (1, 41, 0)]
        says(await lock(1, 0, 1, "c" * 256), errno.ENAMETOOLONG)
        await lock(2, 0, 0)
        assert locks._noted == {}


async def test_an_open_file_has_so_many_ranges_locked_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    async with stored(str(tmp_path)) as files, serving(tree({"fs": files})) as server:
        talk = await talk_to(server)
        await talk.open(1, "fs", "f", mode=2)
        for n in range(locks.MOST):
            assert (await rpc(talk, m.Tlock, 1, 1, 0, 2 * n, 1, 1, "c")).status == 0
        says(await talk.rpc(m.Tlock, 1, 1, 1, 0, 2 * locks.MOST, 1, 1, "c"), errno.ENOLCK)
        assert (await rpc(talk, m.Tlock, 1, 1, 0, 1, 1, 1, "c")).status == 0  # it joins two
        assert (await rpc(talk, m.Tlock, 1, 1, 0, 2 * locks.MOST, 1, 1, "c")).status == 0


async def test_locks_are_refused_to_who_has_too_much(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    async with stored(str(tmp_path)) as files, serving(tree({"fs": files}), Limits(user_bytes=200_000)) as server:
        talk = await talk_to(server)
        await talk.open(1, "fs", "f", mode=2)
        replies = [await talk.rpc(m.Tlock, 1, 1, 1, 0, 2 * n, 1, 1, "c") for n in range(300)]
        taken = sum(isinstance(reply, m.Rlock) for reply in replies)
        assert 50 < taken < 250
        says(replies[-1], errno.ENOLCK)
        await rpc(talk, m.Tlock, 1, 2, 0, 0, 0, 1, "c")
        await rpc(talk, m.Tlock, 1, 1, 0, 0, 1, 1, "c")


# what has come, and what waits


async def test_a_frame_is_small_before_an_attach() -> None:
    async with serving(tree()) as server:
        talk = connect(server)
        (c,) = server.connections
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.raw, codec(Dialect.L, m.Tversion.type).pack(NOTAG, 1 << 20, "9P2000.L") * 5000)
            for _ in range(5000):
                assert (await talk.receive()).msize == 1 << 20
        assert c.room == 32768
        await talk.raw((SMALL + 1).to_bytes(4, "little") + bytes([m.Tattach.type, 1, 0]))
        assert await talk.receive() is None


async def test_what_comes_behind_an_attach_may_be_large() -> None:
    async with serving(tree()) as server:
        talk = connect(server)
        await rpc(talk, m.Tversion, 1 << 20, "9P2000.L")
        await talk.raw(
            codec(Dialect.L, m.Tattach.type).pack(1, 0, NOFID, "root", "", NONUNAME)
            + codec(Dialect.L, m.Twalk.type).pack(2, 0, 1, ("events",))
            + codec(Dialect.L, m.Tlopen.type).pack(3, 1, 1)
            + codec(Dialect.L, m.Twrite.type).pack(4, 7, 0, bytes(500_000))
        )
        replies = [await talk.receive() for _ in range(4)]
        says(replies[-1], errno.EBADF)
        await rpc(talk, m.Tversion, 1 << 20, "9P2000.L")
        await talk.raw((SMALL + 1).to_bytes(4, "little") + bytes([m.Tattach.type, 1, 0]))
        assert await talk.receive() is None


async def test_requests_of_a_user_that_wait_are_bounded_over_all_connections() -> None:
    limits = Limits(user_bytes=100 * WAITING)
    async with serving(tree(), limits) as server:
        talks = [connect(server, peer=USER) for _ in range(2)]
        other = connect(server, peer=OTHER)
        for talk in (*talks, other):
            await talk.start()
            await talk.open(1, "events")
        for talk, most in ((talks[0], 220), (talks[1], 220), (other, 150)):
            for tag in range(100, most):
                await talk.send(m.Tread, tag, 1, 0, 10)
        for talk in talks:
            says(await talk.receive(), errno.EAGAIN)
        used = [holder.bytes.used for holder in server.books.holders.values()]
        assert max(used) < 103 * WAITING + 32768
        await rpc(other, m.Tgetattr, 0, 1)


async def test_who_has_used_up_all_for_fids_can_still_ask_and_wait() -> None:
    async with talking(tree(), limits=Limits(user_bytes=400_000)) as talk:
        await talk.open(1, "events")
        fid = 2
        while isinstance(reply := await talk.rpc(m.Twalk, 1, 0, fid, ("text",)), m.Rwalk):
            fid += 1
        says(reply, errno.ENOMEM)
        await talk.send(m.Tread, 100, 1, 0, 10)
        await rpc(talk, m.Tgetattr, fid - 1, 1)
        assert isinstance(await talk.rpc(m.Tflush, 2, 100), m.Rflush)


async def test_a_large_request_of_who_has_too_much_is_passed_over() -> None:
    async with talking(tree(), msize=1 << 20, limits=Limits(user_bytes=700_000)) as talk:
        await talk.open(1, "events", mode=2)
        await talk.send(m.Twrite, 100, 1, 0, bytes(200_000))
        await rpc(talk, m.Tgetattr, 0, 1)
        says(await talk.rpc(m.Twrite, 101, 1, 0, bytes(900_000)), errno.EAGAIN)
        await rpc(talk, m.Tgetattr, 0, 1)
        assert isinstance(await talk.rpc(m.Tflush, 102, 100), m.Rflush)
        await talk.send(m.Twrite, 103, 1, 0, bytes(200_000))
        await rpc(talk, m.Tgetattr, 0, 1)


async def test_a_name_is_no_longer_than_any_can_be() -> None:
    async with talking(tree()) as talk:
        says(await talk.rpc(m.Twalk, 1, 0, 1, ("n" * (NAME + 1),)), errno.ENAMETOOLONG)
        says(await talk.rpc(m.Tattach, 1, 5, NOFID, "n" * (NAME + 1), "", NONUNAME), errno.ENAMETOOLONG)
        says(await talk.rpc(m.Tattach, 1, 5, NOFID, "root", "n" * 5000, NONUNAME), errno.ENAMETOOLONG)


async def test_stats_show_who_has_what() -> None:
    async with serving(tree()) as server:
        one, two = connect(server, peer=USER), connect(server, peer=USER)
        for talk in (one, two):
            await talk.start()
        await two.open(1, "big")
        await rpc(two, m.Tread, 1, 0, 1)
        first, second = [[int(n) for n in line.split()[-5:]] for line in clients(server.tally).splitlines()]
        assert first[2:] == second[2:] == [first[0] + second[0], 0, 3]
        assert second[0] - first[0] > 50_000
