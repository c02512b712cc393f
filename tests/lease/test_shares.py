"""What one user may have of leases, claims and entries: a share, so that others can have some too; and memory of a connection is counted for it."""

import errno
from collections.abc import Awaitable
from pathlib import Path
from random import Random
from time import process_time

import pytest
import trio

from mk9p.auth import Principal
from mk9p.client import connect
from mk9p.errors import NineError
from mk9p.lease import book, registry
from mk9p.lease.book import Lease
from mk9p.lease.booking import WAITING, Booked, Booking
from mk9p.lease.claims import STEPS, Offer, parse, taken_off
from mk9p.lease.entries import RegistryTree
from mk9p.lease.leases import Leases
from mk9p.lease.registry import Entry
from mk9p.lease.store import Memory as Store
from mk9p.lease.store import SqliteStore
from mk9p.lease.stores import Local
from mk9p.lease.wish import DEEP, MOST, SECOND, Resource, Wish
from mk9p.testing import until
from mk9p.tree import Conversations, Dir, Handle, Open, Text, settle, split
from tests.lease.test_claims import chosen, offer
from tests.lease.test_lease_tree import ANN, BOB, ROOT, lab, refused
from tests.tree.test_slices import turns_beside


async def test_an_entry_has_no_more_attributes_by_many_writes_than_by_one(tmp_path: Path) -> None:
    async with lab(tmp_path) as it, connect(it.at(ANN)) as ns, await ns.open("registry/new", "r+") as new:
        await new.pwrite(" ".join(["a", *(f"a{n} 1" for n in range(registry.WORDS))]).encode(), 0)
        assert (await refused(new.pwrite(b"a b 1", 0))).errno == errno.EINVAL
        await new.pwrite(b"a a1 2", 0)
        assert len(it.registry.registry.entries["a"].attributes) == registry.WORDS


async def test_an_entry_that_nobody_could_enter_now_keeps_nobody_from_the_others(tmp_path: Path) -> None:
    disk = SqliteStore(tmp_path / "leases")
    disk.enter("old", "ann", " ".join(["old", *(f"a{n} 1" for n in range(registry.WORDS + 1))]))
    disk.enter("good", "ann", "good a 1")
    disk.enter("cut", "ann", "cut 'a")
    assert list(RegistryTree(Local(disk)).registry.entries) == ["good"]
    disk.close()


async def test_one_user_has_a_share_of_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "SHARE", 3)
    monkeypatch.setattr(registry, "TEXT", 2000)
    async with (
        lab(tmp_path) as it,
        connect(it.at(ANN)) as ann,
        connect(it.at(BOB)) as bob,
        connect(it.at(ROOT)) as root,
    ):
        for n in range(3):
            await ann.write("registry/new", f"a{n} persist 1")
        assert (await refused(ann.write("registry/new", "a3 persist 1"))).errno == errno.ENOSPC
        await ann.write("registry/new", f"a0 text {'x' * 200} persist 1")  # the same again
        more = " ".join(f"text{n} {'x' * 250}" for n in range(8))
        assert (await refused(ann.write("registry/new", f"a1 {more} persist 1"))).errno == errno.ENOSPC
        await bob.write("registry/new", "b persist 1")
        for n in range(5):
            await root.write("registry/new", f"r{n} persist 1 {more}")


async def test_what_the_registry_keeps_for_a_connection_is_counted_for_it(tmp_path: Path) -> None:
    async with lab(tmp_path) as it, connect(it.at(ANN)) as ns:
        ann = next(iter(it.server.connections)).accounts
        async with await ns.open("registry/new", "r+") as new, await ns.open("registry/find", "r+") as find:
            before = sum(account.used for account in ann.values())
            await new.pwrite(f"a text {'x' * 250} more {'y' * 250}".encode(), 0)
            entered = sum(account.used for account in ann.values())
            assert entered >= before + 500
            for n in range(100):
                await ns.write("registry/new", f"b{n}{'x' * 100} persist 1")
            await find.pwrite(b"name *", 0)
            assert sum(account.used for account in ann.values()) >= entered + 10_000


async def test_what_others_enter_is_bounded_and_hides_no_file_of_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mk9p.lease.entries.HEARD", 3)
    store = Local(Store())
    tree = RegistryTree(store)
    store.entered("new", Entry("new", (), "ann", home="b"))
    for n in range(5):
        store.entered(f"e{n}", Entry(f"e{n}", (), "ann", home="b"))
    names = [name for name, _ in tree.entries(Principal("ann", 41001))]
    assert names == ["new", "index", "find", "event", "e0", "e1", "e2"]


async def test_one_user_has_a_share_of_what_can_be_leased(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "SHARE", 3)
    leases = Leases(Local(Store()))

    def wish(number: int, uid: int, name: str = "ann") -> Wish:
        return Wish(number, f"/{number}", ("here", str(number)), "exclusive", name, SECOND, uid)

    for number in range(3):
        await leases.take(wish(number, 41001))
    with pytest.raises(NineError) as caught:
        await leases.take(wish(3, 41001))
    assert caught.value.errno == errno.ENOSPC
    await leases.take(wish(3, 41002, "bob"))
    await leases.give(0)
    await leases.take(wish(4, 41001))
    for number in range(5, 10):
        await leases.take(wish(number, 0, "root"))
    for number in range(10, 13):
        await leases.take(wish(number, 0, "guest:k1"))
    with pytest.raises(NineError):
        await leases.take(wish(13, 0, "guest:k1"))


def test_what_lies_very_deep_is_not_leased() -> None:
    names = ("x",) * DEEP
    Wish(0, "/k", ("9p", "k", "", *names), "exclusive", "ann", SECOND)
    with pytest.raises(NineError) as caught:
        Wish(0, "/k", ("9p", "k", "", *names, "x"), "exclusive", "ann", SECOND)
    assert caught.value.errno == errno.ENAMETOOLONG


