"""A directory of the host, exported: `mk9p serve fs:/srv/data` shows it at fs/data.

kernel.py    system calls that Python lacks
identity.py  acting as the user who asks
names.py     bytes of the host and text of 9P
export.py    what the files of one exported directory share
grips.py     the descriptors that hold them
held.py      a file: its identity and its status
nodes.py     operations on its names and contents; together a Node
changes.py   changes of its status
slow.py      a file on a file system that may not answer
handles.py   an open file, as Handle
buffers.py   memory for big reads
locks.py     byte-range locks
"""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mk9p.errors import NineError
from mk9p.servers.fs import slow
from mk9p.servers.fs.export import Export
from mk9p.tree import Node


@asynccontextmanager
async def tree(path: str, *, ro: str = "off", xdev: str = "off", descriptors: str = "0") -> AsyncIterator[Node]:
    """Give a directory of the host and everything below it.

    `ro=on`: clients can change nothing through it. `xdev=on`: clients cannot enter other file systems that are mounted below (EXDEV).
    `descriptors`: how many files may be held open for their paths; 0: three quarters of the limit of this process. Raises OSError (ENOENT,
    ENOTDIR), or EINVAL for another option.
    """
    if not descriptors.isdecimal():
        raise NineError(errno.EINVAL, f"descriptors={descriptors}: want a number")
    export = Export(readonly=_switch("ro", ro), xdev=_switch("xdev", xdev), descriptors=int(descriptors) or None)
    try:
        yield await slow.root(export, path)
    finally:
        export.close()


def _switch(name: str, value: str) -> bool:
    if value not in ("on", "off"):
        raise NineError(errno.EINVAL, f"{name}={value}: want {name}=on or {name}=off")
    return value == "on"
