"""Leases with a clock of the test's own: waiting, terms, ends, and a store that fails now and then."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import attrs
import pytest
import trio

from mk9p.errors import NineError
from mk9p.lease.book import Lease
from mk9p.lease.leases import Leases
from mk9p.lease.store import Memory
from mk9p.lease.stores import Local
from mk9p.lease.wish import SECOND, Mode, Wish
from mk9p.testing import SOON, until


@attrs.define(eq=False)
class Virtual:
    """A clock that goes when it is told to."""

    time: int = 1000 * SECOND
    passed: trio.Event = attrs.field(factory=trio.Event)

    def now(self) -> int:
        return self.time

    async def until(self, when: int) -> None:
        while self.time < when:
            await self.passed.wait()

    def go(self, seconds: float) -> None:
        self.time += round(seconds * SECOND)
        self.passed.set()
        self.passed = trio.Event()


@attrs.define
class Faulty(Memory):
    """A store that fails as often as it is told to."""

    fails: int = 0

    def _may(self) -> None:
        if self.fails:
            self.fails -= 1
            raise NineError(errno.EIO, "made up")

    def put(self, lease: Lease) -> None:
        self._may()
        super().put(lease)

    def drop(self, number: int) -> None:
        self._may()
        super().drop(number)


@attrs.define
class Lab:
    leases: Leases
    clock: Virtual
    store: Faulty

    async def take(
        self,
        number: int,
        *key: str,
        mode: Mode = "exclusive",
        holder: str = "ann",
        term: int = 60,
        wait: float | None = None,
    ) -> Lease:
        wish = Wish(number, "/" + "/".join(key), key, mode, holder, term * SECOND)
        return await self.leases.take(wish, wait)

    def kept(self) -> list[int]:
        return sorted(self.store.load().leases)


@asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    clock, store = Virtual(), Faulty()
    leases = Leases(Local(store), clock)
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leases.run)
            yield Lab(leases, clock, store)
            nursery.cancel_scope.cancel()


async def refused(what: Any, number: int) -> str:
    with pytest.raises(NineError) as caught:
        await what
    assert caught.value.errno == number, caught.value
    return str(caught.value)


async def test_a_lease_ends_with_its_term_and_not_before_whoever_is_there() -> None:
    async with lab() as it:
        await it.take(0, "k1", term=10)
        it.clock.go(9.9)
        assert await refused(it.take(1, "k1", holder="bob"), errno.EBUSY) == "ann has leased /k1"
        await it.leases.renew(0)
        it.clock.go(9.9)
        await refused(it.take(1, "k1"), errno.EBUSY)
        it.clock.go(0.1)
        await until(lambda: not it.leases.book.leases)
        assert it.kept() == []
        second = await it.take(1, "k1", holder="bob")
        assert second.token == 2
        await refused(it.leases.renew(0), errno.ESTALE)
        await refused(it.leases.give(0), errno.ESTALE)


async def test_who_waits_gets_it_in_order_and_who_gives_up_is_in_nobodys_way() -> None:
    got: list[int] = []

    async def wait(number: int, mode: Mode, seconds: float) -> None:
        try:
            await it.take(number, "k1", mode=mode, wait=seconds)
            got.append(number)
        except TimeoutError:
            got.append(-number)

    async with lab() as it, trio.open_nursery() as nursery:
        await it.take(0, "k1")
        scopes = []
        for number, mode in ((1, "shared"), (2, "exclusive"), (3, "shared"), (4, "shared")):
            scope = trio.CancelScope()
            scopes.append(scope)

            async def one(number: int = number, mode: Any = mode, scope: trio.CancelScope = scope) -> None:
                with scope:
                    await wait(number, mode, 1e6)

            nursery.start_soon(one)
            await until(partial(it.leases.book.waiting.__contains__, number))
        await it.leases.give(0)
        await until(lambda: got == [1])
        scopes[1].cancel()
        await until(lambda: sorted(got) == [1, 3, 4])
        assert it.kept() == [1, 3, 4]


async def test_waiting_has_its_end() -> None:
    async with lab() as it:
        await it.take(0, "k1")
        said = await refused(it.take(1, "k1", holder="bob", wait=0.001), errno.ETIMEDOUT)
        assert said == "ann has leased /k1, still"
        assert not it.leases.book.waiting


async def test_a_request_that_is_cancelled_holds_nothing() -> None:
    async with lab() as it:
        await it.take(0, "k1")
        for _ in range(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: it.take(1, "k1", wait=1e6))
                await until(lambda: 1 in it.leases.book.waiting)
                nursery.cancel_scope.cancel()
            assert not it.leases.book.waiting
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: it.take(1, "k1", wait=1e6))
            await until(lambda: 1 in it.leases.book.waiting)
            await it.leases.give(0)
            nursery.cancel_scope.cancel()
        await until(lambda: not it.leases.book.leases or 1 in it.leases.book.leases)
        assert it.kept() == sorted(it.leases.book.leases)


async def test_what_was_written_under_it_ends_before_the_next_one_has_it() -> None:
    async with lab() as it, trio.open_nursery() as nursery:
        done, fenced = trio.Event(), list[int]()

        async def fence(lease: Lease) -> None:
            fenced.append(lease.number)
            await done.wait()

        it.leases.fences.append(fence)
        await it.take(0, "k1", term=10)
        nursery.start_soon(lambda: it.take(1, "k1", wait=1e6))
        await until(lambda: 1 in it.leases.book.waiting)
        it.clock.go(10)
        await until(lambda: fenced == [0])
        for _ in range(20):
            await trio.testing.wait_all_tasks_blocked()
        assert 1 not in it.leases.book.leases
        await it.take(2, "k2")
        done.set()
        await until(lambda: 1 in it.leases.book.leases)


async def test_a_write_that_fails_changes_nothing_and_an_end_is_tried_again() -> None:
    async with lab() as it:
        it.store.fails = 1
        await refused(it.take(0, "k1"), errno.EIO)
        assert not it.leases.book.leases
        lease = await it.take(0, "k1", term=10)
        it.clock.go(5)
        it.store.fails = 1
        await refused(it.leases.renew(0), errno.EIO)
        assert it.leases.book.leases[0] == lease
        it.store.fails = 2
        it.clock.go(5)

        def tried() -> bool:
            it.clock.go(1)
            return not it.leases.book.leases

        await until(tried)
        assert it.store.fails == 0
        assert it.kept() == []


async def test_events_tell_everything() -> None:
    async with lab() as it:
        await it.take(0, "k1", term=10)
        await it.leases.renew(0)
        await it.leases.give(0)
        await it.take(1, "k1", mode="shared", term=5)
        it.clock.go(5)
        await until(lambda: not it.leases.book.leases)
        told = [line.decode().split()[2:] for line in it.leases.events.lines]
        assert told == [
            ["taken", "0", "/k1", "exclusive", "ann", "1", f"{1010 * SECOND}"],
            ["renewed", "0", "/k1", "ann", "1", f"{1010 * SECOND}"],
            ["given", "0", "/k1", "ann", "1"],
            ["taken", "1", "/k1", "shared", "ann", "2", f"{1005 * SECOND}"],
            ["ended", "1", "/k1", "ann", "2"],
        ]


async def test_a_lease_outlives_its_composer_and_who_waited_does_not() -> None:
    async with lab() as it, trio.open_nursery() as nursery:
        lease = await it.take(0, "k1", term=10)
        nursery.start_soon(lambda: it.take(1, "k1", wait=1e6))
        await until(lambda: 1 in it.leases.book.waiting)
        again = Leases(Local(it.store), it.clock)
        assert again.book.leases == {0: lease}
        assert not again.book.waiting
        it.clock.go(10)
        nursery.start_soon(again.run)
        await until(lambda: not again.book.leases)
        nursery.cancel_scope.cancel()


async def test_what_is_just_being_written_is_nobodys_yet_and_cannot_end() -> None:
    class Slow(Local):
        async def grant(self, lease: Lease) -> Lease:
            begun.set()
            await go_on.wait()
            raise NineError(errno.EIO, "made up")

    begun, go_on, clock = trio.Event(), trio.Event(), Virtual()
    leases = Leases(Slow(Memory()), clock)
    wish = Wish(0, "/k1", ("k1",), "exclusive", "ann", SECOND)
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leases.run)
            async with trio.open_nursery() as asking:
                asking.start_soon(refused, leases.take(wish), errno.EIO)
                await begun.wait()
                await refused(leases.give(0), errno.ESTALE)
                clock.go(5)  # its term is over before anybody has it
                await trio.testing.wait_all_tasks_blocked()
                go_on.set()
            assert not leases.book.leases
            assert not leases.book.ending
            nursery.cancel_scope.cancel()


async def test_who_goes_while_their_waiting_ends_leaves_nothing_in_the_way() -> None:
    async with lab() as it, trio.open_nursery() as nursery:
        await it.take(0, "k1")
        scope = trio.CancelScope()

        async def wait() -> None:
            with scope, suppress(TimeoutError):
                await it.take(1, "k1", holder="bob", wait=0.01)

        nursery.start_soon(wait)
        await until(lambda: 1 in it.leases.book.waiting)
        async with it.leases._turn:  # the store takes its time with another change
            await trio.sleep(0.05)
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
        await until(lambda: 1 not in it.leases.book.waiting)
        await it.leases.give(0)
        assert it.kept() == []


async def test_who_gives_up_what_was_just_granted_does_not_wait_for_a_store_that_fails() -> None:
    class Slow(Local):
        async def grant(self, lease: Lease) -> Lease:
            kept = await super().grant(lease)
            if lease.number == 1:
                begun.set()
                await go_on.wait()
            return kept

    begun, go_on, gone, scope = trio.Event(), trio.Event(), trio.Event(), trio.CancelScope()
    store = Faulty()
    leases = Leases(Slow(store), Virtual())  # nobody runs it any more

    async def wait() -> None:
        with scope:
            await leases.take(Wish(1, "/k1", ("k1",), "exclusive", "bob", SECOND), 1e6)
        gone.set()

    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            await leases.take(Wish(0, "/k1", ("k1",), "exclusive", "ann", SECOND))
            nursery.start_soon(wait)
            await until(lambda: 1 in leases.book.waiting)
            nursery.start_soon(leases.give, 0)
            await begun.wait()
            scope.cancel()
            store.fails = 1 << 30
            go_on.set()
            await gone.wait()
    assert leases.book.ending == {1}
