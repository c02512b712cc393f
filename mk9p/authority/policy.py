"""Rules by path: `allow|deny|ask WHO OPS PATTERN`, a line each. Pure: no file, no tree, no clock.

Theory
* The first rule that is for somebody, has the letter, and matches the path decides on that letter. What no rule decides is left to a default: all,
  as far as the permission bits allow it, for users of this machine; nothing for others.
* A pattern is names after slashes. `*` is one name, `**` any number of names, also none. So a pattern can be followed name by name, as a path is
  walked: `after` are the places in it that a path has led to. None: it matches nothing here or below. The end: it matches the path. In a last `**`:
  it matches all that is below, too.
* From this follow the four masks of a verdict (judges.py). `deep` and `some` are on the safe side: below a path that a rule only may match, no
  letter of a `deny` or `ask` is taken for allowed everywhere, and each letter of an `allow` for allowed somewhere.
* A text is taken whole or not at all. A line that is wrong says its number.
"""

import errno
from collections.abc import Callable, Iterable
from typing import Final, Literal, cast

import attrs

from mk9p.auth import LOCAL, Principal
from mk9p.authority.judges import Verdict
from mk9p.errors import NineError
from mk9p.ktext import split_lines
from mk9p.scope import ALL, cleaned, letters, ops_of
from mk9p.tree.words import join, quote, split, uncomment

KINDS: Final = ("allow", "deny", "ask")
RULE: Final = "WHO OPS PATTERN"
USAGE: Final = " · ".join([*(f"{kind} {RULE}" for kind in KINDS), "patience SECONDS"])
PATIENCE: Final = 60.0  # seconds that an open waits for an operator, if the policy does not say how many
LONGEST: Final = 65536  # bytes of a policy: one write carries it
RULES: Final = 1024  # each new path is compared with all of them: half a millisecond
NAMES: Final = 64  # of a pattern
_HOUR: Final = 3600.0

GroupId = Callable[[str], int]
"""Returns the number of a group of this machine; raises KeyError."""


