"""What a client may do with the server, in all three dialects: order, flush, tags, walks, versions, and what is left when it vanishes."""

import errno
import time
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing

from mk9p.errors import NineError
from mk9p.server import Limits
from mk9p.server.wishes import UNTOUCHED
from mk9p.testing import SOON, until
from mk9p.tree import Block, Conversations, Ctl, Dir, Log, Maybe, Stat, Stream, Text
from mk9p.wire import NOFID, Dialect, codec, unpack_dirents, unpack_stats
from mk9p.wire import messages as m
from tests.server.talk import Talk, connect, serving, talk_to, talking

ALL = pytest.mark.parametrize("dialect", list(Dialect))


class Gate:
    """A file that answers when it is told to, and knows what became of its readers."""

    def __init__(self) -> None:
        self.open = trio.Event()
        self.waiting = trio.Event()
        self.cancelled = 0

    async def read(self) -> str:
        self.waiting.set()
        try:
            await self.open.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        return "through\n"


def error_of(reply: object) -> int | str:
    if isinstance(reply, m.Rlerror):
        return reply.ecode
    assert isinstance(reply, m.Rerror), reply
    return reply.ename


@ALL
async def test_a_file_is_walked_opened_read_and_clunked(dialect: Dialect) -> None:
    async with talking(Dir({"a": Dir({"b": Text("hello\n")})}), dialect) as talk:
        await talk.open(1, "a", "b")
        assert bytes((await talk.rpc(m.Tread, 5, 1, 0, 100)).data) == b"hello\n"
        assert bytes((await talk.rpc(m.Tread, 5, 1, 6, 100)).data) == b""
        assert isinstance(await talk.rpc(m.Tclunk, 5, 1), m.Rclunk)
        assert error_of(await talk.rpc(m.Tread, 5, 1, 0, 100)) in (errno.EBADF, "fid unknown or out of range")


async def test_the_highest_dialect_not_above_the_one_asked_for_is_chosen() -> None:
    async with serving(Dir({})) as server:
        for asked, given in (
            ("9P2000.L", "9P2000.L"),
            ("9P2000.u", "9P2000.u"),
            ("9P2000.x", "9P2000"),
            ("9P2000", "9P2000"),
            ("8P", "unknown"),
        ):
            talk = connect(server)
            assert (await talk.rpc(m.Tversion, 0xFFFF, 8192, asked)).version == given


async def test_msize_is_the_smaller_of_the_two() -> None:
    async with serving(Dir({})) as server:
        assert (await connect(server).rpc(m.Tversion, 0xFFFF, 8192, "9P2000.L")).msize == 8192
        assert (await connect(server).rpc(m.Tversion, 0xFFFF, 1 << 30, "9P2000.L")).msize == (1 << 20) + 24
        assert (
            error_of(await connect(server, Dialect.P9).rpc(m.Tversion, 0xFFFF, 100, "9P2000"))
            == "msize 100 is too small: 256 at least"
        )


async def test_a_whole_chain_may_be_sent_in_one_go() -> None:
    """Twalk, Topen, Tread, Tclunk of a tree that waits at every step, 50 times over: with no order kept it fails in half of the runs."""

    async def slow() -> str:
        await trio.lowlevel.checkpoint()
        return "text"

    class Slow(Dir):
        async def walk(self, name, who):  # type: ignore[no-untyped-def]
            await trio.lowlevel.checkpoint()
            return self.children[0][name]

    async with talking(Slow({"f": Text(slow)})) as talk:
        for _ in range(50):
            await talk.send(m.Twalk, 1, 0, 7, ("f",))
            await talk.send(m.Tlopen, 2, 7, 0)
            await talk.send(m.Tread, 3, 7, 0, 100)
            await talk.send(m.Tclunk, 4, 7)
            replies = [await talk.receive() for _ in range(4)]
            assert {type(r) for r in replies} == {m.Rwalk, m.Rlopen, m.Rread, m.Rclunk}
            assert [bytes(r.data) for r in replies if isinstance(r, m.Rread)] == [b"text"]


