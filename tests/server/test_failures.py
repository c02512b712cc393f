"""What a server's own functions raise: who gets which words, what the log says, and that nobody is left without an answer."""

import errno
import logging
import time
from typing import Any

import pytest
import trio

from mk9p.errors import NineError
from mk9p.server import failures
from mk9p.testing import mounted
from mk9p.tree import Block, Ctl, Dir, Text
from mk9p.wire import Dialect
from mk9p.wire import messages as m
from tests.server.talk import Talk, talking

WITH_WORDS: list[tuple[Exception, int, str]] = [
    (ValueError("n must be positive"), errno.EINVAL, "n must be positive"),
    (ValueError(), errno.EINVAL, "Invalid argument"),
    (ValueError("two\nlines \udcff"), errno.EINVAL, "two lines \\udcff"),
    (OSError(errno.EIO, "device gone"), errno.EIO, "device gone"),
    (OSError("no answer"), errno.EIO, "no answer"),
    (PermissionError("only its owner may"), errno.EACCES, "only its owner may"),
    (TimeoutError("it did not answer"), errno.ETIMEDOUT, "it did not answer"),
    (OSError(-2, "Name or service not known"), errno.EIO, "Name or service not known"),
    (OSError(1 << 40, "odd"), errno.EIO, "odd"),
    (OSError("EIO", "a name is no number"), errno.EIO, "a name is no number"),
]
PLAIN: list[tuple[Exception, int, str]] = [
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "/srv/secret/path"), errno.ENOENT, "No such file or directory"),
    (OSError(errno.EACCES, "Permission denied", "/srv/secret"), errno.EACCES, "permission denied"),
]  # fmt: skip
BUGS = [
    *(TypeError("a"), KeyError("b"), AttributeError("c"), AssertionError("d"), ZeroDivisionError("e")),
    *(SystemExit(2), ExceptionGroup("f", [ValueError("g")]), RecursionError("h"), MemoryError()),
]


class Speechless(ValueError):
    """An error whose words cannot be had."""

    def __str__(self) -> str:
        raise LookupError("words")


