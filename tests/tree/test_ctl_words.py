"""The signature of a ctl word is its check: what a word may be, what usage says of it, and what is refused when the word is described."""

import datetime
import enum
import functools
import ipaddress
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal

import pytest

from mk9p.auth import ROOT, Principal
from mk9p.errors import NineError
from mk9p.tree import Ctl, Handle, Open
from mk9p.tree.words import run, table

Given = list[Any]


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    low = 1
    high = 2


def said(function: Callable[..., Any], line: str, name: str = "word") -> Any:
    """Run one line against one word; a refusal is returned as its words."""
    try:
        return run(table({name: function}), line, ROOT)
    except NineError as error:
        return error.ename


@pytest.mark.parametrize(
    ("word", "value"),
    [(w, True) for w in ("on", "yes", "true", "1", "ON", "True")]
    + [(w, False) for w in ("off", "no", "false", "0", "Off")],
)
def test_a_bool_is_what_its_word_says(word: str, value: bool) -> None:
    def light(on: bool) -> Given:
        return [on]

    assert said(light, f"word {word}") == [value]


@pytest.mark.parametrize("word", ["maybe", "2", "''", "o", "onn", "oui", "-1", "None"])
def test_a_word_that_is_no_bool_is_refused_with_its_usage(word: str) -> None:
    def light(on: bool) -> None:
        pytest.fail("called")

    assert said(light, f"word {word}") == "usage: word on|off"


def test_a_bool_may_be_left_out_and_may_be_many() -> None:
    def one(on: bool = True) -> Given:
        return [on]

    def none(on: bool | None) -> Given:
        return [on]

    def many(*on: bool) -> Given:
        return [*on]

    assert (said(one, "word"), said(one, "word off")) == ([True], [False])
    assert (said(none, "word"), said(none, "word off")) == ([None], [False])
    assert (said(many, "word off on"), said(many, "word")) == ([False, True], "usage: word on|off...")
    assert said(one, "word perhaps") == "usage: word [on|off]"


FLOATS: list[tuple[str, float | None]] = [
    ("1.5", 1.5),
    ("-2", -2.0),
    ("1e3", 1000.0),
    (".5", 0.5),
    ("nan", None),
    ("inf", None),
]
FLOATS += [(w, None) for w in ("-inf", "infinity", "NaN", "1e999", "1_0", "''", "' 1'", "0x10", "1,5", "\u0661")]


@pytest.mark.parametrize(("word", "value"), FLOATS)
def test_a_float_is_a_finite_number(word: str, value: float | None) -> None:
    def speed(v: float) -> Given:
        return [v]

    assert said(speed, f"word {word}") == ("usage: word V" if value is None else [value])


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("7", 7),
        ("-7", -7),
        ("+7", 7),
        ("007", 7),
        *((w, None) for w in ("7.0", "1_0", "' 7'", "0x7", "\u0667", "''", "9" * 5000)),
    ],
)
def test_an_int_is_plain_decimal(word: str, value: int | None) -> None:
    def add(n: int) -> Given:
        return [n]

    assert said(add, f"word {word}") == ("usage: word N" if value is None else [value])


def test_choices_are_shown_and_become_their_values() -> None:
    def colour(c: Colour) -> Given:
        return [c]

    def level(n: Level = Level.low) -> Given:
        return [n]

    def baud(rate: Literal[9600, 115200], parity: Literal["odd", "even"] | None = None) -> Given:
        return [rate, parity]

    assert said(colour, "word red") == [Colour.RED]
    assert said(colour, "word RED") == "usage: word red|green"
    assert (said(level, "word high"), said(level, "word")) == ([Level.high], [Level.low])
    assert said(level, "word 2") == "usage: word [low|high]"
    assert said(baud, "word 9600 odd") == [9600, "odd"]
    assert said(baud, "word 9601") == "usage: word 9600|115200 [odd|even]"