@ALL
async def test_a_clunk_overtakes_no_walk_that_waits_for_another_fid(dialect: Dialect) -> None:
    go = trio.Event()

    class Slow(Dir):
        async def walk(self, name, who):  # type: ignore[no-untyped-def]
            await go.wait()
            return self.children[0][name]

    tree = Dir({"slow": Slow({"f": Text("f")}), "quick": Dir({"g": Text("g")})})
    async with talking(tree, dialect) as talk:
        await talk.rpc(m.Twalk, 1, 0, 3, ("quick",))
        await talk.send(m.Twalk, 2, 0, 5, ("slow", "f"))
        await talk.send(m.Tclunk, 3, 5)
        await talk.send(m.Twalk, 4, 3, 5, ("g",))
        await talk.send(m.Tclunk, 5, 3)
        await talk.send(m.Twalk, 6, 0, 9, ("quick",))
        assert (await talk.receive()).tag == 6  # what is of other fids goes beside them
        go.set()
        replies = [await talk.receive() for _ in range(4)]
        assert [type(reply) for reply in replies] == [m.Rwalk, m.Rclunk, m.Rwalk, m.Rclunk]
        assert error_of(await talk.rpc(m.Tclunk, 7, 3)) in (errno.EBADF, "fid unknown or out of range")
        assert isinstance(await talk.rpc(m.Tclunk, 7, 5), m.Rclunk)


@ALL
async def test_a_blocked_read_keeps_nobody_waiting(dialect: Dialect) -> None:
    gate = Gate()
    async with talking(Dir({"slow": Text(gate.read), "quick": Text("quick")}), dialect) as talk:
        await talk.open(1, "slow")
        await talk.open(2, "quick")
        await talk.send(m.Tread, 11, 1, 0, 100)
        await gate.waiting.wait()
        for tag in range(20, 40):
            assert (await talk.rpc(m.Tread, tag, 2, 0, 100)).tag == tag
        gate.open.set()
        last = await talk.receive()
        assert isinstance(last, m.Rread)
        assert (last.tag, bytes(last.data)) == (11, b"through\n")


@ALL
async def test_a_flush_cancels_and_is_answered_once_the_read_is_gone(dialect: Dialect) -> None:
    gate = Gate()
    async with talking(Dir({"slow": Text(gate.read)}), dialect) as talk:
        await talk.open(1, "slow")
        await talk.send(m.Tread, 11, 1, 0, 100)
        await gate.waiting.wait()
        reply = await talk.rpc(m.Tflush, 12, 11)
        assert (type(reply), reply.tag, gate.cancelled) == (m.Rflush, 12, 1)
        gate.open.set()
        assert bytes((await talk.rpc(m.Tread, 11, 1, 0, 100)).data) == b"through\n"  # tag and fid are good as before


async def test_flushes_of_one_request_are_answered_in_their_order() -> None:
    gate = Gate()
    async with talking(Dir({"slow": Text(gate.read)})) as talk:
        await talk.open(1, "slow")
        await talk.send(m.Tread, 11, 1, 0, 100)
        await gate.waiting.wait()
        for tag, old in ((12, 11), (13, 12), (14, 11), (15, 999)):
            await talk.send(m.Tflush, tag, old)
        tags = [(await talk.receive()).tag for _ in range(4)]
        assert sorted(tags) == [12, 13, 14, 15]
        assert tags.index(12) < tags.index(13)


async def test_a_flushed_open_leaves_nothing_open() -> None:
    gate = Gate()

    class SlowOpen(Text):
        async def open(self, how):  # type: ignore[no-untyped-def]
            await gate.read()
            return super().open(how)

    async with talking(Dir({"f": SlowOpen("x", exclusive=True)})) as talk:
        await talk.rpc(m.Twalk, 1, 0, 7, ("f",))
        await talk.send(m.Tlopen, 2, 7, 0)
        await gate.waiting.wait()
        assert isinstance(await talk.rpc(m.Tflush, 3, 2), m.Rflush)
        gate.open.set()
        assert isinstance(await talk.rpc(m.Tlopen, 4, 7, 0), m.Rlopen)


async def test_a_tag_may_be_used_again_as_soon_as_it_is_answered() -> None:
    async with talking(Dir({"f": Text("x")})) as talk:
        await talk.open(1, "f")
        for _ in range(100):
            assert (await talk.rpc(m.Tread, 0, 1, 0, 10)).tag == 0


