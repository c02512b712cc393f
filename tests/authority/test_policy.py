"""Rules by path, against a naive model; and that a text is taken whole or not at all."""

import errno

import attrs
import pytest
from hypothesis import example, given, settings

from mk9p.auth import NONE, ROOT, Principal
from mk9p.authority.policy import LONGEST, RULES, Pattern, Rule, Rules, default, verdict
from mk9p.errors import NineError
from mk9p.scope import ALL, LETTERS, letters
from tests.authority.rules import naive, parsed, paths, rules, text

SHORT, LONG = paths(2), paths(4)


def group(name: str) -> int:
    return {"ops": 100, "staff": 50}[name]


def some(*lines: str) -> Rules:
    return Rules.parse("\n".join(lines), group)


@settings(max_examples=150)
@given(rules())
@example([])
def test_the_first_rule_that_matches_decides_on_each_letter(given: list[Rule]) -> None:
    for path in SHORT:
        for all_else in (0, ALL):
            found = verdict(given, path, all_else)
            for at, letter in enumerate(LETTERS):
                said = naive(given, path, letter, bool(all_else))
                assert (said == "allow", said == "ask") == (bool(found.now & 1 << at), bool(found.ask & 1 << at))


@settings(max_examples=60)
@given(rules())
def test_what_a_verdict_says_of_all_below_is_true_there(given: list[Rule]) -> None:
    for all_else in (0, ALL):
        at_each = {path: verdict(given, path, all_else) for path in LONG}
        for path in SHORT:
            mine = at_each[path]
            for below, theirs in at_each.items():
                if below == path or below.startswith(path + "/"):
                    assert mine.deep & ~theirs.now == 0, (path, below)
                    assert (theirs.now | theirs.ask) & ~mine.some == 0, (path, below)


def test_a_verdict_is_exact_where_it_matters() -> None:
    """Not only on the safe side: what is granted whole goes to another server whole, and what is not granted is not to be walked to."""
    mine = some("deny * d /k/k2/**", "allow * rwcnd /k/**", "deny * rwcnd /**").rules
    assert verdict(mine, "/k/k1").deep == verdict(mine, "/k/k1/cpu").deep == ALL
    assert letters(verdict(mine, "/k").deep) == "rwcn"
    assert verdict(mine, "").some == ALL
    assert verdict(mine, "/other").some == 0
    assert letters(verdict(mine, "/k/k2/x").now) == "rwcn"
    mine = some("allow * r /k/*/cpu/**", "deny * rwcnd /**").rules
    assert [letters(verdict(mine, path).some) for path in ("", "/k", "/k/k7", "/k/k7/cpu", "/k/k7/mem")] == [*"rrrr-"]
    assert letters(verdict(mine, "/k/k7").now) == "-"


@settings(max_examples=200)
@given(rules())
def test_rules_are_read_back_as_they_are_written(given: list[Rule]) -> None:
    assert list(parsed(given).rules) == given
    assert text(list(parsed(given).rules)) == text(given)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("allow bob r", "usage: allow WHO OPS PATTERN"),
        ("permit bob r /k", "unknown word permit; usage: allow WHO"),
        ("deny bob r /k /l", "usage: deny WHO OPS PATTERN"),
        ("allow bob x /k", "OPS are letters of rwcnd, not 'x'"),
        ("allow bob rr /k", "OPS are letters"),
        ("allow bob '' /k", "OPS are letters"),
        ("allow bob r k", "not a path from the root: 'k'"),
        ("allow bob r /k/../ctl", "not a path from the root"),
        ("allow bob r /k/./ctl", "not a path from the root"),
        ("allow bob r /k*", r"\* stands for a whole name"),
        ("allow bob r /***", r"\* stands for a whole name"),
        ("allow @nobody-has-it r /k", "there is no group 'nobody-has-it'"),
        ("allow @ r /k", "there is no group"),
        ("allow guest: r /k", "WHO is a name"),
        ("allow admin:x r /k", "WHO is a name"),
        ("allow b* r /k", "WHO is a name"),
        ("allow '' r /k", "WHO is a name"),
        ("allow 'bob r /k", "unterminated quote"),
        ("patience", "usage: patience SECONDS"),
        ("patience 0", "usage: patience SECONDS"),
        ("patience nan", "usage: patience SECONDS"),
        ("patience inf", "usage: patience SECONDS"),
        ("patience 1 2", "usage: patience SECONDS"),
        ("allow bob r " + "/x" * 65, "at most 64 names"),
    ],
)
def test_a_wrong_line_is_told_with_its_number(line: str, said: str) -> None:
    with pytest.raises(NineError, match=f"line 3: .*{said}") as caught:
        some("# good", "allow @ops rwcnd /** # all", line, "deny * r /")
    assert caught.value.errno == errno.EINVAL


