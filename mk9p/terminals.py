"""Terminals: their attributes, as in termios(3), and who uses one. A failure is an OSError, which termios.error is not."""

import os
import termios
from typing import Any, Final

from mk9p.ktext import split_words

__all__ = ["CC", "CFLAG", "FLOW", "IFLAG", "ISPEED", "LFLAG", "OFLAG", "OSPEED", "attributes", "raw", "user"]

IFLAG: Final = 0  # places in a list of attributes
OFLAG: Final = 1
CFLAG: Final = 2
LFLAG: Final = 3
ISPEED: Final = 4
OSPEED: Final = 5
CC: Final = 6

FLOW: Final = termios.IXON | termios.IXOFF
_BYTES: Final = (
    termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR | termios.ICRNL
)
_WORDS: Final = termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN


def attributes(fd: int, new: list[Any] | None = None) -> list[Any]:
    """Return a terminal's attributes, after setting `new` ones. It does not wait for the other end to read (TCSANOW)."""
    try:
        if new is not None:
            termios.tcsetattr(fd, termios.TCSANOW, new)
        return termios.tcgetattr(fd)
    except termios.error as error:
        raise OSError(*error.args) from None


def raw(now: list[Any]) -> list[Any]:
    """Return attributes that make a terminal a line of bytes (cfmakeraw(3)) without flow control; speed and size of characters do not change."""
    new = [*now[:CC], list(now[CC])]
    new[IFLAG] &= ~(_BYTES | FLOW)
    new[OFLAG] &= ~termios.OPOST
    new[CFLAG] |= termios.CREAD
    new[LFLAG] &= ~_WORDS
    new[CC][termios.VMIN], new[CC][termios.VTIME] = 1, 0  # with VMIN 0 an empty line would read as ended
    return new


def user(device: int, root: str, *, opened: bool = False) -> str | None:
    """Return in words a process that has the terminal with this device number as its controlling terminal, or with `opened` has it open; None if no
    process has. May block.

    This process itself counts too: it may serve 9P on that very line. It cannot see what a kernel itself holds, as a v9fs mount does.
    """
    proc = os.path.join(root, "proc")
    for pid in filter(str.isdecimal, os.listdir(proc)):
        try:
            with open(os.path.join(proc, pid, "stat"), "rb") as file:
                stat = file.read()
            controlling = int(split_words(stat.rpartition(b")")[2])[4]) & 0xFFFFFFFF  # tty_nr, proc_pid_stat(5)
            if controlling == device or (opened and _has_open(os.path.join(proc, pid, "fd"), device)):
                return f"{stat.partition(b'(')[2].rpartition(b')')[0].decode(errors='replace')} (process {pid})"
        except (FileNotFoundError, ProcessLookupError, PermissionError, IndexError):
            continue  # it ended after it was listed, or this server may not look into it
    return None


def _has_open(folder: str, device: int) -> bool:
    for fd in os.listdir(folder):
        try:
            if os.stat(os.path.join(folder, fd)).st_rdev == device:
                return True
        except OSError:
            continue  # closed after it was listed
    return False