async def test_a_tag_in_use_is_refused_and_the_first_goes_on() -> None:
    gate = Gate()
    async with talking(Dir({"slow": Text(gate.read)})) as talk:
        await talk.open(1, "slow")
        await talk.send(m.Tread, 11, 1, 0, 100)
        await gate.waiting.wait()
        assert error_of(await talk.rpc(m.Tgetattr, 11, 0, 0x7FF)) == errno.EINVAL
        gate.open.set()
        assert isinstance(await talk.receive(), m.Rread)


async def test_partial_walks_make_no_fid() -> None:
    async with talking(Dir({"a": Dir({"b": Text("x")})})) as talk:
        assert len((await talk.rpc(m.Twalk, 1, 0, 5, ("a", "b"))).qids) == 2
        assert len((await talk.rpc(m.Twalk, 1, 0, 6, ("a", "nowhere", "b"))).qids) == 1
        assert error_of(await talk.rpc(m.Tclunk, 1, 6)) == errno.EBADF
        assert error_of(await talk.rpc(m.Twalk, 1, 0, 6, ("nowhere",))) == errno.ENOENT
        assert len((await talk.rpc(m.Twalk, 1, 0, 6, ("a", "b", "c"))).qids) == 2  # b is a file
        assert error_of(await talk.rpc(m.Twalk, 1, 5, 6, ("c",))) == errno.ENOTDIR


async def test_dotdot_is_lexical_and_stays_at_the_root() -> None:
    async with talking(Dir({"a": Dir({"b": Text("x")})})) as talk:
        root = (await talk.rpc(m.Tgetattr, 1, 0, 0x7FF)).qid
        walked = (await talk.rpc(m.Twalk, 1, 0, 5, ("a", "..", "..", "a", "b"))).qids
        assert walked[1] == walked[2] == root
        assert len({q.path for q in walked}) == 3


async def test_an_open_fid_may_be_walked_to_a_new_one_but_not_to_itself() -> None:
    async with talking(Dir({"f": Text("x"), "d": Dir({"g": Text("y")})})) as talk:
        await talk.open(1, "f")
        assert isinstance(await talk.rpc(m.Twalk, 1, 1, 2, ()), m.Rwalk)
        assert isinstance(await talk.rpc(m.Tlopen, 1, 2, 0), m.Rlopen)
        await talk.open(3, "d")
        assert isinstance(await talk.rpc(m.Twalk, 1, 3, 4, ("g",)), m.Rwalk)
        assert error_of(await talk.rpc(m.Twalk, 1, 3, 3, ("g",))) == errno.EBADF


async def test_a_version_resets_the_session_and_clunks_all() -> None:
    gate, closed = Gate(), []

    class Talks:
        def tree(self) -> Dir:
            return Dir({"ctl": Ctl({})})

        def close(self) -> None:
            closed.append(1)

    async with talking(Dir({"slow": Text(gate.read), "c": Conversations(lambda n, who: Talks())})) as talk:
        await talk.open(1, "slow")
        await talk.open(2, "c", "clone", mode=2)
        await talk.send(m.Tread, 11, 1, 0, 100)
        await gate.waiting.wait()
        await talk.send(m.Tversion, 0xFFFF, 8192, "9P2000.L")
        await talk.send(m.Tgetattr, 3, 0, 0x7FF)  # sent right behind: it must not overtake
        assert isinstance(await talk.receive(), m.Rversion)
        assert error_of(await talk.receive()) == errno.EBADF
        assert (gate.cancelled, closed) == (1, [1])
        await talk.attach(0)
        assert isinstance(await talk.rpc(m.Tgetattr, 3, 0, 0x7FF), m.Rgetattr)


