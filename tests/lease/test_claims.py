"""Claims: what is wanted by attributes is found wherever it is free, all of it or nothing."""

import errno
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from itertools import permutations, product
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from mk9p.auth import NONE
from mk9p.client import Client, connect
from mk9p.compose import offers as kernel_offers
from mk9p.compose.entering import Entering
from mk9p.compose.offers import Offers
from mk9p.compose.resources import find, key_of
from mk9p.composing import namespace
from mk9p.errors import NineError
from mk9p.lease.book import Book, Lease
from mk9p.lease.claims import CLAIMS, Claim, Offer, choose, free_in, parse, taken_off
from mk9p.lease.entries import RegistryTree
from mk9p.lease.files import LeaseTree
from mk9p.lease.gate import Gate
from mk9p.lease.leases import Leases
from mk9p.lease.registry import Entry
from mk9p.lease.store import Memory as Store
from mk9p.lease.stores import Local
from mk9p.lease.wish import SECOND, Resource, Wish
from mk9p.server import Server
from mk9p.testing import SOON, serving, serving_at, until
from mk9p.testing.serving import Host, address_of
from mk9p.tree import Ctl, Dir, Text, split
from mk9p.tree.slices import in_slices
from tests.lease.compared import overlap
from tests.lease.test_lease_tree import ANN, BOB, ROOT, Known, conversation, refused, say
from tests.lease.test_leases import Virtual
from tests.tree.test_slices import turns_beside

# the choice


def offer(name: str, cpus: int, mem: int = 0, **more: str) -> Offer:
    at = Resource(f"/k/{name}", (name,))
    parts = {"cpu": cpus, "mem": mem}
    made = {
        part: tuple(Resource(f"{at.path}/{part}/{n}", (name, part, str(n))) for n in range(count))
        for part, count in parts.items()
    }
    return Offer(Entry(name, tuple(more.items()), "kernel"), at, made["cpu"], made["mem"], 100)


def claims(*texts: str) -> list[Claim]:
    return [parse(split(text)) for text in texts]


def chosen(*wanted: Any) -> list[list[Resource]] | None:
    """Choose, with nobody beside it."""
    return trio.run(in_slices, choose(*wanted))


def paths(found: Sequence[Sequence[Resource]] | None) -> list[list[str]] | None:
    return None if found is None else [[path for path, _ in part] for part in found]


def test_each_gets_what_it_says_from_a_kernel_that_will_do() -> None:
    offers = [
        offer("a", 2, 3, arch="x86_64"),
        offer("b", 4, 0, arch="x86_64", has=" usb "),
        offer("c", 1, arch="arm64"),
    ]
    everything = free_in(Book(), "exclusive")
    for wanted, got in (
        (["cpus 2 arch x86_64"], [["/k/a/cpu/0", "/k/a/cpu/1"]]),
        (["cpus 3"], [["/k/b/cpu/0", "/k/b/cpu/1", "/k/b/cpu/2"]]),
        (["cpus 1 mem 101"], [["/k/a/cpu/0", "/k/a/mem/0", "/k/a/mem/1"]]),
        (["has '* usb *'"], [["/k/b"]]),
        (["name c"], [["/k/c"]]),
        (
            ["cpus 2", "cpus 4"],
            [["/k/a/cpu/0", "/k/a/cpu/1"], ["/k/b/cpu/0", "/k/b/cpu/1", "/k/b/cpu/2", "/k/b/cpu/3"]],
        ),
        (["arch arm64", "cpus 1"], [["/k/c"], ["/k/a/cpu/0"]]),
        (["cpus 5"], None),
        (["arch sparc"], None),
        (["arch arm64", "arch arm64"], None),
        (["mem 301"], None),
        (["cpus 2", "cpus 2", "cpus 2", "cpus 2"], None),
    ):
        assert paths(chosen(claims(*wanted), offers, everything)) == got, wanted


def test_what_somebody_has_or_waits_for_is_not_free() -> None:
    book = Book()
    held = Wish(0, "/k/a/cpu/0", ("a", "cpu", "0"), "shared", "ann", SECOND)
    book.leases[0] = Lease(held, 1, SECOND)
    book.waiting[1] = attrs.evolve(held, number=1, path="/k/b", key=("b",), mode="exclusive")
    offers = [offer("a", 2), offer("b", 2)]
    assert paths(chosen(claims("cpus 1"), offers, free_in(book, "exclusive"))) == [["/k/a/cpu/1"]]
    assert paths(chosen(claims("cpus 2"), offers, free_in(book, "exclusive"))) is None
    assert paths(chosen(claims("name a"), offers, free_in(book, "exclusive"))) is None
    assert paths(chosen(claims("name a"), offers, free_in(book, "shared"))) == [["/k/a"]]
    assert paths(chosen(claims("name b"), offers, free_in(book, "shared"))) is None


