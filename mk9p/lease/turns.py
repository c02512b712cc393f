"""Whose turn it is to do what all composers see is to be done, and what one can do for all."""

from collections.abc import Iterable
from typing import Final
from zlib import crc32

from mk9p.lease.wish import SECOND

LATEST: Final = 30  # seconds: also the thousandth does it after that, if nobody else has


def turn(what: str, name: str, names: Iterable[str]) -> int:
    """Return how long the composer `name` waits before it does something, ns: the first of all `names` not at all, each next one a second more.

    By another `what` another one is the first, so that no composer does all.
    """
    mine = crc32(f"{what} {name}".encode())
    before = sum(crc32(f"{what} {one}".encode()) < mine for one in names)
    return min(before, LATEST) * SECOND
