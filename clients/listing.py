"""Directories and files as lines for people, and as JSON for scripts.

Output for people is escaped, also where it goes to no terminal: it reaches one later by a pager, a log, a colleague's screen. JSON has names as
they are. A listing needs no status of its files, so it shows a kernel that does not answer with the others. Where the status is needed too, the
command waits `PATIENCE` for it, for all files at once, and then shows question marks.
"""

import errno
import stat as st
import sys
import time
from collections import deque
from typing import Any, Final, NamedTuple

from mk9p.client import Client, requests
from mk9p.client.client import split
from mk9p.errors import NineError
from mk9p.status import Stat, group_name, user_name
from mk9p.stdio import printable
from mk9p.wire import QTDIR, QTSYMLINK, Qid

PATIENCE: Final = 2.0  # seconds for the status of one file: an emulated kernel on a busy machine takes one
NS: Final = 1_000_000_000
_ASKED: Final = 16  # files whose status it asks for at once


class Entry(NamedTuple):
    """What a directory says of a file. `stat` None: nobody asked, or there was no answer, and `failure` says why."""

    name: str
    qid: Qid
    stat: Stat | None = None
    failure: OSError | None = None

    @property
    def is_dir(self) -> bool:
        return bool(self.qid.type & QTDIR) if self.stat is None else self.stat.is_dir


async def entries(client: Client, path: str, *, status: bool = False) -> list[Entry]:
    """Return the entries of a directory, by name; with `status` also the status of each, without those that vanish meanwhile. Raises ENOTDIR."""
    c = client.connection
    fid, qids = await requests.walk(c, client.root, split(path))
    try:
        if not (qids[-1] if qids else client.qid).type & QTDIR:
            raise NineError(errno.ENOTDIR)
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
                stat = await c.within(PATIENCE, lambda: _stat(client, fid, entry.name))  # noqa: B023  # it is over then
                told.append(entry._replace(stat=stat))
            except (FileNotFoundError, ProcessLookupError):
                continue
            except OSError as error:
                told.append(entry._replace(failure=error))

    await c.side_by_side(min(len(todo), _ASKED), worker)
    if c.gone is not None:
        raise c.error()
    return told


async def _stat(client: Client, fid: int, name: str) -> Stat:
    new, _ = await requests.walk(client.connection, fid, (name,))
    try:
        return await requests.stat(client.connection, new, name)
    finally:
        client.connection.clunk_nowait(new)


def silent() -> NineError:
    """Return the error of a file that did not answer within `PATIENCE`."""
    return NineError(errno.ETIMEDOUT, f"no answer within {PATIENCE:g} s")


def line(entry: Entry) -> str:
    """Return a line of `ls -l`: kind and permissions, owner, group, length, time, name; `?` for what is not known."""
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
    """Return a time in ns since 1970 by this machine's clock, `2026-11-29 23:00`; a time without a date as `@SECONDS`, as date(1) takes it."""
    seconds = ns // NS
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"@{seconds}"


def as_json(entry: Entry) -> dict[str, Any]:
    """Return what `--json` prints of a file; null for what is not known.

    What has 64 bits is a string: many programs read numbers of JSON as floating point, which is exact up to 2**53 alone.
    """
    stat = entry.stat
    return {
        "name": entry.name,
        "qid": {"type": entry.qid.type, "version": entry.qid.version, "path": str(entry.qid.path)},
        "mode": stat and stat.mode,
        "length": stat and str(stat.length),
        "mtime": stat and str(stat.mtime),
        "uid": stat and stat.uid,
        "gid": stat and stat.gid,
    }


def print_json(value: object) -> None:
    """Print a value as JSON, in ASCII."""
    import json

    json.dump(value, sys.stdout, indent=1)
    sys.stdout.write("\n")
