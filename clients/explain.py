"""`mk9p explain PATH`: what the manual says of a file: the paragraphs of its page that describe it, with the names of its columns or keys.

A path is looked up by its text, so it need not exist, and no server is asked: /k/NAME and a mount's directory before it are left out.
"""

import errno
import re
import shutil
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from mk9p.clients.help import WIDEST, pages, show
from mk9p.clients.help_text import rendered
from mk9p.errors import NineError
from mk9p.page import Page, Shown, begins
from mk9p.usage import parsed

TOPS: Final = ("host", "compose")
"""Pages whose trees stand at the top: of a kernel's tree, of the namespace."""
# The first code after a file's name tells the columns, if a line for each of something, or one line, is said to have them.
_COLUMNS: Final = re.compile(
    r"(?:`[^`]+`(?:, and |, or |, | and | or )?)+[^`]*(?:a line for each(?! value\b)|(?<!on )one line\b)[^`]*[:,] `([^`]+ [^`]+)`"
)
_EVENTS: Final = re.compile(r"`(SEQ TIME_NS (?!lost )[^`]+)`")
_WAITS: Final = re.compile(r"\ba read waits for the next\b", re.IGNORECASE)
_TOP: Final = re.compile(r"^## SYNOPSIS\n```\n(?:mk9p .*\n|\n)*([^\s]+)/$", re.MULTILINE)


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p explain`."""
    show(explained(parsed(arguments).path, min(WIDEST, shutil.get_terminal_size().columns)))
    return 0


def explained(path: str, width: int) -> str:
    """Return what the manual says of a path, for a terminal of this width. Raises ENOENT if no page has it.

    Nothing tells whether a path such as /ctl begins in a namespace or in a kernel's tree: then both are explained.
    """
    texts = []
    for name, whole, shown in found(path):
        said = "\n\n".join(told(whole, shown)) or whole.sections["SYNOPSIS"]
        head = f"{name}: {str(shown) + ('/' if shown.directory else '')}\n\n"
        texts.append(head + rendered(said, width) + f"\nFrom `mk9p help {name}`.\n")
    return "\n".join(texts)


@attrs.frozen
class Columns:
    """The names of the columns of a table, none where there is no table, and whether a reader waits for its next line."""

    names: tuple[str, ...] = ()
    wait: bool = False


def columns(path: str) -> Columns:
    """Return the columns of the file at a path, as the manual has them."""
    try:
        (first, *others) = [columns_of(whole, shown) for _, whole, shown in found(path)]
    except NineError:
        return Columns()
    return first if all(other == first for other in others) else Columns()


def columns_of(whole: Page, shown: Shown) -> Columns:
    """Return the columns of a file of a page."""
    for block in told(whole, shown):
        if shown not in map(whole.named, begins(block)):
            continue
        text = " ".join(block.split())
        if events := _EVENTS.findall(text):
            return Columns(tuple((events[0] if len(events) == 1 else "SEQ TIME_NS WHAT ARGS…").split()), wait=True)
        if (hit := _COLUMNS.match(text)) is not None:
            return Columns(tuple(hit[1].replace("'", "").split()), wait=_WAITS.search(text) is not None)
    return Columns()


def found(path: str) -> list[tuple[str, Page, Shown]]:
    """Return the pages that describe a path, their names, and which of their files it is. Raises ENOENT."""
    names = tuple(name for name in path.split("/") if name and name != ".")
    if "all" in names[:-2]:  # all/PART/KERNEL.NAME is the NAME of a kernel's PART
        at = names.index("all")
        names = (names[at + 1], names[at + 2].partition(".")[2], *names[at + 3 :])
    texts = {name: found.read_text() for name, found in pages().items()}
    known = {name: Page.parse(text) for name, text in texts.items() if name not in TOPS and _may(text, names)}
    for start in range(len(names)):
        for name, whole in known.items():
            if (hit := _in(whole, names[start:])) is not None:
                return [(name, whole, hit)]
    known = {name: Page.parse(texts[name]) for name in TOPS}
    for start in range(len(names)):
        # the top of a kernel's tree is at the beginning, or below k/NAME; that of a namespace may be mounted anywhere
        tops = ["host"] if start == 0 or names[:start][-2:-1] == ("k",) else []
        tops += ["compose"] if start == 0 or path.startswith("/") else []
        hits = [(name, known[name], hit) for name in tops if (hit := _in(known[name], names[start:])) is not None]
        if hits := [each for each in hits if each[2].name != "…"]:
            return hits
    raise NineError(errno.ENOENT, f"no page of the manual has {path!r}; `mk9p help` lists the pages")


def _may(text: str, names: tuple[str, ...]) -> bool:
    """Tell whether a page may have a path, by the directory that its tree begins with: to read a page takes long."""
    top = _TOP.search(text)
    return top is None or set(top[1].split("/")) <= set(names)


def _in(whole: Page, names: tuple[str, ...]) -> Shown | None:
    """Return which file of a page has a path; None if none has."""
    top = tuple(whole.top.split("/")) if whole.top else ()
    if names[: len(top)] != top:
        return None
    if names == top:
        return Shown((top,), directory=True)
    for directory in (False, True):
        if (hit := whole.find(names[len(top) :], {}, directory=directory)) is not None:
            return hit[0]
    for one in whole.shown:  # what is below `…` is somebody's own
        for path in one.paths if one.name == "…" else ():
            below = names[len(top) : len(top) + len(path)]
            if len(names) > len(top) + len(path) and whole.find(below, {}, directory=True) is not None:
                return one
    return None


def told(whole: Page, shown: Shown) -> Iterator[str]:
    """Yield the blocks of DESCRIPTION that describe a file: from the sentence that begins with its name up to that of another file."""
    telling = False
    for block in _blocks(whole.sections["DESCRIPTION"]):
        named = [one for name in begins(block) if (one := whole.named(name)) is not None]
        if named:
            telling = shown in named
        elif block.startswith("### "):
            telling = False
        if telling:
            yield block


def _blocks(text: str) -> Iterator[str]:
    """Yield the paragraphs of a text; what is fenced stays in one piece."""
    block: list[str] = []
    fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        if line.startswith("### ") and not fenced:
            yield line
        elif line.strip() or fenced:
            block.append(line)
        elif block:
            yield "\n".join(block)
            block = []
    if block:
        yield "\n".join(block)
