"""The secret for the inode numbers of a composed namespace (tree/qids.py). It outlives the composer; otherwise the numbers would change with it.

It is 32 bytes in the file `qids` of `$XDG_STATE_HOME/mk9p`, else of /var/lib/mk9p for root and ~/.local/state/mk9p for others (file-hierarchy(7)),
and nobody else may read it. If others may know it, or it cannot be kept, it does not count: then there is a new one for this run, and the log says
so.
"""

import logging
import os
import stat as st
from contextlib import suppress
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import Final

log = logging.getLogger("mk9p.compose")

SIZE: Final = 32
NAME: Final = "qids"


def directory() -> Path:
    """Return where this user's programs keep what outlives them."""
    home = os.environ.get("XDG_STATE_HOME")
    if home and os.path.isabs(home):
        return Path(home, "mk9p")
    return Path("/var/lib/mk9p") if os.geteuid() == 0 else Path.home() / ".local/state/mk9p"


def kept(where: Path | None = None) -> bytes:
    """Return the secret that is kept in a directory, and make it if there is none yet. If that fails, return a new one that is not kept."""
    try:
        where = where or directory()
        path = where / NAME
        try:
            return _read(path)
        except FileNotFoundError:
            where.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make(path)
            return _read(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home
        log.warning("inode numbers will change with the next start: %s", error)
        return token_bytes(SIZE)


def _read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        stat, secret = os.fstat(fd), b""
        ours = st.S_ISREG(stat.st_mode) and stat.st_uid == os.geteuid() and not stat.st_mode & 0o077
        if ours:
            secret = os.read(fd, SIZE + 1)
    finally:
        os.close(fd)
    if len(secret) != SIZE:
        raise OSError(f"{path} is no file of {SIZE} bytes that is closed to others")
    return secret


def _make(path: Path) -> None:
    """Make the file with a new secret, whole or not at all; a secret that another process has made meanwhile stays."""
    new = path.with_name(f"{NAME}.{token_hex(8)}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(token_bytes(SIZE))
            file.flush()
            os.fsync(fd)
        with suppress(FileExistsError):
            os.link(new, path)
    finally:
        os.unlink(new)
