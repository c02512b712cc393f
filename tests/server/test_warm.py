"""Receive buffers, and descriptors: what many connections cost a server."""

import subprocess
import sys

from mk9p.server import Limits, Server
from mk9p.server.accounts import CONNECTION
from mk9p.server.connection import Connection
from mk9p.server.warm import KEPT
from mk9p.tree import Dir, Text
from mk9p.wire import Dialect, codec
from mk9p.wire import messages as m
from mk9p.wire.framing import CAPACITY
from tests.server.talk import Talk, connect, serving


def tree() -> Dir:
    return Dir({"text": Text("text\n")})


def of(server: Server) -> list[Connection]:
    return sorted(server.connections, key=lambda c: c.number)


async def test_a_connection_that_has_sent_nothing_has_no_buffer() -> None:
    async with serving(tree()) as server:
        connect(server)
        (c,) = server.connections
        assert (len(c.frames.buf), c.room, c.account.used) == (0, 0, CONNECTION)


async def test_those_that_only_wait_leave_their_buffers_to_others() -> None:
    async with serving(tree()) as server:
        talks = [connect(server) for _ in range(KEPT + 50)]
        for talk in talks:
            await talk.start()
        assert [len(c.frames.buf) for c in of(server)] == 50 * [0] + KEPT * [CAPACITY]
        assert [c.room for c in of(server)] == 50 * [0] + KEPT * [CAPACITY]
        for talk in talks:  # and take one when something comes
            assert isinstance(await talk.rpc(m.Tgetattr, 1, 0, 0x7FF), m.Rgetattr)
        assert sum(bool(c.frames.buf) for c in of(server)) == KEPT


async def test_half_a_frame_stays_where_it_is() -> None:
    async with serving(tree()) as server:
        frame = codec(Dialect.L, m.Tgetattr.type).pack(7, 0, 0x7FF)
        halves: list[Talk] = [connect(server) for _ in range(3)]
        for talk in halves:
            await talk.start()
            await talk.raw(frame[:9])
        others = [connect(server) for _ in range(KEPT + 10)]
        for talk in others:
            await talk.start()
        assert [len(c.frames.buf) for c in of(server)][:4] == [*3 * [CAPACITY], 0]
        for talk in halves:
            await talk.raw(frame[9:])
            assert (await talk.receive()).tag == 7


async def test_what_was_granted_is_the_sum_of_what_each_has_and_covers_what_they_use() -> None:
    async with serving(tree(), Limits(user_bytes=12 << 20)) as server:
        talks = [connect(server) for _ in range(150)]
        for number, talk in enumerate(talks):
            await talk.start()
            await talk.open(1, "text")
            if number % 3 == 0:
                await talk.stream.aclose()
        for whole in (server.books.bytes, server.books.fids, server.books.files):
            pools = [*whole.pools, *whole.roots]
            assert whole.granted == sum(pool.granted for pool in pools)
            for pool in pools:
                assert pool.granted == sum(meter.granted for meter in pool.meters)
                assert pool.granted >= pool.used


LOW = """
import resource
from mk9p.dial import TRANSPORTS, Peer
from mk9p.errors import NineError
from mk9p.server import Limits
from mk9p.server.shares import Shares, descriptors
from mk9p.server.turns import Turns
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 400))
limits, root = Limits(files=80), Peer(TRANSPORTS["unix"], "pid 1", uid=0)
shares = Shares(limits, Turns())
try:
    while True:
        shares.enter(root)
except NineError as error:
    print(shares.total, error)
descriptors(Limits(connections=30, files=25))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
descriptors(limits)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], shares.most)
"""


def test_a_process_with_few_descriptors_raises_their_limit_and_takes_as_many_connections_as_they_allow() -> None:
    done = subprocess.run([sys.executable, "-c", LOW], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["48 all 48 connections are in use", "100", "400 300"], done.stderr
