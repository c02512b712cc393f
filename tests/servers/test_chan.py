"""chan in one kernel: whole messages, each to one reader, whatever is cancelled."""

import pytest
import trio

from mk9p.client import Client
from mk9p.clients.chan import channel
from tests.servers.channels import clients, receive_one, status, told


@pytest.mark.parametrize("version", ["9P2000.L", "9P2000.u", "9P2000"])
async def test_a_message_is_one_write_and_one_read(version: str) -> None:
    messages = [b"one", b"two\nlines\n", b"\0\xff", b"x" * 60000]
    async with clients(count=2, version=version) as (a, b):
        await a.mkdir("chan/c")
        async with channel(a, "chan/c") as out, channel(b, "chan/c") as into:
            for message in messages:
                await out.send(message)
            assert [await into.receive() for _ in messages] == messages


async def test_v9fs_reads_end_where_the_message_ends() -> None:
    """read(2) there asks on at the end of a short answer: it must get an empty one, and then the next message."""
    async with clients() as (ns,):
        await ns.mkdir("chan/c")
        async with await ns.open("chan/c/data", "r+") as file:
            for message in (b"first", b"second"):
                await file.pwrite(message, 0)
            assert await file.pread(4096, 0) == b"first"
            assert await file.pread(4096, 5) == b""
            assert await file.pread(4096, 5) == b"second"
            assert await file.pread(3, 8) == b"ond"  # a shell that has read too much seeks back


async def test_each_message_goes_to_one_reader_in_its_writers_order() -> None:
    count, got = 500, dict[int, list[tuple[int, int]]]()
    async with clients(count=4) as all_:
        await all_[0].mkdir("chan/c")
        await all_[0].write("chan/c/ctl", "capacity 7")
        left = 2 * count

        async def write(ns: Client, writer: int) -> None:
            async with channel(ns, "chan/c", "w") as out:
                for number in range(count):
                    await out.send(f"{writer} {number}".encode())

        async def read(ns: Client, reader: int, scope: trio.CancelScope) -> None:
            nonlocal left
            mine = got[reader] = []
            async with channel(ns, "chan/c", "r") as into:
                while True:
                    writer, number = (await into.receive()).split()
                    mine.append((int(writer), int(number)))
                    left -= 1
                    if not left:
                        scope.cancel()

        async with trio.open_nursery() as nursery:
            for number in (0, 1):
                nursery.start_soon(write, all_[number], number)
                nursery.start_soon(read, all_[2 + number], number, nursery.cancel_scope)
    everything = [message for mine in got.values() for message in mine]
    assert sorted(everything) == [(writer, number) for writer in (0, 1) for number in range(count)]
    for mine in got.values():
        assert mine
        for writer in (0, 1):
            numbers = [number for who, number in mine if who == writer]
            assert numbers == sorted(numbers)


async def test_a_blocked_writer_holds_up_nobody_on_its_own_file() -> None:
    async with clients() as (ns,):
        await ns.mkdir("chan/c")
        await ns.write("chan/c/ctl", "capacity 1")
        async with channel(ns, "chan/c") as both, trio.open_nursery() as nursery:
            await both.send(b"1")
            nursery.start_soon(both.send, b"2")
            await told(ns, "blocked", 1)
            nursery.start_soon(both.send, b"3")
            assert [await both.receive() for _ in range(3)] == [b"1", b"2", b"3"]


async def test_a_cancelled_write_sends_nothing() -> None:
    async with clients(count=3) as (a, b, c):
        await a.mkdir("chan/c")
        await a.write("chan/c/ctl", "capacity 1")
        async with (
            channel(a, "chan/c") as one_,
            channel(b, "chan/c") as two,
            channel(c, "chan/c") as three,
            trio.open_nursery() as nursery,
        ):
            await one_.send(b"1")
            scope = trio.CancelScope()

            async def cancelled() -> None:
                with scope:
                    await one_.send(b"2")

            nursery.start_soon(cancelled)
            await told(a, "blocked", 1)
            nursery.start_soon(two.send, b"3")
            await told(a, "blocked", 2)
            scope.cancel()
            await told(a, "blocked", 1)
            assert [await three.receive(), await three.receive()] == [b"1", b"3"]
            assert (await status(a))["waiting"] == "0"


async def test_cancelled_reads_lose_nothing() -> None:
    """A read is cancelled while the message comes, and its file closed: at every step of the way from writer to reader."""
    async with clients(count=3) as (a, b, c):
        await a.mkdir("chan/c")
        ends = set()
        async with channel(a, "chan/c", "w") as out, channel(c, "chan/c", "r") as other:
            for steps in range(60):
                got: list[bytes] = []
                async with trio.open_nursery() as nursery:
                    scope = trio.CancelScope()
                    nursery.start_soon(receive_one, b, got, scope)
                    await told(a, "readers", 2)
                    nursery.start_soon(out.send, b"%d" % steps)
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
                ends.add(len(got))
                assert got or await other.receive() == b"%d" % steps
                assert (await status(a))["waiting"] == "0"
        assert ends == {0, 1}


async def test_a_reader_that_closes_without_its_message_gives_it_back() -> None:
    async with clients(count=2) as (a, b):
        await a.mkdir("chan/c")
        async with channel(a, "chan/c") as mine:
            await mine.send(b"1")
            await mine.send(b"2")
            async with await b.open("chan/c/data") as file:
                assert await file.pread(100, 0) == b"1"
                assert await file.pread(0, 0) == b""  # "I have not got it"
            async with await b.open("chan/c/data") as file:
                assert await file.pread(100, 0) == b"1"  # and this one has
            assert await mine.receive() == b"2"
            now = await status(a)
            assert (now["sent"], now["received"], now["waiting"]) == ("2", "2", "0")


async def test_a_client_that_vanishes_takes_no_message_with_it() -> None:
    async with clients(count=2) as (a, b):
        await a.mkdir("chan/c")
        async with channel(a, "chan/c") as mine:
            async with trio.open_nursery() as nursery, channel(b, "chan/c") as other:

                async def killed() -> None:
                    with pytest.raises(OSError, match="killed"):
                        await other.receive()

                nursery.start_soon(killed)
                await told(a, "readers", 2)
                b.connection.end("killed")
                await told(a, "readers", 1)
            await mine.send(b"1")
            assert await mine.receive() == b"1"