async def test_a_client_that_vanishes_leaves_nothing() -> None:
    gate, closed = Gate(), trio.Event()

    class Talks:
        def tree(self) -> Dir:
            return Dir({"ctl": Ctl({}), "wait": Text(gate.read)})

        def close(self) -> None:
            closed.set()

    talks = Conversations(lambda n, who: Talks())
    async with serving(Dir({"c": talks})) as server:
        talk = await talk_to(server)
        await talk.open(1, "c", "clone", mode=2)
        await talk.open(2, "c", "0", "wait")
        await talk.send(m.Tread, 11, 2, 0, 100)
        await gate.waiting.wait()
        assert (len(server.connections), list(talks.talks)) == (1, [0])
        await talk.stream.aclose()
        await closed.wait()
        assert (gate.cancelled, list(talks.talks)) == (1, [])
        await until(lambda: not server.connections)


async def test_a_conversation_lives_as_long_as_a_file_of_it_is_open() -> None:
    closed: list[int] = []

    class Talks:
        def __init__(self, number: int) -> None:
            self.number = number

        def tree(self) -> Dir:
            return Dir({"ctl": Ctl({}), "data": Text("data")})

        def close(self) -> None:
            closed.append(self.number)

    async with talking(Dir({"c": Conversations(lambda n, who: Talks(n))})) as talk:
        await talk.open(1, "c", "clone", mode=2)
        assert bytes((await talk.rpc(m.Tread, 1, 1, 0, 10)).data) == b"0\n"
        await talk.open(2, "c", "0", "data")
        await talk.rpc(m.Tclunk, 1, 1)
        assert closed == []
        await talk.open(3, "c", "clone", mode=2)
        assert bytes((await talk.rpc(m.Tread, 1, 3, 0, 10)).data) == b"1\n"
        await talk.rpc(m.Tclunk, 1, 2)
        assert closed == [0]
        await talk.open(4, "c", "clone", mode=2)
        assert bytes((await talk.rpc(m.Tread, 1, 4, 0, 10)).data) == b"0\n"
        assert isinstance(await talk.rpc(m.Twrite, 1, 4, 0, b"keep\n"), m.Rwrite)
        await talk.rpc(m.Tclunk, 1, 4)
        assert closed == [0]
        assert isinstance(await talk.open(5, "c", "0", "ctl"), m.Rlopen)


@ALL
async def test_exclusive_use_ends_with_the_fid(dialect: Dialect) -> None:
    async with serving(Dir({"f": Text("x", exclusive=True)})) as server:
        one, two = await talk_to(server, dialect), await talk_to(server, dialect)
        await one.open(1, "f")
        assert error_of(await two.open(1, "f")) in (errno.EBUSY, "exclusive use file already open")
        await one.rpc(m.Tclunk, 1, 1)
        assert not isinstance(
            await two.rpc(m.Tlopen if dialect is Dialect.L else m.Topen, 1, 1, 0), m.Rerror | m.Rlerror
        )
        await two.stream.aclose()
        reply = None
        while not isinstance(reply, m.Rlopen | m.Ropen):  # until the server has seen that two is gone
            await one.rpc(m.Tclunk, 1, 1)
            reply = await one.open(1, "f")


async def test_permission_bits_are_checked_against_the_user_who_attached() -> None:
    tree = Dir(
        {
            "ctl": Ctl({"go": lambda: None}),
            "secret": Text("s", mode=0o400),
            "status": Text("ok"),
            "d": Dir({"x": Text("x")}, mode=0o700),
        }
    )
    async with serving(tree) as server:
        talk = await talk_to(server, uname="nobody")
        assert isinstance(await talk.open(1, "status"), m.Rlopen)
        assert isinstance(await talk.open(2, "ctl"), m.Rlopen)
        assert error_of(await talk.open(3, "ctl", mode=1)) == errno.EACCES
        assert error_of(await talk.open(4, "ctl", mode=2)) == errno.EACCES
        assert error_of(await talk.open(5, "secret")) == errno.EACCES
        assert len((await talk.rpc(m.Twalk, 1, 0, 6, ("d", "x"))).qids) == 1  # not searchable
        root = await talk_to(server, uname="root")
        assert isinstance(await root.open(3, "ctl", mode=1), m.Rlopen)
        assert isinstance(await root.open(5, "secret"), m.Rlopen)


