"""chan in one kernel: several clients of one tree, each with a connection of its own."""

import errno
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from socket import AF_UNIX, SOCK_STREAM, socketpair

import pytest
import trio

from clients.chan import bell, channel
from mk9p.auth import ROOT, Policy
from mk9p.client import Client, connect, requests
from mk9p.dial import SocketLink
from mk9p.errors import NineError
from mk9p.server import Server
from mk9p.testing import PRIVATE, check_tree
from mk9p.tree import Change, Dir
from servers import chan

SOON = 20.0


@asynccontextmanager
async def clients(
    *, count: int = 1, version: str = "9P2000.L", msize: int = 1 << 20, uname: str = "root"
) -> AsyncIterator[list[Client]]:
    """Serve a tree with `chan/c` in it to several clients."""
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            server = Server(Dir({"chan": chan.tree()}))
            await nursery.start(server.run)
            async with AsyncExitStack() as stack:
                how = {"version": version, "uname": uname}
                yield [await stack.enter_async_context(one(server, msize=msize, **how)) for _ in range(count)]
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def one(
    server: Server, *, version: str = "9P2000.L", msize: int = 1 << 20, uname: str = "root"
) -> AsyncIterator[Client]:
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    theirs.setblocking(False)
    server.add(SocketLink(theirs, PRIVATE), Policy())
    number = ours.detach()
    async with connect(f"fd!{number}!{number}", uname=uname, version=version, msize=msize) as client:
        yield client


async def status(ns: Client, name: str = "chan/c") -> dict[str, str]:
    return dict(line.split(" ") for line in (await ns.read(f"{name}/status")).splitlines())


async def chmod(ns: Client, path: str, mode: int) -> None:
    fid, _ = await requests.walk(ns.connection, ns.root, path.split("/"))
    await requests.change(ns.connection, fid, Change(mode=mode))


async def until(ns: Client, key: str, value: int) -> None:
    """Return when the status says so."""
    while (await status(ns))[key] != str(value):
        await trio.lowlevel.checkpoint()


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
            await until(ns, "blocked", 1)
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
            await until(a, "blocked", 1)
            nursery.start_soon(two.send, b"3")
            await until(a, "blocked", 2)
            scope.cancel()
            await until(a, "blocked", 1)
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
                    nursery.start_soon(_receive_one, b, got, scope)
                    await until(a, "readers", 2)
                    nursery.start_soon(out.send, b"%d" % steps)
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
                ends.add(len(got))
                assert got or await other.receive() == b"%d" % steps
                assert (await status(a))["waiting"] == "0"
        assert ends == {0, 1}


async def _receive_one(ns: Client, got: list[bytes], scope: trio.CancelScope) -> None:
    with scope:
        async with channel(ns, "chan/c", "r") as into:
            got.append(await into.receive())


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
                await until(a, "readers", 2)
                b.connection.end("killed")
                await until(a, "readers", 1)
            await mine.send(b"1")
            assert await mine.receive() == b"1"


# what is refused


async def refused(ns: Client, number: int, words: str, call: object, who: str = "chan/c") -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - what it must be is asserted below
        await call  # type: ignore[misc]
    assert caught.value.errno == number, caught.value
    assert words in await ns.read(f"{who}/error")


async def test_a_message_that_is_too_long_is_refused_whole() -> None:
    async with clients(count=2, msize=8192) as (ns, other):
        await ns.mkdir("chan/c")
        async with await ns.open("chan/c/data", "r+") as file:
            # the client cuts it into writes that are full; the first of them is refused, so no part of it gets in
            await refused(ns, errno.EMSGSIZE, "msize allows 8167", file.pwrite(b"x" * 20000, 0))
            await refused(ns, errno.EMSGSIZE, "msize allows 8167", file.pwrite(b"x" * 8168, 0))
            assert await file.pwrite(b"x" * 8167, 0) == 8167
            await ns.write("chan/c/ctl", "size 100")
            await refused(
                ns, errno.EMSGSIZE, "a message of 101 bytes: this channel takes 100", file.pwrite(b"x" * 101, 0)
            )
            await refused(ns, errno.EINVAL, "at least one byte", file.pwrite(b"", 0))
            assert (await status(ns))["sent"] == "1"
            await refused(
                ns, errno.EMSGSIZE, "has 8167 bytes, and the read asks for 8166: it is kept", file.pread(8166, 0)
            )
            async with await other.open("chan/c/data") as more:
                assert await more.pread(8168, 0) == b"x" * 8167
        async with channel(ns, "chan/c") as mine:
            with pytest.raises(OSError, match="msize allows 8167") as caught:
                await mine.send(b"x" * 8168)
            assert caught.value.errno == errno.EMSGSIZE


async def test_a_short_reader_leaves_the_message_to_another_who_waits() -> None:
    async with clients(count=3) as (a, b, c):
        await a.mkdir("chan/c")
        got: list[bytes] = []
        async with await b.open("chan/c/data") as short, trio.open_nursery() as nursery:

            async def too_short() -> None:
                await refused(b, errno.EMSGSIZE, "it is kept", short.pread(2, 0))

            nursery.start_soon(too_short)
            await until(a, "readers", 1)
            nursery.start_soon(_receive_one, c, got, trio.CancelScope())
            await until(a, "readers", 2)
            async with channel(a, "chan/c", "w") as out:
                await out.send(b"message")
        assert got == [b"message"]


