"""net: conversations that are hung up, given up, reset, or end with the server; nothing stays of any."""

import errno
import gc
import os
import socket
import struct

import pytest
import trio
import trio.testing

from mk9p.client import Client, connect
from mk9p.errors import NineError
from mk9p.servers.net import tree
from mk9p.testing import SOON, joined, mounted, serving, until
from tests.leftovers import descriptors as open_now
from tests.server.left_open import descriptors, nothing_more
from tests.servers.calls import call, call_of, full, listening, numbers, served


async def test_hangup_ends_readers_and_writers() -> None:
    with listening() as (sock, port):
        async with served() as ns, call(ns, "tcp", f"connect 127.0.0.1!{port}") as c, trio.open_nursery() as nursery:
            peer, _ = sock.accept()
            data, got = await c.open("data"), []

            async def read() -> None:
                got.append(await data.pread(10, 0))

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            before = descriptors()
            await c.order("hangup")
            await until(lambda: got)
            assert (got, await c.state(), await c.read("remote")) == ([b""], "Closed", "::!0\n")
            assert descriptors() == before - 1
            with pytest.raises(BrokenPipeError):
                await data.pwrite(b"x", 0)
            peer.settimeout(SOON)
            assert peer.recv(1) == b""
            peer.close()
            await c.order(f"connect 127.0.0.1!{port}")  # and it may be used again
            sock.accept()[0].close()


@pytest.mark.parametrize("network", ["tcp", "udp"])
async def test_hangup_wakes_who_waits_for_calls(network: str) -> None:
    async with served() as ns, call(ns, network, "announce 127.0.0.1!0") as c, trio.open_nursery() as nursery:
        errors = []

        async def wait() -> None:
            with pytest.raises(OSError) as caught:  # noqa: PT011
                await c.listen()
            errors.append(caught.value.errno)

        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await c.order("hangup")
        await until(lambda: not (len(errors) < 2))
        assert errors == [errno.EPIPE, errno.EPIPE]
        assert await numbers(ns, network) == ["0"]


async def test_a_connect_that_is_given_up_leaves_nothing() -> None:
    with full() as port:
        async with served() as ns, call(ns, "tcp") as c:
            before = open_now()
            with trio.move_on_after(0.05) as scope:
                await c.order(f"connect 127.0.0.1!{port}")
            assert scope.cancelled_caught
            await c.until("Closed")
            await nothing_more(before)


async def test_a_connect_that_is_hung_up_fails() -> None:
    with full() as port:
        async with served() as ns, call(ns, "tcp") as c, trio.open_nursery() as nursery:
            before, errors = open_now(), []

            async def connecting() -> None:
                with pytest.raises(NineError) as caught:
                    await c.order(f"connect 127.0.0.1!{port}")
                errors.append(caught.value.errno)

            nursery.start_soon(connecting)
            await c.until("Syn_sent")
            ctl = await c.open("ctl", "r+")
            with pytest.raises(NineError) as busy:
                await ctl.pwrite(f"connect 127.0.0.1!{port}".encode(), 0)
            assert busy.value.errno == errno.EBUSY
            await ctl.pwrite(b"hangup", 0)
            await until(lambda: errors)
            assert (errors, await c.state()) == ([errno.ECANCELED], "Closed")
            await nothing_more(before)


async def test_a_reset_is_an_error_and_never_an_end() -> None:
    with listening() as (sock, port):
        async with served() as ns, call(ns, "tcp", f"connect 127.0.0.1!{port}") as c:
            peer, _ = sock.accept()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            data = await c.open("data")
            for _ in range(3):
                with pytest.raises(ConnectionResetError):
                    await data.pread(1, 0)
            assert await c.state() == "Closed"
            with pytest.raises(BrokenPipeError):
                await data.pwrite(b"x", 0)


