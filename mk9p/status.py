"""What 9P says of a file, on either side: its status, a change of it, a lock in it, the status of its file system, the names of its owners; and
the umask."""

import os
import stat as st
from contextlib import suppress
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from mk9p.wire import Qid

__all__ = ["NOW", "Buffer", "Change", "Lock", "Stat", "StatFs", "group_name", "umask", "user_name"]

Buffer: TypeAlias = bytes | bytearray | memoryview


class Stat(NamedTuple):
    """What a file is: Linux's `mode` (type and permission bits), owner and group by number, `length` in bytes, times in ns.

    `version` is qid.version: 0 for synthetic files, so v9fs never caches them. `blocks` are of 512 bytes, None where they follow from `length`.
    `user` and `group` are names, where a server gave only names. Whoever knows the place sets `name` and `qid`: the server for its peers, the
    client for its callers.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    length: int = 0
    mtime: int = 0
    atime: int = 0
    ctime: int = 0
    version: int = 0
    nlink: int = 1
    rdev: int = 0
    blksize: int = 4096
    blocks: int | None = None
    exclusive: bool = False
    append: bool = False
    user: str | None = None
    group: str | None = None
    name: str = ""
    qid: Qid | None = None

    @property
    def is_dir(self) -> bool:
        return st.S_ISDIR(self.mode)


NOW: Final = 1 << 96
"""The time of a Change that means now: no number on the wire, 64 bits of seconds, is as far away."""


class Change(NamedTuple):
    """What a Tsetattr or Twstat asks to change; None leaves a field as it is. Times are ns, negative before 1970, or NOW."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    length: int | None = None
    atime: int | None = None
    mtime: int | None = None
    exclusive: bool | None = None
    """DMEXCL. Only a node with `marks` gets it. The same holds for `append`, DMAPPEND."""
    append: bool | None = None

    @property
    def only_truncates(self) -> bool:
        """Tell whether this is the change that `echo x > file` makes: length 0, and times that follow from it."""
        return self == Change(length=0, atime=self.atime, mtime=self.mtime)


class StatFs(NamedTuple):
    """What df(1) shows, in blocks of `bsize` bytes (statfs(2))."""

    type: int = 0x01021997  # V9FS_MAGIC
    bsize: int = 4096
    blocks: int = 0
    bfree: int = 0
    bavail: int = 0
    files: int = 0
    ffree: int = 0
    fsid: int = 0
    namelen: int = 255


class Lock(NamedTuple):
    """A byte-range lock (fcntl(2)): `kind` is a LOCK_TYPE_ number; with `length` 0 it goes to the end, however the file grows.

    `process` and `client` are what the client says of the holder. Others see them, and they decide nothing.
    """

    kind: int
    start: int = 0
    length: int = 0
    process: int = 0
    client: str = ""


def error_name(ctl: str) -> str:
    """Return the name of the file that keeps the last error of the ctl file `ctl`."""
    return ctl.removesuffix("ctl") + "error"


@lru_cache(maxsize=1024)
def user_name(uid: int) -> str:
    """Return the name of a user, or the number in decimal if it has none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@lru_cache(maxsize=1024)
def group_name(gid: int) -> str:
    """Return the name of a group, or the number in decimal if it has none."""
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def umask() -> int:
    """Return this process's umask(2). A server does not apply its own: the client that makes a file says what it may be."""
    from mk9p.ktext import field

    with suppress(OSError, ValueError), open("/proc/self/status", "rb") as status:
        return int(field(status.read(), b"Umask"), 8)
    was = os.umask(0o077)  # without /proc: for a moment all threads have another umask
    os.umask(was)
    return was
