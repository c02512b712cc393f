"""net: interfaces, routes and neighbours, and what is far away, in network namespaces of the tests' own, asked by ip(8) beside."""

import errno
import json
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from mk9p.client import Client, connect
from mk9p.errors import NineError
from mk9p.testing import SOON
from tests.servers.calls import call
from tests.servers.netns import Wire, program, run, serving, wire
from tests.servers.trees import names

pytest.importorskip("pyroute2", reason="pyroute2 is not installed")


@pytest.fixture(scope="module")
def wired() -> Iterator[Wire]:
    with wire() as made:
        yield made


@pytest.fixture(scope="module")
def address(wired: Wire, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(wired, wired.near, tmp_path_factory.mktemp("served")) as where:
        yield where


@pytest.fixture
async def net(address: str) -> AsyncIterator[Client]:
    with trio.fail_after(3 * SOON):
        async with connect(address) as ns:
            yield ns


def shown(wired: Wire, *words: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(wired.ip(wired.near, "-j", *words))
    return found


async def fields(net: Client, path: str) -> dict[str, str]:
    words = (await net.read(path)).splitlines()[0].split()
    return dict(zip(words[::2], words[1::2], strict=True))


async def test_interfaces_are_listed_by_number_and_found_by_name(net: Client, wired: Wire) -> None:
    numbers = set(await names(net, "net/ipifc")) - {"stats"}
    assert numbers == {str(link["ifindex"]) for link in shown(wired, "link")}
    link = shown(wired, "link", "show", "wire")[0]
    status = await net.read("net/ipifc/wire/status")
    assert status.splitlines()[0] == (await net.read(f"net/ipifc/{link['ifindex']}/status")).splitlines()[0]
    seen = await fields(net, "net/ipifc/wire/status")
    assert (seen["device"], seen["maxtu"], seen["state"], seen["carrier"]) == ("wire", "1500", "up", "on")
    assert seen["mac"] == str(link["address"]).replace(":", "")
    assert "\t10.77.0.1 /24 10.77.0.0 4294967295 4294967295" in status.splitlines()
    with pytest.raises(FileNotFoundError):
        await net.read("net/ipifc/99/status")


async def test_an_interface_goes_down_and_comes_up(net: Client, wired: Wire) -> None:
    assert "UP" in shown(wired, "link", "show", "wire")[0]["flags"]  # type: ignore[operator]
    await net.write("net/ipifc/wire/ctl", "down")
    assert "UP" not in shown(wired, "link", "show", "wire")[0]["flags"]  # type: ignore[operator]
    assert (await fields(net, "net/ipifc/wire/status"))["state"] == "down"
    assert (await net.read("net/ipifc/wire/ctl")).startswith("down\nmtu 1500\n")
    await net.write("net/ipifc/wire/ctl", "up\nmtu 1400")
    link = shown(wired, "link", "show", "wire")[0]
    assert ("UP" in link["flags"], link["mtu"]) == (True, 1400)  # type: ignore[operator]
    await net.write("net/ipifc/wire/ctl", "mtu 1500")


async def test_addresses_come_and_go(net: Client, wired: Wire) -> None:
    def addresses() -> set[str]:
        found = shown(wired, "addr", "show", "wire")[0]["addr_info"]
        return {f"{a['local']}/{a['prefixlen']}" for a in found if a["scope"] == "global"}  # type: ignore[attr-defined]

    ctl = "net/ipifc/wire/ctl"
    await net.write(
        ctl, "add 10.78.0.1 /24\nadd 10.79.0.1 255.255.0.0\nadd 10.80.0.1 /120\nadd 10.81.0.1\nadd fd01::1 /64"
    )
    assert addresses() == {"10.77.0.1/24", "10.78.0.1/24", "10.79.0.1/16", "10.80.0.1/24", "10.81.0.1/32", "fd01::1/64"}
    with pytest.raises(FileExistsError):
        await net.write(ctl, "add 10.78.0.1 /24")
    assert await net.read("net/ipifc/wire/error") == "add 10.78.0.1: File exists\n"
    settings = await net.read(ctl)
    assert "add 10.79.0.1 /16\n" in settings
    await net.write(
        ctl, "remove 10.78.0.1\nremove 10.79.0.1 /16\nremove 10.80.0.1/24\nremove 10.81.0.1\nremove fd01::1"
    )
    assert addresses() == {"10.77.0.1/24"}
    with pytest.raises(OSError, match="no such address"):
        await net.write(ctl, "remove 10.78.0.1")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("add 10.9", "bad address '10.9'"),
        ("add 10.9.0.1 /33", "bad mask '/33'"),
        ("add 10.9.0.1 255.0.255.0", "bad mask"),
        ("mtu 5", "IPv4 needs at least 68"),
        ("mtu", "usage: mtu N"),
        ("sideways", "unknown word"),
    ],
)
async def test_wrong_words(net: Client, line: str, words: str) -> None:
    with pytest.raises(OSError, match=words) as caught:
        await net.write("net/ipifc/wire/ctl", line)
    assert caught.value.errno == errno.EINVAL


