"""Directories and files as lines for people, and as JSON for scripts.

What people read is escaped, also where it goes to no terminal: it reaches one by a pager, a log, a colleague's screen. JSON has names as they are.
A listing needs no status of what is listed, so a kernel that does not answer is listed with the others; where its status is wanted too, it is waited
for as long as `PATIENCE`, beside the others, and shown with question marks.
"""

import errno
import json
import stat as st
import sys
import time
from collections import deque
from typing import Any, Final

import attrs
import trio

from mk9p.client import Client, requests
from mk9p.client.client import split
from mk9p.errors import NineError
from mk9p.status import group_name, user_name
from mk9p.stdio import printable
from mk9p.tree import Stat
from mk9p.wire import QTDIR, QTSYMLINK, Qid

PATIENCE: Final = 2.0  # seconds for the status of one file: an emulated kernel on a busy machine takes one
NS: Final = 1_000_000_000
_ASKED: Final = 16  # files whose status is asked for at once


@attrs.frozen
class Entry:
    """What a directory says of a file; `stat` None: it was not asked, or did not tell, and `failure` says why."""

    name: str
    qid: Qid
    stat: Stat | None = None
    failure: OSError | None = None

    @property
    def is_dir(self) -> bool:
        return bool(self.qid.type & QTDIR) if self.stat is None else self.stat.is_dir


async def entries(client: Client, path: str, *, status: bool = False) -> list[Entry]:
    """Return what a directory holds, by name; with `status` that of each too, and then what vanishes meanwhile is left out."""
    c = client.connection
    fid, _ = await requests.walk(c, client.root, split(path))
    try:
        found = [Entry(name, qid, stat) for name, qid, stat in await requests.entries(c, fid)]
        if status:
            found = await _asked(client, fid, found)
    finally:
        c.clunk_nowait(fid)
    return sorted(found, key=lambda entry: entry.name)


async def _asked(client: Client, fid: int, found: list[Entry]) -> list[Entry]:
    c, told = client.connection, [entry for entry in found if entry.stat is not None]
    todo = deque(entry for entry in found if entry.stat is None)

    async def worker() -> None:
        while todo and c.gone is None:
            entry = todo.popleft()
            try:
                with trio.move_on_after(PATIENCE):
                    new, _ = await requests.walk(c, fid, (entry.name,))
                    try:
                        told.append(attrs.evolve(entry, stat=await requests.stat(c, new, entry.name)))
                        continue
                    finally:
                        c.clunk_nowait(new)
                raise silent()
            except (FileNotFoundError, ProcessLookupError):
                continue
            except OSError as error:
                told.append(attrs.evolve(entry, failure=error))

    async with trio.open_nursery() as nursery:
        for _ in range(min(len(todo), _ASKED)):
            nursery.start_soon(worker)
    if c.gone is not None:
        raise c.error()
    return told


def silent() -> NineError:
    """Return the error of one that did not answer within `PATIENCE`."""
    return NineError(errno.ETIMEDOUT, f"no answer within {PATIENCE:g} s")


def line(entry: Entry) -> str:
    """Return a line of `ls -l`: kind and permissions, owner, group, length, time, name; `?` is what is not known."""
    stat = entry.stat
    if stat is None:
        kind = "d" if entry.qid.type & QTDIR else "l" if entry.qid.type & QTSYMLINK else "-"
        return f"{kind}{'?' * 9} {'?':8} {'?':8} {'?':>12} {'?':16} {printable(entry.name)}"
    user, group = stat.user or user_name(stat.uid), stat.group or group_name(stat.gid)
    mode = st.filemode(stat.mode)
    if stat.exclusive:
        mode = mode[:1].replace("-", "l") + mode[1:]
    return (
        f"{mode} {printable(user):8} {printable(group):8} {stat.length:>12} {when(stat.mtime)} {printable(entry.name)}"
    )


def when(ns: int) -> str:
    """Return a time in ns since 1970 by this machine's clock, `2026-11-29 23:00`; one that has no date as `@SECONDS`, as date(1) takes it."""
    seconds = ns // NS
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"@{seconds}"


def as_json(entry: Entry) -> dict[str, Any]:
    """Return what `--json` prints of a file; null is what is not known."""
    told = ("mode", "length", "mtime", "uid", "gid")
    return {
        "name": entry.name,
        "qid": entry.qid._asdict(),
        **{key: None if entry.stat is None else getattr(entry.stat, key) for key in told},
    }


def print_json(value: object) -> None:
    """Print a value as JSON, in ASCII."""
    json.dump(value, sys.stdout, indent=1)
    sys.stdout.write("\n")