def test_what_takes_one_word_and_raises_value_error_is_a_check() -> None:
    def even(text: str) -> int:
        if int(text) % 2:
            raise ValueError(text)
        return int(text)

    def take(a: even, b: ipaddress.IPv4Address, c: Decimal = Decimal(0)) -> Given:  # type: ignore[valid-type]
        return [a, b, c]

    assert said(take, "word 4 10.0.0.1") == [4, ipaddress.IPv4Address("10.0.0.1"), Decimal(0)]
    for line in ("word 3 10.0.0.1", "word 4 10.0.0", "word 4 10.0.0.1 x"):
        assert said(take, line) == "usage: word A B [C]"


def test_the_user_who_wrote_is_given_where_the_signature_has_it() -> None:
    def kill(n: int, who: Principal, *more: int | None) -> Given:
        return [n, who, *more]

    assert said(kill, "word 1 2 3") == [1, ROOT, 2, 3]
    assert said(kill, "word") == "usage: word N [MORE...]"


def test_a_parameter_by_keyword_alone_keeps_its_default() -> None:
    def f(n: int, *, kept: bool = True) -> Given:
        return [n, kept]

    assert said(f, "word 1") == [1, True]
    assert said(f, "word 1 off") == "usage: word N"
    assert said(functools.partial(f, kept=False), "word 1") == [1, False]


def function(annotation: Any) -> Callable[..., Any]:
    def f(x: object) -> None: ...

    f.__annotations__["x"] = annotation
    return f


NO_CHECK: list[Any] = [
    list[int],
    list,
    tuple,
    dict[str, int],
    set,
    bytes,
    object,
    Any,
    type,
    range,
    Callable[[str], int],
]
NO_CHECK += [
    int | str,
    int | str | None,
    Colour | int,
    list[int] | None,
    Principal | None,
    None,
    "list[int]",
    3,
    lambda: None,
]


@pytest.mark.parametrize("annotation", NO_CHECK)
def test_what_no_word_can_be_checked_against_is_refused_when_the_ctl_is_made(annotation: Any) -> None:
    with pytest.raises(TypeError, match="ctl word 'word', parameter 'x'"):
        Ctl({"word": function(annotation)})


def test_a_class_written_in_c_that_is_not_made_of_a_word_is_refused_when_the_ctl_is_made() -> None:
    with pytest.raises(TypeError, match="says nothing that a word can be checked against"):
        table({"on": _on})


def _on(day: datetime.date) -> None:
    pytest.fail("called")


@pytest.mark.parametrize("kind", [Decimal, Fraction, complex])
def test_a_number_of_any_class_is_finite_and_plain(kind: type) -> None:
    def take(n: kind) -> Given:  # type: ignore[valid-type]
        return [n]

    for word in ("nan", "inf", "-Infinity", "sNaN", "1_0", "\u0661", "' 1'", "''", "on"):
        assert said(take, f"word {word}") == "usage: word N"
    assert said(take, "word -15e-1") == [kind("-15e-1")]


def test_a_signature_that_words_cannot_fill_is_refused_when_the_ctl_is_made() -> None:
    def keyword(*, n: int) -> None: ...

    def keywords(**n: int) -> None: ...

    def late(n: int = 1, who: Principal = ROOT) -> None: ...

    for f in (keyword, keywords, late):
        with pytest.raises(TypeError, match="ctl word 'word', parameter"):
            Ctl({"word": f})


def test_of_a_long_wrong_word_little_is_kept() -> None:
    ctl, who = Ctl({"go": lambda: None}), Principal("ann", 1000)
    handle = ctl.open(Open(who, write=True))
    assert isinstance(handle, Handle)
    with pytest.raises(NineError):
        handle.write(0, memoryview(b"A" * 1_000_000))
    assert len(ctl.errors["ann"]) <= 1024
    assert len(bytes(handle.read(0, 1 << 20))) <= 2048  # type: ignore[arg-type]
