"""What `mk9p mount` tells v9fs, from addresses and facts alone. The mounts themselves are made in guests (tests/vm)."""

import errno
import os
import socket
import threading
from pathlib import Path

import pytest
import trio
import trio.testing

from mk9p.clients.v9fs import MSIZE, Wish, answering, dialled, differences, numeric_hosts, plan, relay
from mk9p.errors import NineError
from mk9p.testing import SOON
from mk9p.wire import NOTAG, Dialect, codec, decode
from mk9p.wire import messages as m

COMMON = (
    "version=9p2000.L",
    "msize=1048576",
    "cache=none",
    "noxattr",
    "uname=root",
    "access=client",
    "nosuid",
    "nodev",
)


def test_tcp_is_dialled_by_the_kernel() -> None:
    made = plan("tcp!k1!1564", Wish(), me="root", release="6.1.0-56-amd64", numeric="10.0.0.1")
    assert made.arguments("/n") == [
        "-i",
        "-t",
        "9p",
        "-o",
        ",".join(("trans=tcp", "port=1564", *COMMON)),
        "10.0.0.1",
        "/n",
    ]
    assert not made.dialled


def test_tcp_without_a_port_is_564_and_a_port_of_root_s_is_dialled_from_one() -> None:
    first = ("trans=tcp", "port=564", "privport")
    assert plan("tcp!k1", Wish(), me="root", release="6.1", numeric="10.0.0.1").options[:3] == first


def test_unix_has_its_path_as_the_source() -> None:
    made = plan("unix!/run/mk9p/ns", Wish(), me="root", release="6.1.0", numeric=None)
    assert (made.source, made.options[0], made.dialled) == ("/run/mk9p/ns", "trans=unix", False)


@pytest.mark.parametrize(
    "address",
    [
        "unix!@name",
        f"unix!/{'x' * 110}",
        "vsock!2!564",
        "char!/dev/hvc1",
        "exec!ssh k1 mk9p serve",
        "fd!0!1",
        "/run/netns/k1/tcp!10.0.0.1!564",
        "tcp!::1!564",
    ],
)
def test_all_else_is_handed_over(address: str) -> None:
    made = plan(address, Wish(), me="root", release="6.12.107", numeric=None)
    assert made.dialled
    assert made.arguments("/n", (7, 8))[4] == ",".join(("trans=fd", "rfdno=7", "wfdno=8", *COMMON))


def test_a_user_for_all() -> None:
    options = plan("unix!/s", Wish(user="alice", aname="k/k1", readonly=True), me="root", release="6.1").options
    assert {"uname=alice", "access=any", "aname=k/k1", "ro"} <= {*options}
    assert "access=client" not in options


def test_extended_attributes_are_asked_for_where_wanted() -> None:
    assert "noxattr" in plan("unix!/s", Wish(), me="root", release="6.1").options
    assert "noxattr" not in plan("unix!/s", Wish(attributes=True), me="root", release="6.1").options


def test_caches() -> None:
    assert "cache=readahead" in plan("unix!/s", Wish(cache="readahead"), me="root", release="6.4.0").options
    for wish, release in ((Wish(cache="readahead"), "6.1.0-56-amd64"), (Wish(cache="most"), "6.12")):
        with pytest.raises(NineError) as caught:
            plan("unix!/s", wish, me="root", release=release)
        assert caught.value.errno == errno.EINVAL


def test_a_comma_would_be_another_option() -> None:
    for wish in (Wish(aname="a,uname=root"), Wish(user="a,b")):
        with pytest.raises(NineError, match="comma"):
            plan("unix!/s", wish, me="root", release="6.1")


async def test_of_several_hosts_the_kernel_is_told_one_that_answers() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.2")
    port = listeners[0].socket.getsockname()[1]
    assert await answering(f"tcp!many!{port}", ["127.0.0.1", "127.0.0.2"], SOON) == "127.0.0.2"
    for listener in listeners:
        await listener.aclose()
    with pytest.raises(ConnectionRefusedError):
        await answering(f"tcp!many!{port}", ["127.0.0.1", "127.0.0.2"], SOON)


def test_numeric_hosts() -> None:
    assert numeric_hosts("tcp!127.0.0.1!564") == ["127.0.0.1"]
    assert numeric_hosts("tcp!*!564") == ["127.0.0.1"]
    assert numeric_hosts("tcp!::1!564") == []
    assert numeric_hosts("/run/netns/x/tcp!127.0.0.1!564") == []
    assert numeric_hosts("unix!/s") == []


def test_what_the_kernel_took_otherwise_is_noticed() -> None:
    shown = ["rw", "nosuid", "access=client", "msize=65536", "trans=tcp", "port=564"]
    assert differences(["trans=tcp", *COMMON], shown) == ["msize=65536 and not 1048576"]
    assert differences(COMMON, ["access=any", "noextend"]) == [
        "access=any and not client",
        "version=9p2000 and not 9p2000.L: the server speaks no better",
    ]
    assert differences(COMMON, ["access=client", "msize=1048576"]) == []


def test_the_relay_carries_both_ways_and_ends_with_either() -> None:
    line, far = socket.socketpair()
    near, kernel = socket.socketpair()
    for sock in (line, near):
        sock.setblocking(False)
    thread = threading.Thread(target=relay, args=((line.fileno(), line.fileno()), near.fileno()))
    thread.start()
    data = os.urandom(3_000_000)
    sender = threading.Thread(target=kernel.sendall, args=(data,))
    sender.start()
    got = b""
    while len(got) < len(data):
        got += far.recv(1 << 16)
    sender.join()
    assert got == data
    far.sendall(b"answer")
    assert kernel.recv(100) == b"answer"
    kernel.close()
    thread.join(10)
    assert not thread.is_alive()
    for sock in (line, far, near):
        sock.close()


async def test_answers_of_an_earlier_conversation_are_not_taken_for_the_kernels(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    listener = trio.socket.socket(trio.socket.AF_UNIX)
    await listener.bind(str(tmp_path / "line"))
    listener.listen()
    stale = codec(Dialect.L, m.Rread.type).pack(7, b"x" * 3000)
    version = codec(Dialect.L, m.Rversion.type).pack(NOTAG, MSIZE, "9P2000.L")

    async def serve() -> None:
        stream, _ = await listener.accept()
        with stream:
            await stream.send(stale[1000:] + stale)
            asked = codec(Dialect.L, m.Tversion.type).pack(NOTAG, MSIZE, "9P2000.L")
            for _ in range(3):  # the first are lost
                assert await stream.recv(4096) == asked
            await stream.send(stale + version)
            flush = decode(Dialect.L, await stream.recv(4096))
            assert isinstance(flush, m.Tflush)
            assert flush.oldtag == NOTAG
            # and now they are answered too
            await stream.send(version + codec(Dialect.L, m.Rflush.type).pack(flush.tag ^ 1) + version)
            await stream.send(codec(Dialect.L, m.Rflush.type).pack(flush.tag))
            assert await stream.recv(4096) == b"and now the kernel's own"

    with listener, trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            link = await dialled(f"char!{tmp_path}/line", 10)
            with pytest.raises(BlockingIOError):
                link.recv_into(memoryview(bytearray(100)))
            link.send(b"and now the kernel's own")
            link.close()
