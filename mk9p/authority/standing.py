"""`Standing`: what one principal may do, from an attach on, by their capability and by the rules that hold at that moment."""

from typing import Final, Protocol

import attrs

from mk9p.auth import ROOT, Principal
from mk9p.authority.audit import Audit
from mk9p.authority.book import Book
from mk9p.authority.judges import EVERYTHING, NOTHING, Spot, Verdict
from mk9p.authority.policy import Rule, default, verdict
from mk9p.errors import NineError
from mk9p.scope import Scope, within
from mk9p.tree import Open

KEPT: Final = 4096  # spots: paths are few, and asked for again and again


class Names(Protocol):
    """Which other names files have."""

    def of(self, path: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the names of its own that the file at a path has besides, and the paths whose files have names below it."""

    def given(self, path: str) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
        """Return names that somebody has given to the file at a path, each with where it was given; and where names were given to what is below."""


class OneName:
    """Every file has one name."""

    def of(self, path: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (), ()

    def given(self, path: str) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
        return (), ()


def asked_as(who: Principal) -> Principal:
    """Return for whom the rules are asked: whoever shows a capability may do what the one who granted it may, within it."""
    if who.scope is None:
        return who
    if who.scope.as_root:
        return ROOT
    granter = Principal.of(who.uid)
    return attrs.evolve(granter, groups=who.groups)


@attrs.define(eq=False)
class Standing:
    """A judge. `place` is from where they come."""

    who: Principal
    place: str
    audit: Audit
    book: Book | None = None
    names: Names = attrs.field(factory=OneName)
    granter: Principal = attrs.field(init=False)
    rules: tuple[Rule, ...] = attrs.field(default=(), init=False)
    spots: dict[str, Spot] = attrs.field(factory=dict, init=False)
    hows: dict[int, tuple[Open, Open]] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.granter = asked_as(self.who)
        self.learn()

    @property
    def hides(self) -> bool:
        """What is outside of a capability does not exist; what rules refuse is refused."""
        return self.who.scope is not None

    def learn(self) -> bool:
        """Take the rules that hold now; tell whether they are others than before."""
        rules = () if self.book is None else self.book.rules.of(self.granter)
        self.forget()
        changed, self.rules = rules != self.rules, rules
        return changed

    def forget(self) -> None:
        """Judge anew: files may have other names now."""
        for spot in self.spots.values():
            spot.void()
        self.spots.clear()

    def spot(self, path: str) -> Spot:
        known = self.spots.get(path)
        if known is None:
            if len(self.spots) >= KEPT:
                self.forget()
            known = self.spots[path] = Spot(self.verdict(path), path)
            if known.some:
                for other in self.names.of(path)[0]:
                    known.also(other)
        return known

    def verdict(self, path: str) -> Verdict:
        """Return what they may do at a path."""
        found = EVERYTHING if self.who.scope is None else granted(self.who.scope, path)
        if self.book is None or not found.some:
            return found
        found = found & verdict(self.rules, path, default(self.granter))
        others, below = self.names.of(path)
        for (
            other
        ) in others:  # what a rule says of one name holds for all; that no rule says anything, for none of the others
            found = found & verdict(self.rules, other)
        for other in below:
            found = attrs.evolve(found, deep=found.deep & verdict(self.rules, other).deep)
        return self._by_given(found, path)

    def _by_given(self, found: Verdict, path: str) -> Verdict:
        """Return what rules leave of a verdict that are for a name which somebody has given to the file, and say so: `/**` is for all names."""
        given, below = self.names.given(path)
        for other, at in given:
            if mine := [rule for rule in self.rules if rule.pattern.begins(at)]:
                found = found & verdict(mine, other)
        for at in below:
            if mine := [rule for rule in self.rules if rule.pattern.begins(at)]:
                found = attrs.evolve(found, deep=found.deep & verdict(mine, at).deep)
        return found

    async def confirmed(self, path: str, ops: int) -> bool:
        if self.book is None:
            return False
        return await self.book.confirm.ask(self.granter.name, ops, path, self.book.rules.patience)

    def refused(self, path: str, what: str, error: NineError) -> None:
        self.audit.note(self.who, self.place, what, path, error)
        error.told = True


def granted(scope: Scope, path: str) -> Verdict:
    """Return what a capability gives at a path: its OPS at its own and below; the directories that lead there can be walked."""
    if within(path, scope.path):
        return Verdict(scope.ops, 0, scope.ops, scope.ops)
    return Verdict(0, 0, 0, scope.ops) if within(scope.path, path) else NOTHING