async def test_a_cancelled_read_loses_nothing() -> None:
    with listening() as (sock, port):
        async with served() as ns, call(ns, "tcp", f"connect 127.0.0.1!{port}") as c:
            peer, _ = sock.accept()
            with peer:
                data = await c.open("data")
                sent = os.urandom(20000)
                got = b""
                for at in range(0, len(sent), 500):
                    with trio.move_on_after(0.002):
                        got += await data.pread(1000, len(got) + 1)
                    peer.sendall(sent[at : at + 500])
                while len(got) < len(sent):
                    got += await data.pread(1000, len(got) + 1)
                assert got == sent


async def test_the_end_of_a_client_ends_all_that_it_had() -> None:
    with listening() as (sock, port):
        before = open_now()
        async with tree() as net:
            async with mounted(net) as ns:
                for line in (f"connect 127.0.0.1!{port}", "announce *!0"):
                    c = await call_of(ns, "tcp", await ns.open("tcp/clone", "r+"))
                    await c.order(line)
                    await ns.open(f"{c.path}/data", "r+")
                c = await call_of(ns, "udp", await ns.open("udp/clone", "r+"))
                await c.order("announce *!0")
            async with mounted(net) as ns:
                assert [await numbers(ns, network) for network in ("tcp", "udp")] == [[], []]
            gc.collect()
            peer, _ = sock.accept()
            peer.settimeout(SOON)
            assert peer.recv(1) == b""
            peer.close()
            await nothing_more(before)


async def test_the_end_of_the_server_ends_what_was_kept() -> None:
    with listening() as (sock, port):
        async with served() as ns:
            for network, line in (
                ("tcp", f"connect 127.0.0.1!{port}"),
                ("tcp", "announce *!0"),
                ("udp", "announce *!0"),
            ):
                async with call(ns, network, line, "keep"):
                    pass
            assert (await numbers(ns, "tcp"), await numbers(ns, "udp")) == (["0", "1"], ["0"])
        sock.accept()[0].close()


async def test_what_waits_when_its_client_dies_is_ended() -> None:
    """A client's line breaks while it waits for a call and for a connect: nothing stays."""
    with full() as port:
        before = open_now()
        async with tree() as net, serving(net) as server:
            line, other = joined(server), joined(server)
            with line, other:
                async with connect(dialled(other), uname="root") as watcher:
                    idle = open_now()
                    async with connect(dialled(line), uname="root") as ns, trio.open_nursery() as waiting:
                        await _wait_for_everything(ns, port, waiting)
                        with trio.fail_after(SOON):
                            while await _states(watcher) != ["Listen", "Syn_sent"]:
                                await trio.lowlevel.checkpoint()
                        line.shutdown(socket.SHUT_RDWR)
                    with trio.fail_after(SOON):
                        while await numbers(watcher, "tcp"):
                            await trio.lowlevel.checkpoint()
                    await nothing_more(idle)  # the server's end of the line has gone, too
        await nothing_more(before)


def dialled(sock: socket.socket) -> str:
    """Return the dial string of a socket's other end, which stays ours as well."""
    return f"fd!{os.dup(sock.fileno())}!{os.dup(sock.fileno())}"


async def _wait_for_everything(ns: Client, port: int, waiting: trio.Nursery) -> None:
    announced = await call_of(ns, "tcp", await ns.open("tcp/clone", "r+"))
    await announced.order("announce 127.0.0.1!0")
    connecting = await call_of(ns, "tcp", await ns.open("tcp/clone", "r+"))

    async def broken(work: object, *args: object) -> None:
        with pytest.raises(OSError):  # noqa: PT011 - whatever it says, the connection has broken
            await work(*args)  # type: ignore[operator]

    waiting.start_soon(broken, announced.listen)
    waiting.start_soon(broken, connecting.order, f"connect 127.0.0.1!{port}")


async def _states(ns: Client) -> list[str]:
    return [(await ns.read(f"tcp/{number}/status")).split()[0] for number in await numbers(ns, "tcp")]
