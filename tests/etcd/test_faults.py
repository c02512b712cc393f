"""Members that are killed, stopped, or forget; a quorum that is lost; clocks that differ: leases stay one's, and nothing is missed."""

import errno
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
import trio

from mk9p.errors import NineError
from mk9p.etcd.address import parse
from mk9p.etcd.client import opened
from mk9p.etcd.mirror import Mirror
from mk9p.etcd.records import Record, delete, put
from mk9p.lease.leases import Steady
from mk9p.lease.registry import Entry
from mk9p.lease.wish import SECOND
from mk9p.testing import SOON, until
from tests.etcd.cluster import Cluster, compact, running
from tests.etcd.composers import Composer, composer, composers, queued, refused

TTL = 3


@contextmanager
def without_quorum(etcd: Cluster) -> Iterator[None]:
    """Stop two members of three."""
    for member in etcd.members[1:]:
        member.pause()
    try:
        yield
    finally:
        for member in etcd.members[1:]:
            member.resume()


@pytest.mark.parametrize("fault", ["killed", "stopped"])
async def test_with_the_leader_gone_leases_and_the_registry_go_on(etcd: Cluster, fault: str) -> None:
    async with composers(etcd, "a", "b", ttl=TTL) as (a, b), trio.open_nursery() as nursery:
        await a.take(0, "9p", "k1")
        nursery.start_soon(lambda: b.take(0, "9p", "k1", wait=SOON))
        await until(lambda: queued(1, a, b))
        leader = etcd.leader()
        if fault == "killed":
            leader.kill()
        else:
            leader.pause()
        await a.leases.give(0)
        await until(lambda: 0 in b.leases.book.leases)
        # while the others elect one, a session may be over for a moment
        await until(lambda: is_entered(a, "k1"))
        await until(lambda: b.registry.index() == "k1\n")
        await refused(a.take(1, "9p", "k1"), errno.EBUSY)


async def test_without_a_quorum_nothing_new_is_granted_all_is_read_and_a_holder_stops_before_another_begins(
    etcd: Cluster,
) -> None:
    async with composers(etcd, "a", "b", ttl=TTL) as (a, b), trio.open_nursery() as nursery:
        stopped: list[float] = []
        began: list[float] = []

        async def fence(lease: object) -> None:
            stopped.append(time.monotonic())

        async def begin() -> None:
            await b.take(0, "9p", "k1", holder="bob", wait=SOON)
            began.append(time.monotonic())

        a.leases.fences.append(fence)
        await a.registry.enter(Entry.parse(["web"], "ann"), None)
        await a.take(0, "9p", "k1", term=10)
        nursery.start_soon(begin)
        await until(lambda: queued(1, a, b))
        with without_quorum(etcd):
            said = await refused(a.take(1, "9p", "k2"), errno.EAGAIN)
            assert said.startswith("no quorum")
            await refused(a.leases.renew(0), errno.EAGAIN)
            asked = time.monotonic()
            await refused(a.take(1, "9p", "k2"), errno.EAGAIN)
            assert time.monotonic() - asked < 1, "who asks without a quorum is not told at once"
            await until(lambda: bool(stopped))
            assert a.registry.index() == b.registry.index() == "web\n"
            assert a.leases.book.waiting
            assert not began
        await until(lambda: bool(began))
        assert stopped[0] < began[0]
        # the sessions have come again, and what goes with them
        await until(lambda: f"{a.store.prefix}registry/web" in b.store.mirror.kept)
        await until(lambda: queued(0, a, b))
        await until(lambda: is_granted(a, 1, "k2"))


async def could(what: Awaitable[object], *refusals: int) -> bool:
    """Wait for something; tell whether it could be had, or was refused by one of these errors."""
    try:
        await what
    except NineError as error:
        if error.errno not in refusals:
            raise
        await trio.sleep(0.05)
        return False
    return True


async def is_granted(it: Composer, number: int, name: str) -> bool:
    """Take a lease; tell whether it could be had."""
    return await could(it.take(number, "9p", name), errno.EAGAIN, errno.EBUSY)


async def is_entered(it: Composer, name: str) -> bool:
    """Enter a kernel; tell whether it could be done. One that came late is there until it is taken back."""
    entered = it.registry.enter(Entry.parse([name], "kernel"), None)
    return await could(entered, errno.EAGAIN, errno.EEXIST)


async def test_a_grant_that_nobody_answered_is_taken_back_also_if_it_comes_late(etcd: Cluster) -> None:
    async with composers(etcd, "a", "b", ttl=60) as (a, b):
        for member in etcd.members:
            member.pause()
        await refused(a.take(0, "9p", "k1"), errno.EAGAIN)
        for member in etcd.members:
            member.resume()
        await until(lambda: is_granted(b, 0, "k1"))
        await until(lambda: not a.store._doubtful)
        assert 0 not in a.leases.book.leases
        await until(lambda: [lease.wish.home for lease in a.leases.book.leases.values()] == ["b"])


