"""The secret for the inode numbers of a composed namespace (tree/qids.py). It outlives the composer; otherwise the numbers would change with it.

It is 32 bytes in the file `qids` of the state directory (mk9p/state.py), and nobody else may read it. If others may know it, or it cannot be kept,
it does not count: then there is a new one for this run, and the log says so.
"""

import logging
from contextlib import suppress
from pathlib import Path
from secrets import token_bytes
from typing import Final

from mk9p import state

log = logging.getLogger("mk9p.compose")

SIZE: Final = 32
NAME: Final = "qids"


def kept(where: Path | None = None) -> bytes:
    """Return the secret that is kept in a directory, and make it if there is none yet. If that fails, return a new one that is not kept."""
    try:
        path = (where or state.directory()) / NAME
        try:
            return _read(path)
        except FileNotFoundError:
            with suppress(FileExistsError):  # another process has made it meanwhile
                state.make(path, token_bytes(SIZE))
            return _read(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home
        log.warning("inode numbers will change with the next start: %s", error)
        return token_bytes(SIZE)


def _read(path: Path) -> bytes:
    secret = state.read(path, SIZE)
    if len(secret) != SIZE:
        raise OSError(f"{path} has not {SIZE} bytes")
    return secret