@ALL
async def test_a_directory_is_read_in_whole_entries(dialect: Dialect) -> None:
    names = [f"file{n}" for n in range(100)]
    async with talking(Dir({name: Text("x") for name in names}), dialect) as talk:
        assert not isinstance(await talk.open(1), m.Rerror | m.Rlerror)
        found: list[str] = []
        offset = 0
        while True:
            reply = await talk.rpc(m.Treaddir if dialect is Dialect.L else m.Tread, 1, 1, offset, 500)
            data = bytes(reply.data)
            if not data:
                break
            assert len(data) <= 500
            if dialect is Dialect.L:
                entries = unpack_dirents(data)
                found += [name for _, _, _, name in entries]
                offset = entries[-1][1]
            else:
                found += [entry.name for entry in unpack_stats(dialect, data)]
                offset += len(data)
        assert [name for name in found if name not in (".", "..")] == names


async def test_qids_are_the_same_in_walk_listing_and_stat_and_across_servers() -> None:
    seen = []
    for _ in range(2):
        async with talking(Dir({"d": Dir({"a": Text("x"), "b": Dir({})})})) as talk:
            await talk.open(1, "d")
            listed = {name: qid for qid, _, _, name in unpack_dirents((await talk.rpc(m.Treaddir, 1, 1, 0, 4096)).data)}
            for name in "ab":
                qid = (await talk.rpc(m.Twalk, 1, 0, 9, ("d", name))).qids[-1]
                assert listed[name] == qid == (await talk.rpc(m.Tgetattr, 1, 9, 0x7FF)).qid
                await talk.rpc(m.Tclunk, 1, 9)
            seen.append(listed)
    assert seen[0] == seen[1]


async def test_a_bug_is_logged_and_answered_and_serving_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> str:
        raise KeyError("ours")

    async def broken_later() -> str:
        await trio.lowlevel.checkpoint()
        raise KeyError("ours too")

    async with talking(Dir({"a": Text(broken), "b": Text(broken_later), "ok": Text("ok")}), Dialect.U) as talk:
        for fid, name in enumerate("ab", 1):
            await talk.open(fid, name)
            reply = await talk.rpc(m.Tread, 1, fid, 0, 10)
            assert (reply.ename, reply.errno) == ("internal error", errno.EIO)
        await talk.open(5, "ok")
        assert bytes((await talk.rpc(m.Tread, 1, 5, 0, 10)).data) == b"ok"
    assert [record.levelname for record in caplog.records].count("ERROR") == 2


async def test_an_error_has_one_errno_and_one_wording_in_all_dialects() -> None:
    def refuse(text: str) -> None:
        raise NineError(errno.EINVAL, "usage: online N...")

    expected = {
        Dialect.P9: "usage: online N...",
        Dialect.U: ("usage: online N...", errno.EINVAL),
        Dialect.L: errno.EINVAL,
    }
    for dialect, words in expected.items():
        async with talking(Dir({"f": Text("x", refuse)}), dialect) as talk:
            await talk.open(1, "f", mode=1)
            reply = await talk.rpc(m.Twrite, 1, 1, 0, b"hello")
            said = (
                reply.ecode
                if dialect is Dialect.L
                else (reply.ename, reply.errno)
                if dialect is Dialect.U
                else reply.ename
            )
            assert said == words


async def test_writes_of_one_fid_keep_their_order_though_they_wait() -> None:
    seen: list[str] = []

    async def take(text: str) -> None:
        for _ in range(len(seen) % 3):
            await trio.lowlevel.checkpoint()
        seen.append(text)

    async with talking(Dir({"f": Text("x", take)})) as talk:
        await talk.open(1, "f", mode=1)
        for n in range(50):
            await talk.send(m.Twrite, n, 1, n, str(n).encode())
        for _ in range(50):
            assert isinstance(await talk.receive(), m.Rwrite)
    assert seen == [str(n) for n in range(50)]


async def test_data_that_waits_is_not_overwritten_by_what_comes_after() -> None:
    got: list[bytes] = []
    first = trio.Event()

    async def take(data: bytes) -> None:
        await first.wait()
        got.append(data)

    async with talking(Dir({"f": Stream(send=take), "g": Text("y")})) as talk:
        await talk.open(1, "f", mode=1)
        await talk.open(2, "g")
        for n in range(5):
            await talk.send(m.Twrite, n, 1, 0, bytes([n]) * 5000)
        for n in range(20):
            assert isinstance(await talk.rpc(m.Tread, 100 + n, 2, 0, 10), m.Rread)
        first.set()
        for _ in range(5):
            assert isinstance(await talk.receive(), m.Rwrite)
    assert got == [bytes([n]) * 5000 for n in range(5)]