class Lamp:
    """A server whose words, text and bytes raise what it is told to."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def fail(self, *_: Any) -> Any:
        raise self.error

    async def fail_later(self, *_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise self.error

    def tree(self) -> Dir:
        words = {"now": lambda: self.fail(), "later": lambda: self.fail_later()}
        return Dir(
            {
                "lamp": Dir({"ctl": Ctl(words), "text": Text(self.fail), "slow": Text(self.fail_later)}),
                "bytes": Block(self.fail_later, self.fail),
            }
        )


async def failing(talk: Talk) -> list[Any]:
    """Return the replies to everything that fails."""
    replies: list[Any] = []
    await talk.open(1, "lamp", "ctl", mode=1)
    for data in (b"now\n", b"later\n"):
        replies += [await talk.rpc(m.Twrite, 1, 1, 0, data)]
    await talk.open(2, "lamp", "text")
    await talk.open(3, "lamp", "slow")
    await talk.open(4, "bytes", mode=2)
    replies += [await talk.rpc(m.Tread, 1, fid, 0, 100) for fid in (2, 3, 4)]
    return [*replies, await talk.rpc(m.Twrite, 1, 4, 0, b"x")]


async def last_error(talk: Talk) -> bytes:
    await talk.open(9, "lamp", "error")
    return bytes((await talk.rpc(m.Tread, 1, 9, 0, 1000)).data)


@pytest.mark.parametrize(("error", "number", "words"), WITH_WORDS + PLAIN)
@pytest.mark.parametrize("dialect", list(Dialect))
async def test_an_error_of_a_servers_own_reaches_the_client(
    dialect: Dialect, error: Exception, number: int, words: str
) -> None:
    async with talking(Lamp(error).tree(), dialect) as talk:
        for reply in await failing(talk):
            if dialect is Dialect.L:
                assert reply == m.Rlerror(1, number)
            else:
                assert (reply.ename, reply.errno) == (words, number if dialect is Dialect.U else 0)
        assert await last_error(talk) == words.encode() + b"\n"


@pytest.mark.parametrize(("error", "number", "words"), WITH_WORDS)
async def test_the_log_names_path_and_user_once_a_file(
    error: Exception, number: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with talking(Lamp(error).tree(), uname="none") as talk:
        for _ in range(3):
            await talk.open(1, "lamp", "text")
            await talk.rpc(m.Tread, 1, 1, 0, 100)
            await talk.rpc(m.Tclunk, 1, 1)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(
        f"failed path=/lamp/text user=none request=read error={type(error).__name__} text="
    )
    assert record.exc_info is None


@pytest.mark.parametrize(("error", "number", "words"), PLAIN)
async def test_a_plain_error_of_the_kernel_is_no_news(
    error: Exception, number: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with talking(Lamp(error).tree()) as talk:
        await failing(talk)
    assert not caplog.records


@pytest.mark.parametrize("bug", BUGS)
async def test_a_bug_stays_internal_and_is_logged_with_request_path_and_origin(
    bug: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    async with talking(Lamp(bug).tree(), Dialect.U) as talk:
        for reply in await failing(talk):
            assert (reply.ename, reply.errno) == ("internal error", errno.EIO)
        assert await last_error(talk) == b"internal error\n"
        assert isinstance(await talk.rpc(m.Tstat, 1, 1), m.Rstat)
    # a busy machine may hold up a request, which the log says too
    records = [record for record in caplog.records if not record.getMessage().startswith("held ")]
    assert [record.getMessage().split(" from=")[0] for record in records] == [
        f"internal error path={path} user=root request={request}"
        for path, request in (
            ("/lamp/ctl", "write"),
            ("/lamp/ctl", "write"),
            ("/lamp/text", "read"),
            ("/lamp/slow", "read"),
            ("/bytes", "read"),
            ("/bytes", "write"),
        )
    ]
    assert all(record.exc_info and record.exc_info[1] is bug for record in records)


@pytest.mark.parametrize("error", [Speechless(), NineError(1 << 40, "no number of the wire's")])
async def test_an_error_that_cannot_be_told_ends_its_request_alone(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with talking(Lamp(error).tree(), Dialect.L) as talk:
        for reply in await failing(talk):
            assert reply == m.Rlerror(1, errno.EIO)
        assert isinstance(await talk.rpc(m.Tgetattr, 1, 1, 0x7FF), m.Rgetattr)
    assert all(record.getMessage().startswith("internal error path=") for record in caplog.records)


async def test_words_that_quote_what_no_string_may_hold_are_escaped() -> None:
    async with talking(Lamp(ValueError("a\0b")).tree(), Dialect.P9) as talk:
        for reply in await failing(talk):
            assert reply.ename == "a\\0b"


async def test_a_stranger_cannot_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    files = {f"f{n}": Text(Lamp(ValueError("no")).fail) for n in range(200)}
    async with talking(Dir(files)) as talk:
        for name in files:
            await talk.open(1, name)
            assert await talk.rpc(m.Tread, 1, 1, 0, 100) == m.Rlerror(1, errno.EINVAL)
            await talk.rpc(m.Tclunk, 1, 1)
    assert len(caplog.records) == 64


async def test_a_handler_that_holds_up_the_program_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def sleep() -> str:
        time.sleep(0.002)
        return "late\n"

    async def sleep_later() -> str:
        await trio.lowlevel.checkpoint()
        return sleep()

    async def sleep_first() -> str:
        sleep()
        await trio.lowlevel.checkpoint()
        return "late\n"

    files = {"call": Text(sleep), "later": Text(sleep_later), "first": Text(sleep_first)}
    async with talking(Dir({"lamp": Dir(files)}), uname="none") as talk:
        for fid, name in enumerate(files, 1):
            await talk.open(fid, "lamp", name)
        for module in ("leader", "pending"):
            monkeypatch.setattr(f"mk9p.server.{module}.HELD", 1_000_000)
        for fid, name in enumerate(files, 1):
            caplog.clear()
            assert bytes((await talk.rpc(m.Tread, 1, fid, 0, 100)).data) == b"late\n"
            said = [record.getMessage() for record in caplog.records]
            assert any(line.startswith(f"held path=/lamp/{name} user=none request=read ms=") for line in said), said
        monkeypatch.undo()
    assert failures.HELD == 100_000_000


async def test_a_handler_that_waits_as_it_should_is_not_named(caplog: pytest.LogCaptureFixture) -> None:
    async def wait() -> str:
        await trio.sleep(0.15)
        return "late\n"

    async with talking(Dir({"f": Text(wait)})) as talk:
        await talk.open(1, "f")
        assert bytes((await talk.rpc(m.Tread, 1, 1, 0, 100)).data) == b"late\n"
    assert not [record for record in caplog.records if "path=/f" in record.getMessage()]


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("given", [5, None, True])
async def test_what_is_no_text_is_named_in_the_log(given: Any, waits: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def later() -> Any:
        return given

    async with mounted(Dir({"f": Text(later if waits else lambda: given)})) as ns:
        with pytest.raises(NineError) as caught:
            await ns.read("f")
    assert caught.value.errno == errno.EIO
    (error,) = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert str(error) == f"a Text's function returned {given}: want str or bytes"
