"""Whatever numbers a server says of a file, its status is one that everything here can use: a date, an off_t, an owner."""

import errno
import os
import stat as st
import time
from datetime import UTC, datetime
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as some

from mk9p.client import changes
from mk9p.client.stats import UNKNOWN, of_getattr, of_wire
from mk9p.errors import NineError
from mk9p.tree import NOW, Change, Stat
from mk9p.wire import Dialect, Qid, WireStat
from mk9p.wire import messages as m
from tests.client.helpers_client import FILE, by_hand

NS = 1_000_000_000
U64 = 1 << 64

numbers = some.one_of(
    some.integers(0, U64 - 1), some.sampled_from((0, 1, NS - 1, NS, 1 << 31, (1 << 32) - 1, 1 << 63, U64 - 1))
)
halves = numbers.map(lambda number: number & 0xFFFFFFFF)
qids = some.builds(Qid, some.integers(0, 255), halves, numbers)


def usable(stat: Stat) -> None:
    for ns in (stat.atime, stat.mtime, stat.ctime):
        datetime.fromtimestamp(ns / NS, UTC)
        time.strftime("%Y-%m-%d %H:%M", time.localtime(ns // NS))
    assert 0 <= stat.length < 1 << 63
    assert 0 < stat.blksize <= 1 << 24
    assert 0 <= (stat.blocks or 0) < 1 << 63
    assert 0 <= stat.uid < (1 << 32) - 1
    assert 0 <= stat.gid < (1 << 32) - 1
    assert st.filemode(stat.mode)
    os.major(stat.rdev)


@given(qids, some.tuples(*[halves] * 3), some.tuples(*[numbers] * 15))
def test_any_rgetattr_is_a_status_that_can_be_used(qid: Qid, small: tuple[int, ...], large: tuple[int, ...]) -> None:
    usable(of_getattr((large[0], qid, *small, *large[1:]), "x"))


@given(
    some.tuples(some.integers(0, 65535), halves, qids, halves, halves, halves, numbers),
    some.text(),
    some.one_of(some.text(), some.from_regex("[bc] [0-9]{1,30} [0-9]{1,30}"), some.just("c ² ³")),
    some.tuples(halves, halves, halves),
)
def test_any_stat_entry_is_a_status_that_can_be_used(head: Any, text: str, extension: str, owners: Any) -> None:
    values: tuple[Any, ...] = (*head, text, text, text, text, extension, *owners)
    usable(of_wire(WireStat(*values), ""))


def told(**numbers: int) -> Stat:
    """Return the status that an Rgetattr says, in which all else is 0."""
    names = "valid qid mode uid gid nlink rdev size blksize blocks a an m mn c cn b bn gen version"
    values: list[Any] = [numbers.get(name, 0) for name in names.split()]
    values[1] = FILE
    return of_getattr(tuple(values), "")


def test_a_time_before_1970_is_that_time() -> None:
    assert told(m=U64 - 315_000_000, mn=5).mtime == -315_000_000 * NS + 5
    assert told(a=U64 - 1).atime == -NS


def test_a_time_that_no_calendar_has_is_the_nearest_that_one_has() -> None:
    stat = told(a=1 << 63, m=(1 << 63) - 1, mn=U64 - 1)
    assert datetime.fromtimestamp(stat.atime // NS, UTC).year == 1
    assert datetime.fromtimestamp(stat.mtime // NS, UTC).year == 9999
    assert told(mn=5 * NS).mtime == NS - 1


def test_all_ones_is_no_owner() -> None:
    assert told(uid=0xFFFFFFFF, gid=0xFFFFFFFF).uid == UNKNOWN
    assert told(uid=1000, gid=1001).uid == 1000


def test_a_mode_without_a_kind_has_that_of_the_qid() -> None:
    assert told(mode=0o640).mode == st.S_IFREG | 0o640
    assert told(mode=st.S_IFSOCK | 0o640).mode == st.S_IFSOCK | 0o640


async def test_times_before_1970_are_sent_as_linux_sends_them() -> None:
    async with by_hand() as (connection, hand), trio.open_nursery() as nursery:
        nursery.start_soon(changes.change, connection, 0, Change(atime=NOW, mtime=-1))
        request = await hand.next(m.Tsetattr)
        assert request.valid == 0x10 | 0x20 | 0x100
        assert (request.mtime_sec, request.mtime_nsec) == (U64 - 1, NS - 1)
        await hand.say(m.Rsetattr(request.tag))


@pytest.mark.parametrize("when", [-1, -NS, 0xFFFFFFFF * NS])
async def test_a_time_that_a_stat_entry_cannot_say_is_refused(when: int) -> None:
    async with by_hand(Dialect.P9) as (connection, _):
        with pytest.raises(NineError) as caught:
            await changes.change(connection, 0, Change(mtime=when))
    assert caught.value.errno == errno.EOVERFLOW
