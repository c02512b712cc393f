"""Terminals: their attributes, as termios(3) has them, with OSError for what fails: termios.error is none."""

import termios
from typing import Any, Final

__all__ = ["CC", "CFLAG", "FLOW", "IFLAG", "ISPEED", "LFLAG", "OFLAG", "OSPEED", "attributes", "raw"]

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
    """Return a terminal's attributes, having set `new` ones. Nothing waits for the other end to read (TCSANOW)."""
    try:
        if new is not None:
            termios.tcsetattr(fd, termios.TCSANOW, new)
        return termios.tcgetattr(fd)
    except termios.error as error:
        raise OSError(*error.args) from None


def raw(now: list[Any]) -> list[Any]:
    """Return attributes by which a terminal is a line of bytes (cfmakeraw(3)) without flow control; speed and size of characters are as they were."""
    new = [*now[:CC], list(now[CC])]
    new[IFLAG] &= ~(_BYTES | FLOW)
    new[OFLAG] &= ~termios.OPOST
    new[CFLAG] |= termios.CREAD
    new[LFLAG] &= ~_WORDS
    new[CC][termios.VMIN], new[CC][termios.VTIME] = 1, 0  # with VMIN 0 an empty line would read as ended
    return new
