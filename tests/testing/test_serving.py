"""A server while a block runs, by hand and at an address."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

import mk9p.sync
from mk9p.auth import Policy
from mk9p.client import connect
from mk9p.server import Limits
from mk9p.testing import Line, Memory, address_of, in_thread, joined, mounted, serving, serving_at, until
from mk9p.tree import Dir, Text
from mk9p.wire import messages as m


async def test_a_tree_is_served_at_an_address_while_the_block_runs(tmp_path: Path) -> None:
    async with serving_at(f"unix!{tmp_path}/s", Dir({"f": Text("text")})) as host:
        assert host.address == f"unix!{tmp_path}/s"
        async with connect(host.address) as client:
            assert await client.read("f") == "text"
            assert len(host.server.connections) == 1
        await until(lambda: not host.server.connections)
    with pytest.raises(OSError, match="no such socket"):
        async with connect(host.address):
            pass


async def test_a_port_0_is_told_and_stays_when_the_host_comes_back() -> None:
    async with serving_at("tcp!127.0.0.1!0", Dir({"f": Text("text")}), Policy(trust=True)) as host:
        first = host.server
        assert not host.address.endswith("!0")
        await host.stop()
        with pytest.raises(ConnectionRefusedError):
            async with connect(host.address):
                pass
        await host.start()
        assert host.server is not first
        async with connect(host.address, uname="root") as client:
            assert await client.read("f") == "text"


async def test_a_host_that_stops_hangs_up_and_closes_what_was_open(tmp_path: Path) -> None:
    tree = Memory({"f": "text"})
    async with serving_at(f"unix!{tmp_path}/s", tree) as host, connect(host.address) as client:
        await client.open("f")
        assert tree.at("f").open_now == 1
        await host.stop()
        assert tree.at("f").open_now == 0
        with pytest.raises(OSError, match=r"hung up|closed|reset|ended"):
            await client.read("f")


async def test_an_address_that_cannot_be_is_an_error_of_the_block() -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="none!x"), flatten_subgroups=True):
        async with serving_at("none!x", Dir({})):
            raise AssertionError


async def test_clients_are_added_by_hand_and_limits_hold() -> None:
    async with (
        serving(Dir({"f": Text("text")}), limits=Limits(msize=4242)) as server,
        connect(address_of(server), uname="root") as one,
        connect(address_of(server), uname="root") as two,
    ):
        assert len(server.connections) == 2
        assert one.connection.msize == two.connection.msize == 4242
        assert await two.read("f") == "text"


async def test_mounted_passes_on_how_to_connect() -> None:
    async with mounted(Dir({"f": Text("text")}), version="9P2000", msize=5000) as client:
        assert (client.connection.dialect.version, client.connection.msize) == ("9P2000", 5000)
    await trio.lowlevel.checkpoint()


def test_a_block_in_a_thread_serves_a_test_that_blocks_and_can_be_called_into() -> None:
    tree = Memory({"f": "text"})
    with in_thread(serving_at("tcp!127.0.0.1!0", tree)) as (host, call):
        with mk9p.sync.connect(host.address) as ns:
            assert ns.read("f") == "text"
        assert call(lambda: len(host.server.connections)) in (0, 1)
    with pytest.raises(ConnectionRefusedError), mk9p.sync.connect(host.address):
        pass


def test_what_entering_and_leaving_a_block_in_a_thread_raises_is_raised() -> None:
    with (
        pytest.RaisesGroup(pytest.RaisesExc(OSError, match="none!x"), flatten_subgroups=True),
        in_thread(serving_at("none!x", Dir({}))),
    ):
        raise AssertionError
    with (
        pytest.RaisesGroup(KeyError, allow_unwrapped=True, flatten_subgroups=True),
        in_thread(serving_at("tcp!127.0.0.1!0", Dir({}))),
    ):
        raise KeyError


async def test_a_line_by_hand_sends_what_it_is_given_and_shows_what_comes() -> None:
    async with (
        serving(Dir({"f": Text("text")})) as server,
        trio.SocketStream(trio.socket.from_stdlib_socket(joined(server))) as stream,
    ):
        line = Line(stream)
        await line.start()
        assert isinstance(await line.open(1, "f"), m.Rlopen)
        assert (await line.rpc(m.Tread, 7, 1, 0, 100)).data == b"text"
        assert isinstance(await line.open(2, "none"), m.Rlerror)
        await line.send(m.Tclunk, 9, 1)
        assert await line.frame() == bytes([7, 0, 0, 0, m.Rclunk.type, 9, 0])
        await line.raw(bytes(7))
        assert await line.receive() is None


def test_an_interrupt_while_a_block_is_entered_ends_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[bool] = []

    @asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        try:
            await trio.sleep_forever()
            yield
        finally:
            left.append(True)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules[in_thread.__module__], "wait", interrupted)
    with pytest.raises(KeyboardInterrupt), in_thread(slow()):
        pass
    assert left
