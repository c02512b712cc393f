"""The one door for figures and words that a server's files have as text: they may be anything, and as long as it likes."""

import errno
import re
from typing import TYPE_CHECKING, Final

from mk9p.errors import NineError
from mk9p.tree.words import split

if TYPE_CHECKING:
    from mk9p.client import Client

MOST: Final = 8 << 20  # bytes of a text: a line of eighty for each of 100,000 processes
_PIECE: Final = 1 << 18

_WHOLE: Final = re.compile(r"\d{1,20}", re.ASCII)  # what has 64 bits has no more digits


async def text_of(ns: "Client", path: str) -> str:
    """Return the text of a file. Raises as `Client.read`, and EFBIG for one that is longer than any that has an end."""
    parts: list[bytes] = []
    at = 0
    async with await ns.open(path) as file:
        while data := await file.pread(_PIECE, at):
            parts.append(data)
            at += len(data)
            if at > MOST:
                error = NineError(errno.EFBIG, f"more than {MOST} bytes")
                error.filename = path
                raise error
    return b"".join(parts).decode(errors="surrogateescape")


def figure(text: str | None) -> int | None:
    """Return the whole number that a text is, 0 or more; None for any other text."""
    return int(text) if text is not None and _WHOLE.fullmatch(text) else None


def words_of(line: str) -> list[str]:
    """Return the words of a line; none if its quotes do not end."""
    try:
        return split(line)
    except NineError:
        return []
