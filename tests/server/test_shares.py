"""Places at a server: nobody has them all, some are root's, and a peer that leaves half a frame, or takes all descriptors, keeps nobody out."""

import errno
import gc
import logging
import os
import resource
import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from mk9p.auth import Policy
from mk9p.dial import TRANSPORTS, Peer, SocketLink, dial, listen
from mk9p.errors import NineError
from mk9p.server import Limits, Server
from mk9p.testing import SOON
from mk9p.tree import Dir, Text
from mk9p.wire import NOFID, NONUNAME, NOTAG, Dialect, codec
from mk9p.wire import messages as m
from tests.server.odd_tree import alone
from tests.server.talk import Talk, connect, serving, talk_to

ROOT = Peer(TRANSPORTS["unix"], "pid 1", uid=0)
LIMITS = Limits(connections=20, share=5, reserve=4)


def tree() -> Dir:
    return Dir({"text": Text("text\n")})


def user(uid: int) -> Peer:
    return Peer(TRANSPORTS["unix"], f"pid {uid}", uid=uid)


def host(address: str, port: int = 1) -> Peer:
    return Peer(TRANSPORTS["tcp"], f"{address}!{port}")


def refused(server: Server, peer: Peer) -> str:
    """Return why a connection is refused."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, pytest.raises(NineError) as error:
        server.add(SocketLink(theirs, peer))
    assert error.value.errno == errno.EMFILE
    return str(error.value)


async def test_one_user_has_a_share_of_the_connections(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(tree(), LIMITS) as server:
        anns = [connect(server, peer=user(1001)) for _ in range(5)]
        assert "all 5 connections of one user are in use" in refused(server, user(1001))
        await talk_to(server, peer=user(1002), uname="")
        for ann in anns:
            await ann.start(uname="")  # they were hers before too
        refused(server, user(1001))
        await anns.pop().stream.aclose()
        await alone(server, 5)
        await connect(server, peer=user(1001)).start(uname="")
    assert len([r for r in caplog.records if "why=connections" in r.message]) == 2


@pytest.mark.parametrize(
    ("first", "same", "other"),
    [
        (host("10.0.0.1"), host("10.0.0.1", 7), host("10.0.0.2")),
        (host("fd00:1:2:3::1"), host("fd00:1:2:3:ff::2"), host("fd00:1:2:4::1")),
        (host("fe80::1%eth0"), host("fe80::2%eth0"), host("fe81::1")),
        (Peer(TRANSPORTS["vsock"], "3!1000"), Peer(TRANSPORTS["vsock"], "3!2000"), Peer(TRANSPORTS["vsock"], "4!1000")),
    ],
    ids=["IPv4", "IPv6", "a link", "vsock"],
)
async def test_strangers_share_by_host(first: Peer, same: Peer, other: Peer) -> None:
    async with serving(tree(), LIMITS) as server:
        for _ in range(5):
            await connect(server, peer=first).start(uname="root")  # they are nobody in particular, whatever they say
        refused(server, same)
        await connect(server, peer=other).start()


async def test_root_gets_in_when_others_have_all_that_they_may() -> None:
    async with serving(tree(), LIMITS) as server:
        for uid in range(1001, 1017):
            await connect(server, peer=user(uid)).start(uname="")
        assert "all 20 connections are in use, but 4 for root" in refused(server, user(2000))
        refused(server, host("10.0.0.1"))
        for _ in range(4):
            await connect(server, peer=ROOT).start()
        assert "all 20 connections are in use" in refused(server, ROOT)


async def test_users_who_are_believed_share_by_name() -> None:
    trust = Policy(trust=True)
    async with serving(tree(), Limits(connections=40, share=3)) as server:

        async def attach(number: int, uname: str) -> object:
            talk = connect(server, policy=trust, peer=host(f"10.0.0.{number}"))
            await talk.rpc(m.Tversion, NOTAG, 65536, "9P2000.L")
            return await talk.rpc(m.Tattach, 1, 0, NOFID, uname, "", NONUNAME)

        for number in range(3):
            assert isinstance(await attach(number, "daemon"), m.Rattach)
        reply = await attach(4, "daemon")
        assert isinstance(reply, m.Rlerror)
        assert reply.ecode == errno.EMFILE
        assert isinstance(await attach(5, "bin"), m.Rattach)
        for number in range(6, 12):
            assert isinstance(await attach(number, "root"), m.Rattach)


async def test_what_is_counted_is_counted_down_again() -> None:
    async with serving(tree(), LIMITS) as server:
        for peer in (user(1001), host("10.0.0.1"), ROOT, Peer(TRANSPORTS["fd"], "a line")):
            for uname in ("", "daemon", "root"):
                talk = await talk_to(server, peer=peer, uname=uname)
                await talk.stream.aclose()
            await connect(server, peer=peer).stream.aclose()
        with trio.fail_after(SOON):
            await alone(server, 0)
        assert (server.shares.total, server.shares.users) == (0, {})


# Half a frame


async def test_half_a_frame_is_waited_for_as_long_as_it_grows(
    mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tree(), Limits(partial=40)) as server:
        given, slow, half, good = (
            connect(server, peer=peer) for peer in (Peer(TRANSPORTS["char"], "hvc0"), ROOT, ROOT, ROOT)
        )
        frame = codec(Dialect.L, m.Tgetattr.type).pack(7, 0, 0x7FF)
        for talk in (given, slow, half, good):
            await talk.start()
        for talk in (given, half):
            await talk.raw(frame[:9])
        for byte in frame[:-1]:  # a byte now and then
            await slow.raw(bytes([byte]))
            for _ in range(4):
                await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(9)
        await trio.testing.wait_all_tasks_blocked()
        assert await half.receive() is None
        await slow.raw(frame[-1:])
        assert isinstance(await slow.receive(), m.Rgetattr)
        for _ in range(20):  # silent, and nothing is half
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(10)
        for talk in (slow, good):
            assert isinstance(await talk.rpc(m.Tgetattr, 7, 0, 0x7FF), m.Rgetattr)
        await given.raw(frame[9:])
        assert isinstance(await given.receive(), m.Rgetattr)
    (record,) = (r for r in caplog.records if "why=partial" in r.message)
    assert record.message.startswith("ended")
    assert "half a frame, and nothing more for 40 s" in record.message


async def test_a_half_frame_ends_no_sooner_than_is_said(mock_clock: trio.testing.MockClock) -> None:
    async with serving(tree(), Limits(partial=40)) as server:
        talk = await talk_to(server, peer=ROOT)
        frame = codec(Dialect.L, m.Tgetattr.type).pack(7, 0, 0x7FF)
        await talk.raw(frame[:9])
        for _ in range(3):
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(13)
        await trio.testing.wait_all_tasks_blocked()
        await talk.raw(frame[9:])
        assert isinstance(await talk.receive(), m.Rgetattr)


# Descriptors


async def test_root_is_let_in_when_there_are_no_more_descriptors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gc.collect()  # what was forgotten is closed before the listeners take their spare descriptors: the first free number is above these
    server, said = Server(tree()), logging.getLogger("mk9p.dial")
    caplog.set_level(logging.ERROR)
    unix, tcp = await listen(f"unix!{tmp_path}/s"), await listen("tcp!127.0.0.1!0")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    strangers = [await dial(tcp.address) for _ in range(3)]
    root = Talk(await trio.open_unix_socket(f"{tmp_path}/s"), server=server)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            hole = os.dup(0)
            os.close(hole)
            resource.setrlimit(resource.RLIMIT_NOFILE, (hole, hard))
            for listener in (tcp, unix):
                nursery.start_soon(server.listen, listener, Policy())
            with trio.fail_after(SOON):
                for stranger in strangers:
                    await stranger.wait_readable()
                    assert stranger.recv_into(memoryview(bytearray(10))) == 0
                await root.start()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            with trio.fail_after(SOON):
                late = await dial(tcp.address)
                late.send(codec(Dialect.L, m.Tversion.type).pack(NOTAG, 8192, "9P2000.L"))
                await late.wait_readable()
            await root.stream.aclose()
            late.close()
            await alone(server, 0)
            nursery.cancel_scope.cancel()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for stranger in strangers:
            stranger.close()
        for listener in (tcp, unix):
            await listener.aclose()
    assert len([r for r in caplog.records if r.name == said.name]) == 2, caplog.text  # a line for each listener


def test_the_kernel_counts_descriptors_as_the_test_above_does() -> None:
    """A limit of the first free number is no room at all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hole = os.dup(0)
    os.close(hole)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hole, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            socket.socket()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
