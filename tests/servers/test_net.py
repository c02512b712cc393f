"""net: tcp on this machine's own loopback, to and from programs that know nothing of it. How conversations end badly is in test_net_end.py."""

import errno
import os
import socket
import stat as st

import pytest
import trio
import trio.testing

from mk9p.client import requests
from mk9p.errors import NineError
from mk9p.testing import SOON
from mk9p.tree import split
from tests.leftovers import descriptors as open_now
from tests.server.left_open import nothing_more
from tests.servers.calls import PAGE, all_of, call, call_of, listening, numbers, served, web


async def test_a_page_is_fetched() -> None:
    with web() as port:
        async with served() as ns, call(ns, "tcp") as c:
            assert (await c.read("status"), await c.read("local"), await c.read("remote")) == (
                "Closed\n",
                "::!0\n",
                "::!0\n",
            )
            await c.order(f"connect 127.0.0.1!{port}\n")
            assert split(await c.read("status"))[::2] == ["Established", "0", "0", *split(await c.read("status"))[6::2]]
            assert await c.read("remote") == f"127.0.0.1!{port}\n"
            assert (await c.read("local")).startswith("127.0.0.1!")
            data = await c.open("data")
            await data.pwrite(b"GET / HTTP/1.0\r\n\r\n", 0)
            head, _, body = (await all_of(data)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.0 200")
            assert body == PAGE
            assert await c.state() == "Close_wait"
            assert await c.read("ctl") == f"connect 127.0.0.1!{port}\n"


@pytest.mark.parametrize("address", ["*!0", "0", "127.0.0.1!0"])
async def test_calls_are_taken_and_go_on_after_the_announcement(address: str) -> None:
    async with served() as ns:
        async with call(ns, "tcp", f"announce {address}") as c:
            assert await c.state() == "Listen"
            with socket.create_connection(("127.0.0.1", await c.port())) as peer:
                peer.sendall(b"hello")
                theirs = await c.listen()
                data = await theirs.open("data")
                assert await theirs.read("remote") == f"127.0.0.1!{peer.getsockname()[1]}\n"
                assert await theirs.read("local") == f"127.0.0.1!{await c.port()}\n"
                assert await data.pread(100, 0) == b"hello"
                await c.close()  # of the announcement
                assert await numbers(ns, "tcp") == [theirs.path.removeprefix("tcp/")]
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", int((await theirs.read("local")).split("!")[1])))
                await data.pwrite(b"there", 0)
                await theirs.order("shutdown")
                peer.settimeout(SOON)
                assert peer.recv(100) == b"there"
                assert peer.recv(100) == b""
                assert (await theirs.until("Finwait1", "Finwait2")).startswith("Finwait")
                peer.sendall(b"still")  # our direction ended, not his
                assert await data.pread(100, 100) == b"still"
                await theirs.close()
        assert await numbers(ns, "tcp") == []


async def test_listen_waits_and_a_cancelled_one_loses_no_call() -> None:
    async with served() as ns, call(ns, "tcp", "announce 127.0.0.1!0") as c:
        with trio.move_on_after(0.05) as scope:
            await c.listen()
        assert scope.cancelled_caught
        with socket.create_connection(("127.0.0.1", await c.port())):
            theirs = await c.listen()
            await theirs.close()
        assert await numbers(ns, "tcp") == ["0"]


async def test_several_wait_for_calls() -> None:
    async with served() as ns, call(ns, "tcp", "announce 127.0.0.1!0") as c:
        names = set()

        async def take() -> None:
            theirs = await c.listen()
            names.add((await theirs.read("remote")).strip())
            await theirs.close()

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(take)
            peers = [await trio.open_tcp_stream("127.0.0.1", await c.port()) for _ in range(3)]
        assert names == {f"127.0.0.1!{peer.socket.getsockname()[1]}" for peer in peers}
        for peer in peers:
            await peer.aclose()


async def test_a_failed_announcement_says_why_and_another_works() -> None:
    with listening() as (_, port):
        async with served() as ns, call(ns, "tcp") as c:
            with pytest.raises(OSError, match="Address already in use") as caught:
                await ns.write(f"{c.path}/ctl", f"announce 127.0.0.1!{port}")
            assert caught.value.errno == errno.EADDRINUSE
            with pytest.raises(OSError) as elsewhere:  # noqa: PT011 - what it must say is asserted below
                await c.order("announce 198.51.100.1!0")
            assert elsewhere.value.errno == errno.EADDRNOTAVAIL
            assert await c.state() == "Closed"
            await c.order("announce *!0")
            assert await c.read("ctl") == "announce *!0\n"
            with pytest.raises(OSError, match="in use: Listen"):
                await ns.write(f"{c.path}/ctl", "announce *!0")
            with pytest.raises(NineError):
                await (await c.open("data")).pread(1, 0)


async def test_a_connection_that_is_refused_leaves_the_conversation_as_it_was() -> None:
    with listening() as (sock, port):
        free = socket.create_server(("127.0.0.1", 0))
        closed = free.getsockname()[1]
        free.close()
        async with served() as ns, call(ns, "tcp") as c:
            before = open_now()
            with pytest.raises(ConnectionRefusedError):
                await c.order(f"connect 127.0.0.1!{closed}")
            assert await c.read("error") == "Connection refused\n"
            assert await c.state() == "Closed"
            await nothing_more(before)
            await c.order(f"connect 127.0.0.1!{port} 127.0.0.1!0")
            peer, where = sock.accept()
            assert await c.read("local") == f"127.0.0.1!{where[1]}\n"
            assert await c.read("error") == ""
            peer.close()


async def test_a_local_port_may_be_chosen() -> None:
    with listening() as (sock, port):
        async with served() as ns, call(ns, "tcp", "bind 0") as c:
            mine = await c.port()
            await c.order(f"connect 127.0.0.1!{port}")
            peer, where = sock.accept()
            assert where[1] == mine
            peer.close()


@pytest.mark.parametrize("network", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("connect", "usage: connect ADDRESS [LOCAL]"),
        ("connect 80", "connect needs an address"),
        ("connect *!80", "connect needs an address"),
        ("connect localhost!80", "bad address 'localhost'"),
        ("connect 10.0.0.1!http", "bad port 'http'"),
        ("connect 10.0.0.1!65536", "bad port"),
        ("announce x", "bad port 'x'"),
        ("ttl 0", "ttl goes from 1"),
        ("ttl many", "usage: ttl N"),
        ("melt", "unknown word melt"),
    ],
)
async def test_wrong_words(network: str, line: str, words: str) -> None:
    async with served() as ns, call(ns, network) as c:
        with pytest.raises(OSError, match=words.replace("[", r"\[").replace("*", r"\*")) as caught:
            await ns.write(f"{c.path}/ctl", line)
        assert caught.value.errno == errno.EINVAL
        assert words in await c.read("error")
        assert await c.state() == "Closed"


