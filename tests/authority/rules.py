"""What tests of rules share: rules over a few names, and a naive model of them."""

import re
from itertools import product

from hypothesis import strategies as st

from mk9p.authority.policy import Pattern, Rule, Rules
from mk9p.scope import LETTERS

NAMES = ("a", "b", "ctl")
OTHER = "other"  # a name that no rule has
KINDS = ("allow", "deny", "ask")

patterns = st.lists(st.sampled_from((*NAMES, "*", "**")), max_size=4).map(lambda names: Pattern(tuple(names)))
opses = st.integers(1, 31)


def rules(kinds: tuple[str, ...] = KINDS, most: int = 5) -> st.SearchStrategy[list[Rule]]:
    return st.lists(st.builds(Rule, st.sampled_from(kinds), st.just("*"), opses, patterns), max_size=most)


def text(some: list[Rule]) -> str:
    return "".join(f"{rule}\n" for rule in some)


def parsed(some: list[Rule]) -> Rules:
    return Rules.parse(text(some), lambda name: 0)


def naive(some: list[Rule], path: str, letter: str, default: bool) -> str:
    """Return what the first rule for a letter says at a path, by patterns as regular expressions."""
    for rule in some:
        names = ("(/[^/]+)*" if n == "**" else "/[^/]+" if n == "*" else "/" + re.escape(n) for n in rule.pattern.names)
        if rule.ops & 1 << LETTERS.index(letter) and re.fullmatch("".join(names), path):
            return rule.kind
    return "allow" if default else "deny"


def paths(depth: int) -> list[str]:
    """Return all paths of up to so many names."""
    return ["".join(f"/{n}" for n in names) for d in range(depth + 1) for names in product((*NAMES, OTHER), repeat=d)]
