"""A page of the manual as text for a terminal: it fills paragraphs, keeps examples as they are, and gives tables columns.

Of Markdown it knows what the pages use: headings, paragraphs, list items, tables, fenced code, bold and links. Code keeps its quotes, because
without them nobody would see where a word of a ctl ends. It is not broken over lines if possible.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from textwrap import TextWrapper
from typing import Final

_MARKS: Final = ("- ", "|", "```", "#")  # what begins a block without an empty line before it
_WHOLE: Final = 40  # characters of code to keep on one line
_HARD: Final = "\0"  # a blank at which no line is broken


def rendered(text: str, width: int) -> str:
    """Return a page as text for a terminal of this many columns."""
    return "\n".join(_blocks(text.splitlines(), width)).strip("\n").replace(_HARD, " ") + "\n"


def _blocks(lines: Sequence[str], width: int) -> Iterator[str]:
    at = 0
    while at < len(lines):
        start = at
        line, at = lines[at], at + 1
        if line.startswith("```"):
            at = _end(lines, at, lambda each: each.startswith("```")) + 1
            yield from [*(f"        {each}".rstrip() for each in lines[start + 1 : at - 1]), ""]
        elif line.startswith("|"):
            at = _end(lines, at, lambda each: not each.startswith("|"))
            yield from [*_table(lines[start:at], width), ""]
        elif line.startswith("## "):
            yield line[3:]
        elif line.startswith("### "):
            yield f"  {line[4:]}"
        elif line.strip() and not line.startswith("#"):
            at = _end(lines, at, lambda each: not each.strip() or each.startswith(_MARKS))
            yield from _paragraph(" ".join(lines[start:at]), width)
            if at == len(lines) or not lines[at].startswith("- "):
                yield ""


def _end(lines: Sequence[str], at: int, over: Callable[[str], bool]) -> int:
    while at < len(lines) and not over(lines[at]):
        at += 1
    return at


def _paragraph(text: str, width: int) -> list[str]:
    text = _plain(text)
    if text.startswith("- "):
        return _filled(text[2:], width, "    - ", "      ")
    return _filled(text, width, "    ", "    ")


def _plain(text: str) -> str:
    """Return text without what only Markdown needs."""
    text = re.sub(r"\[([^]`]+)\]\([^)\s]*\)", r"\1", " ".join(text.split()))
    text = re.sub(r"\*\*(.*?)\*\*", r"\1", text).replace("\\|", "|")
    return re.sub(r"`[^`]+`", lambda code: code[0].replace(" ", _HARD) if len(code[0]) <= _WHOLE else code[0], text)


def _filled(text: str, width: int, first: str, rest: str) -> list[str]:
    """Return a text in lines of at most `width` columns; a line is longer only for a longer word."""
    wrapper = TextWrapper(width, first, rest, break_long_words=False, break_on_hyphens=False)
    return wrapper.wrap(text) or [first.rstrip()]


def _table(lines: Sequence[str], width: int) -> Iterator[str]:
    """Yield a table in columns as wide as their longest cells; where these leave no room, the last cell comes below the others."""
    rows = [[_plain(cell) for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))] for line in lines]
    head, _, *body = rows
    widths = [max(len(cell) for cell in column) for column in list(zip(head, *body, strict=False))[:-1]]
    below = 4 + sum(widths) + 2 * len(widths) > width // 2
    for row in body if below or not any(head) else [head, *body]:
        first = "    " + "".join(f"{cell:<{wide}}  " for cell, wide in zip(row[:-1], widths, strict=False))
        if below:
            yield from _filled("  ".join(row[:-1]), width, "    ", "    ")
            yield from _filled(row[-1], width, "        ", "        ")
        else:
            yield from _filled(row[-1], width, first, " " * len(first))
