"""What outlives a program of this user, and nobody else may read: small files in one directory.

The directory is `$XDG_STATE_HOME/mk9p`, else /var/lib/mk9p for root and ~/.local/state/mk9p for others (file-hierarchy(7)).
"""

import errno
import os
import stat as st
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from secrets import token_hex
from urllib.parse import quote

from mk9p.errors import NineError

__all__ = ["directory", "locked", "make", "of_folder", "read", "refuse_public", "sync_directory"]


def directory() -> Path:
    """Return where this user's programs keep what outlives them. Raises RuntimeError for a user who has no home."""
    home = os.environ.get("XDG_STATE_HOME")
    if home and os.path.isabs(home):
        return Path(home, "mk9p")
    return Path("/var/lib/mk9p") if os.geteuid() == 0 else Path.home() / ".local/state/mk9p"


def of_folder(what: str, folder: str) -> Path:
    """Return where a program keeps something for a folder that it works in; no two folders have the same."""
    return directory() / f"{what}{quote(os.path.abspath(folder), safe='').replace('%2F', '-')}"


def read(path: Path, most: int) -> bytes:
    """Return what a private file has. Raises EACCES if others may read or change it, EFBIG if it is longer than `most`, and as open(2)."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        refuse_public(path, os.fstat(fd))
        data = file.read(most + 1)
    if len(data) > most:
        raise NineError(errno.EFBIG, f"{path} is longer than {most} bytes")
    return data


def refuse_public(path: Path, stat: os.stat_result) -> None:
    """Raise EACCES if somebody else may read or change what a path leads to: a file with this status, in its directory."""
    if not st.S_ISREG(stat.st_mode) or stat.st_uid != os.geteuid():
        raise NineError(errno.EACCES, f"{path}: want a plain file of this user")
    if stat.st_mode & 0o077:
        raise NineError(errno.EACCES, f"{path}: others can read it: chmod 600, and take it for known")
    above = os.stat(path.parent)
    others = above.st_mode & 0o022 and not above.st_mode & st.S_ISVTX
    if others or above.st_uid not in (os.geteuid(), 0):
        raise NineError(errno.EACCES, f"{path.parent}: others can put a file of theirs there: chmod go-w")


def make(path: Path, data: bytes, *, over: bool = False, mode: int = 0o600) -> None:
    """Make a file, private by default, whole or not at all, and synced; and its directory, if there is none.

    Raises FileExistsError if there is one, which then stays; `over` replaces it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{token_hex(8)}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(fd, mode)
            os.fsync(fd)
        if over:
            os.rename(new, path)
        else:
            os.link(new, path)
        sync_directory(path.parent)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(new)


def sync_directory(path: Path) -> None:
    """Write the names in a directory to the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def locked(path: Path, *, busy: str = "") -> Iterator[None]:
    """Keep other processes from the files that `path`, a file for this alone, stands for; wait until they are done, or raise EBUSY with the words
    `busy`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            flock(fd, LOCK_EX | LOCK_NB if busy else LOCK_EX)
        except BlockingIOError:
            raise NineError(errno.EBUSY, busy) from None
        yield
    finally:
        os.close(fd)
