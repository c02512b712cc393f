"""Capabilities as text: what a later block leaves, who may use one and when, and that no other text is one."""

import base64
import errno
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mk9p.authority import grants
from mk9p.authority.grants import OPS, Capability, Key, Terms, narrow, new_key, shown
from mk9p.errors import NineError

NOW = 1_800_000_000
KEY = Key.of(new_key())
OTHER = Key.of(new_key())
CPU = KEY.mint(Terms.of("/k/k1/cpu", "rc", to="ops", since=NOW, until=NOW + 3600))


def refusal(call: Any, *args: Any, number: int = errno.EACCES, **more: Any) -> str:
    with pytest.raises(NineError) as caught:
        call(*args, **more)
    assert caught.value.errno == number, caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check(text: str, who: str = "ops", kernel: str | None = None, now: float = NOW) -> None:
    KEY.read(text).check(who=who, kernel=kernel, now=now)


def test_it_gives_what_was_granted() -> None:
    found = KEY.read(CPU)
    assert (found.path, found.ops, found.to, found.since, found.until) == ("/k/k1/cpu", "rc", "ops", NOW, NOW + 3600)
    assert found.id == found.ids[0]
    check(CPU)
    assert shown(CPU) == found, "its holder can read it without the server"


def test_one_for_a_principal_is_refused_to_others() -> None:
    assert "it is for ops, and not for ann" in refusal(check, CPU, "ann")
    assert "it is for ops" in refusal(check, CPU, "none")


def test_one_that_ended_and_one_that_has_not_begun_are_refused_with_the_clock() -> None:
    check(CPU, now=NOW + 3599.9)
    said = refusal(check, CPU, now=NOW + 3600)
    assert "ended at 2027-01-15T09:00:00Z" in said
    assert "the clock here says 2027-01-15T09:00:00Z" in said
    assert "not valid before 2027-01-15T08:00:00Z; the clock here says" in refusal(check, CPU, now=NOW - 3600)


def test_clocks_may_differ_by_a_minute_at_the_beginning_and_not_at_the_end() -> None:
    check(CPU, now=NOW - grants.SKEW)
    refusal(check, CPU, now=NOW - grants.SKEW - 1)
    refusal(check, CPU, now=NOW + 3600)


def test_one_for_the_line_of_a_kernel_is_refused_elsewhere() -> None:
    text = narrow(CPU, Terms(kernel="k2"))
    check(text, kernel="k2")
    for other in (None, "k3", "k2/"):
        assert "for the line of kernel k2" in refusal(check, text, kernel=other)


def test_narrowing_needs_no_key_and_holds_together_with_what_was_before() -> None:
    text = narrow(narrow(CPU, Terms.of("/k/k1/cpu/0", "r")), Terms(until=NOW + 60))
    found = KEY.read(text)
    assert (found.path, found.ops, found.until, found.to) == ("/k/k1/cpu/0", "r", NOW + 60, "ops")
    assert found.ids[0] == KEY.read(CPU).id
    assert len(set(found.ids)) == 3


@pytest.mark.parametrize(
    ("terms", "path", "ops"),
    [
        (Terms.of("/", OPS), "/k/k1/cpu", "rc"),
        (Terms.of("/k/k1", "rwcnd"), "/k/k1/cpu", "rc"),
        (Terms.of("/k/k1/cpu", "rw"), "/k/k1/cpu", "r"),
        (Terms(until=NOW + 99999), "/k/k1/cpu", "rc"),
        (Terms(since=1), "/k/k1/cpu", "rc"),
    ],
)
def test_a_later_block_never_widens(terms: Terms, path: str, ops: str) -> None:
    found = KEY.read(narrow(CPU, terms))
    assert (found.path, found.ops, found.to, found.since, found.until) == (path, ops, "ops", NOW, NOW + 3600)


@pytest.mark.parametrize(
    "terms", [Terms.of("/k/k2"), Terms.of("/k/k1/cpux"), Terms.of("/k/k1/cp"), Terms(ops="w"), Terms(to="ann")]
)
def test_what_would_give_nothing_is_refused_where_it_is_made_and_where_it_is_used(terms: Terms) -> None:
    assert "it gives nothing" in refusal(narrow, CPU, terms)
    assert "it gives nothing" in refusal(KEY.read, by_force(CPU, grants.source(terms)))


def by_force(text: str, code: str) -> str:
    """Add a block as a program of somebody else could."""
    from biscuit_auth import Biscuit, BlockBuilder

    biscuit = Biscuit.from_base64(text.partition(".")[2], KEY.public)
    return grants._text(biscuit.append(BlockBuilder(code)), KEY.public)


