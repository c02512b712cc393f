"""`Near`: leases or wishes by number, found by what they are for. Pure.

* What is in the way of a wish stands at one of its keys, above it, or below it. So the keys are a tree of names, and a look into it takes as long as
  the keys are, whatever number of leases there is. To compare each with each would take seconds for a few leases of many resources, and nobody else
  would be served meanwhile.
* The first in the way is the one that came first. Whoever takes the place of another with the same number keeps its turn.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from mk9p.lease.wish import Key, Mode, Wish


class Wanting(Protocol):
    """What has a wish: a lease, or the wish itself."""

    @property
    def wish(self) -> Wish: ...


T = TypeVar("T", bound=Wanting)
K = TypeVar("K", bound=Hashable)


class Spot:
    """A place in the tree of names: how many resources of each number are here, and below."""

    __slots__ = ("below", "here", "names")

    def __init__(self) -> None:
        self.names: dict[str, Spot] = {}
        self.here: dict[int, int] = {}
        self.below: dict[int, int] = {}

    def add(self, key: Key, number: int) -> None:
        """Note a resource."""
        spot = self
        for name in key:
            spot.below[number] = spot.below.get(number, 0) + 1
            spot = spot.names.get(name) or spot.names.setdefault(name, Spot())
        spot.here[number] = spot.here.get(number, 0) + 1

    def remove(self, key: Key, number: int) -> None:
        """Forget a resource."""
        spot, way = self, list[Spot]()
        for name in key:
            _less(spot.below, number)
            way.append(spot)
            spot = spot.names[name]
        _less(spot.here, number)
        for name, above in zip(reversed(key), reversed(way), strict=True):
            if spot.here or spot.below:
                break
            del above.names[name]
            spot = above

    def find(self, key: Key) -> "Spot | None":
        """Return the place of a key, None if nothing is there or below."""
        spot: Spot | None = self
        for name in key:
            if spot is None:
                return None
            spot = spot.names.get(name)
        return spot

    def overlapping(self, key: Key) -> Iterator[dict[int, int]]:
        """Give the numbers at a key, above it, and below it."""
        spot: Spot | None = self
        for name in key:
            assert spot is not None
            yield spot.here
            spot = spot.names.get(name)
            if spot is None:
                return
        assert spot is not None
        yield spot.here
        yield spot.below


def _less(counts: dict[K, int], key: K, n: int = 1) -> None:
    counts[key] -= n
    if not counts[key]:
        del counts[key]


class Near(dict[int, T]):
    """Leases or wishes, by number."""

    def __init__(self, given: Mapping[int, T] | None = None) -> None:
        super().__init__()
        self._tops: dict[Mode, Spot] = {"exclusive": Spot(), "shared": Spot()}
        self._order: dict[int, int] = {}
        self._came = 0
        self.count: Counter[tuple[str, int, str]] = Counter()
        """How many resources each user has, or wants."""
        for number, what in (given or {}).items():
            self[number] = what

    def __setitem__(self, number: int, what: T) -> None:
        old = self.get(number)
        if old is not None:
            self._take_out(number, old.wish)
        else:
            self._came += 1
            self._order[number] = self._came
        super().__setitem__(number, what)
        self.count[what.wish.user] += len(what.wish.resources)
        top = self._tops[what.wish.mode]
        for _, key in what.wish.resources:
            top.add(key, number)

    def __delitem__(self, number: int) -> None:
        self._take_out(number, self[number].wish)
        super().__delitem__(number)
        del self._order[number]

    def pop(self, number: int, default: Any = None) -> Any:
        """Take one out; return it, or what is given instead."""
        found = self.get(number)
        if found is None:
            return default
        del self[number]
        return found

    def setdefault(self, number: int, what: T) -> T:
        """Put one in, if there is none of that number; return the one that is there."""
        if number not in self:
            self[number] = what
        return self[number]

    def _take_out(self, number: int, wish: Wish) -> None:
        _less(self.count, wish.user, len(wish.resources))
        for _, key in wish.resources:
            self._tops[wish.mode].remove(key, number)

    @property
    def exclusive(self) -> Spot:
        """The resources that somebody has, or wants, for themselves."""
        return self._tops["exclusive"]

    def first(self, wish: Wish) -> T | None:
        """Return the first that cannot be had together with a wish; of those that came before it, if it is one of these."""
        mine = self._order.get(wish.number, self._came + 1)
        tops = self._tops.values() if wish.mode == "exclusive" else (self.exclusive,)
        return self.earliest(
            (found for top in tops for _, key in wish.resources for found in top.overlapping(key)), mine
        )

    def earliest(self, found: Iterable[Iterable[int]], before: float = float("inf")) -> T | None:
        """Return the one of some numbers that came first, None if none came before that."""
        best = None
        for numbers in found:
            # each is in the order in which they came
            number = next(iter(numbers), None)
            if number is not None and (came := self._order[number]) < before:
                best, before = number, came
        return None if best is None else self[best]


def meeting(keys: Iterable[Key]) -> Callable[[Key], bool]:
    """Return what tells whether a key is one of these, or lies above or below one."""
    top = Spot()
    for key in keys:
        top.add(key, 0)
    return lambda key: any(top.overlapping(key))
