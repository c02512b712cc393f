"""Tables on a terminal: the names of their columns above them, as the manual has them, and the columns below each other.

A pipe or a file gets the very bytes, so nothing needs to know of this. On a terminal a table is shown with more blanks, and one that waits for what
comes (events) has its names above and its lines as they are. What is not in the manual, or no table there, is shown as it is.
"""

import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Final

from mk9p.client import Client, File
from mk9p.clients.common import out, pieces
from mk9p.clients.explain import columns
from mk9p.clients.figures import text_of
from mk9p.ktext import split_lines
from mk9p.stdio import coloured
from mk9p.tree.words import split

MOST: Final = 1 << 20  # bytes of a table that is shown in columns; of a longer one nobody reads the beginning
_WORDS: Final = re.compile(r"(?:'(?:[^']|'')*'|[^ '])+")


def aligned(names: Sequence[str], text: str) -> str:
    """Return a table with its columns below each other, the names above. A line may have more words than there are names: they stay at its end."""
    rows = [_WORDS.findall(line) for line in split_lines(text)]
    widths = [max(len(row[i]) for row in (names, *rows) if i < len(row)) for i in range(len(names))]
    lines = (
        "  ".join([*(f"{word:<{wide}}" for word, wide in zip(row, widths, strict=False)), *row[len(names) :]]).rstrip()
        for row in (names, *rows)
    )
    head, *body = lines
    return "\n".join([f"\x1b[1m{head}\x1b[m" if coloured(sys.stdout) else head, *body]) + "\n"


async def print_table(ns: Client, path: str, *, as_json: bool) -> int:
    """Print a table of the namespace as `cat` does, or as JSON: a list of objects by the names of the columns, all values as text."""
    if as_json:
        names = [name.lower() for name in columns(path).names]
        rows = [dict(zip(names, split(line), strict=False)) for line in split_lines(await text_of(ns, path))]
        out(json.dumps(rows).encode() + b"\n")
        return 0
    async with await ns.open(path) as file:
        if os.isatty(1):
            await show(file, path)
        else:
            async for data in pieces(file):
                out(data)
    return 0


async def show(file: File, path: str) -> None:
    """Print what is in an open file, as a table if it is one. Raises what reading raises, after what has come."""
    table = columns(path)
    names = table.names
    if table.wait:
        out(aligned(names, "").encode())
        names = ()
    kept = b""
    try:
        async for data in pieces(file):
            if names and len(kept) + len(data) <= MOST:
                kept += data
            else:
                out(kept + data)
                names, kept = (), b""
    finally:
        try:
            text = kept.decode() if kept.endswith(b"\n") else ""
        except UnicodeDecodeError:
            text = ""
        out(aligned(names, text).encode() if text else kept)
