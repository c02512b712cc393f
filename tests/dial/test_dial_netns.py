import errno
import os
import socket
import subprocess
from collections.abc import Iterator

import pytest
import trio

from mk9p.dial import SocketLink, dial, listen
from mk9p.errors import NineError
from tests.dial.helpers_dial import talk


async def _namespaces() -> set[str]:
    """The network namespaces that the main thread and trio's own are in."""

    def mine() -> str:
        return os.readlink("/proc/thread-self/ns/net")

    return {mine(), await trio.to_thread.run_sync(mine)}


@pytest.fixture
def netns() -> Iterator[str]:
    """The file of a network namespace with its loopback up and a single port to dial from."""
    if os.geteuid():
        pytest.skip("needs root to make a network namespace")
    name = f"mk9p-test-{os.getpid()}"
    try:
        subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot make a network namespace: {error}")
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield f"/run/netns/{name}"
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


async def test_sockets_stay_in_their_namespace(netns: str) -> None:
    here = await _namespaces()
    assert len(here) == 1
    for host in ("127.0.0.1", "localhost", "*"):
        with socket.socket() as outside:  # has the port there and does not listen, so nobody else does
            outside.bind(("127.0.0.1", 0))
            port = outside.getsockname()[1]
            listener = await listen(f"{netns}/tcp!{host}!{port}")
            assert listener.address == f"{netns}/tcp!{host}!{port}"
            assert listener.loopback is False
            with pytest.raises(ConnectionRefusedError):
                await dial(f"tcp!127.0.0.1!{port}")
        one = await dial(listener.address)
        other = await listener.accept()
        for link in (one, other):
            assert link.peer.address.startswith("127.0.0.1!")
            assert (link.peer.transport.name, link.peer.loopback) == ("tcp", False)
        await talk(one, other)
        one.close()
        other.close()
        await listener.aclose()
    assert await _namespaces() == here


async def test_a_port_may_be_taken_once_in_each_namespace(netns: str) -> None:
    outer = await listen("tcp!127.0.0.1!0")
    inner = await listen(f"{netns}/{outer.address}")
    with pytest.raises(
        NineError,
        match=f"^{inner.address}: Address already in use: another program listens there: `ss -lp` shows which$",
    ):
        await listen(inner.address)
    await outer.aclose()
    await inner.aclose()


async def test_a_dial_is_never_connected_to_itself(netns: str) -> None:
    """With one port to dial from, and that one dialled, TCP would: what happens to a re-dialler once in 28 000 times."""
    name = os.path.basename(netns)
    command = "echo 40001 40001 > /proc/sys/net/ipv4/ip_local_port_range"
    await trio.run_process(["ip", "netns", "exec", name, "sh", "-c", command])
    with pytest.raises(ConnectionRefusedError, match=f"^{netns}/tcp!127.0.0.1!40001: Connection refused$"):
        await dial(f"{netns}/tcp!127.0.0.1!40001")


async def test_refusals(netns: str) -> None:
    with pytest.raises(
        NineError, match="No such file or directory: no network namespace /run/netns/mk9p-none: ip netns list"
    ) as caught:
        await dial("/run/netns/mk9p-none/tcp!127.0.0.1!1")
    assert caught.value.errno == errno.ENOENT
    for call in (dial, listen):
        with pytest.raises(NineError, match="cannot enter /proc/self/ns/pid: it needs root") as caught:
            await call("/proc/self/ns/pid/tcp!127.0.0.1!1")
        assert caught.value.errno == errno.EINVAL
    os.seteuid(65534)
    try:
        for file in (netns, "/proc/self/ns/net"):  # one that open(2) refuses, and one that setns(2) does
            with pytest.raises(PermissionError, match=f"cannot enter {file}: it needs root"):
                await dial(f"{file}/tcp!127.0.0.1!1")
    finally:
        os.seteuid(0)


async def test_cancelled_in_a_namespace(netns: str) -> None:
    for host in ("127.0.0.1", "localhost"):
        with trio.CancelScope() as scope:
            scope.cancel()
            await dial(f"{netns}/tcp!{host}!1")
        assert scope.cancelled_caught


@pytest.mark.skipif(bool(os.geteuid()), reason="needs root to enter a network namespace")
async def test_own_namespace_by_its_file() -> None:
    listener = await listen("tcp!127.0.0.1!0")
    link = await dial(f"/proc/self/ns/net/{listener.address}")
    other = await listener.accept()
    assert isinstance(link, SocketLink)
    assert link.sock.family == socket.AF_INET
    link.close()
    other.close()
    await listener.aclose()
