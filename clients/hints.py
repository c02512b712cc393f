"""What to say of an error instead of its errno alone: why the mounted server is down, as `mounts` has it, and which kernels there are.

9P2000.L sends no words. Where they came with the error (another dialect, a command's own), nothing is asked.
"""

import errno
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from mk9p.client import Client
from mk9p.client.client import split as names_of
from mk9p.clients.listing import entries
from mk9p.errors import NineError, wording
from mk9p.ktext import split_lines
from mk9p.tree.words import split

SOON: Final = 1.0  # seconds for the hint: the error itself is not held up for long
NO_KERNELS: Final = "this namespace has no kernels/, as `mk9p up` and `mk9p compose --kernels` make it"


async def words(ns: Client, error: NineError, path: str | None = None) -> str:
    """Return what to say of an error that the tree gave for a path, by default for the one that it names."""
    # `mk9p cp` writes a path of the tree as :PATH
    names = names_of((path if path is not None else error.filename or "").removeprefix(":"))
    if ns.connection.gone is None and names and error.strerror == wording(error.errno):
        ask = {errno.EIO: _down, errno.ENOENT: _missing}.get(error.errno)
        if ask is not None:
            with suppress(OSError):
                return await ns.connection.within(SOON, lambda: ask(ns, names)) or error.ename
    return error.ename


async def hinted(ns: Client, error: NineError) -> NineError:
    """Return an error of a path with what to say of it."""
    better = NineError(error.errno, await words(ns, error))
    better.filename, better.filename2 = error.filename, error.filename2
    return better


def no_kernel(name: str, there: Iterable[str]) -> NineError:
    """Return the ENOENT that names the existing kernels."""
    return NineError(errno.ENOENT, f"no kernel {name}; there are: {' '.join(sorted(there)) or 'none'}")


async def _down(ns: Client, names: tuple[str, ...]) -> str:
    """Return the error of a path with why the server at the longest mount point above it is down; "" if it is not."""
    said, least = "", -1
    for line in split_lines(await ns.read("mounts")):
        at, _, state, _, reason, *_ = [*split(line), "", "", "", "", ""]
        point = names_of(at)
        if names[: len(point)] == point and len(point) > least:
            least = len(point)
            why = f"{wording(errno.EIO)}: {'/'.join(point) or '/'} is down: {reason}"
            said = why if state == "down" and reason else ""
    return said


async def _missing(ns: Client, names: tuple[str, ...]) -> str:
    """Return which kernels there are, if a path begins with one that does not exist."""
    there = [entry.name for entry in await entries(ns, "k")] if names[0] == "k" and len(names) > 1 else []
    return "" if not there or names[1] in there else no_kernel(names[1], there).ename
