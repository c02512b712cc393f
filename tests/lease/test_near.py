"""What is in the way of a lease is looked up, and is what a comparison of each with each finds, in a time that many leases do not change."""

from time import process_time

from hypothesis import given, settings
from hypothesis import strategies as st

from mk9p.lease.book import Book, Lease
from mk9p.lease.gate import covering, reaching
from mk9p.lease.near import Near, meeting
from mk9p.lease.wish import MOST, SECOND, Key, Mode, Resource, Wish
from tests.lease.compared import overlap, reaches

NAMES = st.sampled_from(["a", "b", "ctl", "actl"])
KEYS = st.lists(NAMES, min_size=1, max_size=4).map(tuple)
MODES: st.SearchStrategy[Mode] = st.sampled_from(["shared", "exclusive"])


def wish(number: int, mode: Mode, keys: list[Key]) -> Wish:
    first, *more = [Resource("/" + "/".join(key), key) for key in keys]
    return Wish(number, *first, mode, "ann", SECOND, more=tuple(more))


WISHES = st.lists(st.tuples(MODES, st.lists(KEYS, min_size=1, max_size=3)), max_size=8)


@settings(max_examples=100)
@given(WISHES, st.sets(st.integers(0, 7)), MODES, st.lists(KEYS, min_size=1, max_size=3))
def test_what_is_found_is_what_comparing_finds(
    there: list[tuple[Mode, list[Key]]], gone: set[int], mode: Mode, keys: list[Key]
) -> None:
    leases: Near[Lease] = Near()
    for number, (its, whose) in enumerate(there):
        leases[number] = Lease(wish(number, its, whose), 1, 1)
        leases[number] = Lease(wish(number, its, whose), 2, 2)  # renewed
    for number in gone:
        leases.pop(number)
    mine = wish(99, mode, keys)
    both = [
        lease
        for lease in dict(leases).values()
        if "exclusive" in (mode, lease.wish.mode)
        and any(overlap(a.key, b.key) for a in mine.resources for b in lease.wish.resources)
    ]
    assert leases.first(mine) == (both[0] if both else None)
    for key in keys:
        covered = [
            one
            for one in dict(leases).values()
            if one.wish.mode == "exclusive" and any(reaches(its, key) for _, its in one.wish.resources)
        ]
        assert leases.earliest(reaching(leases.exclusive, key)) == (covered[0] if covered else None)
        for other in leases.values():
            assert covering(other.wish)(key) == any(reaches(its, key) for _, its in other.wish.resources)
            assert meeting(its for _, its in other.wish.resources)(key) == any(
                overlap(its, key) for _, its in other.wish.resources
            )
    for number in list(leases):
        del leases[number]
    assert not leases.exclusive.names, "and nothing is left of what is gone"


def test_a_large_lease_beside_many_large_ones_holds_nobody_up() -> None:
    book, began = Book(), process_time()
    for number in range(20):
        keys: list[Key] = [("9p", "k1", "", f"{number}", str(n)) for n in range(MOST)]
        assert book.take(wish(number, "exclusive", keys), 0, wait=False)
    assert process_time() - began < 10, "comparing each with each takes more than a minute"
