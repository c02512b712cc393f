"""A text from a client may ask for long work. It is done in slices, and others have their turn meanwhile."""

import errno
import re
import tracemalloc
from collections.abc import Awaitable, Coroutine
from fnmatch import translate
from random import Random
from time import process_time

import pytest
import trio

from mk9p.auth import ROOT
from mk9p.errors import NineError
from mk9p.tree import Ctl, Handle, Open, quote, split
from mk9p.tree.patterns import Pattern
from mk9p.tree.slices import next_slice
from mk9p.tree.words import commands, lines, run, table

MANY = 1 << 20  # as many bytes as a write has


async def turns_beside(work: Awaitable[object]) -> int:
    """Return how often somebody else had a turn while a work was done."""
    count = 0

    async def other() -> None:
        nonlocal count
        while True:
            await trio.lowlevel.checkpoint()
            count += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await work
        nursery.cancel_scope.cancel()
    return count


async def later() -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("text", ["say\n" * (MANY // 4), "wait\n" + "say\n" * (MANY // 4)])
async def test_others_have_their_turn_between_the_lines_of_a_write(text: str) -> None:
    said = []
    ctl = Ctl({"say": lambda: said.append(1), "wait": later})
    handle = ctl.open(Open(ROOT, write=True))
    assert isinstance(handle, Handle)
    began = process_time()
    done = handle.write(0, memoryview(text.encode()))
    assert isinstance(done, Awaitable)
    assert await turns_beside(done) > 5
    assert process_time() - began < 10, "what is left of the lines is not moved for each line"
    assert len(said) == text.count("say")


async def test_a_write_that_waits_keeps_the_lines_to_come_once() -> None:
    handle = Ctl({"wait": trio.sleep_forever}).open(Open(ROOT, write=True))
    assert isinstance(handle, Handle)
    data = memoryview(b"wait\n" + b"ab\n" * (MANY // 3))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        done = handle.write(0, data)
        assert isinstance(done, Coroutine)
        done.send(None)
        assert tracemalloc.get_traced_memory()[0] - before < MANY, "a list of them takes twenty times as much"
        done.close()
    finally:
        tracemalloc.stop()


class Counter:
    """A Keeper that counts."""

    kept = 0
    full = False

    def check(self, n: int = 0, *, waits: bool = False) -> None:
        if self.full:
            raise NineError(errno.ENOMEM)

    def keep_text(self, n: int) -> None:
        self.kept = n


def test_an_open_ctl_counts_its_answer_and_its_settings_and_both_have_an_end() -> None:
    handle = Ctl({"long": lambda: "x" * 9000, "short": lambda: "x"}, lambda: "y" * 5000).open(Open(ROOT, write=True))
    assert isinstance(handle, Handle)
    handle.keeper = counter = Counter()
    handle.write(0, memoryview(b"long\nlong"))
    assert counter.kept == 18_000
    assert (handle.read(9, 99_999), handle.read(18_008, 99)) == (b"x" * 18_000, b"x")

    assert handle.read(0, 9) == b"y" * 9
    assert counter.kept == 23_000
    handle.write(0, memoryview(b"short"))
    assert counter.kept == 5001
    with pytest.raises(NineError, match="write fewer lines") as caught:
        handle.write(0, memoryview(b"long\n" * 9))
    assert caught.value.errno == errno.EFBIG
    counter.full = True
    with pytest.raises(NineError):
        handle.write(0, memoryview(b"long"))


async def test_the_first_wrong_line_ends_a_long_write() -> None:
    said = []
    handle = Ctl({"say": lambda: said.append(1)}).open(Open(ROOT, write=True))
    assert isinstance(handle, Handle)
    done = handle.write(0, memoryview(b"say\n" * 100_000 + b"shout\nsay\n"))
    assert isinstance(done, Awaitable)
    with pytest.raises(NineError, match="unknown word shout"):
        await done
    assert len(said) == 100_000


async def test_several_long_works_have_one_slice_in_a_round() -> None:
    async def work() -> None:
        for _ in range(10):
            await next_slice()

    async def all_of_them() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(work)

    assert await turns_beside(all_of_them()) >= 190


def test_words_and_lines_are_found_in_a_moment() -> None:
    for text in ("a" * MANY, "a " * (MANY // 2), "'" * MANY, "a'b'" * (MANY // 4), "\n" * MANY, "'\n" * (MANY // 2)):
        began = process_time()
        split(text), lines(text), list(commands(text.encode()))
        assert process_time() - began < 1


def test_a_long_line_that_no_command_begins_is_refused_before_it_is_taken_apart() -> None:
    began = process_time()
    for _ in range(20):
        with pytest.raises(NineError, match="unknown word x"):
            run(table({"say": later}), "x" + " a" * (MANY // 2), ROOT)
    assert process_time() - began < 0.4
    with pytest.raises(NineError, match="unterminated"):
        run(table({"say": later}), "'" + "x" * 9999, ROOT)


def test_words_are_read_as_they_are_quoted() -> None:
    some = Random(1)
    for _ in range(2000):
        words = ["".join(some.choice("a '\n\t") for _ in range(some.randrange(5))) for _ in range(some.randrange(4))]
        line = " ".join(quote(word) for word in words)
        assert split(line) == words
        assert lines(f"{line}\n{line}") == [line, line]
    assert split("a''b 'it''s' ''''") == ["ab", "it's", "'"]
    assert lines("a 'b\nc") == ["a 'b\nc"]
    assert list(commands(b"\n a 'b\nc'\n\n \td\n \n")) == ["a 'b\nc'", "d"]
    assert list(commands(b"a\n'b\n \n")) == ["a", "'b"]
    assert list(commands(b" \n\n")) == []


def test_a_pattern_is_as_a_shells() -> None:
    some = Random(1)
    for _ in range(20_000):
        text = "".join(some.choice("ab*?[]!-c") for _ in range(some.randrange(8)))
        word = "".join(some.choice("abc[]!-\n") for _ in range(some.randrange(9)))
        assert Pattern(text).matches(word) == bool(re.compile(translate(text)).fullmatch(word)), (text, word)


def test_a_pattern_of_a_stranger_takes_no_time() -> None:
    some = Random(1)
    began = process_time()
    for _ in range(4096):
        Pattern("".join("*" + some.choice("abcdef") for _ in range(127))).matches("abcdef" * 42)
    assert process_time() - began < 2, "as regular expressions they take five seconds"