@given(
    rooms=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    wants=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    busy=st.sets(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=5),
)
def test_a_place_is_found_if_there_is_one(rooms: list[int], wants: list[int], busy: set[tuple[int, int]]) -> None:
    """The model tries every way to spread the claims over the kernels. A want of 0 is one for a whole kernel."""
    offers = [offer(f"k{n}", room) for n, room in enumerate(rooms)]
    taken = {Resource(f"/k/k{k}/cpu/{n}", (f"k{k}", "cpu", str(n))) for k, n in busy}
    left = [sum(r not in taken for r in one.cpus) for one in offers]
    whole = [not any(r.key[0] == one.entry.name for r in taken) for one in offers]

    def fits(places: tuple[int, ...]) -> bool:
        for k in range(len(rooms)):
            here = [want for want, place in zip(wants, places, strict=True) if place == k]
            if 0 in here and (len(here) > 1 or not whole[k]):
                return False
            if sum(here) > left[k]:
                return False
        return True

    possible = any(fits(places) for places in product(range(len(rooms)), repeat=len(wants)))
    asked = claims(*(f"cpus {want}" if want else "name *" for want in wants))

    def free(resource: Resource) -> bool:
        return not any(overlap(one.key, resource.key) for one in taken)

    found = chosen(asked, offers, free)
    assert (found is not None) == possible
    if found is not None:
        got = [resource for part in found for resource in part]
        assert all(free(one) for one in got)
        assert not any(overlap(one.key, other.key) for one, other in permutations(got, 2))
        assert [len(part) for part in found] == [want or 1 for want in wants]
        assert all(len({resource.key[0] for resource in part}) == 1 for part in found)


