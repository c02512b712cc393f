"""Transactions: whole or not at all, wherever a step fails and whenever the process is killed; and the journal that they are kept in."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mk9p.errors import NineError
from mk9p.servers.kernels import journal, tx
from tests.kernels import killed_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence


KILLS = 300 if os.environ.get("MK9P_LONG") else 12


class Killed(BaseException):
    """This process is no more."""


@attrs.define(eq=False)
class Fate:
    """What goes wrong: at which of the events that are counted, and how. A step may fail before it does anything, half-way, or when all is done."""

    at: int = -1
    kill: bool = False
    full: bool = False
    seen: int = 0

    def comes(self, recording: bool = False, written: bool = False) -> None:
        self.seen += 1
        if self.seen != self.at + 1:
            return
        if self.kill:
            raise Killed
        if recording == self.full and not written:
            raise NineError(errno.ENOSPC if recording else errno.EAGAIN)


@attrs.define(eq=False)
class Tokens:
    """Places with numbers of tokens. `pool` is the World's own, the others outlive it. A word adds to a place, or takes."""

    there: dict[str, int]
    fate: Fate
    pool: int = 8

    def own(self, words: tx.Words) -> bool:
        return words[0] == "pool"

    def replay(self, words: tx.Words) -> None:
        if self.own(words):
            if self.pool + int(words[1]) < 0:
                raise NineError(errno.EINVAL, "the pool has no more")
            self.pool += int(words[1])
        else:
            self.pool = int(words[1])

    def kept(self) -> Iterator[tx.Words]:
        yield ("is", str(self.pool))

    async def note(self, words: tx.Words) -> str:
        self.fate.comes()
        return str(self.there[words[0]])

    async def perform(self, words: tx.Words) -> None:
        place, more = words[0], int(words[1])
        self.fate.comes()
        if self.there[place] + more < 0:
            raise NineError(errno.EBUSY, f"{place} has no more")
        self.there[place] += more // 2
        self.fate.comes()
        self.there[place] += more - more // 2
        self.fate.comes()

    async def restore(self, words: tx.Words, note: str) -> None:
        self.there[words[0]] = int(note)

    def all(self) -> dict[str, int]:
        return {**self.there, "pool": self.pool}


@attrs.define(eq=False)
class Book(journal.Journal):
    """A journal on a disk that may be full, of a process that may be killed before or after it has written."""

    fate: Fate = attrs.Factory(Fate)

    def add(self, *lines: Sequence[object]) -> None:
        self.fate.comes(recording=True)
        super().add(*lines)
        self.fate.comes(recording=True, written=True)


PLACES = ("k1", "k2", "pool")


def steps(moves: Sequence[tuple[str, int]]) -> list[tx.Step]:
    return [tx.Step((place, str(n)), (place, str(-n))) for place, n in moves]


def after(before: dict[str, int], moves: Sequence[tuple[str, int]]) -> dict[str, int] | None:
    """Return what the places have after the moves, None if one of them is impossible."""
    now = dict(before)
    for place, n in moves:
        now[place] += n
        if now[place] < 0:
            return None
    return now


@asynccontextmanager
async def opened(path: Path, tokens: Tokens) -> AsyncIterator[tx.Transactions]:
    """Give the transactions of a journal. They end as a killed process does: nothing more is written."""
    book = Book.open(path)
    assert isinstance(book, Book)
    book.fate = tokens.fate
    try:
        async with trio.open_nursery() as nursery:
            yield tx.Transactions(tokens, book, nursery, lambda *_: None)
            nursery.cancel_scope.cancel()
    finally:
        book.close()


async def attempt(path: Path, tokens: Tokens, moves: Sequence[tuple[str, int]]) -> str:
    """Run one transaction, and return its state, "killed" if the process was."""
    done = ""

    async def plan() -> list[tx.Step]:
        return steps(moves)

    try:
        async with opened(path, tokens) as txs:
            try:
                done = (await txs.run("moves", plan)).state
            except NineError:
                done = "failed"
    except BaseExceptionGroup as group:
        if group.split(Killed)[1] is not None:
            raise
        return "killed"
    return done


MOVES = st.lists(st.tuples(st.sampled_from(PLACES), st.integers(-5, 5)), min_size=1, max_size=5)