async def test_counters_count(net: Client, wired: Wire) -> None:
    before = await fields(net, "net/ipifc/wire/status")
    async with call(net, "net/udp", "connect 10.77.0.255!9") as c:
        data = await c.open("data")
        for _ in range(5):
            await data.pwrite(bytes(1000), 0)
    after = await fields(net, "net/ipifc/wire/status")
    assert int(after["pktout"]) >= int(before["pktout"]) + 5
    assert int(after["bytesout"]) >= int(before["bytesout"]) + 5000
    stats = dict(line.split() for line in (await net.read("net/ipifc/wire/stats")).splitlines())
    assert int(stats["tx_packets"]) >= int(after["pktout"])


async def test_routes(net: Client, wired: Wire) -> None:
    def routes() -> list[tuple[object, object]]:
        return [
            (route["dst"], route.get("gateway")) for route in shown(wired, "route") if route["protocol"] != "kernel"
        ]

    assert "10.77.0.0 /24 0.0.0.0 4i kernel wire\n" in await net.read("net/iproute")
    await net.write(
        "net/iproute", "add 0.0.0.0 /0 10.77.0.2\nadd 10.90.0.0 /16 10.77.0.2\nadd 10.91.0.0 255.255.0.0 :: wire"
    )
    assert routes() == [("default", "10.77.0.2"), ("10.90.0.0/16", "10.77.0.2"), ("10.91.0.0/16", None)]
    lines = (await net.read("net/iproute")).splitlines()
    assert {"0.0.0.0 /0 10.77.0.2 4 static wire", "10.91.0.0 /16 0.0.0.0 4i static wire"} <= set(lines)
    assert "ipgw=10.77.0.2" in await net.read("net/ndb")
    await net.write("net/iproute", "delete 10.90.0.0 /16\nremove 10.91.0.0 /16")
    assert routes() == [("default", "10.77.0.2")]
    with pytest.raises(ProcessLookupError):
        await net.write("net/iproute", "delete 10.90.0.0 /16")
    await net.write("net/iproute", "flush")
    assert routes() == []
    assert "10.77.0.0 /24" in await net.read("net/iproute")  # what the kernel made stays
    with pytest.raises(NineError) as caught:
        await net.write("net/iproute", "add 10.92.0.0 /16 192.0.2.1")
    assert caught.value.errno == errno.ENETUNREACH
    with pytest.raises(NineError) as caught:
        await net.write("net/iproute", "add 10.92.0.0 /16 10.77.0.2 nowhere")
    assert caught.value.errno == errno.ENODEV


