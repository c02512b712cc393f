"""chan in one kernel: what is refused, policies, broadcast, bells, and the lives of channels."""

import errno

import pytest
import trio

from mk9p.auth import ROOT
from mk9p.client import connect
from mk9p.clients.chan import bell, channel
from mk9p.errors import NineError
from mk9p.servers import chan
from mk9p.testing import SOON, address_of, check_tree, serving
from mk9p.tree import Dir
from tests.servers.channels import chmod, clients, receive_one, refused, status, told
from tests.servers.trees import names

# what is refused


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
                ns, errno.EMSGSIZE, "has 8167 bytes, and the read asks for 8166: the message stays", file.pread(8166, 0)
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
                await refused(b, errno.EMSGSIZE, "the message stays", short.pread(2, 0))

            nursery.start_soon(too_short)
            await told(a, "readers", 1)
            nursery.start_soon(receive_one, c, got, trio.CancelScope())
            await told(a, "readers", 2)
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
                    await told(ns, "blocked", 1)
                    await ns.write("chan/c/ctl", word)
            assert await mine.receive() == b"4"


@pytest.mark.parametrize(
    ("words", "number", "said"),
    [
        ("capacity 0", errno.EINVAL, "capacity goes from 1 to 65536"),
        ("capacity many", errno.EINVAL, "usage: capacity N"),
        ("size 2000000", errno.EINVAL, "size goes from 1 to 1048575"),
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
                    await told(a, "blocked", 1)
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
            await told(a, "blocked", 1)


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
                    await told(a, "listeners", 1)
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
                nursery.start_soon(receive_one, b, ended, trio.CancelScope())
                await told(a, "readers", 2)
                await b.remove("chan/c")
            assert ended == [b""]
            assert await mine.receive() == b""
            with pytest.raises(BrokenPipeError):
                await mine.send(b"x")
        assert await names(a, "chan") == ["clone"]
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
                await told(b, "blocked", 1)
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
        async with (
            serving(Dir({"chan": chan.tree()})) as server,
            connect(address_of(server), uname="root") as root,
            connect(address_of(server), uname="nobody") as nobody,
        ):
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
