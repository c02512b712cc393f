"""`mk9p export [-P PATTERNS] DIR DIAL`: a directory of this machine, or a part of it, as exportfs(4) serves it.

What `mk9p serve fs:DIR` has at `fs/NAME` is here the root. PATTERNS is a file as that of exportfs(4): a regular expression a line, after `+` or `-`.
A file is exported if its path from DIR, which begins with a slash, matches all of the first and none of the others. `#` begins a comment. What is
left out is not there, and cannot be made: a directory that is left out hides everything below it.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from mk9p.authority.guard import Guard
from mk9p.authority.patterns import Patterns
from mk9p.dial.keys import tell
from mk9p.loading import available
from mk9p.serving import keys_of, one_error, serve_tree, start_logging
from mk9p.tree import Node
from mk9p.usage import parsed


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p export`."""
    chosen = parsed(arguments)
    start_logging(chosen.verbose)
    tell(keys_of(chosen))

    async def work() -> None:
        async with exported(chosen.dir, chosen.patterns) as tree:
            await serve_tree(tree, [chosen.dial], trust=chosen.trust, readonly=chosen.readonly)

    one_error(work)
    return 0


@asynccontextmanager
async def exported(directory: str, patterns: str | None) -> AsyncIterator[Node]:
    """Give the tree of a directory, without what the patterns of a file leave out. Raises what is wrong with either."""
    chosen = read(patterns) if patterns is not None else None
    async with available()["fs"].load()(directory) as tree:
        yield tree if chosen is None else Guard(tree, "", chosen)


def read(file: str) -> Patterns:
    """Read a file of patterns. Raises EINVAL with the number of a line that is none."""
    with open(file, encoding="utf-8", errors="surrogateescape") as opened:
        return Patterns.parse(opened.read(), file)
