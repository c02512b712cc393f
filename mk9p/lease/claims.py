"""Claims: what somebody wants by attributes, `{cpus 2 arch x86_64}`, and the choice of what to give them. Pure.

* A claim is for one kernel. `cpus N` and `mem BYTES` are what is wanted of it: so many CPUs that are in use and free, and so much memory in blocks
  that are free. Without both the claim is for the whole kernel. All other attributes say which kernels will do, with the patterns of the registry.
* Several claims, and paths beside them, are had together or not at all: `choose` finds a place for each, or none for any. It tries the kernel first
  that has the least left of what is wanted, so that a greater claim that comes later still finds room.
* Placing many claims on many kernels can take for ever. So the search has an end (`STEPS`): then it says so, which is not the same as "there is
  none".
"""

import errno
import re
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Final

import attrs

from mk9p.errors import NineError
from mk9p.lease.book import Book
from mk9p.lease.registry import Entry, search
from mk9p.lease.wish import MOST, Key, Mode, Resource
from mk9p.tree.patterns import Pattern
from mk9p.tree.words import join, split

STEPS: Final = 100_000  # kernels that a search looks at: a tenth of a second
CLAIMS: Final = 64  # in one request
LETTERS: Final = 1 << 16  # of all of them: a claim that waits keeps each several times
_AMOUNT: Final = re.compile(r"[1-9][0-9]{0,18}")


@attrs.frozen
class Claim:
    """What is wanted of one kernel, and which kernels will do."""

    text: str
    cpus: int
    mem: int
    wanted: tuple[tuple[str, Pattern], ...]

    @property
    def whole(self) -> bool:
        """Whether it is for all of a kernel."""
        return not self.cpus and not self.mem

    def fits(self, entry: Entry) -> bool:
        """Tell whether a kernel with these attributes will do."""
        return entry.matches(self.wanted)


@attrs.frozen
class Offer:
    """What there is of one kernel, whoever has it: itself, its CPUs that are in use, and its memory in blocks of `block` bytes."""

    entry: Entry
    whole: Resource
    cpus: tuple[Resource, ...] = ()
    mem: tuple[Resource, ...] = ()
    block: int = 0


def parse(words: Sequence[str]) -> Claim:
    """Read `ATTR VALUE…`. Raises EINVAL."""
    pairs = list(zip(words[::2], words[1::2], strict=False))
    if len(words) % 2 or len(dict(pairs)) != len(pairs):
        raise NineError(errno.EINVAL, "usage: {ATTR VALUE...}, and an attribute is there once")
    amounts = {key: value for key, value in pairs if key in ("cpus", "mem")}
    for key, value in amounts.items():
        if not _AMOUNT.fullmatch(value) or (key == "cpus" and int(value) > MOST):
            raise NineError(errno.EINVAL, f"usage: {key} {'N' if key == 'cpus' else 'BYTES'}")
    other = [word for pair in pairs if pair[0] not in amounts for word in pair]
    cpus, mem = (int(amounts.get(key, 0)) for key in ("cpus", "mem"))
    return Claim("{" + join(words) + "}", cpus, mem, tuple(search(other)))


def taken_off(words: list[str]) -> list[str | Claim]:
    """Take paths and claims off the front of a command's words, until a word that is neither. Raises EINVAL for a claim that is none.

    A claim is words from `{` to `}`, or all of it one quoted word.
    """
    found: list[str | Claim] = []
    at = count = letters = 0
    while at < len(words) and words[at][:1] in ("/", "{"):
        first, at = words[at], at + 1
        if len(found) == MOST:
            raise NineError(errno.ENOSPC, f"a lease is for {MOST} resources at most")
        if first.startswith("/"):
            found.append(first)
            continue
        inside = [first[1:]]
        while not inside[-1].endswith("}"):
            if at == len(words):
                raise NineError(errno.EINVAL, "a claim ends with }")
            inside.append(words[at])
            at += 1
        inside[-1] = inside[-1][:-1]
        count, letters = count + 1, letters + sum(map(len, inside))
        if count > CLAIMS or letters > LETTERS:
            raise NineError(errno.EINVAL, f"at most {CLAIMS} claims are made together, of {LETTERS} letters")
        # a single word was quoted as a whole, and is taken apart here
        found.append(parse(split(inside[0]) if len(inside) == 1 else [word for word in inside if word]))
    del words[:at]
    return found


