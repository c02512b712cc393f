"""The rules of leases, against a model that knows them in another way, over any history."""

import errno
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mk9p.errors import NineError
from mk9p.lease.book import Book, Lease, busy
from mk9p.lease.near import Near
from mk9p.lease.store import SqliteStore
from mk9p.lease.wish import LONGEST, SECOND, Mode, Resource, Wish

KEYS = [("k1",), ("k1", "disk"), ("k1", "disk", "data"), ("k1", "cpu"), ("k2",), ("k2", "disk")]
HOLDERS = ["ann", "bob", "guest:k1"]


def wish(
    number: int,
    key: tuple[str, ...] = ("k1",),
    mode: Mode = "exclusive",
    holder: str = "ann",
    term: int = 60,
    more: Sequence[tuple[str, ...]] = (),
) -> Wish:
    further = tuple(Resource("/" + "/".join(one), one) for one in more)
    return Wish(number, "/" + "/".join(key), key, mode, holder, term * SECOND, more=further)


def refused(number: int, call: Any, *args: Any, **more: Any) -> str:
    with pytest.raises(NineError) as caught:
        call(*args, **more)
    assert caught.value.errno == number
    return str(caught.value)


def test_an_exclusive_one_is_in_the_way_of_all_at_above_and_below() -> None:
    book = Book()
    book.take(wish(0, ("k1", "disk")), 0, wait=False)
    keys: list[tuple[str, ...]] = [("k1", "disk"), ("k1",), ("k1", "disk", "data")]
    modes: list[Mode] = ["exclusive", "shared"]
    for key in keys:
        for mode in modes:
            said = refused(errno.EBUSY, book.take, wish(1, key, mode, "bob"), 0, wait=False)
            assert said == "ann has leased /k1/disk"
    others: list[tuple[str, ...]] = [("k1", "cpu"), ("k2",), ("k1", "disk2")]
    for number, key in enumerate(others, 2):
        assert book.take(wish(number, key), 0, wait=False) is not None


def test_shared_ones_are_in_the_way_of_an_exclusive_one_alone() -> None:
    book = Book()
    for number in range(3):
        assert book.take(wish(number, mode="shared"), 0, wait=False) is not None
    assert refused(errno.EBUSY, book.take, wish(3), 0, wait=False) == "ann has a shared lease of /k1"


def test_who_waits_is_served_in_order_and_shared_ones_do_not_overtake() -> None:
    book = Book()
    book.take(wish(0, mode="shared"), 0, wait=False)
    assert book.take(wish(1, holder="bob"), 0, wait=True) is None
    assert book.take(wish(2, mode="shared"), 0, wait=True) is None
    said = refused(errno.EBUSY, book.take, wish(3, mode="shared"), 0, wait=False)
    assert said == "/k1 is waited for by bob"
    assert book.grantable() is None
    book.begin_end(0)
    assert book.grantable() is None, "it has not ended yet"
    book.end(0)
    first = book.grantable()
    assert first is not None
    assert first.number == 1
    book.promote(1, 5)
    assert book.grantable() is None
    assert book.withdraw(2)
    assert not book.withdraw(2)


def test_a_request_that_goes_is_in_nobodys_way() -> None:
    book = Book()
    book.take(wish(0, mode="shared"), 0, wait=False)
    book.take(wish(1), 0, wait=True)
    book.take(wish(2, mode="shared"), 0, wait=True)
    book.withdraw(1)
    found = book.grantable()
    assert found is not None
    assert found.number == 2


def test_a_renewal_after_the_end_is_stale_and_before_it_is_a_whole_term() -> None:
    book = Book()
    book.take(wish(0, term=10), 100, wait=False)
    assert book.renew(0, 5 * SECOND).until == 15 * SECOND
    assert book.renew(0, 6 * SECOND, 2 * SECOND).until == 8 * SECOND
    refused(errno.ESTALE, book.renew, 0, 8 * SECOND)
    assert [lease.number for lease in book.over(8 * SECOND)] == [0]
    book.begin_end(0)
    refused(errno.ESTALE, book.renew, 0, 7 * SECOND)
    assert not book.over(9 * SECOND)
    refused(errno.ESTALE, book.renew, 5, 0)


@pytest.mark.parametrize("term", [0, SECOND - 1, LONGEST + 1, 366 * 86400 * SECOND, -1])
def test_a_term_of_nothing_or_of_a_year_is_refused(term: int) -> None:
    said = refused(errno.EINVAL, Wish, 0, "/k1", ("k1",), "exclusive", "ann", term)
    assert said == "a term is 1 to 86400 seconds"
    book = Book()
    book.take(wish(0), 0, wait=False)
    refused(errno.EINVAL, book.renew, 0, 1, term)
    assert book.held(0, 1).until == 60 * SECOND


def test_a_conversation_has_one_at_a_time() -> None:
    book = Book()
    book.take(wish(0), 0, wait=False)
    assert "give it back first" in refused(errno.EBUSY, book.take, wish(0, ("k2",)), 0, wait=True)
    book.take(wish(1), 0, wait=True)
    assert "waits already" in refused(errno.EBUSY, book.take, wish(1, ("k2",)), 0, wait=True)


