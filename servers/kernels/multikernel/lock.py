"""kerf's lock, which keeps kerf's commands apart: a file that whoever is at work has made.

kerf's own is empty, and stays for ever if its maker is killed. Ours says who made it, so one whose maker is no more is taken away.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mk9p.errors import NineError
from mk9p.ktext import split_words

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_SECONDS: Final = 5.0
STEP: Final = 0.05  # s between two looks
LONGEST: Final = 100  # bytes of it that are read


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Have the lock. Blocks; raises EBUSY if somebody else has it for LOCK_SECONDS."""
    mine = lock.with_name(f"{lock.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        mine.write_text(f"mk9p {os.getpid()} {_born(os.getpid())}\n")
        _take(lock, mine)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
    finally:
        mine.unlink(missing_ok=True)


def _take(lock: Path, mine: Path) -> None:
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            os.link(mine, lock)  # whole, or not there at all
            return
        except FileExistsError:
            if _left_behind(lock):
                continue
        if time.monotonic() > until:
            raise NineError(errno.EBUSY, f"{lock} is there: kerf is at work, or was killed: then remove that file")
        time.sleep(STEP)


def _left_behind(lock: Path) -> bool:
    """Take a lock away that one of ours made who is no more, and its other name."""
    try:
        with lock.open() as file:
            words = split_words(file.read(LONGEST))
        if len(words) != 3 or words[0] != "mk9p" or not words[1].isdecimal() or _born(int(words[1])) == words[2]:
            return False
        lock.unlink()
        for other in lock.parent.glob(f"{lock.name}.{words[1]}.*"):
            other.unlink(missing_ok=True)
    except FileNotFoundError:
        pass
    return True


def _born(pid: int) -> str:
    """Return when a process started (proc(5)), "0" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split(" ")[19]
    except (OSError, IndexError):
        return "0"
