"""tcp and vsock, and what all listeners do."""

import contextlib
import errno
import logging
import os
import resource
import shutil
import socket
import struct
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from mk9p.dial import RESERVED, SocketLink, dial, listen
from mk9p.dial.link import IOV_MAX
from mk9p.errors import NineError
from mk9p.testing import SOON
from tests.dial.helpers_dial import ended, pair, receive, send_all, talk

NEEDS_IPV6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")


@pytest.mark.parametrize(
    ("host", "peer"),
    [
        ("127.0.0.1", "127.0.0.1"),
        pytest.param("::1", "::1", marks=NEEDS_IPV6),
        ("localhost", "127.0.0.1"),
        ("*", "127.0.0.1"),
    ],
)
async def test_tcp(host: str, peer: str) -> None:
    listener = await listen(f"tcp!{host}!0")
    port = listener.address.rpartition("!")[2]
    assert listener.address == f"tcp!{host}!{port}"
    assert int(port) > 0
    assert (listener.transport.name, listener.loopback) == ("tcp", host != "*")
    one, other = await pair(listener)
    assert one.peer.address == f"{peer}!{port}"
    assert other.peer.address.startswith(f"{peer}!")
    for link in (one, other):
        assert isinstance(link, SocketLink)
        assert (link.peer.transport.name, link.peer.private, link.peer.loopback, link.peer.uid) == (
            "tcp",
            False,
            True,
            None,
        )
        assert link.lossy is False
        assert link.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert link.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert link.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == b"reno"
        assert link.rfd == link.wfd == link.sock.fileno()
    await talk(one, other)
    one.close()
    assert await ended(other)
    other.close()
    await listener.aclose()


@NEEDS_IPV6
async def test_tcp_reaches_both_families_of_any() -> None:
    listener = await listen("tcp!*!0")
    for host in ("127.0.0.1", "::1"):
        link = await dial(f"tcp!{host}!{listener.address.rpartition('!')[2]}")
        accepted = await listener.accept()
        assert accepted.peer.address.rpartition("!")[0] == host
        link.close()
        accepted.close()
    await listener.aclose()


@pytest.mark.skipif(
    bool(os.geteuid()) or not shutil.which("unshare"), reason="needs root and unshare(1) for an /etc/hosts of its own"
)
async def test_tcp_takes_whichever_address_of_a_host_answers(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1 both.invalid\n127.0.0.2 both.invalid\n")
    script = """
import sys, trio
from mk9p.dial import dial, listen
async def main():
    for host in ("127.0.0.1", "127.0.0.2"):
        listener = await listen(f"tcp!{host}!0")
        link = await dial("tcp!both.invalid!" + listener.address.split("!")[2])
        print(link.peer.address == listener.address.removeprefix("tcp!"))
trio.run(main)
"""
    command = f'mount --bind "{tmp_path}/hosts" /etc/hosts && exec "$0" -c "$1"'
    done = await trio.run_process(["unshare", "-m", "sh", "-c", command, sys.executable, script], capture_stdout=True)
    assert done.stdout == b"True\nTrue\n"


async def test_tcp_refusals() -> None:
    listener = await listen("tcp!127.0.0.1!0")
    with pytest.raises(
        NineError,
        match="^" + listener.address + ": Address already in use: another program listens there: `ss -lp` shows which$",
    ) as caught:
        await listen(listener.address)
    assert caught.value.errno == errno.EADDRINUSE
    await listener.aclose()
    with pytest.raises(ConnectionRefusedError, match="^" + listener.address + ": Connection refused$"):
        await dial(listener.address)
    with pytest.raises(NineError, match=r"no address for 'no\.such\.host\.invalid': ") as caught:
        await dial("tcp!no.such.host.invalid!564")
    assert caught.value.errno == errno.EHOSTUNREACH
    with pytest.raises(NineError, match="port 0 is for listening only"):
        await dial("tcp!127.0.0.1!0")


async def test_a_listener_can_follow_another_at_once() -> None:
    """SO_REUSEADDR: the accepted link's port stays in TIME_WAIT."""
    listener = await listen("tcp!127.0.0.1!0")
    one, other = await pair(listener)
    other.close()
    assert await ended(one)
    one.close()
    await listener.aclose()
    await (await listen(listener.address)).aclose()


async def test_dialling_tcp_can_be_cancelled() -> None:
    """A listener with a full queue drops SYNs, and the dialler waits for minutes."""
    with socket.socket() as full, trio.CancelScope() as scope:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = f"tcp!127.0.0.1!{full.getsockname()[1]}"
        first = await dial(address)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(dial, address)
                await trio.testing.wait_all_tasks_blocked(0.05)
                scope.cancel()
        finally:
            first.close()
    assert scope.cancelled_caught


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_closing_wakes_who_waits_and_can_be_done_twice(kind: str, tmp_path: Path) -> None:
    listener = await listen("tcp!127.0.0.1!0" if kind == "tcp" else f"unix!{tmp_path}/s")
    one, other = await pair(listener)

    async def closed(wait: object) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await wait()  # type: ignore[operator]

    async with trio.open_nursery() as nursery:
        for wait in (one.wait_readable, listener.accept):
            nursery.start_soon(closed, wait)
        await trio.testing.wait_all_tasks_blocked()
        one.close()
        await listener.aclose()
    one.close()
    await listener.aclose()
    assert (one.rfd, one.wfd) == (-1, -1)
    for call in (one.wait_readable, one.wait_writable, listener.accept):
        await closed(call)
    with pytest.raises(OSError, match="Bad file descriptor"):
        one.recv_into(memoryview(bytearray(1)))
    assert await ended(other)
    other.close()


async def test_waiting_and_accepting_can_be_cancelled_and_lose_nothing(tmp_path: Path) -> None:
    listener = await listen(f"unix!{tmp_path}/s")
    one, other = None, None
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.accept)
            await trio.testing.wait_all_tasks_blocked()
            one = await dial(listener.address)
            scope.cancel()
    assert one is not None
    other = await listener.accept()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.wait_readable)
            await trio.testing.wait_all_tasks_blocked()
            await send_all(one, b"kept")
            scope.cancel()
    assert await receive(other, 4) == b"kept"
    one.close()
    other.close()
    await listener.aclose()