async def read_all(talk: Talk, tag: int, fid: int, count: int) -> bytes:
    return bytes((await talk.rpc(m.Tread, tag, fid, 0, count)).data)


async def test_a_client_that_does_not_read_is_not_read_from() -> None:
    big = "x" * 60000
    async with talking(Dir({"f": Text(big)})) as talk:
        await talk.open(1, "f")
        (c,) = talk.server.connections
        sent = 0

        async def ask() -> None:
            nonlocal sent
            while True:
                await talk.send(m.Tread, sent % 60000, 1, 0, 60000)
                sent += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.1)
            nursery.cancel_scope.cancel()
        assert c.out_size < 3 * talk.server.limits.out
        assert c.blocked
        for _ in range(sent):
            reply = await talk.receive()
            assert isinstance(reply, m.Rread)
            assert len(reply.data) == 60000
        assert c.out_size == 0


async def test_events_are_kept_for_a_reader_and_what_is_lost_is_said() -> None:
    log = Log(history=10)
    async with talking(Dir({"events": log}), Dialect.P9) as talk:
        log.emit("one", "with words", "it's")
        await talk.open(1, "events")
        line = await read_all(talk, 1, 1, 8192)
        assert line.split(b" ", 2)[2] == b"one 'with words' 'it''s'\n"
        for n in range(25):
            log.emit("tick", n)
        lines = bytes((await talk.rpc(m.Tread, 1, 1, len(line), 8192)).data).decode().splitlines()
        assert lines[0].split()[2:] == ["lost", "15"]
        numbers = [int(text.split()[0]) for text in lines]
        assert numbers == list(range(16, 27))
        assert all(b - a == 1 for a, b in pairwise(numbers))


async def test_a_hung_up_clone_that_is_being_made_is_not_kept() -> None:
    gate = Gate()

    async def new(number: int, who: object) -> object:
        await gate.read()
        raise AssertionError("never")

    talks = Conversations(new)  # type: ignore[arg-type]
    async with serving(Dir({"c": talks})) as server:
        talk = await talk_to(server)
        await talk.rpc(m.Twalk, 1, 0, 7, ("c", "clone"))
        await talk.send(m.Tlopen, 2, 7, 2)
        await gate.waiting.wait()
        await talk.stream.aclose()
        await until(lambda: not server.connections)
        assert talks.talks == {}


@ALL
async def test_what_a_shell_and_its_kernel_do_before_they_write_is_no_error(dialect: Dialect) -> None:
    """`>` is an opening with OTRUNC, and Linux's 9P2000 and 9P2000.u say length 0 and its clock besides."""
    said: list[str] = []
    files = {
        "ctl": Ctl({"say": said.append}),
        "text": Text("old", said.append),
        "block": Block(None, lambda d, at: len(d)),
    }
    now = int(time.time())
    async with talking(Dir(files), dialect) as talk:
        for fid, name in enumerate(files, 1):
            assert not isinstance(
                await talk.open(fid, name, mode=1 | (0x10 if dialect is not Dialect.L else 0)), m.Rlerror
            )
            emptied = UNTOUCHED._replace(length=0)
            for wish in (emptied, emptied._replace(mtime=now), emptied._replace(mtime=now, atime=now)):
                assert isinstance(await talk.rpc(m.Twstat, 1, fid, wish), m.Rwstat), name
            assert isinstance(await talk.rpc(m.Twrite, 1, fid, 0, b"say hello\n"), m.Rwrite)
        assert error_of(await talk.rpc(m.Twstat, 1, 1, UNTOUCHED._replace(mtime=now)))
    assert said == ["hello", "say hello"]