async def test_the_policy_fail() -> None:
    async with clients() as (ns,):
        await ns.mkdir("chan/c")
        await ns.write("chan/c/ctl", "capacity 2\npolicy fail\n")
        async with channel(ns, "chan/c") as mine:
            await mine.send(b"1")
            await mine.send(b"22")
            await refused(ns, errno.ENOSPC, "the channel is full: 2 messages of 3 bytes wait", mine.send(b"3"))
            assert await mine.receive() == b"1"
            await mine.send(b"4")
            assert [await mine.receive(), await mine.receive()] == [b"22", b"4"]


async def test_the_policy_drop_oldest() -> None:
    async with clients() as (ns,):
        await ns.mkdir("chan/c")
        await ns.write("chan/c/ctl", "capacity 2\npolicy drop-oldest\n")
        async with channel(ns, "chan/c") as mine:
            for number in range(5):
                await mine.send(b"%d" % number)
            assert [await mine.receive(), await mine.receive()] == [b"3", b"4"]
        now = await status(ns)
        assert (now["sent"], now["received"], now["lost"]) == ("5", "2", "3")


async def test_more_capacity_or_another_policy_lets_blocked_writers_go() -> None:
    async with clients() as (ns,):
        await ns.mkdir("chan/c")
        await ns.write("chan/c/ctl", "capacity 1")
        async with channel(ns, "chan/c") as mine:
            await mine.send(b"1")
            for number, word in enumerate(("capacity 2", "policy drop-oldest", "clear"), 2):
                await ns.write("chan/c/ctl", "policy block")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(mine.send, b"%d" % number)
                    await until(ns, "blocked", 1)
                    await ns.write("chan/c/ctl", word)
            assert await mine.receive() == b"4"


@pytest.mark.parametrize(
    ("words", "number", "said"),
    [
        ("capacity 0", errno.EINVAL, "capacity goes from 1 to 65536"),
        ("capacity many", errno.EINVAL, "usage: capacity N"),
        ("size 2000000", errno.EINVAL, "size goes from 1 to 1048551"),
        ("policy none", errno.EINVAL, "usage: policy block|drop-oldest|fail"),
        ("mode broadcast", errno.EBUSY, "1 messages wait"),
        ("melt", errno.EINVAL, "unknown word melt"),
    ],
)
async def test_wrong_words(words: str, number: int, said: str) -> None:
    async with clients() as (ns,):
        await ns.mkdir("chan/c")
        async with channel(ns, "chan/c", "w") as out:
            await out.send(b"1")
        before = await ns.read("chan/c/ctl")
        await refused(ns, number, said, ns.write("chan/c/ctl", words))
        assert await ns.read("chan/c/ctl") == before == "mode queue\npolicy block\ncapacity 256\nsize 65536\n"


# broadcast


async def test_broadcast_reaches_every_open_reader() -> None:
    async with clients(count=3) as (a, b, c):
        await a.mkdir("chan/c")
        await a.write("chan/c/ctl", "mode broadcast\ncapacity 3\n")
        async with channel(a, "chan/c", "w") as out:
            await out.send(b"nobody is there")
            async with channel(b, "chan/c", "r") as one_, channel(c, "chan/c", "r") as two:
                with pytest.raises(OSError, match="2 readers have data or bell open"):
                    await a.write("chan/c/ctl", "mode queue")
                for number in range(3):
                    await out.send(b"%d" % number)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(out.send, b"3")
                    await until(a, "blocked", 1)
                    assert [await one_.receive() for _ in range(3)] == [b"0", b"1", b"2"]
                    assert (await status(a))["blocked"] == "1"  # the slowest decides
                    assert await two.receive() == b"0"
                assert [await two.receive() for _ in range(3)] == [b"1", b"2", b"3"]
                assert await one_.receive() == b"3"


async def test_a_reader_that_leaves_holds_up_nobody() -> None:
    async with clients(count=2) as (a, b):
        await a.mkdir("chan/c")
        await a.write("chan/c/ctl", "mode broadcast\ncapacity 1\n")
        async with channel(a, "chan/c", "w") as out, trio.open_nursery() as nursery, channel(b, "chan/c", "r"):
            await out.send(b"1")
            nursery.start_soon(out.send, b"2")
            await until(a, "blocked", 1)


async def test_a_slow_reader_is_told_what_it_lost() -> None:
    async with clients(count=3) as (a, b, c):
        await a.mkdir("chan/c")
        await a.write("chan/c/ctl", "mode broadcast\ncapacity 2\npolicy drop-oldest\n")
        async with (
            channel(a, "chan/c", "w") as out,
            channel(b, "chan/c", "r") as slow,
            channel(c, "chan/c", "r") as quick,
        ):
            for number in range(5):
                await out.send(b"%d" % number)
                assert await quick.receive() == b"%d" % number
            assert [await slow.receive() for _ in range(3)] == [b"lost 3\n", b"3", b"4"]
            assert (await status(a))["lost"] == "3"