def free_in(book: Book, mode: Mode) -> Callable[[Resource], bool]:
    """Return what tells whether a resource could be had in a mode, as far as leases and those who wait for one go."""
    wishes = [*(lease.wish for lease in book.leases.values()), *book.waiting.values()]
    taken = {key for wish in wishes if "exclusive" in (wish.mode, mode) for _, key in wish.resources}
    above = {key[:end] for key in taken for end in range(len(key))}

    def free(resource: Resource) -> bool:
        key: Key = resource.key
        return key not in above and not any(key[:end] in taken for end in range(len(key) + 1))

    return free


@attrs.define(eq=False)
class _Left:
    """What is left of a kernel."""

    offer: Offer
    cpus: list[Resource]
    mem: list[Resource]
    whole: bool
    cpus_gone: int = 0
    mem_gone: int = 0
    untouched: bool = True

    @property
    def size(self) -> tuple[int, int]:
        return len(self.cpus) - self.cpus_gone, len(self.mem) - self.mem_gone


def choose(
    claims: Sequence[Claim], offers: Iterable[Offer], free: Callable[[Resource], bool]
) -> Generator[None, None, list[list[Resource]] | None]:
    """Return what each claim gets, in their order; None if there is no place for all. Yield on the way. Raises EAGAIN at the end of the search."""
    left = []
    for offer in offers:
        left.append(_Left(offer, [*filter(free, offer.cpus)], [*filter(free, offer.mem)], free(offer.whole)))
        yield
    fits = []
    for claim in claims:
        fits.append([one for one in left if claim.fits(one.offer.entry)])
        yield
    # the claim with the fewest kernels first, then the greatest
    order = sorted(range(len(claims)), key=lambda n: (len(fits[n]), -claims[n].cpus, -claims[n].mem))
    suiting = [{id(one) for one in some} for some in fits]
    suits = {id(one): frozenset(n for n, some in enumerate(suiting) if id(one) in some) for one in left}
    found: dict[int, list[Resource]] = {}
    steps = 0

    def place(at: int) -> Generator[None, None, bool]:
        nonlocal steps
        if at == len(order):
            return True
        number = order[at]
        claim = claims[number]
        tried: set[object] = set()
        steps += len(fits[number])
        yield
        for one in sorted(fits[number], key=lambda one: (*one.size, one.offer.entry.name)):
            if (steps := steps + 1) > STEPS:
                raise NineError(errno.EAGAIN, f"no place was found in {STEPS} attempts: claim less at once")
            alike = (one.size, one.offer.block, one.whole, one.untouched, suits[id(one)])
            if alike in tried:  # it would end as with that one
                continue
            tried.add(alike)
            need = -(-claim.mem // one.offer.block) if claim.mem and one.offer.block else 0
            cpus, mem = one.size
            enough = cpus >= claim.cpus and mem >= need <= MOST and (need > 0) == (claim.mem > 0)
            if not (one.whole and one.untouched if claim.whole else enough):
                continue
            before = one.cpus_gone, one.mem_gone, one.whole, one.untouched
            if claim.whole:
                found[number] = [one.offer.whole]
                one.cpus_gone, one.mem_gone = len(one.cpus), len(one.mem)
            else:
                more = one.cpus_gone + claim.cpus, one.mem_gone + need
                found[number] = [*one.cpus[one.cpus_gone : more[0]], *one.mem[one.mem_gone : more[1]]]
                one.cpus_gone, one.mem_gone = more
            one.whole = one.untouched = False
            if (yield from place(at + 1)):
                return True
            one.cpus_gone, one.mem_gone, one.whole, one.untouched = before
        found.pop(number, None)
        return False

    return [found[n] for n in range(len(claims))] if (yield from place(0)) else None