@pytest.mark.parametrize(
    "code",
    [
        'right("/", "rwcnd");',
        'check if path($path), $path.starts_with("/k/k1/cpu/") || true;',
        'check if path($path), $path.ends_with("status/");',
        'check if path($path), $path.starts_with("/k/k1/cpu/"); check if path($path), $path.starts_with("/k/k1/cpu/0/");',
        'check if operation($operation), "r".contains($operation); check if path($path), $path.starts_with("/k/k1/cpu/");',
        'check if path($path), $path.starts_with("/k/k1/cpu/%30/");',
        'check if path($path), $path.starts_with("/k/k1/cpu/../mem/");',
        'check if path($path), $path.starts_with("/k/k1/cpu");',
        'check if operation($operation), "".contains($operation);',
        'check if operation($operation), "x".contains($operation);',
        'check if operation($operation), "cr".contains($operation);',
        'check if operation($operation), "r".contains($operation) trusting previous;',
        "reject if true;",
        "check all time($time), $time < 2027-01-15T08:00:00Z;",
    ],
)
def test_a_block_that_is_not_understood_is_refused_and_never_passed_over(code: str) -> None:
    refusal(KEY.read, by_force(CPU, code))


def test_a_key_is_not_shown() -> None:
    assert bytes(KEY.private.to_bytes()).hex() not in repr(KEY)


def test_a_block_of_a_third_party_is_refused() -> None:
    from biscuit_auth import Biscuit, BlockBuilder, KeyPair

    pair = KeyPair()
    biscuit = Biscuit.from_base64(CPU.partition(".")[2], KEY.public)
    block = biscuit.third_party_request().create_block(pair.private_key, BlockBuilder(grants.source(Terms(ops="r"))))
    text = grants._text(biscuit.append_third_party(pair.public_key, block), KEY.public)
    assert "not understood" in refusal(KEY.read, text)


def test_one_of_another_server_is_refused() -> None:
    text = OTHER.mint(Terms.of("/", OPS))
    assert "another server" in refusal(KEY.read, text)
    forged = f"{CPU.partition('.')[0]}.{text.partition('.')[2]}"
    assert "altered" in refusal(KEY.read, forged)


@given(st.data())
def test_an_altered_one_is_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([CPU, narrow(CPU, Terms(ops="r"))]))
    raw = bytearray(base64.urlsafe_b64decode(text.partition(".")[2] + "=="))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    refusal(KEY.read, f"{text.partition('.')[0]}.{base64.urlsafe_b64encode(raw).decode().rstrip('=')}")


@given(st.data())
def test_there_is_no_other_spelling_of_one(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(CPU)))
    end = data.draw(st.integers(at, min(len(CPU), at + 3)))
    other = CPU[:at] + data.draw(st.text(st.sampled_from("AB-_.=+/ \n\0é"), max_size=3)) + CPU[end:]
    if other != CPU:
        refusal(KEY.read, other)


@given(
    st.one_of(
        st.text(),
        st.text(st.characters(codec="ascii")),
        st.binary(max_size=600).map(lambda raw: "A" * 43 + "." + base64.urlsafe_b64encode(raw).decode()),
    )
)
def test_garbage_of_any_length_is_no_capability(text: str) -> None:
    for call in (KEY.read, shown):
        refusal(call, text)
    refusal(narrow, text, Terms(ops="r"))


@pytest.mark.parametrize("length", [0, 1, 3840, 3841, 1 << 20])
def test_garbage_is_refused_at_each_length(length: int) -> None:
    for text in ("A" * length, CPU[:44] + "A" * length, "." * length):
        refusal(KEY.read, text)