async def test_data_without_a_connection() -> None:
    async with served() as ns, call(ns, "tcp") as c:
        data = await c.open("data")
        for attempt in (data.pread(1, 0), data.pwrite(b"x", 0)):
            with pytest.raises(OSError) as caught:  # noqa: PT011
                await attempt
            assert caught.value.errno == errno.ENOTCONN
        with pytest.raises(OSError) as caught:  # noqa: PT011
            await c.listen()
        assert caught.value.errno == errno.EINVAL


async def test_what_was_not_read_is_left_for_the_next_who_opens_data() -> None:
    with listening() as (sock, port):
        async with served() as ns, call(ns, "tcp", f"connect 127.0.0.1!{port}") as c:
            peer, _ = sock.accept()
            with peer:
                peer.sendall(b"one two")
                first = await c.open("data")
                assert await first.pread(4, 0) == b"one "
                await first.aclose()
                assert await (await c.open("data")).pread(100, 0) == b"two"


async def test_a_write_waits_for_room_and_a_cancelled_one_has_taken_nothing() -> None:
    with listening() as (sock, port):
        async with served() as ns, call(ns, "tcp", f"connect 127.0.0.1!{port}") as c:
            peer, _ = sock.accept()
            with peer:
                peer.settimeout(SOON)
                data = await c.open("data", "r+")
                sent = 0

                async def write() -> None:
                    nonlocal sent
                    while True:  # one write after the other, each of which is taken in whole, in part, or not at all
                        sent += await requests.write(data.connection, data.fid, 0, bytes(30000))

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(write)
                    await trio.testing.wait_all_tasks_blocked(0.5)  # the kernel may find more room by itself
                    nursery.cancel_scope.cancel()
                await c.order("shutdown")
                got = 0
                while piece := await trio.to_thread.run_sync(peer.recv, 1 << 20):
                    got += len(piece)
                assert got == sent


async def test_the_same_data_arrives_in_both_directions_at_once() -> None:
    payload = os.urandom(3 << 20)
    with listening() as (sock, port):
        async with served() as ns, call(ns, "tcp", f"connect 127.0.0.1!{port}") as c:
            peer = trio.SocketStream(trio.socket.from_stdlib_socket(sock.accept()[0]))
            data = await c.open("data")
            back = b""

            async def echo() -> None:
                async for piece in peer:
                    await peer.send_all(piece)
                await peer.aclose()

            async def send() -> None:
                await data.pwrite(payload, 0)
                await c.order("shutdown")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(echo)
                nursery.start_soon(send)
                back = await all_of(data)
            assert back == payload


