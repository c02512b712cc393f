"""What a parameter of a command takes: the kind that its annotation says, how a word becomes a value of it, and how usage shows it.

It understands `str`, `int`, `float`, `bool`, `Literal`, an `Enum`, any of these `| None` (then a client may leave the word out), a number with units
(`Annotated[int, SIZE]`, units.py), and a class or function that takes one word and raises ValueError for a wrong one. It refuses everything else when
the command is described, because no word could be checked against it: `list("abc")` takes any text and means nothing.
"""

import enum
import inspect
import math
import numbers
import re
import types
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import attrs

from mk9p.tree.units import Units

_INT: Final = re.compile(r"[+-]?[0-9]+")
_FLOAT: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NUMBER: Final = re.compile(r"[-+0-9.eE/()jJ]+")  # the characters of Decimal, Fraction and complex
_BOOL: Final = {"on": True, "off": False, "yes": True, "no": False, "true": True, "false": False, "1": True, "0": False}
_KNOWN: Final = (
    "str, int, float, bool, Literal, an Enum, one of these | None, or what takes one word and raises ValueError"
)


@attrs.frozen
class Kind:
    """How a word becomes a value: `convert` raises ValueError for a wrong word. `shown` is for usage; if it is empty, the parameter's name is
    shown, and then `unit`."""

    convert: Callable[[str], Any]
    shown: str = ""
    optional: bool = False
    unit: str = ""


def kind(annotation: Any) -> Kind:
    """Return the kind that an annotation says; raises TypeError for an annotation that no word can be checked against."""
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [a for a in get_args(annotation) if a is not types.NoneType]
        if len(rest) != 1:
            raise TypeError(f"{annotation} says several kinds, and a word could be any of them; want {_KNOWN}")
        return attrs.evolve(kind(rest[0]), optional=True)
    if get_origin(annotation) is Annotated:
        number, *notes = get_args(annotation)
        units = next((note for note in notes if isinstance(note, Units)), None)
        if units is None:
            return kind(number)
        if number not in (int, float):
            raise TypeError(f"{annotation} has units, and is no int or float")
        return Kind(units.convert(number), unit=units.shown)
    if annotation in (inspect.Parameter.empty, str):
        return Kind(str)
    if annotation is bool:
        return Kind(_bool, "on|off")
    if annotation is int:
        return Kind(_int)
    if annotation is float:
        return Kind(_float)
    if get_origin(annotation) is Literal:
        return _choice({str(value): value for value in get_args(annotation)})
    if isinstance(annotation, enum.EnumMeta):
        members: Iterable[Any] = annotation
        return _choice({m.value if isinstance(m.value, str) else m.name: m for m in members})
    if not _takes_a_word(annotation):
        raise TypeError(f"{annotation} says nothing that a word can be checked against; want {_KNOWN}")
    return Kind(_finite(annotation) if _is_number(annotation) else annotation)


def _takes_a_word(annotation: Any) -> bool:
    if get_origin(annotation) is not None or not callable(annotation) or annotation in (object, type, Any):
        return False
    if isinstance(annotation, type) and issubclass(annotation, Iterable) and not issubclass(annotation, str):
        return _made_of_text(annotation)
    try:
        inspect.signature(annotation).bind("")
    except TypeError:
        return False
    except ValueError:  # written in C, without a signature
        return not isinstance(annotation, type) or _made_of_a_word(annotation)
    return True


def _made_of_a_word(annotation: type) -> bool:
    """Tell whether one word makes an object of a class, by trying it: it may refuse this word."""
    try:
        annotation("")
    except TypeError:
        return False
    except (ValueError, ArithmeticError):
        return True
    return True


def _is_number(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, numbers.Number)


def _finite(number: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a function that makes a number of a word, and refuses `nan`, `inf`, blanks, underscores and the digits of other scripts."""

    def convert(word: str) -> Any:
        if not _NUMBER.fullmatch(word):
            raise ValueError(word)
        value = number(word)
        if value - value != 0:  # inf, made of 1e999
            raise ValueError(word)
        return value

    return convert


def _made_of_text(container: type) -> bool:
    """Tell whether a class that can be iterated over is more than a container of any letters: a network of addresses is more."""
    return container.__module__ not in ("builtins", "collections", "array")


def _choice(values: dict[str, Any]) -> Kind:
    if not values:
        raise TypeError("an Enum without members leaves no choice")

    def convert(word: str) -> Any:
        if word not in values:
            raise ValueError(word)
        return values[word]

    return Kind(convert, "|".join(values))


def _bool(word: str) -> bool:
    value = _BOOL.get(word.lower())
    if value is None:
        raise ValueError(word)
    return value


def _int(word: str) -> int:
    if not _INT.fullmatch(word):  # int() also takes blanks, underscores and the digits of all scripts
        raise ValueError(word)
    return int(word)


def _float(word: str) -> float:
    if not _FLOAT.fullmatch(word) or not math.isfinite(value := float(word)):
        raise ValueError(word)
    return value