async def test_sendmsg_takes_any_number_of_buffers(tmp_path: Path) -> None:
    listener = await listen(f"unix!{tmp_path}/s")
    one, other = await pair(listener)
    assert one.sendmsg([b"ab", bytearray(b"c"), memoryview(b"d")]) == 4
    assert one.sendmsg([b"x"] * (IOV_MAX + 500)) == IOV_MAX
    assert await receive(other, 4 + IOV_MAX) == b"abcd" + b"x" * IOV_MAX
    one.close()
    other.close()
    await listener.aclose()


async def test_a_client_that_is_gone_before_it_is_accepted_does_not_end_the_listener() -> None:
    listener = await listen("tcp!127.0.0.1!0")
    with socket.socket() as rude:
        rude.connect(("127.0.0.1", int(listener.address.rpartition("!")[2])))
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one, other = await pair(listener)
    await send_all(one, b"x")
    assert await receive(other, 1) == b"x"
    one.close()
    other.close()
    await listener.aclose()


async def test_a_full_table_of_descriptors_does_not_end_the_listener(tmp_path: Path) -> None:
    listener = await listen(f"unix!{tmp_path}/s")
    one = await dial(listener.address)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    said: list[str] = []

    class Room(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            said.append(record.getMessage())

    room = Room()
    logging.getLogger("mk9p.dial").addHandler(room)
    holes = os.dup(0)
    os.close(holes)
    resource.setrlimit(resource.RLIMIT_NOFILE, (holes, hard))
    try:
        with trio.fail_after(SOON):
            other = await listener.accept()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        logging.getLogger("mk9p.dial").removeHandler(room)
    assert said == [f"{listener.address}: Too many open files: only root is let in now"]
    one.close()
    other.close()
    await listener.aclose()


@pytest.fixture
def vsock_loopback() -> None:
    """Skip unless this kernel can reach itself by vsock; one that is a guest itself may have it and yet not answer CID 1."""
    try:
        with socket.socket(socket.AF_VSOCK) as server, socket.socket(socket.AF_VSOCK) as client:
            server.bind((1, socket.VMADDR_PORT_ANY))
            server.listen()
            client.settimeout(1)
            client.connect((1, server.getsockname()[1]))
    except OSError as error:
        pytest.skip(f"no vsock loopback here: {error}")


async def test_vsock(vsock_loopback: None) -> None:
    for cid in ("local", "*"):
        listener = await listen(f"vsock!{cid}!0")
        assert listener.address.startswith(f"vsock!{cid}!")
        assert int(listener.address.rpartition("!")[2]) > 0
        assert (listener.transport.name, listener.loopback) == ("vsock", cid == "local")
        one, other = await pair(listener)
        assert (one.peer.transport.name, one.peer.private, one.peer.loopback) == ("vsock", False, True)
        await talk(one, other)
        one.close()
        assert await ended(other)
        other.close()
        await listener.aclose()


@pytest.mark.skipif(not os.path.exists("/dev/vsock"), reason="no /dev/vsock here")
async def test_vsock_listens_without_a_peer() -> None:
    listener = await listen("vsock!*!0")
    assert int(listener.address.rpartition("!")[2]) > 0
    with pytest.raises(NineError) as caught:
        await listen(listener.address)
    assert caught.value.errno == errno.EADDRINUSE
    await listener.aclose()


def free_below(top: int) -> int:
    """Return a port below that nobody listens on now."""
    for port in range(top - 1, 0, -1):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("all are in use")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only it has ports below 1024")
async def test_root_dials_a_port_of_root_s_from_one_and_others_from_others() -> None:
    async def dialled_from(port: int) -> int:
        listener = await listen(f"tcp!127.0.0.1!{port}")
        try:
            ours, theirs = await pair(listener)
            ours.close()
            theirs.close()
            return int(theirs.peer.address.rpartition("!")[2])
        finally:
            await listener.aclose()

    assert await dialled_from(0) >= RESERVED
    assert 665 <= await dialled_from(free_below(RESERVED)) < RESERVED


@pytest.mark.skipif(not os.path.exists("/dev/vsock"), reason="no /dev/vsock here")
async def test_an_instance_of_a_multikernel_is_not_dialled_where_there_is_none() -> None:
    """Its number is also one of vsock's own: 1 is this machine."""
    with pytest.raises(NineError, match="vsock!mk1!564"):
        await dial("vsock!mk1!564")
    with pytest.raises(NineError, match="it listens at"):
        await listen("vsock!mk1!564")