NAMES = st.text(st.characters(exclude_characters="/\0\n", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..", "-")
)
PATHS = st.lists(NAMES, max_size=4).map(lambda names: "".join(f"/{name}" for name in names))
TIMES = st.integers(1, 1 << 36)
TERMS = st.builds(
    Terms,
    path=st.none() | PATHS,
    ops=st.none() | st.text(st.sampled_from(OPS), min_size=1).map(grants.ordered),
    to=st.none() | NAMES,
    kernel=st.none() | NAMES,
    since=st.none() | TIMES,
    until=st.none() | TIMES,
)


@given(TERMS)
def test_terms_are_read_as_they_were_said_whatever_the_names(terms: Terms) -> None:
    from biscuit_auth import BlockBuilder

    assert grants.terms_of(repr(BlockBuilder(grants.source(terms)))) == terms


FEW = st.builds(
    Terms,
    path=st.none() | st.sampled_from(["", "/a", "/a/b", "/ab", "/a/b/c", "/a b"]),
    ops=st.none() | st.sampled_from(["r", "rw", "rwcnd", "c", "nd"]),
    to=st.none() | st.sampled_from(["ann", "bob"]),
    kernel=st.none() | st.sampled_from(["k1", "k2"]),
    since=st.none() | st.integers(NOW - 3, NOW + 3),
    until=st.none() | st.integers(NOW - 3, NOW + 3),
)


@given(FEW, st.lists(FEW, max_size=3), st.data())
def test_every_program_that_knows_biscuits_judges_as_we_do(
    first: Terms, more: list[Terms], data: st.DataObject
) -> None:
    import attrs
    from biscuit_auth import AuthorizationError, AuthorizerBuilder, Biscuit

    text = KEY.mint(attrs.evolve(first, path=first.path or "/a", ops=first.ops or "rw"))
    for terms in more:
        text = by_force(text, grants.source(terms))
    path = data.draw(st.sampled_from(["/a", "/a/b", "/ab", "/a/b/c", "/a b", "/x"]))
    op, who = data.draw(st.sampled_from(OPS)), data.draw(st.sampled_from(["ann", "bob"]))
    kernel, now = data.draw(st.sampled_from(["k1", "k2"])), data.draw(st.integers(NOW - 4, NOW + 4))
    builder: Any = AuthorizerBuilder(
        "path({path}); operation({op}); user({who}); node({kernel}); time({now}); allow if true;",
        {
            "path": f"{path}/".replace(" ", "%20"),
            "op": op,
            "who": who,
            "kernel": kernel,
            "now": datetime.fromtimestamp(now, UTC),
        },
    )
    limits = builder.limits()
    limits.max_time = timedelta(seconds=60)
    builder.set_limits(limits)
    try:
        builder.build(Biscuit.from_base64(text.partition(".")[2], KEY.public)).authorize()
        theirs = True
    except AuthorizationError:
        theirs = False
    try:
        capability = KEY.read(text)
        moment = max(now, (capability.since or now)) if now >= (capability.since or now) else now - grants.SKEW
        capability.check(who=who, kernel=kernel, now=moment)
        ours = op in capability.ops and grants.within(path, capability.path)
    except PermissionError:
        ours = False
    assert ours == theirs


def test_it_can_be_narrowed_until_it_does_not_fit_into_an_attach() -> None:
    text, count = CPU, 0
    while len(text) <= grants.LONGEST - 260:
        text, count = narrow(text, Terms(until=NOW + 60)), count + 1
    assert count >= 8
    refusal(narrow, text, Terms.of("/k/k1/cpu/0", "r", to="ops", since=NOW, until=NOW + 60), number=errno.EMSGSIZE)
    check(text)
    assert len(grants.PREFIX + text) < 4096


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"path": "k/k1", "ops": "r"}, "full path"),
        ({"path": "/k/../..", "ops": "r"}, "full path"),
        ({"path": "/" + "x" * 1024, "ops": "r"}, "full path"),
        ({"path": "/a\0", "ops": "r"}, "full path"),
        ({"path": "/k", "ops": ""}, "OPS are letters of rwcnd"),
        ({"path": "/k", "ops": "rx"}, "OPS are letters of rwcnd"),
        ({"path": "/k", "ops": "r", "to": ""}, "name of 1 to 255"),
        ({"path": "/k", "ops": "r", "to": "x" * 256}, "name of 1 to 255"),
        ({"path": "/k", "ops": "r", "until": 1 << 40}, "is no time"),
        ({"path": "/k", "ops": "r", "since": -1}, "is no time"),
        ({"path": "/k"}, "needs a path and OPS"),
        ({"ops": "r"}, "needs a path and OPS"),
    ],
)
def test_terms_that_say_no_capability_are_refused(terms: dict[str, Any], said: str) -> None:
    assert said in refusal(lambda: KEY.mint(Terms.of(**terms)), number=errno.EINVAL)


def test_ops_are_letters_in_any_order() -> None:
    assert Terms.of("/k/", "cr") == Terms.of("//k", "rcr") == Terms("/k", "rc")


def test_without_the_package_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "biscuit_auth", None)
    for call in (new_key, lambda: narrow(CPU, Terms(ops="r")), lambda: shown(CPU)):
        assert refusal(call, number=errno.EOPNOTSUPP) == grants.INSTALL


def test_a_revoked_block_is_found_wherever_it_is() -> None:
    found = KEY.read(narrow(narrow(CPU, Terms(ops="r")), Terms(until=NOW + 5)))
    for one in found.ids:
        assert grants.revoked_by(found.ids, {one}) == one
    assert grants.revoked_by(found.ids, {"0" * 16}) is None
    assert isinstance(found, Capability)