async def test_who_was_away_while_etcd_forgot_has_all_that_is_there(etcd: Cluster) -> None:
    heard: list[tuple[str, bytes | None]] = []

    def hear(key: str, one: Record | None) -> None:
        heard.append((key.removeprefix("/mk9p/x/"), None if one is None else one.value))

    async with opened(parse(etcd.where("a"))) as client, opened(parse(etcd.where("b"))) as other:
        for name in ("kept", "gone", "changed"):
            await other.txn([], [put(f"/mk9p/x/{name}", "1")], [])
        slow = Mirror(client, "/mk9p/x/")
        await slow.load()
        slow.heard.append(hear)
        for turn in range(50):
            await other.txn([], [put("/mk9p/x/changed", f"{turn}")], [])
        await other.txn([], [delete("/mk9p/x/gone"), put("/mk9p/x/new", "2")], [])
        compact(etcd)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow.run)
            await until(lambda: slow.reloaded == 1)
            await until(lambda: sorted(slow.kept) == [f"/mk9p/x/{name}" for name in ("changed", "kept", "new")])
            assert sorted(heard, key=str) == [("changed", b"49"), ("gone", None), ("new", b"2")]
            await other.txn([], [put("/mk9p/x/after", "3")], [])
            await until(lambda: heard[-1] == ("after", b"3"))
            assert slow.reloaded == 1
            nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class Wrong(Steady):
    """A clock that is wrong by so many seconds, and goes faster by so many of a million."""

    seconds: float
    faster: int

    def __attrs_post_init__(self) -> None:
        Steady.__init__(self)
        self._began = super().now()

    def now(self) -> int:
        true = super().now()
        return true + round(self.seconds * SECOND) + (true - self._began) * self.faster // 1_000_000

    async def until(self, when: int) -> None:
        await trio.sleep(max(when - self.now(), 0) / SECOND)
        await trio.sleep(max(when - self.now(), 0) / SECOND)  # one that goes slower has not come so far


@pytest.mark.parametrize("hours", [-1, 1])
async def test_whoever_is_gone_keeps_a_lease_for_its_term_by_whatever_clocks(etcd: Cluster, hours: int) -> None:
    ahead, behind = Wrong(hours * 3600, 500), Wrong(-hours * 3600, -500)
    async with composer(etcd, "b", behind, ttl=2) as b:
        async with composer(etcd, "a", ahead, ttl=2) as a:
            began = time.monotonic()
            lease = await a.take(0, "9p", "k1", term=3)
            assert abs(lease.until - ahead.now() - 3 * SECOND) < SECOND
        await b.take(0, "9p", "k1", wait=SOON)
        assert time.monotonic() - began >= 3
    print(f"from the grant to the next one, term 3 s: {time.monotonic() - began:.3f} s")


async def test_a_composer_that_comes_again_has_its_leases_and_its_name(etcd: Cluster) -> None:
    async with composer(etcd, "b", ttl=2) as b:
        async with composer(etcd, "a", ttl=2) as a:
            lease = await a.take(0, "9p", "k1", term=60)
        async with composer(etcd, "a", ttl=2) as a:
            again = a.leases.book.leases[0]
            assert (again.token, again.wish) == (lease.token, lease.wish)
            assert abs(again.until - lease.until) < SECOND
            await refused(b.take(0, "9p", "k1"), errno.EBUSY)
            await a.leases.renew(0)
            await a.leases.give(0)
            await b.take(0, "9p", "k1")


async def test_members_whose_clocks_differ_by_a_day_keep_terms_alike(tmp_path: Path) -> None:
    """Their monotonic clocks are shifted by a time namespace each, and then the one that led is gone."""
    whole = Cluster.of(tmp_path)
    for member, days in zip(whole.members, (0, 1, 2), strict=True):
        shift = str(86400 * days)
        member.around = ["unshare", "--time", "--monotonic", shift, "--boottime", shift]
    with running(whole):
        async with composer(whole, "b", ttl=2) as b:
            async with composer(whole, "a", ttl=2) as a:
                await a.registry.enter(Entry.parse(["web"], "ann"), None)
                began = time.monotonic()
                await a.take(0, "9p", "k1", term=4)
                whole.leader().kill()
                await until(lambda: is_granted(a, 1, "k2"))
                assert b.registry.index() == "web\n", "its session did not end with the election"
            await b.take(0, "9p", "k1", wait=SOON)
            assert time.monotonic() - began >= 4