async def test_many_conversations() -> None:
    count = 150
    with web() as port:
        async with served() as ns:
            bodies = []

            async def fetch() -> None:
                async with call(ns, "tcp", f"connect 127.0.0.1!{port}") as c:
                    data = await c.open("data")
                    await data.pwrite(b"GET / HTTP/1.0\r\n\r\n", 0)
                    bodies.append((await all_of(data)).partition(b"\r\n\r\n")[2])

            async with trio.open_nursery() as nursery:
                for _ in range(count):
                    nursery.start_soon(fetch)
            assert bodies == [PAGE] * count
            assert await numbers(ns, "tcp") == []
            async with call(ns, "tcp") as c:
                assert c.path == "tcp/0"  # numbers are used again


async def test_options_reach_the_kernel() -> None:
    def timer(port: int) -> str:
        """Return the kind of timer that the kernel has for our connection to a port: 02 is keepalive (proc_net_tcp.rst)."""
        with open("/proc/net/tcp") as file:
            rows = [
                line.split() for line in file if line.split()[2].endswith(f":{port:04X}") and line.split()[3] == "01"
            ]
        return rows[0][5].partition(":")[0]

    with listening() as (sock, port):
        async with served() as ns, call(ns, "tcp", "ttl 7", "nodelay", f"connect 127.0.0.1!{port}") as c:
            peer, _ = sock.accept()
            with peer:
                assert timer(port) == "00"
                await c.order("keepalive 5000")
                assert timer(port) == "02"
                assert (await c.read("ctl")).splitlines()[1:] == ["keepalive 5000", "ttl 7", "nodelay on"]
                await c.order("keepalive 0\nnodelay off")
                assert timer(port) == "00"


async def test_who_may() -> None:
    async with served() as ns, call(ns, "tcp") as c:
        modes = {entry.name: st.S_IMODE(entry.mode) for entry in await ns.listdir(c.path)}
        assert modes == {
            "ctl": 0o600,
            "data": 0o600,
            "listen": 0o600,
            "local": 0o400,
            "remote": 0o400,
            "status": 0o444,
            "error": 0o444,
        }
    async with served(uname="none") as ns:
        for name in ("tcp/clone", "udp/clone", "vsock/clone", "cs", "dns"):
            with pytest.raises(PermissionError):
                await ns.open(name, "r+")
        for name in ("iproute", "arp", "ipifc/lo/ctl"):
            with pytest.raises(PermissionError):
                await ns.open(name, "w")


async def test_statistics_are_the_kernels() -> None:
    def stats(text: str) -> dict[str, int]:
        return {key: int(value) for key, value in (line.split() for line in text.splitlines())}

    with listening() as (sock, port):
        async with served() as ns:
            before = stats(await ns.read("tcp/stats"))
            async with call(ns, "tcp", f"connect 127.0.0.1!{port}"):
                sock.accept()[0].close()
                assert stats(await ns.read("tcp/stats"))["ActiveOpens"] > before["ActiveOpens"]
            assert "InDatagrams" in stats(await ns.read("udp/stats"))
            assert stats(await ns.read("ipifc/lo/stats"))["rx_packets"] > 0


async def test_plan_9s_dialect_and_its_words() -> None:
    with web() as port:
        async with served(version="9P2000") as ns, call(ns, "tcp") as c:
            with pytest.raises(NineError, match="bad address 'x'"):
                await c.order("connect x!1")
            await c.order(f"connect 127.0.0.1!{port}")
            data = await c.open("data")
            await data.pwrite(b"GET / HTTP/1.0\r\n\r\n", 0)
            content = b""
            while piece := await data.pread(8192, len(content)):  # the first empty read is the end
                content += piece
            assert content.endswith(PAGE)


def vsock_loopback() -> bool:
    """Tell whether this kernel has an address for itself: the module vsock_loopback."""
    try:
        with socket.socket(socket.AF_VSOCK) as sock:
            sock.bind((1, socket.VMADDR_PORT_ANY))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not vsock_loopback(), reason="no vsock loopback in this kernel")
async def test_vsock() -> None:
    async with served() as ns, call(ns, "vsock") as c:
        await c.order("announce *!0")
        assert await c.state() == "Listen"
        async with call(ns, "vsock") as other:
            with trio.fail_after(SOON):
                await other.order(f"connect local!{await c.port()}")
            theirs = await c.listen()
            assert (await theirs.read("remote")).startswith("1!")
            await (await other.open("data")).pwrite(b"between", 0)
            assert await (await theirs.open("data")).pread(100, 0) == b"between"
            await other.order("shutdown")
            assert await all_of(theirs.files[0]) == b""
            await theirs.close()


async def test_the_ctl_that_clone_gave_goes_on_as_that_of_the_call() -> None:
    async with served() as ns, call(ns, "tcp", "announce 127.0.0.1!0", "keep") as c:
        port = await c.port()
        path = c.path
        await c.close()
        with socket.create_connection(("127.0.0.1", port)):  # kept: it is there without an open file
            ctl = await ns.open(f"{path}/listen", "r+")
            theirs = await call_of(ns, "tcp", ctl)
            await theirs.order("hangup")
            assert await theirs.state() == "Closed"
            await theirs.close()
        assert await numbers(ns, "tcp") == ["0"]