async def test_neighbours(net: Client, wired: Wire) -> None:
    await net.write("net/arp", "add 10.77.0.9 525400aabbcc\nadd 10.77.0.8 52:54:00:aa:bb:cd wire")
    text = await net.read("net/arp")
    assert "ether OK 10.77.0.9 525400aabbcc wire\n" in text
    known = {entry["dst"]: entry["lladdr"] for entry in shown(wired, "neigh") if "lladdr" in entry}
    assert (known["10.77.0.9"], known["10.77.0.8"]) == ("52:54:00:aa:bb:cc", "52:54:00:aa:bb:cd")
    await net.write("net/arp", "del 10.77.0.9")
    with pytest.raises(FileNotFoundError):
        await net.write("net/arp", "del 10.77.0.9")
    await net.write("net/arp", "flush")
    assert "10.77.0.8" not in await net.read("net/arp")


async def test_across_the_wire(net: Client, wired: Wire) -> None:
    script = (
        "import socket; s = socket.create_server(('10.77.0.2', 0)); print(s.getsockname()[1], flush=True)\n"
        "c, where = s.accept(); c.sendall(repr(where[0]).encode()); c.close()\n"
        "print(socket.create_connection(('10.77.0.1', int(input()))).recv(100).decode(), flush=True)"
    )
    with program(wired.inside(wired.far, sys.executable, "-c", script)) as far:
        assert far.stdout is not None
        assert far.stdin is not None
        async with call(net, "net/tcp", f"connect 10.77.0.2!{int(far.stdout.readline())}") as c:
            assert await (await c.open("data")).pread(100, 0) == b"'10.77.0.1'"
            assert (await c.read("local")).startswith("10.77.0.1!")
        async with call(net, "net/tcp", "announce *!0") as c:
            far.stdin.write(f"{await c.port()}\n")
            theirs = await c.listen()
            assert (await theirs.read("remote")).startswith("10.77.0.2!")
            await (await theirs.open("data")).pwrite(b"from near", 0)
            await theirs.close()
        assert far.stdout.readline() == "from near\n"


async def failure(net: Client, where: str) -> tuple[int | None, str]:
    async with call(net, "net/tcp") as c:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - what it must say is what is returned
            await net.write(f"{c.path}/ctl", f"connect {where}")
        assert await c.read("status") == "Closed\n"
        return caught.value.errno, (await c.read("error")).strip()


async def test_failures_have_their_errno_and_words(net: Client, wired: Wire) -> None:
    assert await failure(net, "10.77.0.2!9") == (errno.ECONNREFUSED, "Connection refused")
    assert await failure(net, "198.51.100.1!9") == (errno.ENETUNREACH, "Network is unreachable")
    wired.ip(wired.near, "route", "add", "unreachable", "198.51.100.0/24")
    assert await failure(net, "198.51.100.1!9") == (errno.EHOSTUNREACH, "No route to host")
    # Nobody answers at a hardware address that does not exist; the kernel asks once and again, not for two minutes
    run(*wired.inside(wired.near, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/tcp_syn_retries"))
    wired.ip(wired.near, "neigh", "add", "10.77.0.66", "lladdr", "02:00:00:00:00:66", "dev", "wire")
    assert await failure(net, "10.77.0.66!9") == (errno.ETIMEDOUT, "Connection timed out")


async def test_the_capability_that_is_missing_is_named(wired: Wire, tmp_path: Path) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    less = ("setpriv", "--bounding-set=-net_admin,-net_bind_service")
    with serving(wired, wired.near, tmp_path, *less) as address, trio.fail_after(SOON):
        async with connect(address) as net:
            with pytest.raises(PermissionError, match="CAP_NET_ADMIN"):
                await net.write("net/ipifc/wire/ctl", "down")
            async with call(net, "net/tcp") as c:
                with pytest.raises(PermissionError, match="CAP_NET_BIND_SERVICE"):
                    await net.write(f"{c.path}/ctl", "announce *!80")
                assert await c.read("status") == "Closed\n"