def test_a_search_that_would_take_for_ever_ends() -> None:
    offers = [offer(f"k{n}", 5) for n in range(40)]
    assert chosen(claims(*["cpus 3"] * 41), offers, free_in(Book(), "exclusive")) is None, "all alike: nothing to try"
    offers = [offer(f"k{n}", 38 + n // 2) for n in range(40)]
    with pytest.raises(NineError, match="claim less at once") as caught:
        chosen(claims(*(f"cpus {30 + n % 7}" for n in range(41))), offers, free_in(Book(), "exclusive"))
    assert caught.value.errno == errno.EAGAIN


@pytest.mark.parametrize(
    "text",
    [
        "{cpus}",
        "{cpus 0}",
        "{cpus -1}",
        "{cpus 1025}",
        "{cpus two}",
        "{cpus ²}",
        "{mem 99999999999999999999}",
        "{cpus 1 cpus 2}",
        "{cpus 1",
        "{cpus 1 arch}",
        " ".join(["{cpus 1}"] * (CLAIMS + 1)),
        "{arch " + "x" * 300 + "}",
    ],
)
def test_a_claim_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(NineError) as caught:
        taken_off(split(text))
    assert caught.value.errno == errno.EINVAL


def test_words_and_one_word_are_the_same_claim() -> None:
    for text in (
        "{cpus 2 has '* usb *'} shared",
        "{ cpus 2 has '* usb *' } shared",
        "'{cpus 2 has ''* usb *''}' shared",
    ):
        words = split(text)
        (found,) = taken_off(words)
        assert isinstance(found, Claim)
        assert (found.text, found.cpus, words) == ("{cpus 2 has '* usb *'}", 2, ["shared"])
    assert taken_off(["{}", "/k/k1"])[1:] == ["/k/k1"]


# claims of a namespace


@attrs.define
class Lab:
    server: Server
    leases: Leases
    clock: Virtual
    hosts: dict[str, Host]

    def client(self, who: Known) -> AbstractAsyncContextManager[Client]:
        """Connect as somebody, by a version that tells errors in words."""
        return connect(address_of(self.server, policy=who), version="9P2000.u")

    async def held(self, ns: Client, n: int) -> list[str]:
        lines = [split(line) for line in (await ns.read(f"lease/{n}/status")).splitlines()]
        return [line[2] for line in lines if line[1] == "held"]


def machine(arch: str, cpus: int, *more: str) -> Dir:
    ctl = Ctl({"do": lambda word: None}, mode=0o666)
    own = {str(n): Dir({"ctl": ctl}, mode=0o777) for n in range(cpus)}
    state = "".join(f"{n} {'offline' if n == 9 else 'online'} 0 0 0 - 0\n" for n in range(cpus))
    blocks = {str(n): Dir({"ctl": ctl}, mode=0o777) for n in range(32, 36)}
    return Dir(
        {
            "status": Text(f"name x\narch {arch}\nrelease 6.1\n"),
            "cpu": Dir({**own, "status": Text(state), "ctl": ctl}, mode=0o777),
            "mem": Dir({"status": Text("MemTotal 4096\nblock_size 1024\n"), "block": Dir(blocks)}, mode=0o777),
            **{name: Dir({}) for name in more},
        },
        mode=0o777,
    )


KERNELS = {"k1": ("x86_64", 2), "k2": ("x86_64", 4, "usb"), "k3": ("aarch64", 10)}


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Lab]:
    """Serve a namespace with three kernels, each a server of its own. CPU 9 of the third is out of use."""
    clock, store = Virtual(), Store()
    leases, registry = Leases(Local(store), clock), RegistryTree(Local(store))
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
            tree = LeaseTree(
                leases,
                lambda path, who: find(ns, path, who),
                lambda claims, who: Offers(ns, lambda: entering.entries)(claims, who),
            )
            ns = namespace(nursery, {"lease": tree, "registry": registry})
            entering = Entering(ns, registry, nursery, came=tree.stir)
            nursery.start_soon(leases.run)
            hosts: dict[str, Host] = {}
            for name, (arch, cpus, *more) in KERNELS.items():
                host = await stack.enter_async_context(
                    serving_at(f"unix!{folder}/{name}", machine(str(arch), int(str(cpus)), *map(str, more)))
                )
                hosts[name] = host
                ns.mount(host.address, f"/k/{name}")
            async with serving(ns.root, gate=Gate(leases, key_of)) as server:
                yield Lab(server, leases, clock, hosts)
            nursery.cancel_scope.cancel()


async def test_a_claim_is_booked_and_its_list_is_the_answer(tmp_path: Path) -> None:
    async with lab(tmp_path) as it, it.client(ROOT) as ns, conversation(ns) as (one, n):
        await say(one, "take {cpus 2 arch x86_64} {cpus 9} {mem 2000 has '* usb *'} for 30")
        cpus = [f"/k/k1/cpu/{cpu}" for cpu in range(2)] + [f"/k/k3/cpu/{cpu}" for cpu in range(9)]
        mine = [*cpus, "/k/k2/mem/block/32", "/k/k2/mem/block/33"]
        assert await it.held(ns, n) == mine
        assert await ns.read(f"lease/{n}/ctl") == f"take {' '.join(mine)} exclusive for 30\n"
        assert {line.split()[5] for line in (await ns.read("lease/status")).splitlines()} == {"1"}
        async with conversation(ns) as (two, m):
            said = await refused(say(two, "take {cpus 1 arch aarch64}"))
            assert (said.errno, said.ename) == (errno.EBUSY, "{cpus 1 arch aarch64} is not free")
            assert (await refused(say(two, "take {cpus 1 arch x86_64} {cpus 1 arch aarch64}"))).errno == errno.EBUSY
            assert len(it.leases.book.leases) == 1, "both or none"
            assert (await refused(say(two, "take {cpus 10 arch aarch64}"))).errno == errno.ENOENT, "one is out of use"
            assert "root has leased /k/k3/cpu/5" in (await refused(say(two, "take /k/k3/cpu/5"))).ename
            assert (
                "root has leased /k/k3/cpu/5"
                in (await refused(say(two, "take {cpus 1 arch x86_64} /k/k3/cpu/5"))).ename
            )
            await say(two, "take {cpus 4} /k/k3/cpu/9")
            assert await it.held(ns, m) == [*(f"/k/k2/cpu/{cpu}" for cpu in range(4)), "/k/k3/cpu/9"]
            assert (await refused(say(two, "take {cpus 1}"))).errno == errno.EBUSY
            async with it.client(BOB) as other:
                for cpu in mine[:2]:
                    assert (await refused(other.write(f"{cpu[1:]}/ctl", "do it"))).errno == errno.EBUSY
            await say(one, "give")
            assert (await ns.read("lease/status")).count(f"{m} held") == 5
            async with it.client(BOB) as other:
                await other.write("k/k1/cpu/0/ctl", "do it")


async def test_one_that_waits_gets_it_when_it_is_free_and_a_later_one_does_not_overtake(tmp_path: Path) -> None:
    async with lab(tmp_path) as it, it.client(ANN) as ns:
        got: list[str] = []

        async def take(name: str, words: str) -> None:
            async with conversation(ns) as (ctl, _):
                await say(ctl, f"take {words} wait 1000000")
                got.append(name)
                await say(ctl, "give")

        async with conversation(ns) as (one, _), trio.open_nursery() as nursery:
            await say(one, "take {cpus 1 arch x86_64 has '* usb *'} for 40")
            nursery.start_soon(take, "four", "{cpus 4 arch x86_64}")
            await until(lambda: b"waits" in b"".join(it.leases.events.lines))
            nursery.start_soon(take, "never", "{cpus 400}")
            nursery.start_soon(take, "small", "{cpus 1 arch x86_64}")
            async with conversation(ns) as (three, m):
                said = await refused(say(three, "take {cpus 1 arch x86_64}"))
                assert (said.errno, said.ename) == (errno.EBUSY, "{cpus 4 arch x86_64} is waited for by ann")
                await say(three, "take {cpus 1 arch aarch64}")
                assert await it.held(ns, m) == ["/k/k3/cpu/0"]
            await until(lambda: len(b"".join(it.leases.events.lines).split(b" waits ")) == 4)
            assert got == []
            assert " waiting '{cpus 4 arch x86_64}' exclusive ann - -\n" in await ns.read("lease/status")
            it.clock.go(40)
            await until(lambda: len(got) == 2)
            assert got == ["four", "small"]
            nursery.cancel_scope.cancel()
        it.clock.go(20)
        await until(lambda: not it.leases.book.leases)
        assert await ns.read("lease/status") == "", "who waited has gone"


async def test_a_kernel_that_is_down_offers_nothing_and_one_that_comes_is_taken(tmp_path: Path) -> None:
    async with lab(tmp_path) as it, it.client(ANN) as ns, conversation(ns) as (one, n):
        await it.hosts["k3"].stop()
        assert (await refused(say(one, "take {arch aarch64}"))).errno == errno.ENOENT
        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, one, "take {arch aarch64} wait 1000000")
            await until(lambda: b"waits" in b"".join(it.leases.events.lines))
            await it.hosts["k3"].start()
        assert await it.held(ns, n) == ["/k/k3"]