def test_a_policy_has_limits() -> None:
    with pytest.raises(NineError, match=f"line {RULES + 1}: a policy has at most {RULES} rules"):
        some(*["deny * r /"] * (RULES + 1))
    with pytest.raises(NineError, match=f"at most {LONGEST} bytes"):
        some("#" * LONGEST + "\n")
    assert len(some(*["deny * r /"] * RULES).rules) == RULES


def test_comments_blanks_and_quotes_are_as_in_a_namespace_script() -> None:
    mine = some("", "  ", "# x", "allow 'guest:k1' r '/k/a name/**'   # why", "patience 7.5", "ask bob w /#x")
    assert [str(rule) for rule in mine.rules] == ["allow guest:k1 r '/k/a name/**'", "ask bob w /#x"]
    assert mine.patience == 7.5
    assert some().patience == 60.0


BOB = Principal("bob", 1000, frozenset({100}), proof="peercred")
CERT = Principal("cert:bob", NONE.uid, proof="cert")
GUEST = Principal("guest:bob", NONE.uid, proof="guest")
LIARS = [
    attrs.evolve(NONE, name=name, proof=proof)
    for name in ("cert:bob", "guest:bob", "bob", "@ops", "*")
    for proof in ("private", "trust", "peercred", "none", "token")
]


@pytest.mark.parametrize(
    ("who", "right"),
    [("bob", [BOB]), ("@ops", [BOB]), ("cert:bob", [CERT]), ("guest:bob", [GUEST]), ("none", [NONE])],
)
def test_a_rule_is_for_whom_it_names_and_for_nobody_who_only_says_so(who: str, right: list[Principal]) -> None:
    (rule,) = some(f"allow {who} r /k").rules
    everybody = [BOB, CERT, GUEST, NONE, *LIARS]
    found = [each for each in everybody if rule.concerns(each)]
    if who == "none":
        assert all(each.proof == "none" for each in found)
    elif who == "bob":  # a listener that is told to believe names believes this one
        assert {each.proof for each in found if each is not BOB} <= {"private", "trust", "peercred"}
        assert all(each.name == "bob" for each in found)
    else:
        assert found == right
    assert all(each in found for each in right)
    assert all(Rule("allow", "*", 1, Pattern(())).concerns(each) for each in everybody)


def test_where_no_rule_decides_local_users_have_what_the_bits_say_and_others_nothing() -> None:
    mine = some("allow cert:bob r /data/**")
    for who, has in ((BOB, ALL), (ROOT, ALL), (CERT, 0), (NONE, 0)):
        assert verdict(mine.of(who), "/ctl", default(who)).some == has
    assert letters(verdict(mine.of(CERT), "/data/x", default(CERT)).now) == "r"
    for who in (CERT, NONE):  # everybody may know who they are
        assert letters(verdict(mine.of(who), "/auth/whoami", default(who)).now) == "r"


def test_no_rule_keeps_root_of_this_machine_from_the_policy() -> None:
    mine = some("deny * rwcnd /**")
    assert verdict(mine.of(ROOT), "/auth/policy", default(ROOT)).now == ALL
    assert verdict(mine.of(ROOT), "", default(ROOT)).some != 0
    assert verdict(mine.of(ROOT), "/ctl", default(ROOT)).some == 0
    for who in (BOB, CERT, NONE, attrs.evolve(ROOT, proof="cert")):
        assert verdict(mine.of(who), "/auth/policy", default(who)).some == 0
