"""Patterns in paths: `*`, `?` and `[…]` stand for names of the tree (glob(7)). A shell's own patterns see only this machine's files.

A path that exists is taken as it is, whatever characters it has. A directory that does not answer within `PATIENCE` is reported, and holds up no
other.
"""

import errno
import re
from collections.abc import Sequence
from fnmatch import translate
from functools import partial
from typing import Final

from mk9p.client import Client, requests
from mk9p.client.client import split
from mk9p.clients.links import resolved
from mk9p.clients.listing import PATIENCE, entries
from mk9p.errors import NineError

_MAGIC: Final = re.compile(r"[*?[]")


async def expanded(client: Client, paths: Sequence[str]) -> tuple[list[str], list[NineError]]:
    """Return the paths that some paths and patterns stand for, in order of names, and what went wrong on the way: each error names its path."""
    found: list[str] = []
    wrong: list[NineError] = []
    for path in paths:
        if not _MAGIC.search(path) or await _there(client, path):
            found.append(path)
            continue
        matches, failures = await _matches(client, path)
        found += matches
        wrong += failures
        if not matches and not failures:
            wrong.append(_about(path, NineError(errno.ENOENT, "no name in the tree fits this pattern")))
    return found, wrong


async def _matches(client: Client, pattern: str) -> tuple[list[str], list[NineError]]:
    """Return the paths that fit a pattern, and what could not be listed."""
    top = "/" if pattern.startswith("/") else ""
    found, wrong = [top], list[NineError]()
    unsure = False
    for part in split(pattern):
        if not _MAGIC.search(part):
            found = [_join(path, part) for path in found]
            unsure = True
            continue
        fits = re.compile(translate(part)).match
        deeper: list[str] = []
        for path in found:
            try:
                names = await client.connection.within(PATIENCE, partial(_names, client, path))
            except NineError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    wrong.append(_about(path, error))
                continue
            deeper += [_join(path, name) for name in names if fits(name) and (name[0] != "." or part[0] == ".")]
        found, unsure = deeper, False
    return [path for path in found if not unsure or await _there(client, path)], wrong


async def _names(client: Client, path: str) -> list[str]:
    return [entry.name for entry in await entries(client, await resolved(client, path))]


async def _there(client: Client, path: str) -> bool:
    """Tell whether a path leads to a file; a file that cannot be reached now is there too: using it says why not."""
    c = client.connection

    async def look() -> bool:
        try:
            fid, _ = await requests.walk(c, client.root, split(path))
        except NineError as error:
            return error.errno not in (errno.ENOENT, errno.ENOTDIR)
        c.clunk_nowait(fid)
        return True

    try:
        return await c.within(PATIENCE, look)
    except TimeoutError:
        return True


def _join(path: str, name: str) -> str:
    return f"{path}{name}" if path in ("", "/") else f"{path}/{name}"


def _about(path: str, error: NineError) -> NineError:
    error.filename = path or "/"
    return error