@attrs.frozen
class Pattern:
    """A path with `*` for one name and `**` for any number of them."""

    names: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Read a pattern; raises EINVAL."""
        names = tuple(cleaned(text).split("/")[1:])
        if len(names) > NAMES:
            raise NineError(errno.EINVAL, f"a pattern has at most {NAMES} names")
        if any("*" in name and name not in ("*", "**") for name in names):
            raise NineError(errno.EINVAL, "in a pattern, * stands for a whole name and ** for any number of names")
        return cls(names)

    def after(self, path: Iterable[str]) -> frozenset[int]:
        """Return the places in the pattern to which the names of a path lead."""
        at = self._free({0})
        for name in path:
            if not at:
                break
            at = self._free({to for i in at for to in self._step(i, name)})
        return at

    def _step(self, i: int, name: str) -> tuple[int, ...]:
        if i == len(self.names):
            return ()
        wanted = self.names[i]
        return (i,) if wanted == "**" else (i + 1,) if wanted in ("*", name) else ()

    def _free(self, at: set[int]) -> frozenset[int]:
        """Add the places behind each `**`, which may stand for no name."""
        found = set(at)
        for i in sorted(at):
            while i < len(self.names) and self.names[i] == "**":
                i += 1
                found.add(i)
        return frozenset(found)

    def begins(self, path: str) -> bool:
        """Tell whether it names a path, and what is below: it begins with its names, and not with `*`."""
        names = tuple(path.split("/")[1:])
        return self.names[: len(names)] == names

    def ends(self, at: frozenset[int]) -> bool:
        """Tell whether the pattern matches a path that led to these places."""
        return len(self.names) in at

    def covers(self, at: frozenset[int]) -> bool:
        """Tell whether it matches that path and all below."""
        return any(i < len(self.names) and all(name == "**" for name in self.names[i:]) for i in at)

    def __str__(self) -> str:
        return "".join(f"/{name}" for name in self.names) or "/"


@attrs.frozen
class Rule:
    """One line. `gid` is the number of the group of an `@group`."""

    kind: Literal["allow", "deny", "ask"]
    who: str
    ops: int
    pattern: Pattern
    gid: int | None = None

    @classmethod
    def parse(cls, words: list[str], group: GroupId) -> "Rule":
        """Read the words of a line; raises EINVAL."""
        if words[0] not in KINDS:
            raise NineError(errno.EINVAL, f"unknown word {quote(words[0])}; usage: {USAGE}")
        if len(words) != 4:
            raise NineError(errno.EINVAL, f"usage: {words[0]} {RULE}")
        kind, who, ops, pattern = words
        gid = None
        proof, _, name = who.partition(":") if ":" in who else ("", "", who)
        if not name or proof not in ("", "guest", "cert") or "\0" in who or ("*" in who and who != "*"):
            raise NineError(errno.EINVAL, f"WHO is a name, @group, guest:NAME, cert:NAME, none or *, not {who!r}")
        if who.startswith("@"):
            try:
                gid = group(who[1:])
            except KeyError:
                raise NineError(errno.EINVAL, f"there is no group {who[1:]!r}") from None
        return cls(cast("Literal['allow', 'deny', 'ask']", kind), who, ops_of(ops), Pattern.parse(pattern), gid)

    def concerns(self, who: Principal) -> bool:
        """Tell whether it is for a principal. A name is believed as far as it was proved: nobody is `cert:NAME` without a certificate."""
        if self.who == "*":
            return True
        if self.who == "none":
            return who.proof == "none" or who.name == "none"
        if ":" in self.who:
            return who.name == self.who and self.who.startswith(f"{who.proof}:")
        if who.proof not in LOCAL:
            return False
        return self.gid in who.groups if self.gid is not None else who.name == self.who

    def __str__(self) -> str:
        return join([self.kind, self.who, letters(self.ops), str(self.pattern)])


def verdict(rules: Iterable[Rule], path: str, default: int = ALL) -> Verdict:
    """Return what the rules of a principal allow at a path. `default`: what is allowed where no rule decides."""
    names = path.split("/")[1:]
    now = ask = deep = some = 0
    here = sure = left = ALL  # letters on which nothing has decided: at the path; at all below; somewhere below
    for rule in rules:
        at = rule.pattern.after(names)
        if not at:
            continue
        covers = rule.pattern.covers(at)
        if rule.pattern.ends(at):
            if rule.kind == "allow":
                now |= here & rule.ops
            elif rule.kind == "ask":
                ask |= here & rule.ops
            here &= ~rule.ops
        if rule.kind != "deny":
            some |= left & rule.ops
        if rule.kind != "allow":
            sure &= ~rule.ops
        elif covers:
            deep |= sure & rule.ops
            sure &= ~rule.ops
        if covers:
            left &= ~rule.ops
    return Verdict(now | here & default, ask, deep | sure & default, some | left & default)


_WHOAMI: Final = Rule("allow", "*", 1, Pattern(("auth", "whoami")))
_AUTH: Final = Rule("allow", "root", ALL, Pattern(("auth", "**")))


@attrs.frozen
class Rules:
    """A policy: its text, its rules in order, and how many seconds an open waits for an operator."""

    text: str = ""
    rules: tuple[Rule, ...] = ()
    patience: float = PATIENCE

    @classmethod
    def parse(cls, text: str, group: GroupId) -> "Rules":
        """Read a policy. `#` begins a comment, and a line `patience SECONDS` says how long an open waits; raises EINVAL with the line's number."""
        if len(text.encode(errors="surrogatepass")) > LONGEST:
            raise NineError(errno.EFBIG, f"a policy has at most {LONGEST} bytes")
        rules: list[Rule] = []
        patience = PATIENCE
        for number, line in enumerate(split_lines(text), 1):
            try:
                words = split(uncomment(line))
                if words[:1] == ["patience"]:
                    patience = _seconds(words[1:])
                elif words:
                    rules.append(Rule.parse(words, group))
                if len(rules) > RULES:
                    raise NineError(errno.EINVAL, f"a policy has at most {RULES} rules")
            except NineError as error:
                raise NineError(error.errno, f"line {number}: {error.ename}") from None
        return cls(text, tuple(rules), patience)

    def of(self, who: Principal) -> tuple[Rule, ...]:
        """Return the rules for a principal, in order. None of them can keep root of this machine from `auth`."""
        mine = tuple(rule for rule in self.rules if rule.concerns(who))
        if who.uid == 0 and who.proof in LOCAL:
            mine = (_AUTH, *mine)
        return (*mine, _WHOAMI)


def default(who: Principal) -> int:
    """Return what is allowed where no rule decides: all for users of this machine and for guests, who see only what they were granted, else
    nothing."""
    return ALL if who.proof in LOCAL or who.proof == "guest" else 0


def _seconds(words: list[str]) -> float:
    try:
        (text,) = words
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= _HOUR:
        raise NineError(errno.EINVAL, f"usage: patience SECONDS, up to {_HOUR:g}")
    return seconds
