"""`mk9p help [NAME]`: the manual, with a page for each resource server, as in docs/files; without a name, the list of pages and what each is
about.

An installed package has the pages beside this module (pyproject.toml puts them there), a working tree has them in docs/files. A resource server
from elsewhere has its page in its own package: NAME.md beside the module that its entry point names.

On a terminal the user's pager shows them ($MANPAGER, $PAGER, else less), as man(1) does; anywhere else they are plain text.
"""

import errno
import re
import shutil
import sys
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from mk9p.clients.common import out
from mk9p.errors import NineError
from mk9p.loading import available
from mk9p.usage import parsed

WIDEST: Final = 100  # columns: longer lines are hard to read
PLACES: Final = ("manual", "../docs/files")  # beside this module: in an installed package, in a working tree


def pages() -> dict[str, Traversable]:
    """Return the pages by the names of their servers: `dev/block` has the page block.md."""
    servers = available()
    ours = {
        name.rpartition("/")[2]: name for name, entry in servers.items() if entry.module.startswith("mk9p.servers.")
    }
    found: dict[str, Traversable] = {}
    here = next(place for place in (files("mk9p.clients") / name for name in PLACES) if place.is_dir())
    for page in here.iterdir():
        stem, dot, kind = page.name.rpartition(".")
        if dot and kind == "md":
            found[ours.get(stem, stem)] = page
    for name, entry in servers.items():
        own = _folder(entry.module) / f"{name.rpartition('/')[2]}.md"
        if name not in found and own.is_file():
            found[name] = own
    return dict(sorted(found.items()))


def _folder(module: str) -> Path:
    """Return the folder that a module is in: for a package, its own. A module that no longer exists is nowhere."""
    from importlib.util import find_spec

    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        spec = None
    return Path(spec.origin).parent if spec is not None and spec.origin else Path("/nonexistent")


def subjects() -> str:
    """Return a line for each page: its name, and what it is about."""
    found = {
        name: re.search(r"^## NAME\n.*? [-\u2013] (.*)", page.read_text(), re.MULTILINE)
        for name, page in pages().items()
    }
    width = max(map(len, found))
    lines = [f"{name:<{width}}  {subject[1] if subject else ''}".rstrip() for name, subject in found.items()]
    return "\n".join([*lines, "", "`mk9p help NAME` shows a page, `mk9p --help` the commands.", ""])


def page(name: str) -> str:
    """Return the text of a page, by its server's name or the last part of that. Raises ENOENT with similar names."""
    found = pages()
    known = {known.rpartition("/")[2]: known for known in found} | {known: known for known in found}
    if name in known:
        return found[known[name]].read_text()
    from difflib import get_close_matches

    from mk9p.__main__ import COMMANDS

    near = list(dict.fromkeys(known[match] for match in get_close_matches(name, known, cutoff=0.5)))
    hint = f"similar: {' '.join(near)}" if near else "`mk9p help` lists the pages"
    if name in COMMANDS:
        hint = "it is a command: mk9p " + f"{name} {COMMANDS[name][1].partition('   ')[0]}".strip()
    raise NineError(errno.ENOENT, f"no page {name!r}; {hint}")


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p help`."""
    name = parsed(arguments).page
    if name is None:
        show(subjects())
        return 0
    from mk9p.clients.help_text import rendered

    show(rendered(page(name), min(WIDEST, shutil.get_terminal_size().columns)))
    return 0


def show(text: str) -> None:
    """Show a text on the standard output: through the user's pager, if that is a terminal."""
    if sys.stdout.isatty():
        import pydoc

        pydoc.pager(text)
    else:
        out(text.encode())