# bells


async def test_rings_are_counted_and_wait_for_who_listens() -> None:
    async with clients(count=2) as (a, b):
        await a.mkdir("chan/c")
        async with bell(a, "chan/c", "w") as out:
            for _ in range(3):
                await out.ring()
            async with bell(b, "chan/c", "r") as into:
                assert await into.wait() == 3
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_heard, into, 1)
                    await until(a, "listeners", 1)
                    await out.ring()
            await out.ring()
            assert await b.read("chan/c/bell") == "1\n"  # a plain read: cat chan/c/bell
        assert (await status(a))["rings"] == "5"


async def _heard(into: object, count: int) -> None:
    assert await into.wait() == count  # type: ignore[attr-defined]


async def test_a_broadcast_bell_is_heard_by_all_who_listen() -> None:
    async with clients(count=3) as (a, b, c):
        await a.mkdir("chan/c")
        await a.write("chan/c/ctl", "mode broadcast")
        async with bell(b, "chan/c") as one_, bell(c, "chan/c") as two:
            await one_.ring()
            await two.ring()
            assert (await one_.wait(), await two.wait()) == (2, 2)


# lives


async def test_it_is_a_tree_as_all_are() -> None:
    def made() -> Dir:
        tree = chan.tree()
        tree.mkdir("c", 0o755, ROOT)
        return tree

    assert {"clone", "c/ctl", "c/data", "c/bell", "c/error", "c/status"} <= set(await check_tree(made))


async def test_a_named_channel_lives_until_it_is_removed() -> None:
    async with clients(count=2) as (a, b):
        await a.mkdir("chan/c")
        async with channel(b, "chan/c", "w") as out:
            await out.send(b"kept")
        async with channel(a, "chan/c") as mine:
            assert await mine.receive() == b"kept"
            async with trio.open_nursery() as nursery:
                ended: list[bytes] = []
                nursery.start_soon(_receive_one, b, ended, trio.CancelScope())
                await until(a, "readers", 2)
                await b.remove("chan/c")
            assert ended == [b""]
            assert await mine.receive() == b""
            with pytest.raises(BrokenPipeError):
                await mine.send(b"x")
        assert [entry.name for entry in await a.listdir("chan")] == ["clone"]
        with pytest.raises(FileNotFoundError):
            await a.stat("chan/c")


async def test_a_blocked_writer_is_told_of_the_end() -> None:
    async with clients(count=2) as (a, b):
        await a.mkdir("chan/c")
        await a.write("chan/c/ctl", "capacity 1")
        async with channel(a, "chan/c") as mine:
            await mine.send(b"1")

            async def blocked() -> None:
                with pytest.raises(BrokenPipeError):
                    await mine.send(b"2")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(blocked)
                await until(b, "blocked", 1)
                await b.remove("chan/c")


async def test_a_cloned_channel_lives_with_its_last_file() -> None:
    async with clients(count=2) as (a, b):
        async with await a.open("chan/clone", "r+") as ctl:
            number = (await ctl.read(100)).decode().strip()
            path = f"chan/{number}"
            await ctl.write(b"capacity 9")
            assert "capacity 9\n" in await b.read(f"{path}/ctl")
            with pytest.raises(PermissionError):
                await b.remove(path)
            other = channel(b, path)
            opened = await other.__aenter__()
        await opened.send(b"still here")
        assert await opened.receive() == b"still here"
        await other.__aexit__(None, None, None)
        with pytest.raises(FileNotFoundError):
            await b.stat(path)


@pytest.mark.parametrize(("name", "number"), [("7", errno.EINVAL), ("clone", errno.EEXIST), ("c", errno.EEXIST)])
async def test_names_that_no_channel_can_have(name: str, number: int) -> None:
    async with clients() as (ns,):
        await ns.mkdir("chan/c")
        with pytest.raises(NineError) as caught:
            await ns.mkdir(f"chan/{name}")
        assert caught.value.errno == number


async def test_who_may_use_it() -> None:
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            server = Server(Dir({"chan": chan.tree()}))
            await nursery.start(server.run)
            async with one(server) as root, one(server, uname="nobody") as nobody:
                await root.mkdir("chan/c", 0o755)
                assert "readers 0" in await nobody.read("chan/c/status")
                for path, mode in (
                    ("chan/c/data", "r"),
                    ("chan/c/data", "w"),
                    ("chan/c/bell", "w"),
                    ("chan/clone", "r+"),
                ):
                    with pytest.raises(PermissionError):
                        await nobody.open(path, mode)
                with pytest.raises(PermissionError):
                    await nobody.write("chan/c/ctl", "clear")
                with pytest.raises(PermissionError):
                    await nobody.mkdir("chan/d")
                await root.mkdir("chan/all", 0o777)
                with pytest.raises(PermissionError):
                    await nobody.open("chan/all/data", "r+")
                await chmod(root, "chan/all", 0o777)
                async with channel(nobody, "chan/all") as theirs:
                    await theirs.send(b"x")
                    assert await theirs.receive() == b"x"
            nursery.cancel_scope.cancel()
