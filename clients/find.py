"""`mk9p find`: the paths of a tree below some directories, as find(1) lists them: by name, by kind, to a depth.

Each path comes as soon as it is found, and links are not followed. A directory that cannot be listed, or does not answer within `PATIENCE`, is
reported, and holds up no other.
"""

import argparse
import json
import re
from collections.abc import Sequence
from fnmatch import translate
from functools import partial
from typing import Final

from mk9p.client import Client
from mk9p.clients.common import in_namespace, say
from mk9p.clients.globs import expanded
from mk9p.clients.hints import words
from mk9p.clients.links import resolved
from mk9p.clients.listing import PATIENCE, Entry, entries
from mk9p.errors import NineError
from mk9p.stdio import printable
from mk9p.usage import parsed
from mk9p.wire import QTDIR, QTSYMLINK

KINDS: Final = {"d": QTDIR, "l": QTSYMLINK, "f": 0}


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p find`."""
    chosen = parsed(arguments)
    return in_namespace(lambda ns: find(ns, chosen))


async def find(ns: Client, chosen: argparse.Namespace) -> int:
    """Print what is found; return the exit status, which is 1 if something could not be listed."""
    tops, wrong = await expanded(ns, chosen.paths)
    for error in wrong:
        say(f"{error.filename}: {await words(ns, error)}")
    status = 1 if wrong else 0
    fits = re.compile(translate(chosen.name)).match if chosen.name else None

    def told(path: str, name: str, kind: int) -> None:
        if (fits is None or fits(name)) and (chosen.type is None or kind & (QTDIR | QTSYMLINK) == KINDS[chosen.type]):
            if chosen.json:
                print(
                    json.dumps(
                        {
                            "path": path,
                            "type": next(each for each in KINDS if KINDS[each] == kind & (QTDIR | QTSYMLINK)),
                        }
                    ),
                    flush=True,
                )
            else:
                print(printable(path), end="\0" if chosen.zero else "\n", flush=True)

    for top in tops:
        try:
            qids = await ns.walk(await resolved(ns, top))
        except NineError as error:
            say(f"{top}: {await words(ns, error, top)}")
            status = 1
            continue
        kind = (qids[-1] if qids else ns.qid).type
        told(top, top.rstrip("/").rpartition("/")[2] or "/", kind)
        todo = [(top, 1)] if kind & QTDIR else []
        while todo:
            path, depth = todo.pop()
            if chosen.depth is not None and depth > chosen.depth:
                continue
            below: list[Entry] = []
            try:
                below = await ns.connection.within(PATIENCE, partial(_listed, ns, path))
            except FileNotFoundError:
                continue  # gone meanwhile
            except NineError as error:
                say(f"{path}: {await words(ns, error, path)}")
                status = 1
            deeper = []
            for entry in below:
                found = f"{path.rstrip('/')}/{entry.name}"
                told(found, entry.name, entry.qid.type)
                if entry.is_dir:
                    deeper.append((found, depth + 1))
            todo += reversed(deeper)
    return status


async def _listed(ns: Client, path: str) -> list[Entry]:
    return await entries(ns, await resolved(ns, path))