@ALL
@pytest.mark.parametrize("afid", [0, 5, 7, NOFID - 1])
async def test_an_afid_that_nobody_made_is_refused(dialect: Dialect, afid: int) -> None:
    async with talking(Dir({"f": Text("hello")}), dialect) as talk:
        await talk.rpc(m.Twalk, 1, 0, 5, ())
        more = () if dialect is Dialect.P9 else (0,)
        assert error_of(await talk.rpc(m.Tattach, 1, 9, afid, "root", "", *more)) in (errno.EBADF, "unknown fid")
        assert error_of(await talk.rpc(m.Tclunk, 1, 9)) in (errno.EBADF, "fid unknown or out of range")
        assert isinstance(await talk.rpc(m.Tattach, 1, 9, NOFID, "root", "", *more), m.Rattach)


async def test_no_afid_is_needed() -> None:
    async with talking(Dir({}), Dialect.P9) as talk:
        assert error_of(await talk.rpc(m.Tauth, 1, 5, "root", "")) == "authentication not required"
        assert error_of(await talk.rpc(m.Tclunk, 1, NOFID)) == "fid unknown or out of range"


async def test_a_kernel_that_takes_no_more_for_a_moment_leaves_no_request_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The link refuses one send in the middle of a batch and takes the next: what was received meanwhile is answered all the same."""
    async with talking(Dir({"f": Text("x" * 5000)}), limits=Limits(out=1000)) as talk:
        await talk.open(1, "f")
        (c,) = talk.server.connections
        real, refusals = c.link.send, [True]

        def send(data: bytes) -> int:
            if refusals:
                refusals.pop()
                raise BlockingIOError
            return real(data)

        monkeypatch.setattr(c.link, "send", send)
        read = codec(Dialect.L, m.Tread.type).pack
        await talk.raw(b"".join(read(tag, 1, 0, 5000) for tag in range(8)))
        with trio.fail_after(SOON):
            assert {(await talk.receive()).tag for _ in range(8)} == set(range(8))


async def test_replies_before_a_request_that_waits_do_not_wait_with_it() -> None:
    async with talking(Dir({"f": Stream(trio.sleep_forever)})) as talk:
        await talk.open(1, "f")
        getattr_, read = (codec(Dialect.L, cls.type).pack for cls in (m.Tgetattr, m.Tread))
        await talk.raw(getattr_(5, 0, 1) + read(6, 1, 0, 10))
        with trio.fail_after(SOON):
            assert isinstance(await talk.receive(), m.Rgetattr)


class Looked(Text):
    """A file that counts how often its status is asked for."""

    def __init__(self) -> None:
        super().__init__("text\n")
        self.looks = 0

    def stat(self) -> Maybe[Stat]:
        self.looks += 1
        return self._stat._replace(length=self.looks, version=self.looks)


async def test_an_open_just_behind_its_walk_asks_for_no_second_status() -> None:
    file = Looked()

    async def looks(*frames: bytes) -> tuple[int, Any]:
        """Send frames in one go, and return how often the file was looked at, and the reply to the last."""
        before, reply = file.looks, None
        await talk.raw(b"".join(frames))
        for _ in frames:
            reply = await talk.receive()
        await talk.raw(clunk(2) + clunk(3))
        for _ in range(2):
            await talk.receive()
        return file.looks - before, reply

    def frame(cls: type[m.Message], *fields: Any) -> bytes:
        return codec(Dialect.L, cls.type).pack(7, *fields)

    def clunk(fid: int) -> bytes:
        return frame(m.Tclunk, fid)

    def walk(fid: int) -> bytes:
        return frame(m.Twalk, 0, fid, ("file",))

    def opening(fid: int) -> bytes:
        return frame(m.Tlopen, fid, 0)

    async with talking(Dir({"file": file}), Dialect.L) as talk:
        count, reply = await looks(walk(2), opening(2))
        assert (count, reply.qid.version) == (1, file.looks)
        # something comes in between: what was seen at the walk may be true no more
        assert (await looks(walk(2), frame(m.Tgetattr, 0, 0x7FF), opening(2)))[0] == 2
        assert (await looks(walk(2), walk(3), opening(2)))[0] == 3
        assert (await looks(walk(2), walk(3), opening(3), opening(2)))[0] == 3
        before = file.looks
        for request in (walk(2), opening(2)):
            await talk.raw(request)
            await talk.receive()
        assert file.looks - before == 2