async def test_few_claims_of_one_user_wait(autojump_clock: trio.testing.MockClock) -> None:
    leases, claims = Leases(Local(Store())), [parse(["cpus", "1"])]

    async def offers(wanted: object, who: Principal) -> list[Offer]:
        return [offer("a", 1)]

    async def find(path: str, who: Principal) -> Resource:
        return Resource(path, tuple(path.split("/")[2:]))

    booking = Booking(leases, find, offers)

    async def take(number: int, name: str, uid: int, wait: float | None) -> Lease:
        wish = Wish(number, "{cpus 1}", (), "exclusive", name, 3600 * SECOND, uid)
        return await booking.take(Booked(claims, wish, Principal(name, uid)), wait)

    await take(0, "bob", 41002, None)
    async with trio.open_nursery() as nursery:
        for number in range(1, WAITING + 1):
            nursery.start_soon(take, number, "ann", 41001, 999999)
        await until(lambda: len(booking.waiting) == WAITING)
        assert (await refused(take(99, "ann", 41001, 9))).errno == errno.EAGAIN
        assert (await refused(take(98, "bob", 41002, 9))).errno == errno.ETIMEDOUT
        nursery.cancel_scope.cancel()


def test_the_search_for_a_place_has_an_end_whatever_kernels_say_of_themselves() -> None:
    """Each kernel is another one, so that none ends as an earlier one did; and one says that it has more of everything than any machine."""
    some = Random(1)
    offers = [offer(f"k{n}", some.randrange(1, 300), some.randrange(1, 300), a=str(n % 7)) for n in range(100)]
    claims = [
        parse(split(f"cpus {some.randrange(1, 200)} mem {some.randrange(100, 20000)} a '[{n % 7}{(n + 1) % 7}]'"))
        for n in range(63)
    ]
    with pytest.raises(NineError, match="no place was found"):
        chosen([*claims, parse(split("cpus 299 mem 29900"))], offers, lambda resource: True)
    huge = Offer(Entry("k", (), "kernel"), offers[0].whole, offers[0].cpus * 100, offers[0].mem * 100, 1)
    assert chosen([parse(["mem", str(10**18)])], [huge], lambda resource: True) is None
    assert chosen([parse(["mem", str(MOST + 1)])], [huge], lambda resource: True) is None, "no lease has so many"
    assert STEPS < 10**6


async def test_a_search_of_the_registry_holds_up_nobody() -> None:
    tree, who = RegistryTree(Local(Store())), Principal("ann", 41001)
    for n in range(100):
        tree.registry.add(Entry(f"r{n}", tuple((f"t{m}", "a" * 250) for m in range(60)), "ann"))
    handle = await settle((await settle(tree.walk("find", who))).open(Open(who, write=True)))
    done = handle.write(0, memoryview(f"t0 '*{'?a' * 60}b*'".encode()))
    assert isinstance(done, Awaitable)
    assert await turns_beside(done) > 5
    shown = handle.read(0, 99)
    assert shown == b""
    assert tree.index().count("\n") == 100


def test_a_claim_too_many_is_refused_when_it_comes() -> None:
    began = process_time()
    with pytest.raises(NineError, match="claims are made together"):
        taken_off(["{}"] * 500_000)
    with pytest.raises(NineError, match="1024 resources"):
        taken_off(["/k/k1"] * 500_000)
    with pytest.raises(NineError, match="ends with }"):
        taken_off(["{a"] + ["b"] * 500_000)
    assert process_time() - began < 1
    with pytest.raises(NineError, match="letters"):
        taken_off(["{", *(f"{n}{'x' * 200}" for n in range(40)), "}"] * 10)


@pytest.mark.parametrize("later", [False, True])
async def test_one_user_has_a_share_of_the_conversations_of_a_directory(later: bool) -> None:
    class Talk:
        def tree(self) -> Dir:
            return Dir({"ctl": Text("", lambda text: None)})

        def close(self) -> None:
            pass

    async def made() -> Talk:
        return Talk()

    talks = Conversations(lambda n, who: made() if later else Talk(), limit=12)
    clone = await settle(talks.walk("clone", ROOT.who))

    async def begin(who: Principal) -> Handle:
        return await settle(clone.open(Open(who)))

    guest = Principal("guest:k1", 0)
    for who in (ANN.who, guest):
        mine = [await begin(who) for _ in range(3)]
        assert (await refused(begin(who))).errno == errno.EMFILE
        await settle(mine.pop().close())
        mine.append(await begin(who))
        for handle in mine:
            await settle(handle.close())
    assert not talks.users
    root = [await begin(ROOT.who) for _ in range(12)]
    assert (await refused(begin(ROOT.who))).errno == errno.EMFILE
    for handle in root:
        await settle(handle.close())


async def test_an_entry_that_the_store_had_let_go_and_has_again_still_goes_with_its_file() -> None:
    left: list[str] = []

    class Far(Local):
        def leave(self, entry: Entry) -> None:
            left.append(entry.name)

    tree, ann = RegistryTree(Far(Store())), Principal("ann", 1000)
    new = await settle((await settle(tree.walk("new", ann))).open(Open(ann, write=True)))
    assert isinstance(new, Handle)
    for port in ("80", "81"):
        await settle(new.write(0, memoryview(f"web port {port}".encode())))
        tree.store.entered("web", None)
        tree.store.entered("web", Entry.parse(["web", "port", port], "ann"))
        assert tree.index() == f"web port {port}\n"
    await settle(new.close())
    assert (left, tree.index()) == (["web"], "")
