"""The one door for figures and words that a server's files have as text: they may be anything, and as long as it likes."""

import re
from typing import Final

from mk9p.errors import NineError
from mk9p.tree.words import split

_WHOLE: Final = re.compile(r"\d{1,20}", re.ASCII)  # what has 64 bits has no more digits


def figure(text: str | None) -> int | None:
    """Return the whole number that a text is, 0 or more; None for any other text."""
    return int(text) if text is not None and _WHOLE.fullmatch(text) else None


def words_of(line: str) -> list[str]:
    """Return the words of a line; none if its quotes do not end."""
    try:
        return split(line)
    except NineError:
        return []