@pytest.fixture
def memory() -> Iterator[Path]:
    """Give a folder in memory: thousands of lines are synced."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(moves=MOVES)
def test_all_or_nothing_wherever_it_fails(moves: list[tuple[str, int]], memory: Path) -> None:
    async def each(at: int, kill: bool, full: bool) -> bool:
        """Have it fail at one place; False if it had no such place."""
        path = memory / "journal"
        path.unlink(missing_ok=True)
        fate = Fate(at, kill, full)
        tokens = Tokens({"k1": 3, "k2": 3}, fate)
        before = tokens.all()
        wanted = after(before, moves)
        state = await attempt(path, tokens, moves)
        left = fate.seen > at
        fate.at = -1
        if state == "applied":
            assert tokens.all() == wanted
        elif state == "failed":
            assert tokens.all() == before
        # a later process knows as much, whatever this one still knew
        later = Tokens(tokens.there, Fate(), pool=before["pool"])
        async with opened(path, later) as txs:
            await txs.resume(lambda words: True)
            states = [one.state for one in txs.txs.values()]
        assert set(states) <= {"applied", "failed"}
        assert later.all() == (wanted if "applied" in states else before)
        if state != "killed":
            assert ("applied" in states) == (state == "applied")
        return left

    for kill, full in ((False, False), (True, False), (False, True)):
        at = 0
        while trio.run(each, at, kill, full):
            at += 1
        assert at >= 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    rounds=st.lists(st.tuples(MOVES, st.one_of(st.none(), st.integers(0, 30)), st.booleans()), min_size=1, max_size=6)
)
def test_a_history_with_kills_and_failures_keeps_its_books(
    rounds: list[tuple[list[tuple[str, int]], int | None, bool]], memory: Path
) -> None:
    """Whatever was applied is there, nothing else is, and undoing all that was applied leads back to the beginning."""
    path = memory / "journal"
    path.unlink(missing_ok=True)

    async def history() -> None:
        there = {"k1": 40, "k2": 40}
        expected = {**there, "pool": 40}
        pool = 40
        for moves, at, kill in rounds:
            fate = Fate()
            tokens = Tokens(there, fate, pool)
            async with opened(path, tokens) as txs:
                await txs.resume(lambda words: True)
                assert tokens.all() == expected
            pool = tokens.pool
            tokens = Tokens(there, fate, pool)
            fate.at, fate.kill = (-1 if at is None else fate.seen + at), kill
            state = await attempt(path, tokens, moves)
            fate.at = -1
            if state == "killed":  # it may have been written just before
                later = Tokens(there, Fate(), pool)
                async with opened(path, later) as txs:
                    await txs.resume(lambda words: True)
                    newest = txs.txs.get(max(txs.txs, default=0))
                    state = newest.state if newest is not None and later.all() != expected else "failed"
            if state == "applied":
                expected = after(expected, moves) or {}
        last = Tokens(there, Fate(), pool)
        async with opened(path, last) as txs:
            assert last.all() == expected
            for number in sorted((n for n, one in txs.txs.items() if one.state == "applied"), reverse=True):
                await txs.undo(number)
            assert last.all() == {"k1": 40, "k2": 40, "pool": 40}

    trio.run(history)


@pytest.mark.parametrize("longest", range(20))
async def test_whenever_the_journal_is_written_anew_what_was_undone_stays_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longest: int
) -> None:
    monkeypatch.setattr(tx, "LONGEST", longest)
    tokens = Tokens({"k1": 3, "k2": 3}, Fate())

    async def plan() -> list[tx.Step]:
        return steps([("pool", -2), ("k1", 2)])

    async with opened(tmp_path / "journal", tokens) as txs:
        before = tokens.all()
        for number in (1, 3):
            await txs.run("moves", plan)
            await txs.undo(number)
        assert tokens.all() == before
    later = Tokens(tokens.there, Fate())
    async with opened(tmp_path / "journal", later) as txs:
        assert later.all() == before


async def test_what_cannot_be_undone_is_stuck_and_can_be_tried_again(tmp_path: Path) -> None:
    class Broken(Tokens):
        async def restore(self, words: tx.Words, note: str) -> None:
            if words[0] == "k1" and self.fate.kill:
                raise NineError(errno.ETIMEDOUT, "k1 does not answer")
            await super().restore(words, note)

    tokens = Broken({"k1": 3, "k2": 0}, Fate(kill=True))

    async def plan() -> list[tx.Step]:
        return steps([("k1", -1), ("k2", -1)])

    async with opened(tmp_path / "journal", tokens) as txs:
        with pytest.raises(
            NineError, match=r"k2 has no more; and step 1 \(k1 -1\) cannot be undone: k1 does not answer"
        ):
            await txs.run("moves", plan)
        assert txs.txs[1].state == "stuck"
        with pytest.raises(TimeoutError, match="k1 does not answer"):
            await txs.undo(1)
    tokens.fate.kill = False
    async with opened(tmp_path / "journal", tokens) as txs:
        assert txs.txs[1].state == "stuck"  # it waits for somebody, also after a restart
        await txs.undo(1)
        assert (txs.txs[1].state, tokens.there) == ("undone", {"k1": 3, "k2": 0})
        await txs.undo(1)
        assert not txs.txs
        with pytest.raises(FileNotFoundError):
            await txs.undo(1)


async def test_who_asked_may_go_away(tmp_path: Path) -> None:
    class Slow(Tokens):
        async def perform(self, words: tx.Words) -> None:
            await super().perform(words)
            begun.set()
            await go_on.wait()

    begun, go_on = trio.Event(), trio.Event()
    tokens = Slow({"k1": 3, "k2": 0}, Fate())

    async def plan() -> list[tx.Step]:
        return steps([("k1", -1), ("k2", 1)])

    async with opened(tmp_path / "journal", tokens) as txs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(txs.run, "moves", plan)
            await begun.wait()
            nursery.cancel_scope.cancel()
        assert tokens.there == {"k1": 2, "k2": 0}
        go_on.set()
        await txs.resume(lambda words: False)  # waits for its turn
        assert tokens.there == {"k1": 2, "k2": 1}
        assert txs.txs[1].state == "applied"


async def test_an_interrupted_one_waits_for_what_it_concerns(tmp_path: Path) -> None:
    tokens = Tokens({"k1": 3, "k2": 3}, Fate(at=4, kill=True))
    assert await attempt(tmp_path / "journal", tokens, [("k1", -2), ("k2", 2)]) == "killed"
    tokens.fate.at = -1
    async with opened(tmp_path / "journal", tokens) as txs:
        assert [one.state for one in txs.txs.values()] == ["interrupted"]
        await txs.resume(lambda words: words[0] == "k9")
        assert [one.state for one in txs.txs.values()] == ["interrupted"]
        await txs.resume(lambda words: words[0] in ("k1", "k2"))
        assert [(one.state, one.error) for one in txs.txs.values()] == [
            ("failed", "interrupted by the end of the server")
        ]
        assert tokens.there == {"k1": 3, "k2": 3}


LINES = [["keep", "a b", "it's"], ["", "x"], ["umlaut-ü", "1"]]


def filled(path: Path) -> bytes:
    book = journal.Journal.open(path)
    book.add(*LINES)
    book.close()
    return path.read_bytes()


@pytest.mark.parametrize("garbage", [False, True])
def test_a_journal_is_used_as_far_as_it_is_whole_and_the_rest_is_kept(garbage: bool, tmp_path: Path) -> None:
    whole = filled(tmp_path / "whole")
    ends = [0, *(at + 1 for at, byte in enumerate(whole) if byte == 10)]
    for at in range(len(whole)):
        path = tmp_path / f"{at}" / "journal"
        path.parent.mkdir()
        bad = whole[:at] + (bytes([whole[at] ^ 0x55]) + whole[at + 1 :] if garbage else b"")
        path.write_bytes(bad)
        book = journal.Journal.open(path)
        good = max(n for n, end in enumerate(ends) if end <= at)
        assert book.read == LINES[:good]
        kept = path.with_name("journal.damaged-1")
        if bad == whole[: ends[good]]:
            assert not book.damage
        else:
            assert f"damaged after {good} lines" in book.damage
            assert kept.read_bytes() == bad
        book.add(["more"])
        book.close()
        again = journal.Journal.open(path)
        assert (again.read, again.damage) == ([*LINES[:good], ["more"]], "")
        again.close()


def test_a_journal_belongs_to_one_process(tmp_path: Path) -> None:
    book = journal.Journal.open(tmp_path / "journal")
    for _ in range(2):
        with pytest.raises(NineError, match="another process has it") as caught:
            journal.Journal.open(tmp_path / "journal")
        assert caught.value.errno == errno.EBUSY
        book.rewrite([["a"], ["b", "c d"]])  # the new file is locked as the old one was
    book.close()
    book = journal.Journal.open(tmp_path / "journal")
    assert book.read == [["a"], ["b", "c d"]]
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o600
    book.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system of its own")
def test_a_line_that_a_full_disk_does_not_take_is_not_there(tmp_path: Path) -> None:
    import subprocess

    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "small", str(disk)], check=True)
    try:
        book = journal.Journal.open(disk / "journal")
        written = 0

        def fill() -> None:
            nonlocal written
            while True:
                book.add([str(written), "x" * 5000])
                written += 1

        with pytest.raises(OSError, match="No space left") as caught:
            fill()
        assert caught.value.errno == errno.ENOSPC
        book.add(["short"])
        book.close()
        book = journal.Journal.open(disk / "journal")
        assert not book.damage
        assert [words[0] for words in book.read] == [*map(str, range(written)), "short"]
        book.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


async def test_a_process_that_is_killed_leaves_what_the_next_one_can_put_right(memory: Path) -> None:
    """With SIGKILL, at any moment, again and again: nothing is lost, nothing is doubled, and nothing stays half done."""
    seen = set()
    for seed in range(KILLS):
        words = [sys.executable, killed_world.__file__, str(memory), str(seed)]
        process = await trio.lowlevel.open_process(words, stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            assert (await process.stdout.receive_some()).startswith(b"begun")
            await trio.sleep(random.Random(seed).random() / 5)
        finally:
            process.kill()
            await process.wait()
            await process.stdout.aclose()
        files = killed_world.Files(memory)
        book = journal.Journal.open(memory / "journal")
        assert not book.damage
        async with trio.open_nursery() as nursery:
            txs = tx.Transactions(files, book, nursery, lambda *_: None)
            seen |= {one.state for one in txs.txs.values()}
            await txs.resume(lambda words: True)
            nursery.cancel_scope.cancel()
        assert {one.state for one in txs.txs.values()} <= {"applied", "failed", "undone"}
        assert files.pool + files.has("k1") + files.has("k2") == 3 * killed_world.TOKENS
        book.close()
    assert {"applied", "undone", "interrupted"} <= seen


async def test_lines_of_a_later_version_are_told_and_kept_and_the_others_count(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    book = journal.Journal.open(path)
    lines = [["keep", "is", "5"], ["flavour", "x"], ["format", "2"], ["keep", "gpu"], ["next", "soon"], ["next", "7"]]
    book.add(*lines, ["tx", "7", "1", "more"], ["paint", "7", "blue"], ["end", "7", "applied", "0", "", "2"])
    book.close()
    before = path.read_bytes()
    told: list[tuple[object, ...]] = []
    book = journal.Journal.open(path)
    tokens = Tokens({}, Fate())
    async with trio.open_nursery() as nursery:
        txs = tx.Transactions(tokens, book, nursery, lambda *words: told.append(words))
    book.close()
    assert (tokens.pool, txs.next, txs.txs[7].state) == (5, 8, "applied")
    aside = tmp_path / "journal.damaged-1"
    assert told == [("damaged", f"{path}: 5 lines say nothing to this version; the file as it was is {aside}")]
    assert aside.read_bytes() == before


async def test_a_full_disk_keeps_nobody_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    book = journal.Journal.open(path)
    book.add(["keep", "is", "5"])
    book.close()
    book = journal.Journal.open(path)
    told: list[tuple[object, ...]] = []

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    tokens = Tokens({}, Fate())
    async with trio.open_nursery() as nursery:
        tx.Transactions(tokens, book, nursery, lambda *words: told.append(words))
    monkeypatch.undo()
    book.close()
    assert (tokens.pool, [words[0] for words in told]) == (5, ["unwritten"])
    again = journal.Journal.open(path)
    assert again.read == [["keep", "is", "5"]]
    again.close()


async def test_nothing_is_undone_twice_whenever_the_undoing_is_killed(tmp_path: Path) -> None:
    async def plan() -> list[tx.Step]:
        return steps([("pool", -2), ("k1", 2)])

    for at in range(100):
        path, fate = tmp_path / f"journal{at}", Fate()
        tokens = Tokens({"k1": 3, "k2": 3}, fate)
        before = tokens.all()
        killed = False
        try:
            async with opened(path, tokens) as txs:
                await txs.run("moves", plan)
                fate.at, fate.kill = fate.seen + at, True
                with suppress(NineError):
                    await txs.undo(1)
        except BaseExceptionGroup as group:
            if group.split(Killed)[1] is not None:
                raise
            killed = True
        later = Tokens(tokens.there, Fate(), pool=before["pool"])
        async with opened(path, later) as txs:
            await txs.resume(lambda words: True)
            if txs.txs[1].state == "applied":
                await txs.undo(1)
            assert (later.all(), txs.txs[1].state) == (before, "undone"), at
        if not killed:
            return
    raise AssertionError("it never came to its end")