async def test_what_others_write_to_or_the_user_may_not_write_is_left_out(tmp_path: Path) -> None:
    async with (
        lab(tmp_path) as it,
        it.client(ROOT) as ns,
        conversation(ns) as (one, n),
        await ns.open("k/k1/cpu/0/ctl", "w"),
    ):
        await say(one, "take {cpus 1 name k1}")
        assert await it.held(ns, n) == ["/k/k1/cpu/1"]
        await say(one, "give")
        assert (await refused(say(one, "take {cpus 2 name k1}"))).errno == errno.EBUSY


async def test_many_at_once_never_have_the_same_and_each_all_or_nothing(tmp_path: Path) -> None:
    random = Random(5)
    ways = [
        "{cpus 2}",
        "{cpus 3} {cpus 1 arch x86_64}",
        "{cpus 4}",
        "{arch x86_64}",
        "{cpus 8 arch aarch64}",
        "/k/k1/cpu/0",
    ]
    taken: list[int] = []
    async with lab(tmp_path) as it, it.client(ANN) as ns:

        async def some(seed: int) -> None:
            mine = Random(seed)
            async with conversation(ns) as (ctl, n):
                for _ in range(6):
                    words = mine.choice(ways)
                    try:
                        await say(ctl, f"take {words}{mine.choice(['', ' wait 1', ' shared'])}")
                    except (BlockingIOError, TimeoutError, NineError) as error:
                        # a kernel that a busy machine lets answer late is not there for that moment
                        if error.errno not in (errno.EBUSY, errno.ETIMEDOUT, errno.ENOENT):
                            raise
                        continue
                    alone = [lease.wish for lease in it.leases.book.leases.values() if lease.wish.mode == "exclusive"]
                    held = [key for wish in alone for _, key in wish.resources]
                    assert not any(overlap(a, b) for a, b in permutations(held, 2))
                    got = await it.held(ns, n)
                    want = sum(one.cpus or 1 if isinstance(one, Claim) else 1 for one in taken_off(split(words)))
                    assert len(got) == want
                    taken.append(want)
                    await say(ctl, "give")

        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(some, random.randrange(1 << 30))
    assert len(taken) > 12
    assert not it.leases.book.leases


async def test_a_kernel_with_very_many_parts_holds_up_nobody_who_asks_for_others() -> None:
    parts = Dir({str(n): Dir({}) for n in range(3 << 16)})
    found = await kernel_offers._numbered(parts, "/k/k1/cpu", NONE)
    assert len(found) == 1 << 16
    assert await turns_beside(kernel_offers._numbered(parts, "/k/k1/cpu", NONE)) > 5
    table = Text("0 online\n" * 100_000)
    assert await turns_beside(kernel_offers._lines(table, NONE)) > 5
