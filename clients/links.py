"""Symbolic links of a tree. A server shows them as files with a text (readlink(2)), and a client follows them, in the tree that it attached to.

A target that begins with a slash begins at the root of that tree: names of the machine where the link is mean nothing here.
"""

import errno
import posixpath
from typing import Final

from mk9p.client import Client, requests
from mk9p.client.client import split
from mk9p.errors import NineError
from mk9p.wire import QTSYMLINK

MOST: Final = 40  # links on one path, as in Linux (MAXSYMLINKS)
# what servers say of a name below a link
_AGAIN: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.EIO)


async def resolved(client: Client, path: str, *, last: bool = True) -> str:
    """Return a path that leads to the same file without links; without `last`, a link at its end stays.

    Raises as `Client.walk` does, ELOOP for links without an end. A file that does not exist has no links: its names stay as they are.
    """
    names = split(path)
    if ".." not in names:
        try:
            fid, qids = await requests.walk(client.connection, client.root, names)
        except NineError as error:
            if error.errno not in _AGAIN:
                raise
        else:
            client.connection.clunk_nowait(fid)
            looked = qids if last else qids[:-1]
            if not any(qid.type & QTSYMLINK for qid in looked):
                return path
    return await _step_by_step(client, list(names), last=last)


async def _step_by_step(client: Client, todo: list[str], *, last: bool) -> str:
    done: list[str] = []
    links = 0
    while todo:
        name = todo.pop(0)
        if name == "..":  # the finished part has no link, so the parent is the name before
            del done[-1:]
            continue
        target = await _target(client, (*done, name)) if todo or last else None
        if target is None:
            done.append(name)
            continue
        links += 1
        if links > MOST:
            raise NineError(errno.ELOOP)
        if target.startswith("/"):
            done.clear()
        todo[:0] = split(target)
    return "/".join(done) or "/"


async def _target(client: Client, names: tuple[str, ...]) -> str | None:
    """Return where a link points; None for another file, and for one that does not exist."""
    c = client.connection
    try:
        fid, qids = await requests.walk(c, client.root, names)
    except FileNotFoundError:
        return None
    try:
        return await requests.readlink(c, fid) if qids[-1].type & QTSYMLINK else None
    finally:
        c.clunk_nowait(fid)


def normal(path: str) -> str:
    """Return a path without `.` and `..`, as in a URL (RFC 3986, 5.2.4): by its text, and never above the root."""
    return posixpath.normpath("/" + "/".join(split(path)))
