"""Files of each kind, to be made and changed (posix_groups.py, posix_changes.py)."""

import os
import socket
from collections.abc import Callable
from typing import Any, Final

from tests.vm.posix_case import p

DIRECTORY: Final = "groups"


def _socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        here = os.open(os.path.dirname(path), os.O_PATH)
        try:
            unix.bind(f"/proc/self/fd/{here}/{os.path.basename(path)}")  # sun_path is short
        finally:
            os.close(here)


KINDS: Final[dict[str, Callable[[str], Any]]] = {
    "regular": lambda path: os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o644)),
    "dir": lambda path: os.mkdir(path, 0o755),
    "fifo": lambda path: os.mkfifo(path, 0o644),
    "socket": _socket,
    "symlink": lambda path: os.symlink("nowhere", path),
}
NO_LINK: Final = [kind for kind in KINDS if kind != "symlink"]
_number = 0


def new(kind: str = "regular", *, uid: int = 0, gid: int = 0, perm: int | None = None, into: str = DIRECTORY) -> str:
    """Make a file and return its name."""
    global _number
    _number += 1
    name = f"{into}/{kind}-{_number}"
    KINDS[kind](p(name))
    if uid or gid:
        os.lchown(p(name), uid, gid)
    if perm is not None:
        os.chmod(p(name), perm)
    return name


def free(into: str = DIRECTORY) -> str:
    """Return a name that no file has."""
    global _number
    _number += 1
    return f"{into}/n{_number}"


def fails(call: Callable[..., Any], *args: Any) -> bool:
    try:
        call(*args)
    except OSError:
        return True
    return False