class Leasing(RuleBasedStateMachine):
    """Any history of takes, waits, renewals, gives and time. The model is the list of what was granted: it knows no tables and no queue."""

    @initialize()
    def start(self) -> None:
        self.book = Book()
        self.now = 0
        self.numbers = 0
        self.live: dict[int, Lease] = {}
        self.tokens: list[int] = []
        self.asked: list[Wish] = []  # those that wait, in the order in which they asked

    # what a store is told

    def _put(self, lease: Lease) -> None:
        return

    def _drop(self, number: int) -> None:
        return

    def _load(self) -> Book:
        return Book(Near(self.book.leases), token=self.book.token)

    def _granted(self, lease: Lease) -> None:
        self.live[lease.number] = lease
        self.tokens.append(lease.token)
        self._put(lease)

    @rule(
        key=st.sampled_from(KEYS),
        mode=st.sampled_from(["shared", "exclusive"]),
        holder=st.sampled_from(HOLDERS),
        term=st.integers(1, 9),
        wait=st.booleans(),
        more=st.lists(st.sampled_from(KEYS), max_size=2),
    )
    def take(
        self, key: tuple[str, ...], mode: Mode, holder: str, term: int, wait: bool, more: list[tuple[str, ...]]
    ) -> None:
        self.numbers += 1
        mine = wish(self.numbers, key, mode, holder, term, more)
        way = [one for one in [*(lease.wish for lease in self.live.values()), *self.asked] if self._clash(one, mine)]
        if way and not wait:
            said = refused(errno.EBUSY, self.book.take, mine, self.now, wait=False)
            assert any(one.holder in said and path in said for one in way for path, _ in one.resources)
            return
        lease = self.book.take(mine, self.now, wait=wait)
        if way:
            assert lease is None
            self.asked.append(mine)
        else:
            assert lease is not None
            assert lease.until == self.now + term * SECOND
            self._granted(lease)

    @staticmethod
    def _clash(one: Wish, other: Wish) -> bool:
        pairs = (sorted([mine + "/", its + "/"], key=len) for mine, _ in one.resources for its, _ in other.resources)
        return any(long.startswith(short) for short, long in pairs) and (one.mode, other.mode) != ("shared", "shared")

    @rule(seconds=st.integers(0, 5))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds * SECOND
        for lease in self.book.over(self.now):
            assert lease.until <= self.now
            self.book.begin_end(lease.number)
            self._over(lease.number)
        self._serve()

    def _over(self, number: int) -> None:
        self.book.end(number)
        del self.live[number]
        self._drop(number)

    def _serve(self) -> None:
        while (mine := self.book.grantable()) is not None:
            before = self.asked[: self.asked.index(mine)]
            assert not [one for one in before if self._clash(one, mine)], "somebody was overtaken"
            self.asked.remove(mine)
            self._granted(self.book.promote(mine.number, self.now))
        for number, mine in enumerate(self.asked):
            before = [*(lease.wish for lease in self.live.values()), *self.asked[:number]]
            assert [one for one in before if self._clash(one, mine)], "nothing is in its way, and it waits"

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.live)))
        assert self.book.begin_end(number) == self.live[number]
        assert self.book.begin_end(number) is None
        refused(errno.ESTALE, self.book.renew, number, self.now)
        self._over(number)
        self._serve()

    @precondition(lambda self: self.live)
    @rule(data=st.data(), term=st.none() | st.integers(1, 9))
    def renew(self, data: st.DataObject, term: int | None) -> None:
        number = data.draw(st.sampled_from(sorted(self.live)))
        old = self.live[number]
        new = self.book.renew(number, self.now, None if term is None else term * SECOND)
        assert new.token == old.token
        assert new.until == self.now + new.wish.term
        assert new.wish.term == (old.wish.term if term is None else term * SECOND)
        self.live[number] = new
        self._put(new)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        mine = data.draw(st.sampled_from(self.asked))
        assert self.book.withdraw(mine.number)
        self.asked.remove(mine)
        self._serve()

    @rule()
    def restart(self) -> None:
        """What a store keeps is there again; who waited has gone with the composer."""
        self.book = self._load()
        self.asked = []

    @invariant()
    def the_book_says_what_was_granted(self) -> None:
        if not hasattr(self, "book"):
            return
        assert self.book.leases == self.live
        assert list(self.book.waiting.values()) == self.asked
        assert self.tokens == sorted(set(self.tokens)), "a token grows with each grant"
        assert all(lease.until > self.now or lease in self.book.over(self.now) for lease in self.live.values())

    @invariant()
    def no_two_that_are_held_are_in_each_others_way(self) -> None:
        if not hasattr(self, "book"):
            return
        held = [lease.wish for lease in self.live.values()]
        assert not [(a, b) for a in held for b in held if a is not b and self._clash(a, b)]


class Stored(Leasing):
    """The same, with a store in a file, which each restart opens again."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = SqliteStore(Path(self.folder.name) / "s" / "leases")

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    def _put(self, lease: Lease) -> None:
        self.store.put(lease)

    def _drop(self, number: int) -> None:
        self.store.drop(number)

    def _load(self) -> Book:
        self.store.close()
        self.store = SqliteStore(self.store.path)
        return self.store.load()


TestStored = Stored.TestCase
TestStored.settings = settings(max_examples=10, stateful_step_count=40)
TestLeasing = Leasing.TestCase
TestLeasing.settings = settings(max_examples=60, stateful_step_count=60)


def test_a_hundred_thousand_steps(long: bool) -> None:
    if long:
        from hypothesis.stateful import run_state_machine_as_test

        run_state_machine_as_test(Leasing, settings=settings(max_examples=1000, stateful_step_count=100))


def test_what_is_in_the_way_is_told_by_its_holder() -> None:
    assert "ann" in str(busy(Lease(wish(0), 1, 1)))
