"""`Pattern`: `*` for any letters, `?` for one, `[a-z]` for one of some, `[!a-z]` for one that is none of them, as in a shell's patterns.

What it takes to read one and to compare it goes by its length, whatever it says: it may be a stranger's. A regular expression takes thousands of
times as long to be made.
"""

from collections.abc import Sequence

import attrs

__all__ = ["Pattern"]


@attrs.frozen
class _Set:
    """One letter, of these ranges or of none of them."""

    ranges: tuple[tuple[str, str], ...]
    others: bool

    def has(self, letter: str) -> bool:
        return self.others != any(low <= letter <= high for low, high in self.ranges)


# letters as they are, or for each letter what it may be: itself, a set, or `?`
_Piece = str | tuple[str | _Set, ...]


@attrs.frozen(init=False)
class Pattern:
    """A pattern for a whole word."""

    _pieces: Sequence[_Piece]

    def __init__(self, text: str) -> None:
        plain = "[" not in text and "?" not in text
        self.__attrs_init__(text.split("*") if plain else _pieces(text))

    def matches(self, word: str) -> bool:
        """Tell whether a word is as the pattern says."""
        first, *rest = self._pieces
        at = len(first)
        if not _is_at(first, word, 0):
            return False
        if not rest:
            return at == len(word)
        *middle, last = rest
        for piece in middle:
            at = _end(piece, word, at)
            if at < 0:
                return False
        end = len(word) - len(last)
        return end >= at and _is_at(last, word, end)


def _pieces(text: str) -> list[_Piece]:
    """Return what is between the stars of a pattern."""
    pieces: list[_Piece] = []
    piece: list[str | _Set] = []
    at = 0
    while at < len(text):
        letter = text[at]
        at += 1
        if letter == "*":
            pieces.append(tuple(piece))
            piece = []
            continue
        # a bracket that follows at once is one of the set; without another one there is no set
        close = text.find("]", at + 1 + text.startswith("!", at)) if letter == "[" else -1
        if close < 0:
            piece.append(letter)
            continue
        piece.append(_set(text[at:close]))
        at = close + 1
    return [*pieces, tuple(piece)]


def _set(inside: str) -> _Set:
    others = inside.startswith("!")
    inside = inside[others:]
    ranges, at = [], 0
    while at < len(inside):
        wide = inside[at + 1 : at + 2] == "-" and at + 2 < len(inside)
        ranges.append((inside[at], inside[at + 2 * wide]))
        at += 1 + 2 * wide
    return _Set(tuple(ranges), others)


def _is_at(piece: _Piece, word: str, at: int) -> bool:
    if isinstance(piece, str):
        return word.startswith(piece, at)
    if at + len(piece) > len(word):
        return False
    for one in piece:
        letter = word[at]
        if not (one in ("?", letter) if isinstance(one, str) else one.has(letter)):
            return False
        at += 1
    return True


def _end(piece: _Piece, word: str, at: int) -> int:
    """Return where a piece ends that begins at a place or behind it, as early as can be; -1 if it is not there."""
    if isinstance(piece, str):
        found = word.find(piece, at)
        return found if found < 0 else found + len(piece)
    while at + len(piece) <= len(word):
        if _is_at(piece, word, at):
            return at + len(piece)
        at += 1
    return -1
