"""net: udp: datagrams whole, calls of new senders, headers."""

import errno
import socket
from collections.abc import Iterator

import pytest
import trio

from mk9p.servers.net.udp import HEADER
from mk9p.testing import SOON
from tests.server.left_open import descriptors
from tests.servers.calls import call, numbers, served


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(SOON)
        yield sock


def name(sock: socket.socket) -> str:
    return f"127.0.0.1!{sock.getsockname()[1]}\n"


async def test_an_echo(peer: socket.socket) -> None:
    async with served() as ns, call(ns, "udp") as c:
        assert (await c.read("status"), await c.read("local")) == ("Closed\n", "::!0\n")
        await c.order(f"connect 127.0.0.1!{peer.getsockname()[1]}")
        assert (await c.state(), await c.read("remote")) == ("Open", name(peer))
        data = await c.open("data")
        for size in (1, 100, 60000):
            await data.pwrite(bytes(size), 0)
            content, where = peer.recvfrom(65536)
            assert (len(content), f"127.0.0.1!{where[1]}\n") == (size, await c.read("local"))
        for size in (100, 200, 60000):
            peer.sendto(bytes([size % 251]) * size, where)
        assert [await data.pread(65536, at) for at in (1, 1000, 10000)] == [
            bytes([n % 251]) * n for n in (100, 200, 60000)
        ]


async def test_a_datagram_is_one_record_and_a_small_read_does_not_cut_it(peer: socket.socket) -> None:
    async with served() as ns, call(ns, "udp", f"connect 127.0.0.1!{peer.getsockname()[1]}") as c:
        data = await c.open("data")
        where = ("127.0.0.1", await c.port())
        peer.sendto(b"one", where)
        peer.sendto(b"", where)  # cannot be told from the end, and is left out
        peer.sendto(b"two two", where)
        # what Linux does for read(2) with room: asks on until an empty answer
        assert [await data.pread(100, 0), await data.pread(97, 3)] == [b"one", b""]
        assert [await data.pread(3, 3), await data.pread(100, 6)] == [b"two", b" two"]


async def test_one_that_is_too_large_is_refused_whole(peer: socket.socket) -> None:
    async with served() as ns, call(ns, "udp", f"connect 127.0.0.1!{peer.getsockname()[1]}") as c:
        data = await c.open("data")
        with pytest.raises(OSError) as caught:  # noqa: PT011
            await data.pwrite(bytes(65508), 0)
        assert caught.value.errno == errno.EMSGSIZE
        await data.pwrite(b"small", 0)
        assert peer.recv(65536) == b"small"


async def test_nobody_there(peer: socket.socket) -> None:
    port = peer.getsockname()[1]
    peer.close()
    async with served() as ns, call(ns, "udp", f"connect 127.0.0.1!{port}") as c:
        data = await c.open("data")
        await data.pwrite(b"anybody?", 0)
        with pytest.raises(ConnectionRefusedError):
            await data.pread(100, 0)


async def test_each_new_sender_is_a_call(peer: socket.socket) -> None:
    async with served() as ns, call(ns, "udp", "announce *!0") as c:
        port = await c.port()
        with pytest.raises(OSError, match="Invalid argument"):
            await (await c.open("data")).pread(1, 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.2", 0))
            other.settimeout(SOON)
            peer.sendto(b"a1", ("127.0.0.1", port))
            peer.sendto(b"a2", ("127.0.0.1", port))
            other.sendto(b"b1", ("127.0.0.3", port))
            first, second = await c.listen(), await c.listen()
            assert (await first.read("remote"), await first.read("local")) == (name(peer), f"127.0.0.1!{port}\n")
            assert await second.read("local") == f"127.0.0.3!{port}\n"  # where he called
            one, two = await first.open("data"), await second.open("data")
            assert [await one.pread(9, 1), await one.pread(9, 9), await two.pread(9, 1)] == [b"a1", b"a2", b"b1"]
            await c.close()  # the announcement: the calls go on
            peer.sendto(b"a3", ("127.0.0.1", port))
            assert await one.pread(9, 20) == b"a3"
            await two.pwrite(b"answer", 0)
            assert other.recvfrom(100) == (b"answer", ("127.0.0.3", port))
            before = descriptors()
            await first.close()
            assert descriptors() == before
            await second.close()
            assert descriptors() == before - 1  # the socket that they shared
        assert await numbers(ns, "udp") == []


async def test_who_reads_puts_what_is_not_his_where_it_belongs(peer: socket.socket) -> None:
    """Two calls wait for one socket; whichever wakes for a datagram, each gets his own."""
    async with served() as ns, call(ns, "udp", "announce *!0") as c:
        where = ("127.0.0.1", await c.port())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            got: dict[int, list[bytes]] = {}

            async def read(number: int, data: object) -> None:
                for at in range(50):
                    got.setdefault(number, []).append(await data.pread(9, 1000 * at + 1))  # type: ignore[attr-defined]

            calls = []
            async with trio.open_nursery() as nursery:
                for number, sock in enumerate((peer, other)):
                    sock.sendto(b"0", where)
                    calls.append(await c.listen())
                    nursery.start_soon(read, number, await calls[-1].open("data"))
                for at in range(1, 50):
                    for sock in (peer, other):
                        sock.sendto(b"%d" % at, where)
                    if not at % 10:
                        await trio.testing.wait_all_tasks_blocked()
            assert got == {number: [b"%d" % at for at in range(50)] for number in (0, 1)}
            for each in calls:
                await each.close()


@pytest.mark.parametrize("address", ["*!0", "127.0.0.1!0"])
async def test_headers(peer: socket.socket, address: str) -> None:
    async with served() as ns, call(ns, "udp", "headers", f"announce {address}") as c:
        assert await c.read("ctl") == f"announce {address}\nheaders\n"
        data = await c.open("data")
        peer.sendto(b"hello", ("127.0.0.1", await c.port()))
        message = await data.pread(1000, 0)
        remote, local, _, theirs, ours = HEADER.unpack_from(message)
        assert message[HEADER.size :] == b"hello"
        assert remote == local == socket.inet_pton(socket.AF_INET6, "::ffff:127.0.0.1")
        assert (theirs, ours) == (peer.getsockname()[1], await c.port())
        await data.pwrite(message[: HEADER.size] + b"there", 0)
        assert peer.recvfrom(100) == (b"there", ("127.0.0.1", await c.port()))
        with pytest.raises(OSError, match="Invalid argument"):
            await data.pwrite(b"short", 0)


async def test_ttl_reaches_the_other_side(peer: socket.socket) -> None:
    peer.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL
    async with served() as ns, call(ns, "udp", "ttl 9", f"connect 127.0.0.1!{peer.getsockname()[1]}") as c:
        await (await c.open("data")).pwrite(b"x", 0)
        _, control, _, _ = peer.recvmsg(10, 100)
        assert int.from_bytes(control[0][2], "little") == 9


async def test_hangup_and_again(peer: socket.socket) -> None:
    async with served() as ns, call(ns, "udp", "announce 127.0.0.1!0") as c:
        before = descriptors()
        await c.order("hangup")
        assert (await c.state(), descriptors()) == ("Closed", before - 1)
        await c.order("bind 127.0.0.1!0")
        port = await c.port()
        await c.order(f"connect 127.0.0.1!{peer.getsockname()[1]}")
        data = await c.open("data")
        await data.pwrite(b"x", 0)
        assert peer.recvfrom(1)[1][1] == port
        await c.order("hangup")
        assert await data.pread(1, 0) == b""
        with pytest.raises(BrokenPipeError):
            await data.pwrite(b"x", 0)
