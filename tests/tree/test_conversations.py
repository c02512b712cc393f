"""Conversations: those that begin at the opening of a file that waits, as `listen` of ip(3) does; kept ones."""

import errno

import attrs
import pytest
import trio

from mk9p.client import Client
from mk9p.client.files import File as Opened
from mk9p.errors import NineError
from mk9p.testing import mounted, until
from mk9p.tree import Conversations, Ctl, Dir, File, Handle, Open
from tests.servers.trees import names


@attrs.define(eq=False)
class Caller(File):
    """A file whose opening waits until it may, and begins a conversation then."""

    talk: "Talk"

    def __attrs_pre_init__(self) -> None:
        super().__init__(0o600)

    async def open(self, how: Open) -> Handle:
        await self.talk.board.may.wait()
        return await self.talk.board.talks.accept(self.talk.board.new, how, through=self.talk)


@attrs.define(eq=False)
class Talk:
    board: "Board"
    number: int

    def tree(self) -> Dir:
        return Dir({"ctl": Ctl({"say": self.say}), "listen": Caller(self)})

    def say(self, word: str) -> None:
        self.board.said.append((self.number, word))

    def close(self) -> None:
        self.board.ended.append(self.number)


class Board:
    def __init__(self, limit: int = 8) -> None:
        self.said: list[tuple[int, str]] = []
        self.ended: list[int] = []
        self.may = trio.Event()
        self.talks = Conversations(self.new, limit=limit)

    def new(self, number: int, who: object) -> Talk:
        return Talk(self, number)


async def number(ns: Client, file: Opened) -> str:
    return (await file.pread(16, 0)).decode().strip()


async def test_the_open_file_is_the_new_ones_ctl() -> None:
    board = Board()
    board.may.set()
    async with mounted(board.talks) as ns:
        first = await ns.open("clone", "r+")
        called = await ns.open("0/listen", "r+")
        assert await number(ns, called) == "1"
        await called.pwrite(b"say hello", 0)
        assert board.said == [(1, "hello")]
        await called.aclose()
        assert board.ended == [1]
        await first.aclose()
        assert (board.ended, await names(ns)) == ([1, 0], ["clone"])


async def test_it_does_not_hold_the_one_that_it_came_through() -> None:
    board = Board()
    board.may.set()
    async with mounted(board.talks) as ns:
        first = await ns.open("clone", "r+")
        one, two = await ns.open("0/listen", "r+"), await ns.open("0/listen", "r+")
        await first.aclose()
        assert (board.ended, await names(ns)) == ([0], ["clone", "1", "2"])
        again = await ns.open("clone", "r+")
        assert await number(ns, again) == "0"
        await one.aclose()  # is no end of the new one that has the number now
        await two.aclose()
        assert (board.ended, await names(ns)) == ([0, 1, 2], ["clone", "0"])
        await again.aclose()
        assert board.ended == [0, 1, 2, 0]


async def test_while_it_waits_it_holds_it() -> None:
    board = Board()
    async with mounted(board.talks) as ns, trio.open_nursery() as nursery:
        first = await ns.open("clone", "r+")
        opened = []

        async def wait() -> None:
            opened.append(await ns.open("0/listen", "r+"))

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await first.aclose()
        assert await names(ns) == ["clone", "0"]
        board.may.set()
        await until(lambda: opened)
        assert (board.ended, await names(ns)) == ([0], ["clone", "1"])
        await opened[0].aclose()
        assert (board.ended, await names(ns)) == ([0, 1], ["clone"])


async def test_one_that_was_given_up_leaves_nothing() -> None:
    board = Board()
    async with mounted(board.talks) as ns:
        first = await ns.open("clone", "r+")
        with trio.move_on_after(0.02) as scope:
            await ns.open("0/listen", "r+")
        assert scope.cancelled_caught
        await first.aclose()
        assert (board.ended, await names(ns)) == ([0], ["clone"])


async def test_when_all_are_in_use_it_fails_and_the_other_stays() -> None:
    board = Board(limit=1)
    board.may.set()
    async with mounted(board.talks) as ns:
        first = await ns.open("clone", "r+")
        with pytest.raises(NineError) as caught:
            await ns.open("0/listen", "r+")
        assert caught.value.errno == errno.EMFILE
        assert (board.ended, await names(ns)) == ([], ["clone", "0"])
        await first.aclose()
        assert board.ended == [0]


async def test_the_end_of_a_client_ends_both() -> None:
    board = Board()
    board.may.set()
    async with mounted(board.talks) as ns:
        files = [await ns.open("clone", "r+"), await ns.open("0/listen", "r+")]
        assert await number(ns, files[1]) == "1"
    assert sorted(board.ended) == [0, 1]


@pytest.mark.parametrize("version", ["9P2000.L", "9P2000"])
async def test_what_is_kept_no_longer_ends_with_its_last_file(version: str) -> None:
    board = Board()
    async with mounted(board.talks, version=version) as ns:
        for _ in range(2):
            async with await ns.open("clone", "r+") as ctl:
                await ctl.pwrite(b"keep", 0)
        assert (board.ended, await names(ns)) == ([], ["clone", "0", "1"])
        await ns.write("0/ctl", "unkeep")  # the only file that is open
        assert (board.ended, await names(ns)) == ([0], ["clone", "1"])
        async with await ns.open("1/ctl"):
            await ns.write("1/ctl", "unkeep")
            assert (board.ended, await names(ns)) == ([0], ["clone", "1"])
        assert (board.ended, await names(ns)) == ([0, 1], ["clone"])
